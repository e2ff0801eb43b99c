"""The revocation list in a handshake and after: who is refused, for what reason, and when nobody knows."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Svid
from certs.crl import CRL_LIFETIME, CrlPolicy, build_crl
from certs.crl_extension import CrlError
from certs.requests import key_fingerprint
from certs.revocations import Kind, Revocation, Revocations
from certs.revocations import Reason as Why
from certs.store import IdentitySet, judge_set
from certs.testing import MemoryAuthority, set_files
from proxy.errors import Reason
from proxy.identity.revocation import RevocationCheck, read_revocations
from proxy.identity.verify import Judge, Rejection, Trust, Usage
from proxy.types import PeerIdentity

MEMORY = MemoryAuthority("cluster.local")
NOW = MEMORY.now
ORDERS = MEMORY.svid("demo", "orders")
WEB = MEMORY.svid("demo", "web")


def der(*svids: Svid) -> tuple[bytes, ...]:
    [svid] = svids
    return tuple(one.public_bytes(Encoding.DER) for one in (*svid.chain, MEMORY.root))


def own_set() -> IdentitySet:
    return judge_set(set_files(ORDERS, MEMORY.bundles), MEMORY.trust_domain, NOW)


def listing(kind: Kind, value: str, *, sequence: int = 2) -> Revocations:
    entry = Revocation(
        kind=kind,
        value=value,
        when=NOW,
        reason=Why.KEY_COMPROMISE,
        who="a test",
        not_after=NOW + CRL_LIFETIME if kind is Kind.SERIAL else None,
    )
    return Revocations(sequence=sequence - 1).add(entry)


def crl(revocations: Revocations, lifetime: datetime.timedelta = CRL_LIFETIME) -> bytes:
    made = build_crl(revocations, MEMORY.intermediate, MEMORY.intermediate_key, NOW, lifetime)
    return made.public_bytes(Encoding.DER)


def check(
    revocations: Revocations, policy: CrlPolicy = CrlPolicy.WARN, lifetime: datetime.timedelta = CRL_LIFETIME
) -> RevocationCheck:
    files = {"crl.der": crl(revocations, lifetime)}
    return read_revocations(files, own_set(), MEMORY.bundle, policy, NOW.timestamp())


def judged(svid: Svid, revocations: RevocationCheck, now: float = NOW.timestamp()) -> PeerIdentity | Rejection:
    trust = Trust.of(MEMORY.trust_domain, MEMORY.bundles, revocations=revocations)
    return Judge(trust, Usage.CLIENT).judge(der(svid), now=now, expected=None)


def value_of(kind: Kind) -> str:
    return {
        Kind.SERIAL: f"{WEB.leaf.serial_number:x}",
        Kind.IDENTITY: str(WEB.spiffe_id),
        Kind.KEY: key_fingerprint(WEB.key.public_key()),
    }[kind]


@pytest.mark.parametrize("kind", list(Kind))
def test_who_is_revoked_is_rejected_and_nobody_else(kind: Kind) -> None:
    revocations = check(listing(kind, value_of(kind)))
    rejection = judged(WEB, revocations)
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.CERTIFICATE_REVOKED
    assert rejection.reason.consequence.alert == "certificate_revoked"
    assert value_of(kind) in rejection.message
    assert str(WEB.spiffe_id) in rejection.message
    assert isinstance(judged(ORDERS, revocations), PeerIdentity)


def test_a_revoked_intermediate_takes_all_its_leaves_along() -> None:
    revocations = check(listing(Kind.SERIAL, f"{MEMORY.intermediate.serial_number:x}"))
    for svid in (WEB, ORDERS):
        rejection = judged(svid, revocations)
        assert isinstance(rejection, Rejection)
        assert rejection.reason is Reason.CERTIFICATE_REVOKED


@pytest.mark.parametrize("kind", list(Kind))
def test_a_peer_that_stands_is_judged_again(kind: Kind) -> None:
    peer = judged(WEB, RevocationCheck())
    assert isinstance(peer, PeerIdentity)
    before = Trust.of(MEMORY.trust_domain, MEMORY.bundles)
    after = Trust.of(MEMORY.trust_domain, MEMORY.bundles, revocations=check(listing(kind, value_of(kind))))
    assert before.vouches_for(peer)
    assert not after.vouches_for(peer)
    assert after.reason_against(peer) is Reason.CERTIFICATE_REVOKED
    other = judged(ORDERS, RevocationCheck())
    assert isinstance(other, PeerIdentity)
    assert after.vouches_for(other)


def test_the_end_of_a_root_is_another_reason() -> None:
    peer = judged(WEB, RevocationCheck())
    assert isinstance(peer, PeerIdentity)
    neighbours = {name: bundle for name, bundle in MEMORY.bundles.items() if name != MEMORY.trust_domain}
    trust = Trust.of(MEMORY.trust_domain, neighbours)
    assert not trust.vouches_for(peer)
    assert trust.reason_against(peer) is Reason.TRUST_ENDED


def test_the_list_speaks_of_our_own_trust_domain_alone() -> None:
    stranger = MEMORY.neighbour.svid("demo", "web")
    revocations = check(listing(Kind.SERIAL, f"{stranger.leaf.serial_number:x}"), CrlPolicy.FAIL_CLOSED)
    trust = Trust.of(MEMORY.trust_domain, MEMORY.bundles, revocations=revocations)
    chain = tuple(one.public_bytes(Encoding.DER) for one in (*stranger.chain, MEMORY.neighbour.root))
    late = NOW.timestamp() + 2 * CRL_LIFETIME.total_seconds()
    for now in (NOW.timestamp(), min(late, stranger.leaf.not_valid_after_utc.timestamp())):
        peer = Judge(trust, Usage.CLIENT).judge(chain, now=now, expected=None)
        assert isinstance(peer, PeerIdentity)
        assert trust.vouches_for(peer)


def test_what_was_remembered_is_judged_again_when_the_list_ends() -> None:
    revocations = check(Revocations(sequence=1), CrlPolicy.FAIL_CLOSED, datetime.timedelta(hours=1))
    trust = Trust.of(MEMORY.trust_domain, MEMORY.bundles, revocations=revocations)
    judge = Judge(trust, Usage.CLIENT)
    assert isinstance(judge.judge(der(WEB), now=NOW.timestamp(), expected=None), PeerIdentity)
    rejection = judge.judge(der(WEB), now=NOW.timestamp() + 3601, expected=None)
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.REVOCATIONS_UNKNOWN
    assert "should have been replaced" in rejection.message


@pytest.mark.parametrize("policy", list(CrlPolicy))
def test_the_policy_decides_without_a_list(policy: CrlPolicy) -> None:
    outcome = judged(WEB, RevocationCheck(policy=policy))
    if policy is CrlPolicy.WARN:
        assert isinstance(outcome, PeerIdentity)
    else:
        assert isinstance(outcome, Rejection)
        assert outcome.reason is Reason.REVOCATIONS_UNKNOWN
        assert "crl: warn" in outcome.message


def test_a_stale_list_still_refuses_whom_it_names() -> None:
    revocations = check(listing(Kind.IDENTITY, str(WEB.spiffe_id)), lifetime=datetime.timedelta(hours=1))
    rejection = judged(WEB, revocations, NOW.timestamp() + 7200)
    assert isinstance(rejection, Rejection)
    assert rejection.reason is Reason.CERTIFICATE_REVOKED


def test_a_peer_whose_chain_nobody_kept_is_not_taken_for_revoked() -> None:
    trust = Trust.of(MEMORY.trust_domain, MEMORY.bundles, revocations=check(listing(Kind.SERIAL, "7")))
    peer = judged(WEB, RevocationCheck())
    assert isinstance(peer, PeerIdentity)
    assert trust.vouches_for(replace(peer, chain=()))
    assert peer.root == MEMORY.root.fingerprint(SHA256())


def test_a_list_is_pem_or_der_and_not_both() -> None:
    data = crl(Revocations(sequence=1))
    with pytest.raises(CrlError, match="stand side by side"):
        read_revocations({"crl.der": data, "crl.pem": data}, own_set(), MEMORY.bundle, CrlPolicy.WARN, NOW.timestamp())


def test_a_list_of_another_signer_needs_its_issuers() -> None:
    other = MemoryAuthority("cluster.local", NOW)
    bundle = replace(MEMORY.bundle, certificates=(MEMORY.root, other.root))
    made = build_crl(Revocations(sequence=3), other.intermediate, other.intermediate_key, NOW)
    files = {"crl.der": made.public_bytes(Encoding.DER)}
    with pytest.raises(CrlError, match=r"crl\.der: no certificate that is known here has signed"):
        read_revocations(files, own_set(), bundle, CrlPolicy.WARN, NOW.timestamp())
    files["crl-issuers.pem"] = other.intermediate.public_bytes(Encoding.PEM)
    found = read_revocations(files, own_set(), bundle, CrlPolicy.WARN, NOW.timestamp())
    assert found.snapshot is not None
    assert found.snapshot.sequence == 3


def test_broken_issuers_are_named() -> None:
    files = {"crl.der": crl(Revocations(sequence=1)), "crl-issuers.pem": b"nothing"}
    with pytest.raises(CrlError, match=r"crl-issuers\.pem: it holds no certificate"):
        read_revocations(files, own_set(), MEMORY.bundle, CrlPolicy.WARN, NOW.timestamp())
