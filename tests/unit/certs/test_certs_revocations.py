"""What is revoked stays refused, and the sequence counts each change."""

from __future__ import annotations

import datetime

import pytest

from certs.requests import key_fingerprint
from certs.revocations import MAX_ENTRIES, Kind, Reason, Revocation, RevocationError, Revocations
from certs.testing import MemoryAuthority

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
ORDERS = "spiffe://cluster.local/ns/demo/sa/orders"
KEY = "ab" * 32


def entry(kind: Kind, value: str, **fields: object) -> Revocation:
    if kind is Kind.SERIAL:
        fields.setdefault("not_after", NOW + HOUR)
    return Revocation(
        kind=kind,
        value=value,
        when=NOW,
        reason=Reason.KEY_COMPROMISE,
        who="alice",
        **fields,  # type: ignore[arg-type]
    )


def test_each_change_counts_one_and_repeating_it_none() -> None:
    revoked = Revocations()
    for number, (kind, value) in enumerate(((Kind.SERIAL, "1f"), (Kind.IDENTITY, ORDERS), (Kind.KEY, KEY)), start=1):
        revoked = revoked.add(entry(kind, value))
        assert revoked.sequence == number
        assert revoked.add(entry(kind, value)) is revoked


def test_a_leaf_is_refused_by_serial_identity_and_key(memory: MemoryAuthority) -> None:
    svid = memory.svid("demo", "orders")
    other = memory.svid("demo", "ledger")
    fingerprint = key_fingerprint(svid.leaf.public_key())  # type: ignore[arg-type]
    for kind, value in (
        (Kind.SERIAL, f"{svid.leaf.serial_number:x}"),
        (Kind.IDENTITY, ORDERS),
        (Kind.KEY, fingerprint),
    ):
        revoked = Revocations().add(entry(kind, value))
        assert revoked.refusal_for(svid.chain) == revoked.entries[kind, value]
        assert revoked.refusal_for(other.chain) is None


def test_a_revoked_intermediate_refuses_what_it_signed(memory: MemoryAuthority) -> None:
    svid = memory.svid("demo", "orders")
    revoked = Revocations().add(entry(Kind.SERIAL, f"{memory.intermediate.serial_number:x}"))
    assert revoked.refusal_for(svid.chain) is not None
    assert revoked.refusal_for(svid.chain[:1]) is None


def test_a_lifted_block_refuses_what_was_issued_before_and_lets_later_pass(memory: MemoryAuthority) -> None:
    old = memory.svid("demo", "orders")
    lift_at = memory.now + datetime.timedelta(seconds=30, milliseconds=200)
    blocked = Revocations().add(entry(Kind.IDENTITY, ORDERS))
    assert {str(name) for name in blocked.blocked} == {ORDERS}
    lifted = blocked.lift(Kind.IDENTITY, ORDERS, lift_at, issuer_end=memory.intermediate.not_valid_after_utc)
    assert lifted.sequence == 2
    assert not lifted.blocked
    assert lifted.refusal_for(old.chain) is not None
    for seconds, is_refused in ((30, True), (31, False)):
        issued = memory.authority.issue_svid(old.spiffe_id, memory.now + datetime.timedelta(seconds=seconds))
        assert (lifted.refusal_for(issued.chain) is not None) is is_refused
    assert lifted.lift(Kind.IDENTITY, ORDERS, lift_at) is lifted
    assert lifted.add(entry(Kind.IDENTITY, ORDERS)).blocked


def test_lifting_a_serial_takes_it_out_and_lifting_nothing_is_an_error() -> None:
    revoked = Revocations().add(entry(Kind.SERIAL, "1f", key=KEY))
    assert revoked.refused_keys == {KEY}
    lifted = revoked.lift(Kind.SERIAL, "1f", NOW)
    assert (lifted.sequence, dict(lifted.entries), lifted.refused_keys) == (2, {}, frozenset())
    with pytest.raises(RevocationError, match="is not revoked"):
        lifted.lift(Kind.SERIAL, "1f", NOW)
    with pytest.raises(RevocationError, match="when the intermediate ends"):
        Revocations().add(entry(Kind.IDENTITY, ORDERS)).lift(Kind.IDENTITY, ORDERS, NOW)


def test_an_entry_is_dropped_an_hour_after_its_certificate_and_a_block_never() -> None:
    revoked = Revocations().add(entry(Kind.SERIAL, "1f")).add(entry(Kind.IDENTITY, ORDERS)).add(entry(Kind.KEY, KEY))
    assert revoked.pruned(NOW + 2 * HOUR - datetime.timedelta(seconds=1)) is revoked
    pruned = revoked.pruned(NOW + 2 * HOUR)
    assert pruned.sequence == revoked.sequence + 1
    assert set(pruned.entries) == {(Kind.IDENTITY, ORDERS), (Kind.KEY, KEY)}


def test_a_full_list_takes_no_more() -> None:
    some = entry(Kind.SERIAL, "1")
    full = Revocations(entries={(Kind.SERIAL, f"{number:x}"): some for number in range(1, MAX_ENTRIES + 1)})
    with pytest.raises(RevocationError, match="rotate the intermediate"):
        full.add(entry(Kind.KEY, KEY))


@pytest.mark.parametrize(
    ("kind", "value", "fields", "says"),
    [
        (Kind.SERIAL, "1F", {}, "no serial number"),
        (Kind.SERIAL, "0", {}, "no serial number"),
        (Kind.SERIAL, "1f\n", {}, "no serial number"),
        (Kind.SERIAL, "f" * 40, {}, "no serial number"),
        (Kind.SERIAL, "1f", {"not_after": None}, "until its certificate ends"),
        (Kind.SERIAL, "1f", {"key": "ab"}, "remembers a key"),
        (Kind.KEY, KEY, {"key": KEY}, "remembers a key"),
        (Kind.KEY, KEY.upper(), {}, "SHA-256"),
        (Kind.KEY, KEY, {"since": NOW}, "only an identity"),
        (Kind.IDENTITY, "orders", {}, "SPIFFE ID"),
        (Kind.IDENTITY, "spiffe://cluster.local", {}, "names no workload"),
        (Kind.IDENTITY, ORDERS, {"since": NOW}, "a block has no end"),
        (Kind.KEY, KEY, {"not_after": datetime.datetime(2030, 1, 1)}, "time zone"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(kind: Kind, value: str, fields: dict[str, object], says: str) -> None:
    with pytest.raises(RevocationError, match=says):
        entry(kind, value, **fields)


def test_who_revokes_is_named() -> None:
    for who in ("", "a\nb", "a" * 129):
        with pytest.raises(RevocationError, match="name who revokes"):
            Revocation(kind=Kind.KEY, value=KEY, when=NOW, reason=Reason.SUPERSEDED, who=who)
