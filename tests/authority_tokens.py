"""Makes the tokens that tests/corpus/authority/tokens.yaml describes, right and wrong, and what a cluster says of them.

    token = token_of(row, now)            # as its bearer sends it
    KEY_SET                               # what the cluster publishes
    review_of(row, now)                   # the `status` of the API server's TokenReview, None when it does not vouch

Keys are made once. What no library signs is put together by hand.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.callers.tokenreview import NODE_NAME, POD_NAME, POD_UID

ISSUER: Final = "https://kubernetes.default.svc"
AUDIENCE: Final = "remora-authority"
NAMESPACE, ACCOUNT, POD, NODE = "demo", "orders", "orders-7d9f", "node-a"
ACCOUNT_UID, POD_UID_VALUE = "5-a", "7-a"
TIMES: Final = ("exp", "iat", "nbf")

RSA_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY: Final = ec.generate_private_key(ec.SECP256R1())
ENCRYPTION_KEY: Final = ec.generate_private_key(ec.SECP256R1())
STRANGER: Final = ec.generate_private_key(ec.SECP256R1())

Row = Mapping[str, Any]


def public_jwk(key: Any, **members: str) -> dict[str, Any]:
    """Writes the public half of a key as a JWK."""
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "use": "sig", **members}


def key_set() -> bytes:
    """Writes what the cluster publishes: a key of each kind, one that is not for signatures, one that is too short."""
    keys = [
        public_jwk(RSA_KEY, kid="rsa"),
        public_jwk(EC_KEY, kid="ec"),
        public_jwk(RSA_KEY, kid="rsa-256-only", alg="RS256"),
        public_jwk(ENCRYPTION_KEY, kid="encryption", use="enc"),
        public_jwk(WEAK_KEY, kid="weak"),
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
    ]
    return json.dumps(
        {"keys": [{name: value for name, value in key.items() if name != "key_ops"} for key in keys]}
    ).encode()


KEY_SET: Final = key_set()


def encode(data: bytes) -> str:
    """Writes base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**values, **changes}.items() if value != "absent"}


def claims_of(row: Row, now: float) -> dict[str, Any]:
    """Gives the claims of a row: those of a good token, changed; times are seconds from now."""
    bound = {
        "namespace": NAMESPACE,
        "serviceaccount": {"name": ACCOUNT, "uid": ACCOUNT_UID},
        "pod": {"name": POD, "uid": POD_UID_VALUE},
        "node": {"name": NODE, "uid": "9-a"},
    }
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
        "iat": -60,
        "nbf": -60,
        "exp": 3540,
        "kubernetes.io": _changed(bound, row.get("bound", {})),
    }
    claims = _changed(good, {name: stretched(value) for name, value in row.get("claims", {}).items()})
    for name in TIMES:
        if type(claims.get(name)) is int:
            claims[name] += int(now)
    return claims


def stretched(value: Any) -> Any:
    """Repeats a text that is written as {text, times}."""
    return value["text"] * value["times"] if isinstance(value, dict) and "times" in value else value


def token_of(row: Row, now: float) -> str:
    """Makes the token of a row."""
    if "token" in row:
        return str(stretched(row["token"]))
    header = json.dumps(_changed({"alg": "ES256", "kid": "ec", "typ": "JWT"}, row.get("header", {}))).encode()
    claims = json.dumps(claims_of(row, now)).encode()
    for part, text in row.get("raw", {}).items():
        raw = str(stretched(text)).encode("latin-1")
        header, claims = (raw, claims) if part == "header" else (header, raw)
    signed = f"{encode(header)}.{encode(claims)}"
    token = f"{signed}.{encode(SIGNERS[row.get('signed', 'ec')](signed.encode()))}"
    return SPOILS[row["spoilt"]](token) if "spoilt" in row else token


