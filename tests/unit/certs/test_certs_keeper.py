"""An authority is kept: written first, seen second; each step of a rotation is done, and survives a restart."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

import certs.rotation
from certs.authority import Authority
from certs.founding import found
from certs.joins import JoinBookError
from certs.keeper import Keeper
from certs.keys import PrivateKey, generate_key
from certs.profile import SIGNER_BACK_DATE, SignerShape, sign_signer
from certs.replicas import Replicas
from certs.revocations import PRUNE_MARGIN, Kind, Reason, RevocationError
from certs.rotation import Do, Force, Pace, Rotate, RotationError, RotationState, Status, Wanted
from certs.sealed import KeySource
from certs.signers import SignerError, signer_name
from certs.spiffe import SpiffeId, TrustDomain, parse_trust_domain
from certs.state import DirectoryStore
from certs.state_store import IssuedEntry, StateError

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
MINUTE = datetime.timedelta(minutes=1)
DOMAIN = parse_trust_domain("cluster.local")
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
SIDECAR = f"{ORDERS}#orders-0"
PACE = Pace(hints=3, window=86_400.0, margin=3_600.0)


class FailingStore(DirectoryStore):
    """A store whose disk is full while `is_full`."""

    is_full = False

    def save(self, state: RotationState) -> None:
        if self.is_full:
            raise StateError("the disk is full")
        super().save(state)


class House:
    """A directory with an authority in it, and a clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "authority"
        (directory / "passphrase").write_text("correct horse\n")
        self.source = KeySource.parse(f"file:{directory / 'passphrase'}")
        self.now = NOW
        self.authority = Authority.create(DOMAIN, NOW, constrain_names=True)
        self.keeper: Keeper | None = None
        self.replicas: Replicas | None = None
        self.store: FailingStore

    def found(self, *, root_offline: bool = False) -> None:
        store = DirectoryStore(self.directory, self.source)
        try:
            found(store, self.authority, NOW, pace=PACE, refresh_hint=300, root_offline=root_offline)
        finally:
            store.close()

    @property
    def ticks(self) -> float:
        return (self.now - NOW).total_seconds()

    def open(self) -> Keeper:
        self.close()
        self.store = store = FailingStore(self.directory, self.source)
        try:
            self.keeper = Keeper(store, self.now, self.ticks, replicas=self.replicas)
        except BaseException:
            store.close()
            raise
        return self.keeper

    def close(self) -> None:
        if self.keeper is not None:
            self.keeper.close(self.now, self.ticks)
            self.keeper = None

    def advance(
        self, keeper: Keeper, *events: certs.rotation.Event, after: datetime.timedelta | None = None
    ) -> list[Do]:
        self.now += after or datetime.timedelta()
        return [action.do for action in keeper.advance(self.now, self.ticks, events)]

    def issue(self, keeper: Keeper, serial: str = "2a") -> None:
        entry = IssuedEntry(
            serial=serial,
            identity=str(ORDERS),
            key="ab" * 32,
            not_after=(self.now + 24 * HOUR).timestamp(),
            issuer=keeper.held.state.active.name,
        )
        keeper.record(entry)

    def key_names(self) -> set[str]:
        return {path.stem for path in (self.directory / "keys").iterdir()}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_what_is_founded_can_be_opened(house: House) -> None:
    house.found()
    held = house.open().held
    assert held.authority.root == house.authority.root
    assert held.bundle.certificates == (house.authority.root,)
    assert (held.bundle.sequence, held.bundle.refresh_hint, held.revocations.sequence) == (1, 300, 0)
    assert house.key_names() == {signer_name(house.authority.root), signer_name(house.authority.intermediate)}


def test_nothing_is_founded_on_an_authority(house: House) -> None:
    house.found()
    keeper = house.open()
    entry = keeper.revocation_of(Kind.IDENTITY, str(ORDERS), NOW, reason=Reason.KEY_COMPROMISE, who="alice")
    keeper.revoke(entry, NOW)
    house.close()
    house.authority = Authority.create(DOMAIN, NOW)
    with pytest.raises(StateError, match="an authority stands there already"):
        house.found()
    assert house.open().held.revocations.blocked == {ORDERS}


