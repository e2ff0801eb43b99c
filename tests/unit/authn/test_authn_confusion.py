"""Tokens that try to choose how they are verified: by another algorithm, by a key that they bring, by a `kid`."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from authn_world import (
    ALGORITHMS,
    ISSUER,
    NOW,
    encode,
    hmac_signer,
    judge,
    jwk,
    key_set,
    key_text,
    kind_of,
    private_key,
    public_pem,
    raw_token,
    rule,
    signer,
    token,
)
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.authn import Authentication
from proxy.errors import Reason

EVERY_KEY = key_set(*(jwk(kind, kid=kind) for kind in ("RSA", "ES256", "ES384", "ES512", "EdDSA")))
PEM = public_pem("RSA")
DER = (
    private_key("RSA")
    .public_key()
    .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
)


def failure(carried: bytes, **changes: Any) -> Reason | None:
    found = judge(rule(keys=EVERY_KEY, **changes), carried)
    assert found.token is None
    return found.failure


def test_the_set_verifies_what_is_signed_honestly() -> None:
    for algorithm in ALGORITHMS:
        assert judge(rule(keys=EVERY_KEY), token(algorithm)).token is not None


@pytest.mark.parametrize("digest", ["256", "384", "512"])
@pytest.mark.parametrize(
    "secret",
    [PEM, PEM.strip(), PEM.decode().replace("\n", "\r\n").encode(), DER, base64.b64encode(DER), key_text(jwk("RSA")),
     json.dumps(jwk("RSA")).encode(), jwk("RSA")["n"].encode(), b"", b"\0"],
    ids=range(10),
)  # fmt: skip
def test_an_hmac_keyed_with_the_public_key_is_refused(digest: str, secret: bytes) -> None:
    sign = hmac_signer(secret, f"sha{digest}")
    for kid in ({}, {"kid": "RSA"}):
        assert failure(token(f"HS{digest}", header=kid, sign=sign)) is Reason.TOKEN_ALGORITHM_REFUSED
        for algorithm in ("RS256", "PS256", "ES256", "EdDSA"):
            assert failure(token(algorithm, sign=sign)) is Reason.TOKEN_SIGNATURE_INVALID


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", " none", "none\0", ""])
@pytest.mark.parametrize("signature", [b"", b"\0", b"none"])
def test_unsigned_tokens_are_refused(algorithm: str, signature: bytes) -> None:
    carried = token(algorithm, sign=lambda data: signature)
    expected = Reason.TOKEN_ALGORITHM_REFUSED if signature else Reason.TOKEN_MALFORMED
    assert failure(carried) is expected
    assert failure(carried + b".") is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("signed_with", ALGORITHMS)
def test_a_signature_of_one_algorithm_is_none_of_another(signed_with: str) -> None:
    for claimed in set(ALGORITHMS) - {signed_with}:
        for header in ({}, {"kid": kind_of(signed_with)}, {"kid": kind_of(claimed)}):
            found = failure(token(claimed, header=header, sign=signer(signed_with)))
            assert found in (Reason.TOKEN_SIGNATURE_INVALID, Reason.TOKEN_KEY_UNKNOWN)


def test_a_token_finds_no_key_of_another_type() -> None:
    only_rsa, only_curve = rule(keys=key_set(jwk("RSA"))), rule(keys=key_set(jwk("ES256")))
    assert judge(only_rsa, token("ES256")).failure is Reason.TOKEN_KEY_UNKNOWN
    assert judge(only_curve, token("RS256")).failure is Reason.TOKEN_KEY_UNKNOWN
    assert judge(only_curve, token("ES384")).failure is Reason.TOKEN_KEY_UNKNOWN


def test_a_key_with_an_algorithm_verifies_no_other_of_its_type() -> None:
    pinned = rule(keys=key_set(jwk("RSA", alg="PS256")))
    assert judge(pinned, token("PS256")).token is not None
    for algorithm in ("RS256", "RS512", "PS512"):
        assert judge(pinned, token(algorithm)).failure is Reason.TOKEN_KEY_UNKNOWN


def test_a_key_that_the_token_brings_is_not_looked_at() -> None:
    brought = jwk("ES256", "attacker", kid="attacker")
    for header in (
        {"jwk": brought},
        {"jwk": brought, "kid": "attacker"},
        {"jku": "https://attacker.example/jwks.json", "kid": "ES256"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": [base64.b64encode(DER).decode()]},
        {"x5t": "AAAA", "x5t#S256": "AAAA"},
    ):
        found = failure(token("ES256", "attacker", header=header))
        assert found in (Reason.TOKEN_SIGNATURE_INVALID, Reason.TOKEN_KEY_UNKNOWN)
        honest = token("ES256", header={name: value for name, value in header.items() if name != "kid"})
        assert judge(rule(keys=EVERY_KEY), honest).token is not None


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "/dev/null", "' OR '1'='1", "ES256\0", "es256", " ES256", "http://attacker.example/k", "*",
     "0", "x" * 8000, "\r\nx: y", "${jndi:ldap://x}", "ключ"],
)  # fmt: skip
def test_a_kid_is_compared_and_nothing_else(kid: str) -> None:
    found = judge(rule(keys=EVERY_KEY), token("ES256", header={"kid": kid}))
    assert found.failure is Reason.TOKEN_KEY_UNKNOWN
    assert found.explanation.isprintable()
    assert len(found.explanation) < 300


def test_a_header_that_says_two_things_is_refused() -> None:
    payload = json.dumps({"iss": ISSUER}).encode()
    for header in (
        b'{"alg":"none","alg":"ES256"}',
        b'{"alg":"ES256","alg":"none"}',
        b'{"alg":"ES256","kid":"a","kid":"b"}',
    ):
        assert failure(raw_token(header, payload, signer("ES256"))) is Reason.TOKEN_MALFORMED
    twice = b'{"iss":"%b","sub":"alice","sub":"admin"}' % ISSUER.encode()
    assert failure(raw_token(b'{"alg":"ES256"}', twice, signer("ES256"))) is Reason.TOKEN_MALFORMED


def test_an_elliptic_signature_in_der_is_refused() -> None:
    key: ec.EllipticCurvePrivateKey = private_key("ES256")
    carried = token("ES256", sign=lambda data: key.sign(data, ec.ECDSA(hashes.SHA256())))
    assert failure(carried) is Reason.TOKEN_SIGNATURE_INVALID


def test_the_second_spelling_of_a_signature_is_another_token_and_no_third_is_taken() -> None:
    """(r, n - s) verifies too: such a pair is two tokens, not one, and is remembered as two."""
    authentication = Authentication([rule()])
    first, second = token(), token()
    assert first != second
    assert judge(authentication, first).token == judge(authentication, second).token
    head, payload, signature = first.split(b".")
    for changed in (signature + b"A", signature[:-1], encode(b"\0" + base64.urlsafe_b64decode(signature + b"=="))):
        assert judge(authentication, b".".join((head, payload, changed))).token is None


def test_a_token_inside_a_token_does_not_count() -> None:
    inner = token().decode()
    carried = raw_token(b'{"alg":"ES256","cty":"JWT"}', json.dumps(inner).encode(), signer("ES256"))
    assert failure(carried) is Reason.TOKEN_MALFORMED


def test_encrypted_tokens_are_refused() -> None:
    assert failure(b".".join([encode(b'{"alg":"dir","enc":"A128GCM"}'), b"", b"aa", b"aa", b"aa"])) is (
        Reason.TOKEN_MALFORMED
    )


def test_the_clock_is_the_argument() -> None:
    assert judge(rule(), token(exp=100), now=50).token is not None
    assert judge(rule(), token(exp=NOW + 10), now=NOW + 100).failure is Reason.TOKEN_EXPIRED