def review_of(row: Row, now: float) -> dict[str, Any] | None:
    """Gives the status of the TokenReview for a row; None: the API server does not know the token."""
    if not row.get("vouched", True):
        return None
    claims = claims_of(row, now)
    user = {
        "username": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
        "uid": ACCOUNT_UID,
        "extra": {POD_NAME: [POD], POD_UID: [POD_UID_VALUE], NODE_NAME: [NODE]},
    }
    audiences = claims.get("aud", [ISSUER])
    good = {"authenticated": True, "audiences": [audiences] if isinstance(audiences, str) else audiences, "user": user}
    return _changed(good, row.get("review", {}))


def pod_of(row: Row) -> dict[str, Any] | None:
    """Gives the pod as the API server has it; None: it is gone."""
    changes = row.get("pod", {})
    if changes == "gone":
        return None
    metadata = _changed({"uid": POD_UID_VALUE}, changes.get("metadata", {}))
    spec = _changed({"serviceAccountName": ACCOUNT, "nodeName": NODE}, changes.get("spec", {}))
    return {"metadata": metadata, "spec": spec, "status": {"phase": changes.get("phase", "Running")}}


def account_of(row: Row) -> dict[str, Any] | None:
    """Gives the ServiceAccount as the API server has it; None: it is gone."""
    return None if row.get("account") == "gone" else {"metadata": {"uid": row.get("account", ACCOUNT_UID)}}


def _by(key: Any, algorithm: str) -> Callable[[bytes], bytes]:
    return lambda signed: jwt.get_algorithm_by_name(algorithm).sign(signed, key)


def _secret_is(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(secret, signed, hashlib.sha256)


def _public(key: Any, encoding: Encoding) -> bytes:
    public: bytes = key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return public


SIGNERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "ec": _by(EC_KEY, "ES256"),
    "rsa": _by(RSA_KEY, "RS256"),
    "rsa_512": _by(RSA_KEY, "RS512"),
    "pss": _by(RSA_KEY, "PS256"),
    "weak": _by(WEAK_KEY, "RS256"),
    "encryption_key": _by(ENCRYPTION_KEY, "ES256"),
    "stranger": _by(STRANGER, "ES256"),
    "ed25519": ed25519.Ed25519PrivateKey.generate().sign,
    "nobody": lambda signed: b"",
    "ec_public_key_as_secret": _secret_is(_public(EC_KEY, Encoding.PEM)),
    "rsa_public_key_as_secret": _secret_is(_public(RSA_KEY, Encoding.PEM)),
    "rsa_public_der_as_secret": _secret_is(_public(RSA_KEY, Encoding.DER)),
    "zeros": lambda signed: bytes(64),
}
"""How a token is signed: what is signed -> the signature."""


def _last(token: str, change: Callable[[int], int]) -> str:
    """Changes the bits of the last character; a signature of 64 bytes leaves its lower four unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[change(alphabet.index(token[-1]))]


def _part(number: int, change: Callable[[str], str]) -> Callable[[str], str]:
    def spoil(token: str) -> str:
        parts = token.split(".")
        parts[number] = change(parts[number])
        return ".".join(parts)

    return spoil


SPOILS: Final[Mapping[str, Callable[[str], str]]] = {
    "one_bit_of_the_signature": _part(2, lambda text: ("B" if text[0] == "A" else "A") + text[1:]),
    "unused_bits_of_the_signature": lambda token: _last(token, lambda bits: bits ^ 1),
    "signature_cut_by_one": lambda token: token[:-1],
    "signature_cut_by_two": lambda token: token[:-2],
    "no_signature": lambda token: token.rpartition(".")[0] + ".",
    "two_parts": lambda token: token.rpartition(".")[0],
    "five_parts": lambda token: f"{token}.AAAA.AAAA",
    "cut_in_the_claims": _part(1, lambda text: text[:-5]),
    "padded": _part(1, lambda text: text + "=="),
    "of_the_other_alphabet": _part(2, lambda text: text[:-2] + "+/"),
    "bearer_before_it": lambda token: "Bearer:" + token,
    "claims_of_another": _part(
        1, lambda text: encode(json.dumps({"iss": ISSUER, "sub": "system:serviceaccount:demo:admin"}).encode())
    ),
}
"""What is done to a token after it was signed."""
