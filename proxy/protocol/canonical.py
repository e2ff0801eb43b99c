"""Canonical form: what the fast path takes on itself, one line at a time. Everything else is None, and the gate's.

A line in canonical form has one reading and needs no repair. What is left to the gate: white space to trim, empty
values, `_` in names, options in Connection other than keep-alive and close, Upgrade, Expect, any coding but chunked,
an invalid Host or Content-Length, targets other than a path, interim answers.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from proxy.errors import ProtocolError
from proxy.protocol.fields import classify, is_authority
from proxy.protocol.gate import CONTENT_LENGTH_MAX
from proxy.protocol.path import PathNormalization, normalize_path
from proxy.protocol.remembered import RequestLine
from proxy.protocol.stream import Field, Kind

# `Name: value`, one space, nothing to trim, no `_`, no empty value. One pass, no backtracking of note.
_FIELD_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)"
).fullmatch
_REQUEST_LINE: Final = re.compile(
    rb"([A-Z]{1,20}) ((/[A-Za-z0-9\-._~%!$&'()*+,;=:@/\\]*)(\?[\x21\x22\x24-\x7e]*)?) HTTP/(1\.[01])"
).fullmatch
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([2-9][0-9][0-9]) ([\x20-\x7e]*)").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,16}").fullmatch
_ID: Final = rb"[Xx]-[Rr]equest-[Ii][Dd]: ([\x21-\x7e]{1,128})\r\n"
_PARENT: Final = rb"[Tt]raceparent: ([0-9a-f-]{55})\r\n"
PARENT_SIZE: Final = len(b"traceparent: ") + 55 + 2
"""Bytes of a canonical traceparent line with its CRLF."""
_LEFT_TO_THE_GATE: Final = (b"CONNECT", b"TRACE")
_PERSISTENCE: Final = (b"keep-alive", b"close")
# Looking a member up on its class costs 40 ns.
_HOP: Final = Kind.HOP
_FRAMING: Final = Kind.FRAMING
_TRACE: Final = Kind.TRACE

match_trace_lines: Final = re.compile(rb"%b(?:%b)?|%b(?:%b)?" % (_ID, _PARENT, _PARENT, _ID)).match
"""Matches whole lines with identifiers of one request: x-request-id, traceparent, or both, in either order."""


class StatusLine(NamedTuple):
    """A status line that was understood."""

    status: int
    reason_phrase: bytes
    version: bytes


def maybe_field(line: bytes) -> Field | None:
    """Put one header line through the rules; None when it is not canonical or asks for more than to be passed on."""
    parts = _FIELD_LINE(line)
    if parts is None:
        return None
    raw_name, value = parts.groups()
    name = raw_name.lower()
    kind = classify(name)
    if kind is _FRAMING:
        if name == b"host":
            if not is_authority(value):
                return None
        elif name == b"content-length":
            if _DIGITS(value) is None or int(value) > CONTENT_LENGTH_MAX:
                return None
        elif value.lower() != b"chunked":
            return None
    elif kind is _HOP and (
        name == b"upgrade" or name == b"expect" or (name == b"connection" and value.lower() not in _PERSISTENCE)
    ):
        return None
    return Field(name, value, line + b"\r\n", kind)


def maybe_request_line(line: bytes, normalization: PathNormalization) -> RequestLine | None:
    """Understand a canonical request line and bring its path into normal form."""
    parts = _REQUEST_LINE(line)
    if parts is None:
        return None
    method, target, path, query, version = parts.groups(b"")
    if method in _LEFT_TO_THE_GATE:
        return None
    try:
        path = normalize_path(path, normalization)
    except ProtocolError:
        return None
    return RequestLine(method, target, path, query, version)


def maybe_status_line(line: bytes) -> StatusLine | None:
    """Understand a canonical status line, never that of an interim answer."""
    parts = _STATUS_LINE(line)
    return None if parts is None else StatusLine(int(parts[2]), parts[3], parts[1])


def trace_fields(cut: re.Match[bytes]) -> list[Field]:
    """Turn what `match_trace_lines` matched into fields."""
    lines = cut.group()
    request_id, parent, parent_first, id_last = cut.groups()
    if request_id is not None:
        first = Field(b"x-request-id", request_id, lines[: len(request_id) + 16], _TRACE)
        if parent is None:
            return [first]
        return [first, Field(b"traceparent", parent, lines[-PARENT_SIZE:], _TRACE)]
    first = Field(b"traceparent", parent_first, lines[:PARENT_SIZE], _TRACE)
    if id_last is None:
        return [first]
    return [first, Field(b"x-request-id", id_last, lines[PARENT_SIZE:], _TRACE)]
