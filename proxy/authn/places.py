"""Where tokens stand in a request: found there, and taken out again without touching what stands beside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_to_bytes

from proxy.authn.rules import JwtRule
from proxy.protocol.stream import Field, Kind, RequestHead

_NOT_PASSED_ON: Final = (Kind.HOP, Kind.FRAMING, Kind.RESERVED)
"""Lines that end here: what the application does not see carries no token."""

_SPACE: Final = b" \t"


class Places:
    """The places that a rule looks at: headers with a prefix, query parameters, cookies.

    Every line of a header, every value of a parameter and every cookie of a name is looked at. STRICTER: Envoy takes
    the first parameter and the first cookie; an application that takes the last would see a token that nobody verified.
    """

    __slots__ = ("_cookies", "_headers", "_params")

    def __init__(self, rule: JwtRule) -> None:
        headers: dict[bytes, list[bytes]] = {}
        for place in rule.headers:
            headers.setdefault(place.name, []).append(place.prefix.encode())
        self._headers = headers
        # Patterns and not a walk over all pieces: a query of 60 KiB may have 20,000, which costs 6 ms in a loop.
        self._params = _pattern(b"&", rule.params, b"", lambda byte: re.escape(byte) + b"|" + _escape_of(byte))
        self._cookies = _pattern(b";", rule.cookies, rb"[ \t]*", re.escape)

    def tokens(self, head: RequestHead) -> list[bytes]:
        """List the different tokens that stand in these places, in the order of the request."""
        found = dict.fromkeys(self._in_fields(head.fields))
        if self._params is not None and head.query:
            found.update(dict.fromkeys(_param_value(match) for match in self._params(head.query[1:])))
        return list(found)

    def _in_fields(self, fields: list[Field]) -> Iterator[bytes]:
        for field in fields:
            if field.kind in _NOT_PASSED_ON:
                continue
            for prefix in self._headers.get(field.name, ()):
                token = _behind(prefix, field.value)
                if token is not None:
                    yield token
            if self._cookies is not None and field.name == b"cookie":
                yield from map(_cookie_value, self._cookies(field.value))

    def without(self, head: RequestHead, token: bytes) -> RequestHead:
        """Take `token` out of these places; everything else stays byte for byte.

        A header line, a parameter or a cookie goes whole; a cookie line that held nothing else goes too.
        """
        fields = [kept for field in head.fields if (kept := self._field_without(field, token)) is not None]
        query = head.query
        if self._params is not None and query:
            text = query[1:]
            rest = _cut(text, [match for match in self._params(text) if _param_value(match) == token])
            query = query if rest == text else b"?" + rest if rest else b""
        return replace(head, fields=fields, query=query)

    def masked(self, query: bytes) -> bytes:
        """Write stars over the values of these parameters, whatever they hold: for records, which others read.

        >>> from proxy.authn.rules import JwtRule
        >>> Places(JwtRule(issuer="https://a.example", claim_headers={})).masked(b"?a=1&access_token=e30.e30.x")
        b'?a=1&access_token=***'
        """
        if self._params is None:
            return query
        for match in reversed(list(self._params(query[1:]))):
            start, end = match.span(1)
            query = query[: start + 1] + b"***" + query[end + 1 :]
        return query

    def _field_without(self, field: Field, token: bytes) -> Field | None:
        if any(_behind(prefix, field.value) == token for prefix in self._headers.get(field.name, ())):
            return None
        if self._cookies is None or field.name != b"cookie":
            return field
        rest = _cut(field.value, [match for match in self._cookies(field.value) if _cookie_value(match) == token])
        if rest == field.value:
            return field
        value = rest.strip(_SPACE)
        if not value:
            return None
        name = field.line[: field.line.index(b":")]
        return field._replace(value=value, line=name + b": " + value + b"\r\n")


def _behind(prefix: bytes, value: bytes) -> bytes | None:
    """Give what stands behind the prefix, exact in case as in Envoy; None when the value does not begin with it.

    STRICTER: Envoy takes the prefix wherever it stands in the value. Spaces after it are skipped, as there.
    """
    if not value.startswith(prefix):
        return None
    return value[len(prefix) :].lstrip(_SPACE) if prefix else value


def _pattern(
    separator: bytes, names: Iterable[str], around: bytes, spell: Callable[[bytes], bytes]
) -> Callable[[bytes], Iterator[re.Match[bytes]]] | None:
    """Find the pieces between separators that are `name=value`: the whole piece, and the value as group 1.

    Every byte has one way to match, so the search is linear in the text.
    """
    spelled = [b"".join(b"(?:%b)" % spell(bytes((byte,))) for byte in name.encode()) for name in names]
    if not spelled:
        return None
    text = rb"(?<![^%b])%b(?:%b)%b=([^%b]*)" % (separator, around, b"|".join(spelled), around, separator)
    return re.compile(text).finditer


def _escape_of(byte: bytes) -> bytes:
    """Spell the percent-escape of a byte with digits in either case."""
    upper, lower = b"%02X" % byte[0], b"%02x" % byte[0]
    return b"%%[%b%b][%b%b]" % (upper[:1], lower[:1], upper[1:], lower[1:])


def _param_value(match: re.Match[bytes]) -> bytes:
    return unquote_to_bytes(match[1])


def _cookie_value(match: re.Match[bytes]) -> bytes:
    value = match[1].strip(_SPACE)
    return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value


def _cut(text: bytes, pieces: list[re.Match[bytes]]) -> bytes:
    """Cut pieces out of `text`, each with one separator beside it."""
    for piece in reversed(pieces):
        start, end = piece.span()
        text = text[:start] + text[end + 1 :] if end < len(text) else text[: max(start - 1, 0)]
    return text
