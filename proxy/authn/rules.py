"""Whose tokens count, and where in a request they are looked for: one `jwtRules` item as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.authn.keys import KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPlace:
    """A header that may carry a token behind `prefix`; `name` is lower case."""

    name: bytes
    prefix: str = ""


AUTHORIZATION: Final = HeaderPlace(name=b"authorization", prefix="Bearer ")
ACCESS_TOKEN: Final = "access_token"  # noqa: S105 (the name of a query parameter, RFC 6750 section 2.3)

DEFAULT_SPACE_DELIMITED: Final = frozenset({"scope", "permission"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """One issuer: its keys, its audiences, the places of its tokens and what is passed on.

    Exactly one of `keys` (inline) and `jwks_uri` is set. Without any place of its own a rule looks into
    `Authorization: Bearer` and the query parameter `access_token`; `headers`, `params` and `cookies` hold the places
    that are looked at, the default ones included. `payload_header` (lower case, "" for none) takes the payload in
    base64url, `claim_headers` maps lower-case header names to claims. `fetch_timeout` is in seconds.
    """

    issuer: str
    audiences: frozenset[str] = frozenset()
    keys: KeySet | None = None
    jwks_uri: str = ""
    fetch_timeout: float = 5.0
    headers: tuple[HeaderPlace, ...] = (AUTHORIZATION,)
    params: tuple[str, ...] = (ACCESS_TOKEN,)
    cookies: tuple[str, ...] = ()
    forward_original: bool = False
    payload_header: str = ""
    claim_headers: Mapping[str, str]
    space_delimited: frozenset[str] = DEFAULT_SPACE_DELIMITED
    line: int = 0
    column: int = 0
