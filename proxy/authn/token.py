"""JSON Web Tokens (RFC 7519) as they stand in a request: taken apart strictly, nothing believed yet.

A token is three parts of base64url without padding, a header and a payload that are JSON objects, and a signature.
What two readers could read differently is refused. Of the header `alg` and `kid` count, and only to choose among keys
that the policy names: `jwk`, `jku`, `x5u` and `x5c`, by which a token would bring its own key, are not looked at.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.authn.keys import ALGORITHMS
from proxy.authn.strict_json import parse_object
from proxy.documents import quoted, shown
from proxy.errors import Reason, RemoraError

MAX_TOKEN_BYTES: Final = 16 * 1024
"""Bytes of a token. One with 200 groups has about 10 KiB; a whole head may have 60. Above it a forged token costs more
to take apart (up to 1.5 ms at this size) than to refuse."""

MAX_SECONDS: Final = 1 << 53
"""The largest time that every JSON reader takes exactly (RFC 8259 section 6)."""

_FORM: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch


class TokenRefused(RemoraError):
    """A token that does not count."""

    reason = Reason.TOKEN_MALFORMED


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwt:
    """A token taken apart, its signature not looked at.

    `signed` is what the signature speaks of, `payload` the second part as it was sent. `not_before` and `expires` are
    `nbf` and `exp`, infinite when absent. `issuer` and `subject` are "" when absent.
    """

    algorithm: str
    kid: str
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    claims: Mapping[str, Any]
    issuer: str
    subject: str
    audiences: tuple[str, ...]
    not_before: float
    expires: float


def parse_token(token: bytes) -> Jwt:
    """Take a token apart. Raises TokenRefused: TOKEN_MALFORMED, or TOKEN_ALGORITHM_REFUSED."""
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenRefused(f"the token has {len(token)} bytes, more than {MAX_TOKEN_BYTES}")
    if _FORM(token) is None:
        raise TokenRefused("the token is not three parts of base64url, without padding, joined by dots")
    first, payload, last = token.split(b".")
    header = _object(first, "header")
    algorithm = _algorithm(header)
    claims = _object(payload, "payload")
    return Jwt(
        algorithm=algorithm,
        kid=_text(header, "kid"),
        signed=token[: len(first) + 1 + len(payload)],
        signature=_decoded(last, "signature"),
        payload=payload,
        claims=claims,
        issuer=_text(claims, "iss"),
        subject=_text(claims, "sub"),
        audiences=_audiences(claims),
        not_before=_seconds(claims, "nbf", -math.inf),
        expires=_seconds(claims, "exp", math.inf),
    )


def _algorithm(header: Mapping[str, Any]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        written = quoted(algorithm) if isinstance(algorithm, str) else "missing or not text"
        taken = ", ".join(sorted(ALGORITHMS))
        raise TokenRefused(f"the token's alg is {written}; taken are {taken}", Reason.TOKEN_ALGORITHM_REFUSED)
    for name in ("crit", "b64"):  # RFC 7515 section 4.1.11, RFC 7797: what a reader must understand, and we do not
        if name in header:
            raise TokenRefused(f"the token's header has `{name}`, which asks for an extension that is not understood")
    return algorithm


def _object(part: bytes, which: str) -> dict[str, Any]:
    try:
        return parse_object(_decoded(part, which))
    except ValueError as error:
        raise TokenRefused(f"the token's {which} cannot be read: {shown(str(error), 200)}") from None


def _decoded(part: bytes, which: str) -> bytes:
    """Decode base64url (RFC 7515 section 2). STRICTER: the unused bits of the last character must be zero."""
    try:
        data = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except binascii.Error:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part:
        raise TokenRefused(f"the token's {which} is no base64url")
    return data


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise TokenRefused(f"the token's `{name}` is not text")
    return value


def _audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud", [])
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise TokenRefused("the token's `aud` is neither text nor a list of texts")
    return tuple(audiences)


def _seconds(claims: Mapping[str, Any], name: str, absent: float) -> float:
    """Read a NumericDate (RFC 7519 section 2), which may have a fraction."""
    if name not in claims:
        return absent
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_SECONDS <= value <= MAX_SECONDS:
        raise TokenRefused(f"the token's `{name}` is no number of seconds")
    return float(value)
