"""What replicas of the authority keep in Kubernetes: who may write it, and what a lost answer or a damage does.

The API server is tests/kube_server.py, a stand-in for a real one.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Iterator
from types import MappingProxyType

import kube_server
import pytest
from authority_replicas import (
    AT,
    HOUR,
    NAMESPACE,
    NEW,
    NOW,
    OLD,
    Clock,
    Replica,
    a_store,
    client_of,
    entry,
    founded_pair,
    names,
)

from certs.founding import found
from certs.joins import JoinBook, new_token
from certs.keeper import Keeper
from certs.kube_blobs import PART_BYTES
from certs.refusals import Refusal, Refused
from certs.replicas import Replicas
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.revocations_json import revocations_to_json
from certs.rotation import Confirmation, ConfirmedMany, Rotate, Wanted, advance, begin
from certs.signers import intermediate_made, root_made, signer_name
from certs.spiffe import SpiffeId
from certs.state_kube import CONFIRMATION_SECONDS, MAX_STATE_AGE, RESERVE_SECONDS
from certs.state_store import JOINS, REVOCATIONS, StateConflict, StateError, StateInDoubt

STATE = ("secrets", NAMESPACE, "remora-authority-state")


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


def test_nothing_is_founded_on_an_authority(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    first, _ = pair
    revoked = revocations_to_json(many_revocations(1, 7))
    assert first.store.replace_document(REVOCATIONS, None, revoked)
    before = dict(kube.objects)
    with pytest.raises(StateError, match="an authority stands there already"):
        found(a_store(client_of(kube), "init"), NEW, NOW)
    assert kube.objects == before


# --- who decides ---


def test_only_the_leader_decides_and_both_see_it(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    state = second.store.load()
    asked = advance(state, AT, [Rotate(what=Wanted.ROOT)])[0][0]
    writes: list[Callable[[], object]] = [
        lambda: second.store.save(asked),
        lambda: second.store.add_signer(NEW.root, NEW.root_key),
        lambda: second.store.destroy_key("0"),
        lambda: second.store.replace_document(REVOCATIONS, None, b"x"),
        lambda: second.store.forget(AT),
    ]
    for write in writes:
        with pytest.raises(StateConflict, match="does not lead"):
            write()
    first.store.save(asked)
    assert second.store.load() == asked


def test_who_wrongly_believes_to_lead_is_told_by_the_version(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    rogue = a_store(second.client, "b")
    state = rogue.load()
    asked = advance(state, AT, [Rotate(what=Wanted.ROOT)])[0][0]
    first.store.save(asked)
    with pytest.raises(StateConflict, match="another replica wrote meanwhile"):
        rogue.save(advance(state, AT, [Rotate(what=Wanted.INTERMEDIATE)])[0][0])
    with pytest.raises(StateConflict):  # and not before it has read what stands
        rogue.save(state)
    assert rogue.load() == asked
    rogue.save(state)
    assert first.store.load() == state


def test_a_new_leader_reads_before_it_writes(pair: tuple[Replica, Replica], clock: Clock) -> None:
    first, second = pair
    state = second.store.load()
    first.election.release(NOW)
    second.elect()
    with pytest.raises(StateConflict, match="load it and decide anew"):
        second.store.save(state)
    second.store.save(second.store.load())


def test_an_authority_is_made_once(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    other = a_store(client_of(kube), "init")
    with pytest.raises(StateConflict):
        other.save(begin(root_made(NEW.root), intermediate_made(NEW.intermediate, NEW.root), AT))
    assert pair[0].store.load().active.name == signer_name(OLD.intermediate)


def test_without_an_authority_the_mend_is_said(kube: kube_server.KubeServer) -> None:
    with pytest.raises(StateError, match="make one with `remora authority init`"):
        a_store(client_of(kube), "a").load()


# --- answers that are lost, and calls that are refused ---


def test_a_lost_answer_is_in_doubt_until_the_state_is_read(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    first, _ = pair
    asked = advance(first.store.load(), AT, [Rotate(what=Wanted.ROOT)])[0][0]
    kube.lost.add(("PUT", "secrets"))
    with pytest.raises(StateInDoubt, match="the old or the new one may stand"):
        first.store.save(asked)
    kube.lost.clear()
    with pytest.raises(StateConflict):
        first.store.save(asked)
    with pytest.raises(StateError, match="load it"):
        first.store.record(entry("1", AT))
    assert first.store.load() == asked


def test_a_refused_call_changes_nothing_and_names_the_role(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    first, _ = pair
    before = first.store.load()
    asked = advance(before, AT, [Rotate(what=Wanted.ROOT)])[0][0]
    kube.forbidden.add(("PUT", "secrets"))
    with pytest.raises(StateError, match="in its Role") as caught:
        first.store.save(asked)
    assert not isinstance(caught.value, StateInDoubt | StateConflict)
    kube.forbidden.clear()
    first.store.save(asked)
    assert first.store.load() == asked


def test_an_api_server_that_is_away_leaves_what_is_known(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer, clock: Clock
) -> None:
    first, _ = pair
    first.sign("1")
    kube.answer_with = (503, b"")
    with pytest.raises(StateError, match="503"):
        first.store.load()
    clock.local += MAX_STATE_AGE
    first.store.record(entry("2", first.now + HOUR))  # reserved already
    clock.local += 1
    with pytest.raises(StateError, match="another intermediate may sign by now"):
        first.store.record(entry("3", first.now + HOUR))


@pytest.mark.parametrize(
    ("name", "key", "says"),
    [
        ("remora-authority-state", "state.json", "it is no state of an authority"),
        (f"remora-authority-key-{signer_name(OLD.intermediate)}", "key", "the key"),
    ],
    ids=["state", "key"],  # a key is another one in each process
)
def test_a_damaged_object_is_named(
    pair: tuple[Replica, Replica],
    kube: kube_server.KubeServer,
    name: str,
    key: str,
    says: str,
) -> None:
    kube.objects["secrets", NAMESPACE, name]["data"][key] = "e30="
    with pytest.raises(StateError, match=rf"Secret {name}: .*{says}|Secret {name}: {says}"):
        a_store(client_of(kube), "c").load()


def test_a_certificate_of_another_is_found(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    own, other = (f"remora-authority-certificate-{signer_name(c)}" for c in (OLD.root, OLD.intermediate))
    held = kube.objects["configmaps", NAMESPACE, own]
    held["data"] = kube.objects["configmaps", NAMESPACE, other]["data"]
    with pytest.raises(StateError, match="another certificate than its name says"):
        a_store(client_of(kube), "c").load()


def test_no_key_lies_open(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    assert len(names(kube, "-key-")) == 2
    for (resource, _, name), held in kube.objects.items():
        for value in held.get("data", {}).values():
            content = base64.b64decode(value) if resource == "secrets" else value.encode()
            assert b"BEGIN PRIVATE KEY" not in content, name


# --- what is given out ---


def test_a_leaf_of_one_replica_keeps_its_signer_for_the_other(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    first, second = pair
    end = second.sign("1")
    assert first.store.load().active.issued_until == end + RESERVE_SECONDS
    written = sum(method == "PATCH" for method, _ in kube.calls)
    for number in range(2, 50):
        second.store.record(entry(f"{number:x}", end + number))
    assert sum(method == "PATCH" for method, _ in kube.calls) == written
    assert len(second.store.issued) == 49
    first.sign("ff", lifetime=HOUR)
    assert first.store.load().active.issued_until == end + RESERVE_SECONDS


def test_a_leaf_that_cannot_be_noted_is_not_given_out(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    _, second = pair
    kube.forbidden.add(("PATCH", "secrets"))
    with pytest.raises(StateError, match="403"):
        second.sign("1")
    kube.forbidden.clear()
    second.sign("1")
    with pytest.raises(StateError, match="given out already"):
        second.sign("1")


def test_an_intermediate_that_signs_no_more_is_refused(pair: tuple[Replica, Replica]) -> None:
    with pytest.raises(StateConflict, match="does not sign any more"):
        pair[1].store.record(entry("1", AT + HOUR, signer_name(NEW.intermediate)))


# --- what sidecars say ---


def test_the_leader_hears_what_sidecars_said_to_the_others(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    second.store.confirm({"orders": Confirmation(sequence=1, seen_at=AT)})
    reports = {"carts": Confirmation(sequence=1, seen_at=AT)}
    first.follow(ConfirmedMany(reports=reports))
    assert sorted(first.store.load().confirmations) == ["carts", "orders"]
    assert list(second.store.load().confirmations) == ["orders"]


def test_the_later_report_counts_whatever_the_clock_of_its_replica_says(pair: tuple[Replica, Replica]) -> None:
    _, second = pair
    for sequence, seen_at in ((1, AT + HOUR), (0, AT)):
        second.store.confirm({"orders": Confirmation(sequence=sequence, seen_at=seen_at)})
    assert second.store.load().confirmations["orders"].sequence == 0


def test_replicas_that_are_gone_are_forgotten(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    first, second = pair
    end = second.sign("1")
    second.store.confirm({"orders": Confirmation(sequence=1, seen_at=AT)})
    first.store.forget(end + RESERVE_SECONDS)
    assert len(names(kube, "confirmations-b")) == 1
    first.store.forget(end + RESERVE_SECONDS + CONFIRMATION_SECONDS + 1)
    assert names(kube, "confirmations-b") == []
    assert first.store.load().confirmations == {}
    second.store.confirm({"orders": Confirmation(sequence=1, seen_at=AT)})  # it was only silent
    assert list(first.store.load().confirmations) == ["orders"]


def test_the_keeper_of_the_leader_forgets_them_each_hour_and_knows_what_it_gave_out(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    first, second = pair
    second.store.confirm({"orders": Confirmation(sequence=1, seen_at=AT)})
    for name, empty in ((JOINS, JoinBook().to_json()), (REVOCATIONS, revocations_to_json(Revocations()))):
        assert first.store.replace_document(name, None, empty)
    keepers = [
        Keeper(replica.store, NOW, 0.0, replicas=Replicas(leads=replica.election.leads, report=replica.store.confirm))
        for replica in pair
    ]
    first.sign("2a")
    revocation = keepers[0].revocation_of(Kind.SERIAL, "2a", NOW, reason=Reason.UNSPECIFIED, who="alice")
    assert revocation.key == "ab" * 32
    late = NOW + datetime.timedelta(days=3)
    keepers[1].refresh(late)
    assert len(names(kube, "confirmations-b")) == 1
    keepers[0].refresh(late)
    assert names(kube, "confirmations-b") == []


# --- join tokens and revocations ---


def test_a_join_token_that_two_replicas_redeem_at_once_is_used_by_one(pair: tuple[Replica, Replica]) -> None:
    first, second = pair
    token, laptop = new_token(), SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
    made = JoinBook().create(token, laptop, made_by="alice", now=AT).to_json()
    assert second.store.replace_document(JOINS, None, made)
    seen = [replica.store.document(JOINS) or b"" for replica in pair]
    used = [JoinBook.from_json(data, JOINS).redeem(token, AT + 1)[0].to_json() for data in seen]
    assert first.store.replace_document(JOINS, seen[0], used[0])
    assert not second.store.replace_document(JOINS, seen[1], used[1])
    with pytest.raises(Refused) as caught:
        JoinBook.from_json(second.store.document(JOINS) or b"", JOINS).redeem(token, AT + 2)
    assert caught.value.reason is Refusal.JOIN_TOKEN_USED


def test_a_document_in_doubt_is_read_again(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    first, _ = pair
    assert first.store.replace_document(JOINS, None, b"one")
    kube.lost.add(("PUT", "secrets"))
    with pytest.raises(StateInDoubt):
        first.store.replace_document(JOINS, b"one", b"two")
    kube.lost.clear()
    assert not first.store.replace_document(JOINS, b"one", b"three")
    assert first.store.document(JOINS) == b"two"


def many_revocations(count: int, sequence: int) -> Revocations:
    end = NOW + datetime.timedelta(days=1)
    entries = {}
    for number in range(count):
        # Serials and fingerprints are noise: they do not compress.
        value = f"{(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251 % 2**158:x}"
        key = f"{(number + 1) * 0xC2B2AE3D27D4EB4F165667B19E3779F9**2 % 2**256:064x}"
        entries[Kind.SERIAL, value] = Revocation(
            kind=Kind.SERIAL, value=value, when=NOW, reason=Reason.SUPERSEDED, who="alice", not_after=end, key=key
        )
    return Revocations(sequence=sequence, entries=MappingProxyType(entries))


def test_revocations_larger_than_a_secret_are_split(
    pair: tuple[Replica, Replica], kube: kube_server.KubeServer
) -> None:
    first, second = pair
    contents = [revocations_to_json(many_revocations(20_000, sequence)) for sequence in (1, 2)]
    assert first.store.replace_document(REVOCATIONS, None, contents[0])
    parts = names(kube, "revocations.")
    assert len(parts) >= 2
    assert all(len(repr(value)) < 2 * PART_BYTES for value in kube.objects.values())
    assert second.store.document(REVOCATIONS) == contents[0]
    assert first.store.replace_document(REVOCATIONS, contents[0], contents[1])
    assert len(names(kube, "revocations.")) >= 2
    assert not set(parts) & set(names(kube, "revocations."))  # those of the first are gone
    assert second.store.document(REVOCATIONS) == contents[1]
    kube.remove("secrets", NAMESPACE, names(kube, "revocations.")[0])
    with pytest.raises(StateError, match="its parts are missing"):
        second.store.document(REVOCATIONS)


def test_the_state_is_one_secret_and_small(pair: tuple[Replica, Replica], kube: kube_server.KubeServer) -> None:
    many = {
        f"spiffe://cluster.local/ns/a/sa/s{number}#pod": Confirmation(sequence=1, seen_at=AT) for number in range(9)
    }
    pair[0].follow(ConfirmedMany(reports=many))
    held = kube.objects[STATE]
    assert len(held["data"]["state.json"]) < 4096
