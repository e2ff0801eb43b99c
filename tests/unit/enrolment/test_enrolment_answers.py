"""What is wrong with one part of an answer is told, and keeps no other part from being taken."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.bundle_feed import FeedError
from certs.crl import build_crl
from certs.keys import PrivateKey, generate_key
from certs.revocations import Revocations
from certs.testing import MemoryAuthority
from proxy.enrolment.authority_answers import Polled, Tags, take_certificate, take_poll
from proxy.enrolment.authority_client import Answered
from proxy.enrolment.authority_messages import Signed
from proxy.identity.enrolled import Enrolled

MEMORY = MemoryAuthority("cluster.local")
STRANGER = MemoryAuthority("cluster.local")
NOW = MEMORY.now.timestamp()
SVID = MEMORY.svid("demo", "orders")
SOURCE = "https://authority"


def bundle(sequence: int = 1, *, is_empty: bool = False) -> bytes:
    roots = () if is_empty else (MEMORY.root,)
    return TrustBundle(trust_domain=MEMORY.trust_domain, certificates=roots, sequence=sequence).to_jwks()


def crl(sequence: int = 1, memory: MemoryAuthority = MEMORY) -> bytes:
    made = build_crl(Revocations(sequence=sequence), memory.intermediate, memory.intermediate_key, memory.now)
    return made.public_bytes(Encoding.DER)


def given(key: PrivateKey = SVID.key, *, document: bytes = b"", listed: bytes | None = None) -> Signed:
    leaf = SVID.leaf
    return Signed(
        chain=SVID.chain_pem(),
        bundle=document or bundle(),
        crl=listed,
        not_before=leaf.not_valid_before_utc.timestamp(),
        not_after=leaf.not_valid_after_utc.timestamp(),
    )


def taken(signed: Signed, key: PrivateKey = SVID.key) -> tuple[Enrolled, list[str]]:
    return take_certificate(None, signed, key, [], expected=SVID.spiffe_id, source=SOURCE, now=NOW)


def answered(body: bytes = b"", status: int = 200, etag: str = "") -> Answered:
    headers = {"etag": etag} if etag else {}
    return Answered(status=status, headers=headers, body=body, sent=NOW, received=NOW)


def polled(held: Enrolled, bundle: Answered, listed: Answered, tags: Tags | None = None) -> Polled:
    return take_poll(held, tags or Tags(), bundle, listed, [], source=SOURCE, now=NOW)


def test_a_certificate_comes_with_its_list() -> None:
    enrolled, warnings = taken(given(listed=crl(7)))
    assert warnings == []
    assert enrolled.listed is not None
    assert enrolled.listed.snapshot.sequence == 7


def test_a_list_that_is_a_stranger_s_costs_no_certificate() -> None:
    enrolled, [warning] = taken(given(listed=crl(7, STRANGER)))
    assert enrolled.listed is None
    assert "came with our certificate is not taken" in warning


def test_a_certificate_of_an_ended_trust_domain_is_not_taken() -> None:
    with pytest.raises(FeedError, match="was ended"):
        taken(given(document=bundle(2, is_empty=True)))


def test_a_certificate_for_another_key_is_not_taken() -> None:
    with pytest.raises(ValueError, match="key"):
        taken(given(), generate_key())


def test_what_was_taken_is_named_by_its_tags() -> None:
    held, _ = taken(given())
    after = polled(held, answered(bundle(2), etag='"b"'), answered(crl(3), etag='"l"'))
    assert (after.enrolled.bundle.sequence, after.tags, after.faults) == (2, Tags(bundle='"b"', listed='"l"'), ())
    again = polled(after.enrolled, answered(status=304), answered(status=304), after.tags)
    assert (again.enrolled, again.tags, again.faults) == (after.enrolled, after.tags, ())


def test_what_was_not_taken_is_asked_for_again() -> None:
    held, _ = taken(given(document=bundle(5)))
    held = polled(held, answered(status=304), answered(crl(3), etag='"new"')).enrolled
    after = polled(held, answered(bundle(4), etag='"old"'), answered(crl(2), etag='"older"'))
    assert (after.enrolled, after.tags) == (held, Tags())
    assert len(after.faults) == 2


def test_a_broken_bundle_keeps_no_list_from_being_taken() -> None:
    held, _ = taken(given())
    after = polled(held, answered(b"{"), answered(crl(3)))
    assert after.enrolled.listed is not None
    assert ["no JSON" in fault for fault in after.faults] == [True]


def test_the_list_of_a_trust_domain_that_was_ended_is_let_be() -> None:
    held, _ = taken(given())
    after = polled(held, answered(bundle(2, is_empty=True)), answered(crl(3)))
    assert (after.enrolled.bundle.certificates, after.enrolled.listed, after.faults) == ((), None, ())


@pytest.mark.parametrize("which", [0, 1])
def test_a_refusal_is_told_and_takes_nothing(which: int) -> None:
    held, _ = taken(given(listed=crl(7)))
    refused = answered(json.dumps({"reason": "policy_denied", "message": "ask"}).encode(), status=403)
    answers = [answered(bundle(1)), answered(crl(7))]
    answers[which] = refused
    after = polled(held, *answers)
    assert (after.enrolled, ["policy_denied" in fault for fault in after.faults]) == (held, [True])


def test_nothing_new_of_a_list_that_was_never_had_is_a_fault() -> None:
    held, _ = taken(given())
    assert len(polled(held, answered(status=304), answered(status=304)).faults) == 1
