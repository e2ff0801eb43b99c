"""An issuer of JSON Web Tokens for end-to-end tests: keys, tokens, key sets, the RequestAuthentication that trusts it.

issuer = Issuer()
token = issuer.token(sub="alice")
policies = issuer.authentication() + "---\\n" + ALLOW_ALL
"""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from proxy.authn import CLOCK_SKEW

SKEW = CLOCK_SKEW
"""Seconds that a token counts beyond its `exp`."""


@functools.cache
def _key(kid: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Issuer:
    """Signs with one key, named by its `kid`."""

    def __init__(self, name: str = "https://issuer.example", *, kid: str = "one") -> None:
        self.name = name
        self.kid = kid

    def token(self, *, lives: float = 300.0, algorithm: str = "ES256", **claims: Any) -> str:
        """A token of this issuer for alice that counts for `lives` seconds more; `claims` replace or add."""
        exp = time.time() - SKEW + lives
        body = {"iss": self.name, "sub": "alice", "exp": exp, **claims}
        return jwt.encode(body, _key(self.kid), algorithm=algorithm, headers={"kid": self.kid})

    def jwk(self) -> dict[str, Any]:
        found: dict[str, Any] = ECAlgorithm.to_jwk(_key(self.kid).public_key(), as_dict=True)
        return {**found, "kid": self.kid, "use": "sig"}

    def key_set(self) -> str:
        """Its key set as JSON text."""
        return json.dumps({"keys": [self.jwk()]})

    def authentication(self, name: str = "tokens", **fields: Any) -> str:
        """A RequestAuthentication as text, in JSON, which is YAML; without `jwksUri` its keys stand in it."""
        rule = {"issuer": self.name, **fields}
        if "jwksUri" not in rule:
            rule["jwks"] = self.key_set()
        document = {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {"jwtRules": [rule]},
        }
        return json.dumps(document) + "\n"


def key_set_answer(text: str, *lines: str, status: str = "200 OK") -> bytes:
    """An HTTP answer that carries a key set."""
    head = "\r\n".join(
        [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(text)}", *lines, "", ""]
    )
    return (head + text).encode()
