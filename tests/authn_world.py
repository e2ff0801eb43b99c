"""Keys, tokens and request heads for the tests of JSON Web Tokens; keys are made once, tokens are built by hand.

A token is put together here byte by byte, not by the library that verifies it: so it can also be wrong in every way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from proxy.authn import Authenticated, Authentication, JwtRule, KeySet, parse_key_set
from proxy.protocol.fields import parse_field_line
from proxy.protocol.stream import RequestHead

ISSUER = "https://issuer.example"
NOW = 1_700_000_000.0

CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS = (*RSA_ALGORITHMS, *CURVES, "EdDSA")


@cache
def private_key(kind: str, name: str = "one") -> Any:
    """Give a private key of a kind ("RSA", "EdDSA" or an algorithm of elliptic curves), the same for the same name."""
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "EdDSA" else ec.generate_private_key(CURVES[kind])


def kind_of(algorithm: str) -> str:
    return "RSA" if algorithm in RSA_ALGORITHMS else algorithm


def signer(algorithm: str, name: str = "one") -> Callable[[bytes], bytes]:
    """Sign with an algorithm and the key of its kind."""
    key = private_key(kind_of(algorithm), name)
    return lambda data: jwt.get_algorithm_by_name(algorithm).sign(data, key)


def hmac_signer(secret: bytes, digest: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(secret, data, getattr(hashlib, digest)).digest()


@cache
def _public_jwk(kind: str, name: str) -> str:
    algorithm = jwt.get_algorithm_by_name("RS256" if kind == "RSA" else kind)
    return str(algorithm.to_jwk(private_key(kind, name).public_key()))


def jwk(kind: str, name: str = "one", **members: Any) -> dict[str, Any]:
    """Give the public key as a JSON Web Key, with further members."""
    fields: dict[str, Any] = json.loads(_public_jwk(kind, name))
    fields.pop("key_ops", None)
    return fields | members


def public_pem(kind: str, name: str = "one") -> bytes:
    key = private_key(kind, name).public_key()
    encoded: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def key_text(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def key_set(*keys: Mapping[str, Any]) -> KeySet:
    return parse_key_set(key_text(*keys))


def encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def raw_token(header: bytes, payload: bytes, sign: Callable[[bytes], bytes] = lambda data: b"signature") -> bytes:
    """Join a header and a payload, whatever they are, and sign them."""
    signed = encode(header) + b"." + encode(payload)
    return signed + b"." + encode(sign(signed))


def token(
    algorithm: str = "ES256",
    key: str = "one",
    *,
    header: Mapping[str, Any] | None = None,
    sign: Callable[[bytes], bytes] | None = None,
    **claims: Any,
) -> bytes:
    """Make a token of ISSUER for `alice` that lasts an hour; a claim of None is left out."""
    whole = {"iss": ISSUER, "sub": "alice", "exp": int(NOW) + 3600} | claims
    payload = {name: value for name, value in whole.items() if value is not None}
    fields = {"alg": algorithm} | dict(header or {})
    written = {name: value for name, value in fields.items() if value is not None}
    return raw_token(json.dumps(written).encode(), json.dumps(payload).encode(), sign or signer(algorithm, key))


def rule(**changes: Any) -> JwtRule:
    """Make a rule for ISSUER with the first ES256 key."""
    values: dict[str, Any] = {"issuer": ISSUER, "claim_headers": {}}
    if "jwks_uri" not in changes:
        values["keys"] = key_set(jwk("ES256"))
    return JwtRule(**(values | changes))


def head(*lines: bytes, query: bytes = b"", method: bytes = b"GET") -> RequestHead:
    """Make a request head of header lines."""
    return RequestHead(
        stream=1,
        method=method,
        target=b"/x" + query,
        path=b"/x",
        query=query,
        authority=b"orders.demo",
        version=b"1.1",
        fields=[parse_field_line(line, underscores=False) for line in lines],
        content_length=0,
        has_length=False,
        keep_alive=True,
        expects_continue=False,
        upgrade=b"",
    )


def bearer(carried: bytes) -> bytes:
    return b"Authorization: Bearer " + carried


def no_keys(uri: str) -> KeySet | None:
    return None


def judge(
    rules: Sequence[JwtRule] | JwtRule | Authentication,
    request: RequestHead | bytes,
    keys: Callable[[str], KeySet | None] = no_keys,
    now: float = NOW,
) -> Authenticated:
    """Judge a request (bytes: one with this token behind `Authorization: Bearer`) by rules."""
    if isinstance(rules, JwtRule):
        rules = [rules]
    authentication = rules if isinstance(rules, Authentication) else Authentication(rules)
    return authentication.authenticate(head(bearer(request)) if isinstance(request, bytes) else request, keys, now)