def test_an_empty_directory_holds_no_authority(house: House) -> None:
    with pytest.raises(StateError, match="make an authority"):
        house.open()


@pytest.mark.parametrize("name", ["joins.json", "revocations.json"])
def test_what_was_forgotten_is_not_taken_for_empty(house: House, name: str) -> None:
    house.found()
    (house.directory / name).unlink()
    with pytest.raises(StateError, match="restore it from a copy"):
        house.open()


def test_an_intermediate_is_replaced_and_its_key_goes_after_its_last_leaf(house: House) -> None:
    house.found()
    keeper = house.open()
    old = keeper.held.state.active.name
    house.issue(keeper)
    assert house.advance(keeper, Rotate(what=Wanted.INTERMEDIATE)) == [Do.MAKE_INTERMEDIATE, Do.USE]
    new = keeper.held.authority.intermediate
    assert signer_name(new) == keeper.held.state.active.name != old
    assert x509.load_der_x509_crl(keeper.held.crl.der).is_signature_valid(new.public_key())  # type: ignore[arg-type]
    assert keeper.held.bundle.sequence == 1
    # As long as the first, and bound to the trust domain as the first.
    assert new.not_valid_after_utc - new.not_valid_before_utc == datetime.timedelta(days=365) + SIGNER_BACK_DATE
    assert new.extensions.get_extension_for_class(x509.NameConstraints).critical
    assert house.advance(keeper, after=24 * HOUR) == []
    assert old in house.key_names()
    assert house.advance(keeper, after=HOUR + datetime.timedelta(seconds=1)) == [Do.DESTROY_KEY]
    assert old not in house.key_names()


def test_a_root_waits_for_who_has_not_confirmed(house: House) -> None:
    house.found()
    keeper = house.open()
    old = keeper.held.authority.root
    keeper.confirm(SIDECAR, 1, house.now)
    house.issue(keeper)
    assert house.advance(keeper, Rotate(what=Wanted.ROOT)) == [Do.MAKE_ROOT, Do.PUBLISH]
    assert (keeper.held.bundle.sequence, len(keeper.held.bundle.certificates)) == (2, 2)
    assert b'"spiffe_sequence": 2' in keeper.held.bundle_answer.body
    assert keeper.held.authority.root == old
    assert house.advance(keeper, after=HOUR) == []
    with pytest.raises(RotationError, match="orders-0"):
        keeper.advance(house.now, house.ticks, [Force(left_behind=frozenset({"somebody else"}))])
    keeper.confirm(SIDECAR, 2, house.now)
    assert house.advance(keeper, after=datetime.timedelta(seconds=11)) == [Do.MAKE_INTERMEDIATE, Do.USE]
    assert keeper.held.authority.root != old
    assert house.advance(keeper, after=26 * HOUR) == [Do.DESTROY_KEY, Do.PUBLISH]
    assert keeper.held.bundle.certificates == (keeper.held.authority.root,)
    assert keeper.held.bundle.sequence == 3
    assert house.key_names() == {signer_name(keeper.held.authority.root), keeper.held.state.active.name}


def test_a_root_does_not_wait_for_the_revoked(house: House) -> None:
    house.found()
    keeper = house.open()
    keeper.confirm(SIDECAR, 1, house.now)
    house.advance(keeper, Rotate(what=Wanted.ROOT))
    assert house.advance(keeper, after=HOUR) == []
    entry = keeper.revocation_of(Kind.IDENTITY, str(ORDERS), house.now, reason=Reason.KEY_COMPROMISE, who="test")
    keeper.revoke(entry, house.now)
    assert house.advance(keeper) == [Do.MAKE_INTERMEDIATE, Do.USE]
    assert keeper.held.state.confirmations == {}


