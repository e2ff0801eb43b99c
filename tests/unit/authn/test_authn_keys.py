"""A JSON Web Key Set: which keys count, for which algorithms, and what is refused whole."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from authn_world import CURVES, RSA_ALGORITHMS, encode, jwk, key_set, key_text, private_key
from cryptography.hazmat.primitives.asymmetric import ed448, rsa

from proxy.authn import parse_key_set
from proxy.authn.keys import ALGORITHMS, MAX_KEYS


def problem(data: bytes) -> str:
    with pytest.raises(ValueError, match=r"\w") as raised:
        parse_key_set(data)
    return str(raised.value)


def skipped(**members: Any) -> str:
    """Read a set of a good key and one that should be left out, and say why it was."""
    keys = key_set(jwk("ES256"), jwk("RSA", **members))
    assert len(keys.keys) == 1
    return keys.skipped[0]


@pytest.mark.parametrize("algorithm", [*CURVES, "EdDSA"])
def test_a_key_of_a_curve_verifies_the_algorithm_of_the_curve_alone(algorithm: str) -> None:
    (key,) = key_set(jwk(algorithm, kid="k")).keys
    assert (key.kid, key.algorithms) == ("k", frozenset({algorithm}))


def test_an_rsa_key_verifies_the_algorithms_of_rsa_or_its_own() -> None:
    assert key_set(jwk("RSA")).keys[0].algorithms == set(RSA_ALGORITHMS)
    assert key_set(jwk("RSA", alg="PS384")).keys[0].algorithms == {"PS384"}


def test_none_and_hmac_are_no_algorithms() -> None:
    assert not [name for name in ALGORITHMS if name.lower() == "none" or name.startswith("HS")]


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
def test_a_private_member_refuses_the_set(member: str) -> None:
    found = problem(key_text(jwk("ES256"), jwk("RSA", **{member: "AQAB"})))
    assert found.startswith(f"key 1 is a private key (it has `{member}`)")


@pytest.mark.parametrize("kind", ["RSA", "ES256", "EdDSA"])
def test_a_whole_private_key_is_refused_and_not_shown(kind: str) -> None:
    name = "RS256" if kind == "RSA" else kind
    private = json.loads(jwt.get_algorithm_by_name(name).to_jwk(private_key(kind)))
    found = problem(key_text(private))
    assert "is a private key" in found
    assert private["d"] not in found


def test_a_symmetric_key_refuses_the_set_even_without_its_secret() -> None:
    assert "is symmetric" in problem(key_text(jwk("ES256"), {"kty": "oct"}))
    assert "is symmetric" in problem(key_text({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}))


def test_what_cannot_verify_is_left_out_and_said() -> None:
    assert skipped(use="enc") == 'key 1 is left out: `use` is "enc", not sig'
    assert skipped(key_ops=["encrypt"]) == "key 1 is left out: `key_ops` has no verify"
    assert skipped(key_ops="verify") == "key 1 is left out: `key_ops` has no verify"
    assert skipped(alg="HS256") == 'key 1 is left out: `alg` is "HS256", which this key cannot verify'
    assert skipped(alg="none") == 'key 1 is left out: `alg` is "none", which this key cannot verify'
    assert skipped(alg="ES256") == 'key 1 is left out: `alg` is "ES256", which this key cannot verify'
    assert skipped(alg="RSA-OAEP", use="enc").endswith("not sig")
    assert skipped(alg=["RS256"]).endswith("`alg` is not text, which this key cannot verify")
    assert skipped(kid=7) == "key 1 is left out: `kid` is not text"
    assert skipped(n=None) == "key 1 is left out: `n` is missing or not text"
    assert skipped(n=5) == "key 1 is left out: `n` is missing or not text"
    assert "its numbers are no key" in skipped(n="AQAB")
    assert "its numbers are no key" in skipped(e="AA")
    assert "kty missing" in skipped(kty=None)
    assert 'kty "EC", crv "P-224"' in skipped(kty="EC", crv="P-224")
    assert 'kty "EC", crv "secp256k1"' in skipped(kty="EC", crv="secp256k1")
    assert 'kty "OKP", crv "X25519"' in skipped(kty="OKP", crv="X25519")


@pytest.mark.parametrize("operations", [["verify"], ["sign", "verify"]])
def test_key_operations_with_verify_are_taken(operations: list[str]) -> None:
    assert len(key_set(jwk("ES256", key_ops=operations, use="sig")).keys) == 1


def test_a_point_off_its_curve_is_left_out() -> None:
    good = jwk("ES256")
    keys = key_set(good, good | {"x": good["y"]}, good | {"x": encode(b"\1" * 31).decode()})
    assert len(keys.keys) == 1
    assert all("its numbers are no key" in why for why in keys.skipped)


def test_rsa_keys_that_are_weak_or_slow_are_left_out() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    numbers = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(weak.public_key()))
    assert problem(key_text(numbers)).endswith("an RSA key of 1024 bits; 2048 to 8192 are taken)")
    large = encode(((1 << 8200) + 1).to_bytes(1100, "big").lstrip(b"\0")).decode()
    assert "an RSA key of 8201 bits" in problem(key_text(jwk("RSA", n=large)))


def test_ed448_is_left_out() -> None:
    public = ed448.Ed448PrivateKey.generate().public_key()
    numbers = json.loads(jwt.get_algorithm_by_name("EdDSA").to_jwk(public))
    assert 'crv "Ed448"' in problem(key_text(numbers))


def test_certificates_and_urls_in_a_key_are_not_looked_at() -> None:
    (key,) = key_set(jwk("ES256", x5c=["AAAA"], x5u="https://evil.example", x5t="x")).keys
    assert key.algorithms == {"ES256"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff", "it is not UTF-8"),
        (b"[]", "it is not a JSON object"),
        (b'"keys"', "it is not a JSON object"),
        (b"{}", "it has no list `keys`"),
        (b'{"keys": {}}', "it has no list `keys`"),
        (b'{"keys": []}', "it has no usable key"),
        (b'{"keys": [1, "x", null]}', "it has no usable key (key 0 is left out: it is not a JSON object;"),
        (b'{"keys": [], "keys": []}', "the member 'keys' stands there twice"),
        (b'{"keys": NaN}', "NaN is no JSON"),
        (b"[" * 5000, "it is nested too deeply"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "it has more than 32 levels"),
        (b"-----BEGIN PUBLIC KEY-----", "it is not JSON"),
    ],
)
def test_what_is_no_key_set(data: bytes, expected: str) -> None:
    assert problem(data).startswith(expected)


def test_the_number_of_keys_is_bounded() -> None:
    one = jwk("ES256")
    assert len(key_set(*[one] * MAX_KEYS).keys) == MAX_KEYS
    assert problem(key_text(*[one] * (MAX_KEYS + 1))) == f"it has {MAX_KEYS + 1} keys, more than {MAX_KEYS}"


def test_the_digest_is_that_of_the_content_and_not_of_its_spelling() -> None:
    one, two = jwk("ES256", kid="a"), jwk("ES256", "two", kid="a")
    spelled = json.dumps({"keys": [dict(reversed(one.items()))]}, indent=3).encode()
    assert key_set(one).digest == parse_key_set(spelled).digest
    assert key_set(one).digest != key_set(two).digest
    assert key_set(one).digest != key_set(one | {"kid": "b"}).digest
