"""Verifies a projected ServiceAccount token offline, against the public keys that the cluster publishes (OIDC).

No question goes to the API server, so this works while it is away. The price: a token is believed until it ends even
when its pod or its ServiceAccount was deleted; `certs.callers.pods` closes that gap where the API can be asked.

Which algorithm verifies is decided by the key and never by the token alone: an RSA key verifies RS256, RS384 and
RS512, a P-256 key ES256, P-384 ES384, P-521 ES512. So a token with `alg: HS256`, whose secret would be our public
key, or `alg: none` finds no key that may verify it (RFC 8725 section 3.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certs.caller import Caller
from certs.callers.claims import (
    MAX_LIFETIME,
    caller_of,
    check_audience,
    check_header,
    check_times,
    read_claims,
)
from certs.refusals import Refusal, Refused
from certs.spiffe import TrustDomain

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_MIN_RSA_BITS: Final = 2048
_MAX_KEYS: Final = 100


class KeySetError(ValueError):
    """A document that is no usable JWK Set of a cluster; the message names what is wrong and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """One public key of the cluster and the algorithms that it may verify."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = field(repr=False)
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcRules:
    """What a token must satisfy: who issued it, for whom it is, and the keys by their `kid`.

    `max_lifetime` (seconds) bounds exp - iat. `allow_without_pod` takes tokens that are bound to no pod, which
    `kubectl create token` makes: for laboratories.
    """

    trust_domain: TrustDomain
    issuer: str
    audience: str
    keys: Mapping[str, VerificationKey]
    max_lifetime: float = MAX_LIFETIME
    allow_without_pod: bool = False


def parse_keys(document: bytes, source: str) -> Mapping[str, VerificationKey]:
    """Reads the cluster's JWK Set (`/openid/v1/jwks`); `source` names it in messages. Raises KeySetError.

    Keys that cannot verify a token of ours (another kind or use, RSA below 2048 bits, without `kid`) are left out;
    a set in which none is left, or in which one `kid` stands twice, is an error.

    >>> parse_keys(b'{"keys": []}', "jwks.json")
    Traceback (most recent call last):
    certs.callers.oidc.KeySetError: jwks.json: it holds no RSA or EC key with a kid; fetch /openid/v1/jwks again
    """
    try:
        parsed: object = json.loads(document)
    except (ValueError, RecursionError):
        parsed = None
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list) or len(entries) > _MAX_KEYS:
        raise KeySetError(f"{source}: it is no JWK Set with at most {_MAX_KEYS} keys; fetch /openid/v1/jwks again")
    keys: dict[str, VerificationKey] = {}
    for entry in entries:
        key = _key(entry)
        if key is None:
            continue
        if entry["kid"] in keys:
            raise KeySetError(f"{source}: two keys have the same kid; fetch /openid/v1/jwks again")
        keys[entry["kid"]] = key
    if not keys:
        raise KeySetError(f"{source}: it holds no RSA or EC key with a kid; fetch /openid/v1/jwks again")
    return MappingProxyType(keys)


def verify_token(token: str, rules: OidcRules, now: float) -> Caller:
    """Verifies a ServiceAccount token at `now` (seconds since the epoch) and returns whom it stands for.

    Raises Refused: TOKEN_MALFORMED, TOKEN_ALGORITHM_REFUSED, TOKEN_ISSUER_UNKNOWN, TOKEN_KEY_UNKNOWN (fetch the keys
    again, once), TOKEN_SIGNATURE_INVALID, TOKEN_AUDIENCE_REFUSED, TOKEN_EXPIRED, TOKEN_NOT_YET_VALID, TOKEN_REFUSED
    (its lifetime), TOKEN_NOT_OF_A_WORKLOAD. Whether the pod still is there, `certs.callers.pods` tells.

    >>> rules = OidcRules(trust_domain=TrustDomain("cluster.local"), issuer="https://k", audience="remora", keys={})
    >>> verify_token("eyJhbGciOiJub25lIn0.e30.", rules, 0.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    certs.refusals.Refused: the token's algorithm is none of RS256, RS384, RS512, ES256, ES384, ES512; ...
    """
    header, claims = read_claims(token)
    algorithm = check_header(header)
    # Before the key, as another cluster's token is better told by its issuer. Nothing is granted on it yet.
    if claims.get("iss") != rules.issuer:
        raise Refused(
            Refusal.TOKEN_ISSUER_UNKNOWN,
            f"the token is not issued by {rules.issuer}; ask the authority of its own cluster, or configure its issuer",
        )
    kid = header.get("kid")
    key = rules.keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise Refused(
            Refusal.TOKEN_KEY_UNKNOWN, "the token is signed by a key that the cluster does not publish; try again soon"
        )
    if algorithm not in key.algorithms:
        raise Refused(
            Refusal.TOKEN_ALGORITHM_REFUSED,
            f"the token says {algorithm}, which its key does not verify; bring the token that the kubelet mounts",
        )
    try:
        jwt.PyJWS().decode(token, key.key, algorithms=[algorithm])
    except jwt.InvalidTokenError:
        raise Refused(
            Refusal.TOKEN_SIGNATURE_INVALID, "the token's signature is wrong; bring it whole and unchanged"
        ) from None
    check_audience(claims.get("aud"), rules.audience)
    expires = check_times(claims, now, max_lifetime=rules.max_lifetime)
    return _caller(claims, rules, expires)


def _caller(claims: Mapping[str, object], rules: OidcRules, expires: float) -> Caller:
    bound = _object(claims.get("kubernetes.io"))
    account, node = _object(bound.get("serviceaccount")), bound.get("node")
    account_uid = account.get("uid")
    if not isinstance(account_uid, str):
        raise Refused(
            Refusal.TOKEN_NOT_OF_A_WORKLOAD,
            "the token names no ServiceAccount with its uid; mount a projected ServiceAccount token",
        )
    username = f"system:serviceaccount:{bound.get('namespace')}:{account.get('name')}"
    if claims.get("sub") != username:
        raise Refused(Refusal.TOKEN_MALFORMED, "the token's sub and its ServiceAccount differ; mount a projected token")
    pod = _object(bound["pod"]) if "pod" in bound else None
    if node is not None and not isinstance(_object(node).get("name"), str):
        raise Refused(Refusal.TOKEN_MALFORMED, "the token's node has no name; mount a projected token")
    if pod is not None and not (pod.get("name") and pod.get("uid")):
        raise Refused(Refusal.TOKEN_MALFORMED, "the token's pod lacks its name or its uid; mount a projected token")
    return caller_of(
        trust_domain=rules.trust_domain,
        username=username,
        pod_name=None if pod is None else pod["name"],
        pod_uid=None if pod is None else pod["uid"],
        node=_object(node).get("name"),
        account_uid=account_uid,
        token_expires=expires,
        allow_without_pod=rules.allow_without_pod,
    )


def _key(entry: object) -> VerificationKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    if entry.get("use", "sig") != "sig" or entry.get("kty") not in ("RSA", "EC"):
        return None
    try:
        algorithm = jwt.algorithms.RSAAlgorithm if entry["kty"] == "RSA" else jwt.algorithms.ECAlgorithm
        key: object = algorithm.from_jwk(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS:
        able = frozenset({"RS256", "RS384", "RS512"})
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        able = frozenset({_CURVES[key.curve.name]})
    else:
        return None
    able &= {entry["alg"]} if isinstance(entry.get("alg"), str) else able
    return VerificationKey(key=key, algorithms=able) if able else None


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
