"""What an authority gives is taken whole, never backwards, and laid out so that it can be judged anywhere."""

from __future__ import annotations

import datetime
import doctest
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority, Svid
from certs.bundle import BundleError, TrustBundle
from certs.bundle_feed import FeedError
from certs.crl import CRL_LIFETIME, CrlPolicy, build_crl
from certs.crl_extension import CrlError
from certs.revocations import Kind, Revocation, Revocations
from certs.revocations import Reason as Why
from certs.spiffe import SpiffeId, parse_trust_domain
from certs.store import SetError
from proxy.errors import ConfigError
from proxy.identity import enrolled as enrolled_module
from proxy.identity.enrolled import Enrolled, is_news, take_bundle, take_list, take_signed
from proxy.identity.source import EnrolledSource, Material

DOMAIN = parse_trust_domain("cluster.local")
NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
MOMENT = NOW.timestamp()
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
OLD = Authority.create(DOMAIN, NOW)
NEW = Authority.create(DOMAIN, NOW)
SOURCE = "https://authority"


def svid(authority: Authority = OLD, name: SpiffeId = ORDERS) -> Svid:
    return authority.issue_svid(name, NOW)


def bundle(*roots: x509.Certificate, sequence: int = 1) -> bytes:
    return TrustBundle(trust_domain=DOMAIN, certificates=roots, sequence=sequence, refresh_hint=60).to_jwks()


def signed(held: Enrolled | None = None, made: Svid | None = None, document: bytes = b"") -> Enrolled:
    made = made or svid()
    enrolled, warning = take_signed(
        held,
        chain=made.chain_pem(),
        key=made.key,
        bundle=document or bundle(OLD.root),
        expected=ORDERS,
        source=SOURCE,
        now=MOMENT,
    )
    assert warning == ""
    return enrolled


def crl(revocations: Revocations, authority: Authority = OLD, at: datetime.datetime = NOW) -> bytes:
    made = build_crl(revocations, authority.intermediate, authority.intermediate_key, at)
    return made.public_bytes(Encoding.DER)


def revoking(serial: int, sequence: int = 2) -> Revocations:
    entry = Revocation(
        kind=Kind.SERIAL,
        value=f"{serial:x}",
        when=NOW,
        reason=Why.KEY_COMPROMISE,
        who="a test",
        not_after=NOW + CRL_LIFETIME,
    )
    return Revocations(sequence=sequence - 1).add(entry)


def judge(enrolled: Enrolled, policy: CrlPolicy = CrlPolicy.WARN, now: float = MOMENT) -> Material:
    source = EnrolledSource(url=SOURCE, trust_domain=DOMAIN, expected=ORDERS, crl=policy)
    return source.judge(enrolled.files(), now)


def test_the_examples_hold() -> None:
    assert doctest.testmod(enrolled_module).failed == 0


def test_a_certificate_is_taken_with_its_bundle() -> None:
    made = svid()
    enrolled = signed(made=made)
    material = judge(enrolled)
    assert material.identity_set.chain == made.chain
    assert material.identity_set.bundles[DOMAIN].sequence == 1
    assert material.trust.anchors == (OLD.root,)


def test_neither_key_nor_chain_shows_in_a_repr() -> None:
    enrolled = signed()
    assert "PRIVATE" not in repr(enrolled)
    assert "CERTIFICATE" not in repr(enrolled)


