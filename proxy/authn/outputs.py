"""What the application gets to see: the head of a request after its token was judged.

Three things happen to it. What a client sent under the name of an output header is dropped, with a token or without.
The verified token is taken out, unless its rule forwards it. The payload and claims of a verified token are added under
the names that its rule gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from proxy.authn.authentication import Authenticated, Authentication
from proxy.authn.rules import JwtRule
from proxy.protocol.stream import Field, Kind, RequestHead

_WRITABLE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?").fullmatch
"""Visible ASCII with spaces inside. Outer spaces would be trimmed by the reader, and so turn one value into another;
characters outside ASCII are read in different encodings by different servers."""

_INTEGERS: Final = range(-(1 << 63), 1 << 64)
"""Integers that fit 64 bits, signed or not: others are cut or refused by what reads them."""


def forwarded(head: RequestHead, authenticated: Authenticated, authentication: Authentication) -> RequestHead:
    """Write the head as it goes to the application, and as policy judges it; `head` itself is not changed.

    A claim that is missing, of another type than text, integer or boolean, or not writable in a header line without
    change, gives no header: the application then sees no value rather than a wrong one.
    """
    claimed = authentication.claimed_headers
    if claimed and any(field.name in claimed for field in head.fields):
        head = replace(head, fields=[field for field in head.fields if field.name not in claimed])
    rule = authenticated.rule
    if rule is None or authenticated.token is None:
        return head
    if not rule.forward_original:
        head = authentication.without(head, authenticated.carried)
    added = list(_output_fields(rule, authenticated.payload, authenticated.token.claims))
    return replace(head, fields=head.fields + added) if added else head


def _output_fields(rule: JwtRule, payload: bytes, claims: Mapping[str, Any]) -> Iterator[Field]:
    if rule.payload_header:
        yield _field(rule.payload_header, payload)
    for header, claim in rule.claim_headers.items():
        text = claim_text(claims, claim)
        if text:
            yield _field(header, text.encode("ascii"))


def claim_text(claims: Mapping[str, Any], claim: str) -> str:
    """Write a claim as the value of a header, "" when it gives none; dots in its name lead into objects, as in Envoy.

    >>> claim_text({"user": {"id": 7, "name": "a\\r\\nx: y"}}, "user.id")
    '7'
    >>> claim_text({"user": {"id": 7, "name": "a\\r\\nx: y"}}, "user.name")
    ''
    """
    value: Any = claims
    for step in claim.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return ""
        value = value[step]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value in _INTEGERS else ""
    return value if isinstance(value, str) and _WRITABLE(value) else ""


def _field(name: str, value: bytes) -> Field:
    encoded = name.encode("ascii")
    return Field(encoded, value, encoded + b": " + value + b"\r\n", Kind.FORWARD)
