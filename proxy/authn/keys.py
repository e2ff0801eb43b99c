"""JSON Web Key Sets (RFC 7517): public keys by which tokens are verified.

A key is bound to its algorithms when it is read, by its type, its curve and its own `alg`. A token's header only picks
among them: an HMAC keyed with the text of a public key, or an RSA signature against an elliptic curve, finds no key.
The JWT library is loaded when the first set is read; a proxy without token rules does not pay for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from proxy.authn.strict_json import parse_object
from proxy.documents import quoted

MAX_KEYS: Final = 64
"""Keys of a set; issuers publish 2 to 10. A token without `kid` may have to be tried against each (30 µs for RSA)."""

RSA_BITS: Final = (2048, 8192)
"""RFC 7518 section 3.3 asks for 2048 at least. Above 8192 one verification costs over 1 ms."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {("EC", "P-256"): "ES256", ("EC", "P-384"): "ES384", ("EC", "P-521"): "ES512", ("OKP", "Ed25519"): "EdDSA"}
)
ALGORITHMS: Final = _RSA | frozenset(_CURVES.values())
"""What a token may be signed with. `none` and HMAC (RFC 7518 section 3.2) are not among them and never will be."""

_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")  # RFC 7518 sections 6.2.2, 6.3.2, 6.4.1
_PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One public key: `kid` ("" for none), the algorithms that it may verify, and the key of the JWT library."""

    kid: str
    algorithms: frozenset[str]
    public: Any

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Say whether `signature` over `signed` is this key's; false for an algorithm that is not the key's."""
        if algorithm not in self.algorithms:
            return False
        import jwt

        return jwt.get_algorithm_by_name(algorithm).verify(signed, self.public, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The usable keys of a set; `digest` is the SHA-256 of its canonical text.

    `skipped` says of every key that was left out why, a sentence each.
    """

    keys: tuple[Key, ...]
    digest: str
    skipped: tuple[str, ...] = ()


def parse_key_set(data: bytes) -> KeySet:
    """Read a JSON Web Key Set. Raises ValueError with a sentence.

    A key that no token could be verified with (unknown type or curve, `use` or `key_ops` of something else, a weak RSA
    key) is left out, as RFC 7517 section 5 asks; a set without a usable key is refused. So is a set with a private or
    a symmetric key: whoever reads the policy could sign tokens with it.

    >>> parse_key_set(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')
    Traceback (most recent call last):
    ValueError: key 0 is symmetric (kty "oct"): whoever can read it can sign; publish keys of an asymmetric algorithm
    """
    document = parse_object(data)
    items = document.get("keys")
    if not isinstance(items, list):
        mend = ': write {"keys": [...]} around the key' if "kty" in document else ""
        raise ValueError(f"it has no list `keys`, so it is no JSON Web Key Set{mend}")
    if len(items) > MAX_KEYS:
        raise ValueError(f"it has {len(items)} keys, more than {MAX_KEYS}")
    keys: list[Key] = []
    skipped: list[str] = []
    for index, item in enumerate(items):
        _refuse_secret(index, item)
        try:
            keys.append(_key(item))
        except ValueError as error:
            skipped.append(f"key {index} is left out: {error}")
    if not keys:
        raise ValueError("it has no usable key" + (f" ({'; '.join(skipped)})" if skipped else ""))
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return KeySet(keys=tuple(keys), digest=hashlib.sha256(canonical.encode()).hexdigest(), skipped=tuple(skipped))


def _refuse_secret(index: int, item: Any) -> None:
    if not isinstance(item, dict):
        return
    if item.get("kty") == "oct":
        mend = "whoever can read it can sign; publish keys of an asymmetric algorithm"
        raise ValueError(f'key {index} is symmetric (kty "oct"): {mend}')
    found = [member for member in _PRIVATE_MEMBERS if member in item]
    if found:
        mend = "whoever can read it can sign; replace it at the issuer, and publish only the public part"
        raise ValueError(f"key {index} is a private key (it has `{found[0]}`): {mend}")


def _key(item: Any) -> Key:
    """Take one public key. Raises ValueError for what is not usable."""
    if not isinstance(item, dict):
        raise ValueError("it is not a JSON object")
    algorithms = _algorithms(item)
    kid = item.get("kid", "")
    if not isinstance(kid, str):
        raise ValueError("`kid` is not text")
    kind = item["kty"]
    missing = [member for member in _PUBLIC_MEMBERS[kind] if not isinstance(item.get(member), str)]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing or not text")
    public = _public(item, min(algorithms))
    if kind == "RSA" and not RSA_BITS[0] <= public.key_size <= RSA_BITS[1]:
        raise ValueError(f"an RSA key of {public.key_size} bits; {RSA_BITS[0]} to {RSA_BITS[1]} are taken")
    return Key(kid=kid, algorithms=algorithms, public=public)


def _algorithms(item: Mapping[str, Any]) -> frozenset[str]:
    """Bind a key to its algorithms (RFC 7517 sections 4.1 to 4.4)."""
    kind, curve, algorithm = item.get("kty"), item.get("crv"), item.get("alg")
    if kind == "RSA":
        possible = _RSA
    elif isinstance(kind, str) and isinstance(curve, str) and (kind, curve) in _CURVES:
        possible = frozenset({_CURVES[kind, curve]})
    else:
        raise ValueError(f"kty {_shown(kind)}, crv {_shown(curve)} is no key that verifies one of {_listed()}")
    if item.get("use", "sig") != "sig":
        raise ValueError(f"`use` is {_shown(item['use'])}, not sig")
    operations = item.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("`key_ops` has no verify")
    if algorithm is None:
        return possible
    if not isinstance(algorithm, str) or algorithm not in possible:
        raise ValueError(f"`alg` is {_shown(algorithm)}, which this key cannot verify")
    return frozenset({algorithm})


def _public(item: dict[str, Any], algorithm: str) -> Any:
    import jwt

    try:
        return jwt.PyJWK(item, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"its numbers are no key ({error})") from None


def _shown(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else "missing" if value is None else "not text"


def _listed() -> str:
    return ", ".join(sorted(ALGORITHMS))
