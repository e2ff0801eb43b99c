"""Revocation lists under any order of changes: the sequence counts, nothing is lost, what is written is read."""

from __future__ import annotations

import contextlib
import datetime

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.crl import build_crl, read_crl
from certs.crl_extension import CrlError
from certs.revocations import Kind, Reason, Revocation, RevocationError, Revocations
from certs.revocations_json import revocations_from_json, revocations_to_json
from certs.testing import MemoryAuthority

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
END = NOW + datetime.timedelta(days=400)
MEMORY = MemoryAuthority("cluster.local", NOW)

# A derandomized profile: a run that fails is a run that fails again.
settings.register_profile("revocations", derandomize=True, deadline=None, max_examples=60)


def _entry(kind: Kind, number: int, minutes: int, reason: Reason, who: str) -> Revocation:
    value = {
        Kind.SERIAL: f"{number:x}",
        Kind.KEY: f"{number:064x}",
        Kind.IDENTITY: f"spiffe://cluster.local/ns/demo/sa/a{number}",
    }[kind]
    when = NOW + datetime.timedelta(minutes=minutes)
    not_after = when + datetime.timedelta(days=1) if kind is Kind.SERIAL else None
    return Revocation(kind=kind, value=value, when=when, reason=reason, who=who, not_after=not_after)


entries = st.builds(
    _entry,
    st.sampled_from(Kind),
    st.integers(1, 6),
    st.integers(0, 3),
    st.sampled_from(Reason),
    st.sampled_from(["alice", "bob"]),
)
steps = st.lists(st.tuples(st.sampled_from(["add", "lift", "prune"]), entries), max_size=25)


def _apply(revoked: Revocations, action: str, entry: Revocation) -> Revocations:
    if action == "add":
        return revoked.add(entry)
    if action == "prune":
        return revoked.pruned(entry.when + datetime.timedelta(days=1, hours=1))
    try:
        return revoked.lift(entry.kind, entry.value, entry.when, issuer_end=END)
    except RevocationError:
        return revoked


def _made(changes: list[tuple[str, Revocation]]) -> Revocations:
    revoked = Revocations()
    for action, entry in changes:
        revoked = _apply(revoked, action, entry)
    return revoked


@settings(settings.get_profile("revocations"))
@given(steps)
def test_the_sequence_grows_by_one_exactly_when_the_content_changes(changes: list[tuple[str, Revocation]]) -> None:
    revoked = Revocations()
    for action, entry in changes:
        after = _apply(revoked, action, entry)
        is_changed = dict(after.entries) != dict(revoked.entries)
        assert after.sequence == revoked.sequence + is_changed
        if action == "add":
            assert (entry.kind, entry.value) in after.entries
            assert entry.kind is not Kind.IDENTITY or after.entries[entry.kind, entry.value].is_block
        revoked = after


@settings(settings.get_profile("revocations"))
@given(steps)
def test_what_is_written_is_read_in_both_forms(changes: list[tuple[str, Revocation]]) -> None:
    revoked = _made(changes)
    assert revocations_from_json(revocations_to_json(revoked), "list") == revoked
    crl = build_crl(revoked, MEMORY.intermediate, MEMORY.intermediate_key, NOW)
    snapshot = read_crl(crl.public_bytes(Encoding.DER), [MEMORY.intermediate], MEMORY.bundle, NOW)
    assert (snapshot.sequence, snapshot.table) == (revoked.sequence, revoked.table)


@settings(settings.get_profile("revocations"))
@given(steps, st.integers(0, 100_000), st.integers(1, 255))
def test_a_byte_changed_on_the_way_never_changes_what_is_revoked(
    changes: list[tuple[str, Revocation]], place: int, bits: int
) -> None:
    crl = build_crl(_made(changes), MEMORY.intermediate, MEMORY.intermediate_key, NOW).public_bytes(Encoding.DER)
    original = read_crl(crl, [MEMORY.intermediate], MEMORY.bundle, NOW)
    spoiled = bytearray(crl)
    # A signature is random, and so is the length of its encoding: the place is drawn without it.
    spoiled[place % len(spoiled)] ^= bits
    # The count of unused bits before the signature is covered by nothing; all else is refused.
    with contextlib.suppress(CrlError):
        assert read_crl(bytes(spoiled), [MEMORY.intermediate], MEMORY.bundle, NOW) == original
