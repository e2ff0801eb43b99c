"""The authority's clock is set by an hour, ahead or back: no wait gets shorter, none ends never, nothing is lost."""

from __future__ import annotations

import datetime
import doctest
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from certs import clocks
from certs.authority import Authority
from certs.clocks import ClockWatch, jump_words
from certs.founding import found
from certs.keeper import Keeper
from certs.profile import BACK_DATE
from certs.revocations import Kind, Reason
from certs.rotation import Action, Do, Pace, Rotate, RotationState, Wanted
from certs.sealed import KeySource
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.state import DirectoryStore
from certs.state_store import IssuedEntry, StateError, StateInDoubt
from proxy.authority.own_identity import OwnIdentity

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HOUR, DAY = 3_600.0, 86_400.0
DOMAIN = parse_trust_domain("cluster.local")
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
SIDECAR = f"{ORDERS}#orders-0"
WAIT = 900.0
"""Three refresh hints of five minutes."""

ways = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])


class TroubledStore(DirectoryStore):
    """A store that fails to save once: before it has written (`is_full`), or after (`is_in_doubt`)."""

    is_full = is_in_doubt = False

    def save(self, state: RotationState) -> None:
        if self.is_full:
            self.is_full = False
            raise StateError("the disk is full")
        super().save(state)
        if self.is_in_doubt:
            self.is_in_doubt = False
            raise StateInDoubt("the answer was lost")


class House:
    """An authority, time as it really goes (`at`, in seconds), and a calendar that may be set."""

    def __init__(self, directory: Path) -> None:
        (directory / "passphrase").write_text("correct horse\n")
        self.at, self.wrong = 0.0, 0.0
        source = KeySource.parse(f"file:{directory / 'passphrase'}")
        self.store = TroubledStore(directory / "authority", source)
        found(self.store, Authority.create(DOMAIN, NOW), NOW, pace=Pace(), refresh_hint=300)
        self.keeper = Keeper(self.store, NOW, 0.0)

    @property
    def now(self) -> datetime.datetime:
        """What the calendar says."""
        return NOW + datetime.timedelta(seconds=self.at + self.wrong)

    @property
    def state(self) -> RotationState:
        return self.keeper.held.state

    def look(self, *events: Rotate) -> list[Action]:
        """Do what is due."""
        done = self.keeper.advance(self.now, self.at, events)
        self.keeper.refresh(self.now)
        return done

    def go_on(self, until: float, step: float = 60.0) -> None:
        """Look again and again."""
        while self.at < until:
            self.at += step
            self.look()

    def happens(self, do: Do, until: float, step: float = 60.0) -> float:
        """Look again and again until something is done; when that was."""
        while self.at < until:
            self.at += step
            if do in [action.do for action in self.look()]:
                return self.at
        pytest.fail(f"{do.value}: it never happened")

    def set(self, seconds: float) -> None:
        """Set the calendar; the clock is looked at a second later."""
        self.wrong += seconds
        self.at += 1.0
        self.look()

    def issue(self) -> float:
        """Give out a certificate of a day; when it ends, by the calendar of those whose clock is right."""
        end = self.now + datetime.timedelta(days=1)
        self.keeper.record(
            IssuedEntry(
                serial="2a",
                identity=str(ORDERS),
                key="ab" * 32,
                not_after=end.timestamp(),
                issuer=self.state.active.name,
            )
        )
        return self.at + DAY


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    try:
        yield made
    finally:
        made.keeper.close(made.now, made.at)


def test_examples() -> None:
    assert doctest.testmod(clocks).failed == 0


# --- what is waited for ----------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("after", [1.0, 120.0, 840.0])
def test_a_new_root_is_used_three_hints_after_it_was_published(house: House, jump: float, after: float) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    house.go_on(after, step=1.0)
    house.set(jump)
    assert WAIT <= house.happens(Do.USE, until=2 * WAIT) <= WAIT + 61.0


@ways
def test_who_is_set_twice_waits_no_longer(house: House, jump: float) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    before = house.state.published_at
    house.set(jump)
    assert house.state.published_at == before + jump
    house.set(-jump)
    assert house.state.published_at == pytest.approx(before)
    assert WAIT <= house.happens(Do.USE, until=2 * WAIT) <= WAIT + 61.0


def test_a_sidecar_that_was_silent_for_most_of_a_day_is_still_waited_for(house: House) -> None:
    house.keeper.confirm(SIDECAR, 1, house.now)
    house.go_on(23.5 * HOUR, step=HOUR / 2)
    house.set(HOUR)
    house.look(Rotate(what=Wanted.ROOT))
    house.go_on(house.at + 0.4 * HOUR)
    assert len(house.state.roots) == 2
    assert house.state.active.root == house.state.roots[0].name, "the new root is not used before it has confirmed"
    # A day after it was last seen its certificate has ended.
    assert house.happens(Do.USE, until=25 * HOUR) >= 24 * HOUR


@ways
@pytest.mark.parametrize("after", [60.0, 12 * HOUR, 23.9 * HOUR])
def test_a_signer_goes_after_its_last_leaf_has_ended(house: House, jump: float, after: float) -> None:
    ends = house.issue()
    house.look(Rotate(what=Wanted.INTERMEDIATE))
    house.go_on(after)
    house.set(jump)
    gone = house.happens(Do.DESTROY_KEY, until=30 * HOUR)
    assert ends <= gone <= ends + 2 * HOUR + 120.0