def test_who_names_instances_without_end_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.found()
    keeper = house.open()
    monkeypatch.setattr(certs.rotation, "MAX_INSTANCES", 1)
    keeper.confirm(SIDECAR, 1, house.now)
    house.advance(keeper, after=datetime.timedelta(seconds=11))
    assert keeper.trouble == f"no more instances are taken of {ORDERS}; see who names so many"


def test_one_that_does_not_say_is_waited_for_and_keeps_what_it_said(house: House) -> None:
    house.found()
    keeper = house.open()
    keeper.confirm("silent", None, house.now)
    keeper.confirm(SIDECAR, 1, house.now)
    house.advance(keeper, after=datetime.timedelta(seconds=11))
    keeper.confirm(SIDECAR, None, house.now)
    house.advance(keeper, after=datetime.timedelta(seconds=11))
    assert {name: known.sequence for name, known in keeper.held.state.confirmations.items()} == {
        "silent": 0,
        SIDECAR: 1,
    }


def test_reports_are_written_when_it_ends(house: House) -> None:
    house.found()
    house.open().confirm(SIDECAR, 1, house.now)
    assert SIDECAR in house.open().held.state.confirmations


def test_too_many_sidecars_hold_up_no_order(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.found()
    keeper = house.open()
    monkeypatch.setattr(certs.rotation, "MAX_SIDECARS", 1)
    keeper.confirm("one", 1, house.now)
    keeper.confirm("two", 1, house.now)
    assert house.advance(keeper, Rotate(what=Wanted.INTERMEDIATE)) == [Do.MAKE_INTERMEDIATE, Do.USE]
    assert "more than 1 sidecars" in keeper.trouble


@pytest.mark.parametrize("what", [Wanted.INTERMEDIATE, Wanted.ROOT])
def test_every_state_on_disk_can_be_gone_on_from(house: House, what: Wanted) -> None:
    house.found()
    keeper = house.open()
    house.issue(keeper)
    keeper.advance(house.now, house.ticks, [Rotate(what=what)])
    for _ in range(12):
        house.now += datetime.timedelta(hours=6)
        keeper = house.open()
        keeper.advance(house.now, house.ticks)
    state = keeper.held.state
    assert state.wanted is Wanted.NOTHING
    assert [signer.status for signer in state.intermediates] == [Status.REMOVED, Status.ACTIVE]
    assert house.key_names() == {state.active.name, state.active.root}
    assert len(keeper.held.bundle.certificates) == 1


def test_a_full_disk_changes_nothing_that_is_seen(house: House) -> None:
    house.found()
    keeper = house.open()
    before = keeper.held
    house.store.is_full = True
    with pytest.raises(StateError, match="the disk is full"):
        keeper.advance(house.now, house.ticks, [Rotate(what=Wanted.ROOT)])
    assert keeper.held is before
    house.store.is_full = False
    assert house.advance(keeper, Rotate(what=Wanted.ROOT)) == [Do.MAKE_ROOT, Do.PUBLISH]


def test_reports_outlive_a_full_disk(house: House) -> None:
    house.found()
    keeper = house.open()
    keeper.confirm(SIDECAR, 1, house.now)
    house.store.is_full = True
    with pytest.raises(StateError):
        house.advance(keeper, after=datetime.timedelta(seconds=11))
    house.store.is_full = False
    house.advance(keeper, after=datetime.timedelta(seconds=11))
    assert SIDECAR in keeper.held.state.confirmations


# --- a root that is elsewhere ----------------------------------------------------------------------------------------


def below(authority: Authority, now: datetime.datetime, trust_domain: TrustDomain = DOMAIN) -> Authority:
    """The same root with a new intermediate below it."""
    key = generate_key()
    shape = SignerShape(trust_domain=trust_domain, name="intermediate", lifetime=24 * HOUR, path_length=0)
    assert authority.root_key is not None
    intermediate = sign_signer(shape, key.public_key(), authority.root, authority.root_key, now)
    return dataclasses.replace(authority, intermediate=intermediate, intermediate_key=key)


def test_an_offline_root_leaves_no_key_and_waits_for_an_import(house: House) -> None:
    house.found(root_offline=True)
    keeper = house.open()
    assert house.key_names() == {signer_name(house.authority.intermediate)}
    fresh = below(house.authority, house.now)
    with pytest.raises(RotationError, match="no new intermediate is awaited"):
        keeper.import_signers(fresh, house.now, house.ticks)
    assert house.key_names() == {signer_name(house.authority.intermediate)}
    assert house.advance(keeper, Rotate(what=Wanted.INTERMEDIATE)) == [Do.AWAIT_IMPORT]
    done = keeper.import_signers(fresh, house.now, house.ticks)
    assert [action.do for action in done] == [Do.USE]
    assert keeper.held.authority.intermediate == fresh.intermediate
    assert signer_name(house.authority.root) not in house.key_names()
    with pytest.raises(RotationError, match="known here already"):
        keeper.import_signers(fresh, house.now, house.ticks)


def test_a_stranger_s_signers_are_not_imported(house: House) -> None:
    house.found(root_offline=True)
    keeper = house.open()
    house.advance(keeper, Rotate(what=Wanted.INTERMEDIATE))
    stranger = Authority.create(parse_trust_domain("stranger.example"), NOW)
    with pytest.raises(SignerError, match=r"stranger\.example"):
        keeper.import_signers(stranger, house.now, house.ticks)


def test_a_new_offline_root_comes_with_its_intermediate(house: House) -> None:
    house.found(root_offline=True)
    keeper = house.open()
    assert house.advance(keeper, Rotate(what=Wanted.ROOT)) == [Do.AWAIT_IMPORT]
    fresh = Authority.create(DOMAIN, house.now)
    assert [action.do for action in keeper.import_signers(fresh, house.now, house.ticks)] == [Do.PUBLISH]
    assert house.advance(keeper, after=HOUR) == [Do.USE]
    assert keeper.held.authority.root == fresh.root


# --- revocation ------------------------------------------------------------------------------------------------------


def test_a_serial_brings_the_end_and_the_key_that_the_index_knows(house: House) -> None:
    house.found()
    keeper = house.open()
    house.issue(keeper, serial="2ab")
    for written in ("2ab", "02:AB", "0x2ab"):
        entry = keeper.revocation_of(Kind.SERIAL, written, NOW, reason=Reason.KEY_COMPROMISE, who="alice")
        assert (entry.value, entry.key, entry.not_after) == ("2ab", "ab" * 32, NOW + 24 * HOUR)
    keeper.revoke(entry, NOW)
    assert keeper.held.revocations.refused_keys == {"ab" * 32}
    crl = x509.load_der_x509_crl(keeper.held.crl.der)
    assert crl.get_revoked_certificate_by_serial_number(0x2AB) is not None
    assert keeper.revoke(entry, NOW).sequence == 1
    unknown = keeper.revocation_of(Kind.SERIAL, "77", NOW, reason=Reason.UNSPECIFIED, who="alice")
    assert (unknown.key, unknown.not_after) == (None, keeper.held.authority.intermediate.not_valid_after_utc)


def test_revocations_survive_and_can_be_lifted(house: House) -> None:
    house.found()
    keeper = house.open()
    entry = keeper.revocation_of(Kind.IDENTITY, str(ORDERS), NOW, reason=Reason.KEY_COMPROMISE, who="alice")
    keeper.revoke(entry, NOW)
    keeper = house.open()
    assert keeper.held.revocations.blocked == {ORDERS}
    assert keeper.lift(Kind.IDENTITY, str(ORDERS), NOW).blocked == frozenset()
    assert house.open().held.revocations.sequence == 2


def test_what_is_not_ours_is_not_revoked_here(house: House) -> None:
    house.found()
    keeper = house.open()
    for value, message in (("spiffe://other.example/a", "its own authority"), ("orders", "SPIFFE ID")):
        with pytest.raises(RevocationError, match=message):
            keeper.revocation_of(Kind.IDENTITY, value, NOW, reason=Reason.UNSPECIFIED, who="alice")


def test_the_list_is_pruned_and_signed_anew_at_half_of_its_life(house: House) -> None:
    house.found()
    keeper = house.open()
    house.issue(keeper)
    entry = keeper.revocation_of(Kind.SERIAL, "2a", NOW, reason=Reason.UNSPECIFIED, who="alice")
    keeper.revoke(entry, NOW)
    first = keeper.held.crl
    keeper.refresh(NOW + 11 * HOUR)
    assert keeper.held.crl is first
    keeper.refresh(NOW + 12 * HOUR)
    assert keeper.held.crl.next_update == NOW + 36 * HOUR
    assert len(keeper.held.revocations.entries) == 1
    keeper.refresh(NOW + 24 * HOUR + PRUNE_MARGIN)
    assert (len(keeper.held.revocations.entries), keeper.held.revocations.sequence) == (0, 2)


def test_what_has_ended_is_forgotten_each_hour_and_a_margin_late(house: House) -> None:
    house.found()
    keeper = house.open()
    house.issue(keeper)
    keeper.refresh(NOW + 24 * HOUR)
    assert [entry.serial for entry in house.store.issued] == ["2a"]
    keeper.refresh(NOW + 24 * HOUR + 59 * MINUTE)
    assert [entry.serial for entry in house.store.issued] == ["2a"]
    keeper.refresh(NOW + 25 * HOUR)
    assert house.store.issued == ()


def test_a_replica_that_does_not_lead_drops_nothing_and_is_at_no_fault(house: House) -> None:
    is_leader = True
    house.replicas = Replicas(leads=lambda: is_leader)
    house.found()
    keeper = house.open()
    house.issue(keeper)
    keeper.revoke(keeper.revocation_of(Kind.SERIAL, "2a", NOW, reason=Reason.UNSPECIFIED, who="alice"), NOW)
    is_leader = False
    keeper.refresh(NOW + 30 * HOUR)
    assert keeper.held.crl.next_update == NOW + 54 * HOUR
    assert (len(keeper.held.revocations.entries), len(house.store.issued)) == (1, 1)
    is_leader = True
    keeper.refresh(NOW + 30 * HOUR)
    assert (len(keeper.held.revocations.entries), len(house.store.issued)) == (0, 0)


# --- join tokens -----------------------------------------------------------------------------------------------------


def test_a_token_is_used_once_even_after_a_restart(house: House) -> None:
    house.found()
    keeper = house.open()
    token = keeper.make_token(ORDERS, NOW, made_by="alice", lifetime=600.0)
    before = keeper.held.joins
    after, spiffe_id = before.redeem(token, NOW.timestamp())
    assert keeper.replace_joins(before, after)
    assert spiffe_id == ORDERS
    assert not keeper.replace_joins(before, after)
    [entry] = house.open().held.joins.entries.values()
    assert entry.used_at == NOW.timestamp()
    assert token not in (house.directory / "joins.json").read_text()


def test_a_token_for_another_trust_domain_is_not_made(house: House) -> None:
    house.found()
    with pytest.raises(JoinBookError, match="its own authority"):
        house.open().make_token(SpiffeId.parse("spiffe://other.example/a"), NOW, made_by="alice", lifetime=600.0)


def test_what_a_fault_kept_from_being_done_is_done_the_next_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.found()
    keeper = house.open()
    old = keeper.held.authority.intermediate
    calls: list[str] = []

    def failing(name: str) -> PrivateKey:
        calls.append(name)
        if len(calls) == 3:  # the root's to sign with, the new one's for a trial, and then to use it
            raise StateError("the key command does not answer")
        return DirectoryStore.key(house.store, name)

    monkeypatch.setattr(house.store, "key", failing)
    with pytest.raises(StateError, match="does not answer"):
        house.advance(keeper, Rotate(what=Wanted.INTERMEDIATE))
    assert keeper.held.authority.intermediate == old
    assert house.advance(keeper) == []
    assert signer_name(keeper.held.authority.intermediate) == keeper.held.state.active.name
    assert keeper.held.authority.intermediate != old
