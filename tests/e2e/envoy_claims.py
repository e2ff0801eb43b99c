"""Tokens of two issuers, and the RequestAuthentication that takes them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from envoy_rbac import Json

NAMESPACE: Final = "a"
"""Where the workload of these tests lives."""
ISSUER, OTHER_ISSUER = "https://id.example/realm", "robots"
CLAIMS: Final[Mapping[str, Json]] = {
    "alice": {
        "iss": ISSUER,
        "sub": "alice",
        "aud": ["orders", "shop"],
        "azp": "web",
        "scope": "read write",
        "groups": ["dev", "ops"],
        "level": 7,
        "admin": True,
        "realm": {"roles": ["buyer", "seller"], "name": "north", "deep": {"er": "x"}},
    },
    "bob": {"iss": ISSUER, "sub": "bob", "aud": "orders", "groups": "dev", "scope": "read", "level": "7"},
    "robot": {"iss": OTHER_ISSUER, "sub": "r2/d2", "permission": "a b", "groups": []},
    "nobody": {"iss": OTHER_ISSUER, "azp": "webshop"},
}


@functools.cache
def signing_key() -> ec.EllipticCurvePrivateKey:
    """The key of both issuers."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def token(name: str) -> str:
    """The token with the claims of that name."""
    return jwt.encode(dict(CLAIMS[name]), signing_key(), algorithm="ES256", headers={"kid": "k"})


@functools.cache
def key_set() -> str:
    """The keys of both issuers, as `jwks` has them."""
    key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(signing_key().public_key()))
    return json.dumps({"keys": [key | {"kid": "k", "alg": "ES256", "use": "sig"}]})


def jwt_rules() -> list[Json]:
    """`jwtRules` of both issuers."""
    issuers = (ISSUER, OTHER_ISSUER)
    return [{"issuer": issuer, "jwks": key_set(), "forwardOriginalToken": True} for issuer in issuers]


def request_authentication(rules: Sequence[Json]) -> Json:
    """A RequestAuthentication with these `jwtRules`."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": NAMESPACE},
        "spec": {"jwtRules": list(rules)},
    }
