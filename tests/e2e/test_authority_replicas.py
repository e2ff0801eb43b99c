"""Two replicas of the authority over one API server: the Lease goes from one to the other and never to both, and a
rotation of the root leaves no leaf behind, whatever a clock says that is an hour off.

The API server is tests/kube_server.py, a stand-in for a real one.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterator

import kube_server
import pytest
from authority_replicas import AT, HOUR, NAMESPACE, NEW, NOW, OLD, Clock, Replica, client_of, entry, founded_pair, names

from certs.election import Election
from certs.lease import Acquire, Decision, Lost, Renew, Terms, Wait
from certs.rotation import Confirmation, Do, Rotate, Status, Wanted
from certs.signers import intermediate_made, root_made, signer_name
from certs.state_kube import RESERVE_SECONDS
from certs.state_store import StateConflict
from proxy.authority.replica import Campaign


@pytest.fixture
def kube() -> Iterator[kube_server.KubeServer]:
    with kube_server.KubeServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(kube: kube_server.KubeServer, clock: Clock) -> tuple[Replica, Replica]:
    return founded_pair(client_of(kube), clock)


# --- the election ---


def test_the_lease_goes_from_one_to_the_other_and_never_to_both(pair: tuple[Replica, Replica], clock: Clock) -> None:
    first, second = pair
    assert (first.election.leads(), second.election.leads()) == (True, False)
    assert second.election.holder == "a"
    clock.local += 9
    assert isinstance(first.elect(), Renew)
    second.elect()
    clock.local += 10  # the first hangs from here on
    assert not first.election.leads()
    assert isinstance(second.elect(), Wait)
    clock.local += 5
    assert isinstance(second.elect(), Acquire)
    assert second.election.leads()
    assert isinstance(first.elect(), Lost)
    assert isinstance(first.elect(), Wait)


def test_a_leader_that_ends_in_order_is_followed_at_once(pair: tuple[Replica, Replica], clock: Clock) -> None:
    first, second = pair
    first.election.release(NOW)
    assert not first.election.leads()
    assert isinstance(second.elect(), Acquire)
    second.election.release(NOW)
    first.election.release(NOW)  # leads no more: nothing is written
    assert isinstance(first.elect(), Acquire)


@pytest.mark.parametrize("skew", [HOUR, -HOUR])
def test_an_hour_between_the_clocks_moves_no_lease(pair: tuple[Replica, Replica], clock: Clock, skew: float) -> None:
    first, second = pair
    second.skew = skew
    for _ in range(10):
        clock.local += 2
        assert isinstance(first.elect(), Renew)
        assert isinstance(second.elect(), Wait)


# --- a rotation over two replicas ---


def rotate_to_use(first: Replica, second: Replica, clock: Clock) -> None:
    """Rotate the root until NEW is used; `orders` reports to the other replica."""
    second.store.confirm({"orders": Confirmation(sequence=1, seen_at=second.now)})
    assert first.follow(Rotate(what=Wanted.ROOT))[-1].do is Do.MAKE_ROOT
    first.store.add_signer(NEW.root, NEW.root_key)
    assert [action.do for action in first.follow(root_made(NEW.root))] == [Do.NOTHING, Do.PUBLISH]
    clock.local += 901
    first.elect()
    first.elect()
    assert first.follow() == [], "orders has not confirmed"
    second.store.confirm({"orders": Confirmation(sequence=2, seen_at=second.now)})
    second.store.load()
    assert first.follow()[-1].do is Do.MAKE_INTERMEDIATE
    first.store.add_signer(NEW.intermediate, NEW.intermediate_key)
    assert first.follow(intermediate_made(NEW.intermediate, NEW.root))[-1].do is Do.USE


def test_a_fault_of_our_own_ends_no_candidacy(kube: kube_server.KubeServer, caplog: pytest.LogCaptureFixture) -> None:
    class Stumbling(Election):
        steps = 0

        def step(self, now: datetime.datetime) -> Decision:
            self.steps += 1
            raise ValueError("a Lease that nobody foresaw") if self.steps == 1 else asyncio.CancelledError

    terms = Terms(me="a", retry_period=0.01)
    election = Stumbling(client_of(kube), NAMESPACE, "lease", terms)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(Campaign(election, terms).run())
    assert election.steps == 2
    assert "a fault of our own; the election goes on" in caplog.text


@pytest.mark.parametrize("jump", [0.0, HOUR, -HOUR])
def test_a_root_stays_while_a_leaf_of_the_other_replica_lives(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer, clock: Clock, jump: float
) -> None:
    first, second = pair
    end = second.sign("1")
    rotate_to_use(first, second, clock)
    first.skew = jump
    # The other replica has not read the state since, and signs with what it knows for a while.
    later = second.now + 24 * HOUR + 2 * RESERVE_SECONDS
    second.store.record(entry("2", later))
    second.store.load()
    with pytest.raises(StateConflict, match="does not sign any more"):
        second.store.record(entry("3", later))
    old = signer_name(OLD.root)
    removed_at = 0.0
    while not removed_at and clock.local < 80 * HOUR:
        clock.local += 1_800
        first.elect()
        first.elect()
        first.follow()
        if old not in first.store.load().bundle:
            removed_at = AT + clock.local
    assert removed_at >= later > end
    assert names(kube, "-key-") == sorted(
        f"remora-authority-key-{signer_name(certificate)}" for certificate in (NEW.root, NEW.intermediate)
    )
    assert second.store.load().sequence == 3


def test_the_next_leader_goes_on_where_the_first_one_died(pair: tuple[Replica, Replica], clock: Clock) -> None:
    first, second = pair
    first.follow(Rotate(what=Wanted.ROOT))
    first.store.add_signer(NEW.root, NEW.root_key)  # and dies before the state names it
    clock.local += 16
    assert isinstance(second.elect(), Acquire)
    assert [action.do for action in second.follow()] == [Do.MAKE_ROOT]
    second.store.add_signer(NEW.root, NEW.root_key)
    second.follow(root_made(NEW.root))
    state = second.store.load()
    assert [root.status for root in state.roots] == [Status.ACTIVE, Status.PREPARED]
    assert state.sequence == 2
    with pytest.raises(StateConflict, match="does not lead"):
        first.store.save(state)
