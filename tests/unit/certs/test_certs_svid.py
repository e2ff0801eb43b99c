"""The rules of X.509-SVID on one certificate, and every broken certificate of certs.testing against them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.keys import describe_key, key_fault
from certs.profile import key_usage
from certs.spiffe import TrustDomain
from certs.svid import SvidError, Violation, leaf_violations, presented_name, signing_violations, spiffe_id_of
from certs.testing import BROKEN, INVALID_IDS, MemoryAuthority, with_uri
from proxy.errors import Reason

OF_THE_CHAIN = {
    "certificate_expired",
    "certificate_not_yet_valid",
    "issuer_unknown",
    "trust_domain_unknown",
    "root_of_other_trust_domain",
    "signature_invalid",
    "chain_invalid",
    "name_constraint_violated",
    "signing_certificate_invalid",
}
"""Reasons that no look at the leaf alone can find."""


def test_a_correct_leaf_breaks_no_rule(memory: MemoryAuthority) -> None:
    leaf = memory.svid("demo", "orders").leaf
    assert leaf_violations(leaf) == []
    assert str(spiffe_id_of(leaf)) == "spiffe://cluster.local/ns/demo/sa/orders"
    assert presented_name(leaf) == "spiffe://cluster.local/ns/demo/sa/orders"


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_leaf_is_named_first_by_its_reason(memory: MemoryAuthority, name: str) -> None:
    case = BROKEN[name]
    found = [finding.violation.value for finding in leaf_violations(case.make(memory).leaf)]
    if case.reason_word in OF_THE_CHAIN:
        assert found == []
    else:
        assert found[0] == case.reason_word


@pytest.mark.parametrize("name", BROKEN)
def test_every_broken_case_speaks_the_words_of_the_proxy(name: str) -> None:
    case = BROKEN[name]
    assert Reason(case.reason_word).consequence.alert == case.alert
    assert case.description


@pytest.mark.parametrize("violation", Violation)
def test_every_violation_is_a_reason_and_says_what_to_do(violation: Violation) -> None:
    assert Reason(violation.value).word == violation.value
    assert violation.rule
    assert violation.text
    assert violation.mend


def test_every_violation_has_a_broken_certificate() -> None:
    assert {violation.value for violation in Violation} <= {case.reason_word for case in BROKEN.values()}


def test_all_broken_rules_are_listed(memory: MemoryAuthority) -> None:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    leaf = memory.svid("demo", "orders", uris=(), key_usage=None, extended_key_usage=purposes, key="rsa-1024").leaf
    assert [finding.rule for finding in leaf_violations(leaf)] == ["L1", "L6", "L9", "K1"]


def test_an_extension_that_cannot_be_decoded_is_told_beside_the_name(memory: MemoryAuthority) -> None:
    no_purpose = x509.ExtendedKeyUsage([])  # RFC 5280 section 4.2.1.12 asks for at least one
    leaf = memory.svid("demo", "orders", uris=(), extended_key_usage=no_purpose).leaf
    assert [finding.rule for finding in leaf_violations(leaf)] == ["L1", "M1"]


def test_l1_other_names_beside_the_one_uri_are_legal(memory: MemoryAuthority) -> None:
    assert leaf_violations(memory.svid("demo", "orders", dns_names=(b"orders", b"orders.demo.svc")).leaf) == []


def test_l1_two_subject_alt_names_are_malformed(memory: MemoryAuthority) -> None:
    # The builder refuses a second one, so an extension of the same length is renamed in the finished certificate.
    twin = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"\x30\x03\x86\x01a")
    leaf = memory.svid("demo", "orders", extensions=((twin, False),)).leaf
    der = leaf.public_bytes(Encoding.DER)
    assert der.count(b"\x55\x1d\x63") == 1
    doubled = x509.load_der_x509_certificate(der.replace(b"\x55\x1d\x63", b"\x55\x1d\x11"))
    assert [finding.violation for finding in leaf_violations(doubled)] == [Violation.CERTIFICATE_MALFORMED]
    with pytest.raises(SvidError):
        spiffe_id_of(doubled)


def test_l4_a_name_that_is_not_critical_is_legal_beside_a_subject(memory: MemoryAuthority) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders")])
    assert leaf_violations(memory.svid("demo", "orders", san_critical=False, subject=subject).leaf) == []


def test_l5_basic_constraints_may_be_absent_from_a_leaf(memory: MemoryAuthority) -> None:
    assert leaf_violations(memory.svid("demo", "orders", ca=None).leaf) == []


def test_l8_key_encipherment_and_agreement_are_legal(memory: MemoryAuthority) -> None:
    usage = x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_agreement=True,
        content_commitment=False,
        data_encipherment=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    assert leaf_violations(memory.svid("demo", "orders", key_usage=usage).leaf) == []


def test_l9_extended_key_usage_may_be_absent(memory: MemoryAuthority) -> None:
    assert leaf_violations(memory.svid("demo", "orders", extended_key_usage=None).leaf) == []


def test_l9_any_purpose_is_not_both_ends_of_tls(memory: MemoryAuthority) -> None:
    anything = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    findings = leaf_violations(memory.svid("demo", "orders", extended_key_usage=anything).leaf)
    assert [finding.violation for finding in findings] == [Violation.EXTENDED_KEY_USAGE_LACKING]


def test_l10_a_signer_is_no_peer_and_that_is_said_first(memory: MemoryAuthority) -> None:
    for signer in (memory.intermediate, memory.root):
        assert leaf_violations(signer)[0].violation is Violation.LEAF_IS_CA


@pytest.mark.parametrize("name", INVALID_IDS)
def test_an_invalid_id_is_shown_on_one_printable_line(memory: MemoryAuthority, name: str) -> None:
    leaf = with_uri(INVALID_IDS[name])(memory).leaf
    shown = presented_name(leaf)
    assert shown.isprintable()
    assert shown.isascii()
    assert len(shown) <= 256
    assert all(str(finding).isprintable() for finding in leaf_violations(leaf))
    with pytest.raises(SvidError):
        spiffe_id_of(leaf)


def test_the_bytes_that_were_signed_are_shown(memory: MemoryAuthority) -> None:
    leaf = with_uri(b"spiffe://td/a\x00b\n\xff")(memory).leaf
    assert presented_name(leaf) == "spiffe://td/a\\x00b\\n\\xff"


def test_what_a_certificate_without_uri_claims_is_its_subject_or_nothing(memory: MemoryAuthority) -> None:
    assert presented_name(BROKEN["no_subject_alt_name"].make(memory).leaf) == "subject CN=orders"
    assert presented_name(BROKEN["dns_name_with_spiffe_text"].make(memory).leaf) == ""


def test_signers_of_the_authority_may_sign(memory: MemoryAuthority) -> None:
    for signer in (memory.intermediate, memory.root):
        assert signing_violations(signer, memory.trust_domain) == []


@pytest.mark.parametrize(
    ("overrides", "detail"),
    [
        ({"ca": False}, "CA:TRUE"),
        ({"ca": None}, "CA:TRUE"),
        ({"key_usage": None}, "there is no keyUsage"),
        ({"key_usage": key_usage(digital_signature=True)}, "keyCertSign"),
        ({"key_usage_critical": False}, "not critical"),
        ({"uris": (b"spiffe://cluster.local/ns/demo/sa/orders",)}, "has a path"),
        ({"uris": (b"spiffe://Cluster.Local",)}, "invalid"),
    ],
)
def test_signing_rules(memory: MemoryAuthority, overrides: dict[str, object], detail: str) -> None:
    good: dict[str, object] = {"ca": True, "key_usage": key_usage(key_cert_sign=True), "uris": ()}
    assert signing_violations(memory.svid("demo", "signer", **good).leaf, memory.trust_domain) == []
    findings = signing_violations(memory.svid("demo", "signer", **(good | overrides)).leaf, memory.trust_domain)
    assert [finding.violation for finding in findings] == [Violation.SIGNING_CERTIFICATE_INVALID]
    assert detail in findings[0].detail


def test_a_signer_may_be_named_after_another_trust_domain(memory: MemoryAuthority) -> None:
    assert signing_violations(memory.intermediate, TrustDomain("other.example")) == []


def test_a_signer_needs_a_strong_key_too(memory: MemoryAuthority) -> None:
    weak = memory.svid("demo", "signer", ca=True, key_usage=key_usage(key_cert_sign=True), uris=(), key="rsa-1024")
    assert [finding.violation for finding in signing_violations(weak.leaf, memory.trust_domain)] == [
        Violation.KEY_TOO_WEAK
    ]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_keys_on_nist_curves_are_strong_enough(curve: ec.EllipticCurve) -> None:
    assert key_fault(ec.generate_private_key(curve).public_key()) is None


def test_ed25519_and_rsa_2048_are_strong_enough(memory: MemoryAuthority) -> None:
    assert key_fault(ed25519.Ed25519PrivateKey.generate().public_key()) is None
    assert key_fault(memory.key("rsa-2048").public_key()) is None
    assert leaf_violations(memory.svid("demo", "old", key="rsa-2048").leaf) == []


def test_other_keys_are_refused() -> None:
    weak = (
        rsa.generate_private_key(public_exponent=65537, key_size=1024),
        ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate(),
        dsa.generate_private_key(key_size=1024),
    )
    for key in weak:
        assert key_fault(key.public_key()) is not None
        assert describe_key(key.public_key())
