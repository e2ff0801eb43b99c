"""Why OpenSSL refused a chain, in our words."""

from __future__ import annotations

import functools

import pytest

from certs.testing import BROKEN, MemoryAuthority
from proxy.errors import Reason
from proxy.identity.failures import judge_failure, reason_for_openssl
from proxy.identity.verify import Rejection, Trust, Usage


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


def judge(name: str, number: int, depth: int = 0, *, text: str = "words of OpenSSL") -> Rejection:
    chain = BROKEN[name].make(memory()).chain if name else ()
    trust = Trust.of(memory().trust_domain, memory().bundles)
    return judge_failure(number, text, depth, chain, trust=trust, usage=Usage.CLIENT)


@pytest.mark.parametrize(
    ("number", "leaf", "signer"),
    [
        (2, Reason.ISSUER_UNKNOWN, Reason.ISSUER_UNKNOWN),
        (7, Reason.SIGNATURE_INVALID, Reason.SIGNATURE_INVALID),
        (9, Reason.CERTIFICATE_NOT_YET_VALID, Reason.CERTIFICATE_NOT_YET_VALID),
        (10, Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_EXPIRED),
        (18, Reason.ISSUER_UNKNOWN, Reason.ISSUER_UNKNOWN),
        (19, Reason.ISSUER_UNKNOWN, Reason.ISSUER_UNKNOWN),
        (20, Reason.ISSUER_UNKNOWN, Reason.ISSUER_UNKNOWN),
        (22, Reason.CHAIN_TOO_LONG, Reason.CHAIN_TOO_LONG),
        (25, Reason.CHAIN_INVALID, Reason.CHAIN_INVALID),
        (26, Reason.EXTENDED_KEY_USAGE_LACKING, Reason.SIGNING_CERTIFICATE_INVALID),
        (32, Reason.CHAIN_INVALID, Reason.SIGNING_CERTIFICATE_INVALID),
        (47, Reason.NAME_CONSTRAINT_VIOLATED, Reason.NAME_CONSTRAINT_VIOLATED),
        (66, Reason.KEY_TOO_WEAK, Reason.KEY_TOO_WEAK),
        (79, Reason.LEAF_IS_CA, Reason.SIGNING_CERTIFICATE_INVALID),
        (82, Reason.LEAF_MAY_SIGN_CERTIFICATES, Reason.CHAIN_INVALID),
        (88, Reason.SAN_NOT_CRITICAL, Reason.CHAIN_INVALID),
        (99999, Reason.CHAIN_INVALID, Reason.CHAIN_INVALID),
    ],
)
def test_each_number_has_a_reason_by_depth(number: int, leaf: Reason, signer: Reason) -> None:
    assert reason_for_openssl(number, 0) is leaf
    assert reason_for_openssl(number, 1) is signer


@pytest.mark.parametrize("number", range(1, 100))
@pytest.mark.parametrize("depth", [0, 1])
def test_every_number_refuses_with_an_alert(number: int, depth: int) -> None:
    assert reason_for_openssl(number, depth).consequence.alert


def test_an_unknown_trust_domain_is_said_rather_than_an_unknown_issuer() -> None:
    assert judge("unknown_trust_domain", 20).reason is Reason.TRUST_DOMAIN_UNKNOWN
    assert judge("foreign_root", 20).reason is Reason.ISSUER_UNKNOWN


def test_the_broken_rule_is_said_rather_than_a_coarse_word() -> None:
    rejection = judge("leaf_is_ca", 26)
    assert rejection.reason is Reason.LEAF_IS_CA
    assert "words of OpenSSL" not in rejection.message
    signer = judge("signed_by_ca_without_cert_sign", 32, 1)
    assert signer.reason is Reason.SIGNING_CERTIFICATE_INVALID
    assert "keyCertSign" in signer.explanation
    assert "signing certificate 1" in signer.explanation


def test_an_exact_word_stands() -> None:
    assert judge("two_uris_distinct", 7).reason is Reason.SIGNATURE_INVALID
    expired = judge("expired", 10, text="certificate has expired")
    assert expired.reason is Reason.CERTIFICATE_EXPIRED
    assert "valid from" in expired.explanation
    assert "certificate has expired" in expired.explanation


def test_an_undecodable_leaf_is_not_blamed_on_its_issuer() -> None:
    assert judge("malformed_san", 20).reason is Reason.CERTIFICATE_MALFORMED


@pytest.mark.parametrize("number", [1, 10, 20, 26])
def test_no_chain_at_all_is_no_exception(number: int) -> None:
    rejection = judge("", number)
    assert rejection.presented == ""
    assert "no name that can be read" in rejection.message


@pytest.mark.parametrize("depth", [0, 1, 7])
@pytest.mark.parametrize("name", sorted(BROKEN))
def test_no_certificate_makes_it_raise(name: str, depth: int) -> None:
    assert judge(name, 41, depth).message.isprintable()