@ways
def test_a_signer_that_signed_nothing_is_kept_for_its_hour(house: House, jump: float) -> None:
    house.look(Rotate(what=Wanted.INTERMEDIATE))
    house.set(jump)
    assert HOUR <= house.happens(Do.DESTROY_KEY, until=3 * HOUR) <= HOUR + 62.0


def test_an_order_in_the_very_moment_is_no_way_around(house: House) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    house.wrong, house.at = HOUR, 1.0
    house.look(Rotate(what=Wanted.ROOT))
    assert house.state.wanted is Wanted.ROOT, "the root is not used yet"


@ways
def test_reports_at_the_end_are_no_way_around(house: House, jump: float) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    house.keeper.confirm(SIDECAR, 2, house.now)
    house.wrong, house.at = jump, 1.0
    house.keeper.settle(house.now, house.at)
    assert house.state.wanted is Wanted.ROOT
    assert house.state.published_at == NOW.timestamp() + jump


def test_a_full_disk_puts_it_off_and_steps_with_it(house: House) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    house.store.is_full = True
    with pytest.raises(StateError, match="full"):
        house.set(HOUR)
    assert house.state.wanted is Wanted.ROOT
    assert WAIT <= house.happens(Do.USE, until=2 * WAIT) <= WAIT + 61.0


@ways
def test_what_was_written_all_the_same_is_not_moved_twice(house: House, jump: float) -> None:
    house.look(Rotate(what=Wanted.ROOT))
    house.store.is_in_doubt = True
    with pytest.raises(StateInDoubt):
        house.set(jump)
    house.go_on(house.at + 1.0, step=1.0)
    assert house.state.published_at == NOW.timestamp() + jump
    assert WAIT <= house.happens(Do.USE, until=2 * WAIT) <= WAIT + 61.0


def test_a_clock_that_is_adjusted_is_not_set(house: House) -> None:
    before = house.state
    for _ in range(100):
        house.wrong -= 0.5
        house.at += 1.0
        house.look()
    assert house.state == before
    assert house.keeper.clock.news() == ""


# --- what is signed --------------------------------------------------------------------------------------------------


@ways
def test_the_list_is_always_one_that_others_may_take(house: House, jump: float) -> None:
    for seconds in (jump, -jump, jump):
        house.set(seconds)
        crl = x509.load_der_x509_crl(house.keeper.held.crl.der)
        next_update = crl.next_update_utc
        assert next_update is not None
        assert crl.last_update_utc <= house.now < next_update
    house.go_on(house.at + DAY, step=HOUR)
    due = house.keeper.held.crl
    assert house.now - due.this_update <= datetime.timedelta(hours=13) + BACK_DATE


def test_a_revocation_outlives_its_certificate_on_a_clock_that_is_ahead(house: House) -> None:
    ends = house.issue()
    entry = house.keeper.revocation_of(Kind.SERIAL, "2a", house.now, reason=Reason.KEY_COMPROMISE, who="alice")
    house.keeper.revoke(entry, house.now)
    house.go_on(ends - 120.0, step=120.0)
    house.set(HOUR)
    assert [serial.value for serial in house.keeper.held.revocations.entries.values()] == ["2a"]
    house.go_on(ends + 120.0)
    assert not house.keeper.held.revocations.entries


def test_signers_made_by_a_clock_that_was_ahead_sign_when_it_is_set_right(house: House) -> None:
    house.set(HOUR)
    house.look(Rotate(what=Wanted.ROOT))
    assert house.happens(Do.USE, until=2 * WAIT) >= WAIT
    house.set(-HOUR)
    leaf = house.keeper.held.authority.issue_svid(ORDERS, house.now).leaf
    assert leaf.not_valid_before_utc <= house.now
    assert house.keeper.held.crl.this_update <= house.now


@ways
def test_our_own_certificate_is_always_one_that_callers_take(house: House, jump: float) -> None:
    lines: list[str] = []
    own = OwnIdentity(house.keeper, ORDERS, lifetime=datetime.timedelta(minutes=15), replica="a", audit=lines.append)
    serials = set[str]()
    for seconds in (0.0, jump, -jump, jump):
        house.set(seconds)
        own.renew_if_due(house.now)
        assert own.tls is not None
        leaf = own.tls.identity_set.chain[0]
        serials.add(f"{leaf.serial_number:x}")
        assert leaf.not_valid_before_utc <= house.now < leaf.not_valid_after_utc
        assert leaf.not_valid_after_utc <= house.now + datetime.timedelta(minutes=15)
    issued = [json.loads(line)["serial"] for line in lines]
    assert len(issued) == len(set(issued))
    assert serials == set(issued)


# --- what is said ----------------------------------------------------------------------------------------------------


@ways
def test_it_is_said_once(house: House, jump: float) -> None:
    house.set(jump)
    how = "ahead" if jump > 0 else "back"
    news = house.keeper.clock.news()
    assert news.startswith(f"this machine's clock went 3600 s {how} at once")
    assert "; see that it is right" in news
    house.go_on(house.at + 5.0, step=1.0)
    assert house.keeper.clock.news() == ""


def test_small_steps_are_no_news() -> None:
    watch = ClockWatch(1_000.0, 0.0)
    assert [watch.look(now, ticks) for now, ticks in ((1_060.0, 1.0), (1_001.0, 1.0), (1_060.0, 1.0))] == [0.0] * 3
    assert watch.look(2_000.0, 1.0) == pytest.approx(940.0)
    assert jump_words(59.0) == ""