@pytest.mark.parametrize(
    ("made", "document", "error", "words"),
    [
        (svid(name=SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web")), b"", SetError, "this workload is"),
        (svid(NEW), b"", SetError, "no root of cluster.local vouches"),
        (Svid(chain=svid().chain, key=svid().key), b"", SetError, "does not fit"),
        (svid(), bundle(), FeedError, "is empty"),
        (svid(), b"{}", BundleError, "keys"),
    ],
)
def test_what_does_not_fit_is_not_taken(made: Svid, document: bytes, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        signed(made=made, document=document)


def test_a_renewal_keeps_the_newer_bundle_and_the_list() -> None:
    held, _ = take_bundle(signed(), bundle(OLD.root, NEW.root, sequence=2), SOURCE, MOMENT)
    held = take_list(held, crl(Revocations(sequence=1)), [], MOMENT)
    made = svid()
    enrolled, warning = take_signed(
        held,
        chain=made.chain_pem(),
        key=made.key,
        bundle=bundle(OLD.root, sequence=1),
        expected=ORDERS,
        source=SOURCE,
        now=MOMENT,
    )
    assert "the older one is ignored" in warning
    assert enrolled.bundle.sequence == 2
    assert enrolled.listed == held.listed


def test_an_older_bundle_is_ignored() -> None:
    held, _ = take_bundle(signed(), bundle(OLD.root, NEW.root, sequence=5), SOURCE, MOMENT)
    after, warning = take_bundle(held, bundle(OLD.root, sequence=4), SOURCE, MOMENT)
    assert after.bundle == held.bundle
    assert "the older one is ignored" in warning


def test_other_roots_under_one_sequence_are_a_fault() -> None:
    with pytest.raises(FeedError, match="count each change"):
        take_bundle(signed(), bundle(NEW.root, sequence=1), SOURCE, MOMENT)


def test_a_root_that_ends_ends_trust_at_once_though_our_chain_stands_on_it() -> None:
    held, _ = take_bundle(signed(), bundle(NEW.root, sequence=2), SOURCE, MOMENT)
    assert "no root of cluster.local vouches" in held.needs_renewal(MOMENT)
    material = judge(held)
    assert material.trust.anchors == (NEW.root,)
    renewed = signed(held, svid(NEW), bundle(NEW.root, sequence=2))
    assert renewed.needs_renewal(MOMENT) == ""


def test_an_empty_bundle_ends_everybody() -> None:
    held, _ = take_bundle(signed(), bundle(sequence=2), SOURCE, MOMENT)
    material = judge(held)
    assert material.trust.anchors == ()
    assert material.trust.roots[DOMAIN] == frozenset()
    assert held.needs_renewal(MOMENT) == ""  # nobody could be asked


def test_a_root_that_is_added_needs_no_renewal() -> None:
    held, _ = take_bundle(signed(), bundle(OLD.root, NEW.root, sequence=2), SOURCE, MOMENT)
    assert held.needs_renewal(MOMENT) == ""
    assert held.roots == held.bundle


def test_a_list_counts_and_our_own_revocation_wants_another_certificate() -> None:
    enrolled = signed()
    serial = enrolled.identity_set.chain[0].serial_number
    held = take_list(enrolled, crl(revoking(serial)), [], MOMENT)
    assert f"serial {serial:x} is revoked" in held.needs_renewal(MOMENT)
    assert judge(held).trust.revocations.refuses(enrolled.identity_set.chain) is not None


def test_an_older_list_is_refused_and_the_same_one_changes_nothing() -> None:
    held = take_list(signed(), crl(revoking(7, sequence=3)), [], MOMENT)
    assert held.listed is not None
    assert take_list(held, held.listed.der, [], MOMENT) is held
    with pytest.raises(CrlError, match="would bring back"):
        take_list(held, crl(Revocations(sequence=2)), [], MOMENT)


def test_a_list_of_a_new_signer_is_believed_by_the_chain_of_the_authority() -> None:
    held, _ = take_bundle(signed(), bundle(OLD.root, NEW.root, sequence=2), SOURCE, MOMENT)
    document = crl(Revocations(sequence=1), NEW)
    with pytest.raises(CrlError, match="no certificate that is known here"):
        take_list(held, document, [], MOMENT)
    held = take_list(held, document, [NEW.intermediate], MOMENT)
    assert judge(held).trust.revocations.snapshot == (held.listed.snapshot if held.listed else None)


def test_the_end_of_a_root_brings_nobody_back() -> None:
    held = take_list(signed(), crl(revoking(7)), [], MOMENT)
    held, _ = take_bundle(held, bundle(NEW.root, sequence=2), SOURCE, MOMENT)
    found = judge(held).trust.revocations
    assert found.snapshot is not None
    assert found.snapshot.table.serials == {7}


@pytest.mark.parametrize("policy", list(CrlPolicy))
def test_a_list_that_is_not_believed_any_more_does_not_hold_up_a_certificate(policy: CrlPolicy) -> None:
    held = take_list(signed(), crl(revoking(7)), [], MOMENT)
    assert held.listed is not None
    held = replace(held, listed=replace(held.listed, der=b"not a list"))
    found = judge(held, policy).trust.revocations
    assert found.snapshot is None
    assert "no X.509 CRL" in found.missing_at(MOMENT)
    assert found.holds_at(MOMENT) is (policy is CrlPolicy.WARN)


def test_a_key_that_does_not_fit_is_a_fault_of_the_whole_set() -> None:
    files = {**signed().files(), "tls.key": svid().key_pem()}
    source = EnrolledSource(url=SOURCE, trust_domain=DOMAIN, expected=ORDERS)
    with pytest.raises(ConfigError, match=r"https://authority: .*does not fit"):
        source.judge(files, MOMENT)


def test_news_are_what_costs_something_to_miss() -> None:
    first = take_list(signed(), crl(Revocations(sequence=1)), [], MOMENT)
    assert is_news(None, first, MOMENT)
    assert not is_news(first, first, MOMENT)
    assert is_news(first, signed(first), MOMENT)
    assert is_news(first, take_bundle(first, bundle(OLD.root, NEW.root, sequence=2), SOURCE, MOMENT)[0], MOMENT)
    assert is_news(first, take_list(first, crl(revoking(7)), [], MOMENT), MOMENT)
    assert is_news(replace(first, listed=None), first, MOMENT)


def test_a_list_signed_anew_is_news_at_half_of_its_time() -> None:
    first = take_list(signed(), crl(Revocations(sequence=1)), [], MOMENT)
    later = MOMENT + 3600
    again = take_list(first, crl(Revocations(sequence=1), at=NOW + datetime.timedelta(hours=1)), [], later)
    assert again != first
    assert not is_news(first, again, later)
    assert is_news(first, again, MOMENT + 13 * 3600)
