"""The fast path: heads in canonical form, understood line by line from memory.

A client sends the same lines again and again. A line that passed the rules once is remembered with its Field, so the
next time it costs one look-up (about 60 ns) instead of the rules (about 1 µs), and instead of the gate with h11 (about
80 µs per head). What the fast path does not recognise at once goes, from the same bytes, to the gate, which decides:
every refusal comes from there, with its Reason.

Invariants:

1. Whatever is accepted here, the gate accepts with an equal head (held by a differential test).
2. Memory is bounded: `LINES` lines of at most `LINE_BYTES` bytes, dropped all at once when full, because attackers
   choose lines. Trace fields are never remembered: each request has its own.
3. Nothing remembered depends on another line. What does (one Host, one length, the version) is checked per head.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeVar

from proxy.errors import ProtocolError
from proxy.protocol.fields import classify, is_authority
from proxy.protocol.gate import CONTENT_LENGTH_MAX, parse_request_head, parse_response_head
from proxy.protocol.path import PathNormalization, normalize_path
from proxy.protocol.stream import CHUNKED, UNTIL_CLOSE, Field, HeadLimits, RequestHead, ResponseHead

LINES: Final = 2_048
"""Lines remembered of each sort: a few hundred make up the traffic of one workload; at 0.6 KiB each, 1.2 MiB."""
LINE_BYTES: Final = 256
"""Longer lines (cookies, tokens) seldom come twice through different connections, and would cost memory."""

# Canonical: `Name: value`, one space, nothing to trim, no `_`, no empty value. One pass, no backtracking of note.
_FIELD_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^`|~0-9A-Za-z]+): ([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)"
).fullmatch
_REQUEST_LINE: Final = re.compile(
    rb"([A-Z]{1,20}) ((/[A-Za-z0-9\-._~%!$&'()*+,;=:@/\\]*)(\?[\x21\x22\x24-\x7e]*)?) HTTP/(1\.[01])"
).fullmatch
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[01]) ([2-9][0-9][0-9]) ([\x20-\x7e]*)").fullmatch
_DIGITS: Final = re.compile(rb"[0-9]{1,16}").fullmatch
_LEFT_TO_THE_GATE: Final = (b"CONNECT", b"TRACE")
# The values of Kind as plain numbers: looking a member up on its class costs 40 ns, four times per line.
_HOP: Final = 1
_FRAMING: Final = 2
_TRACE: Final = 4
_PERSISTENCE: Final = (b"keep-alive", b"close")


class _RequestLine(NamedTuple):
    method: bytes
    target: bytes
    path: bytes
    query: bytes
    version: bytes


class _StatusLine(NamedTuple):
    status: int
    reason_phrase: bytes
    version: bytes


_Meaning = TypeVar("_Meaning", Field, _RequestLine, _StatusLine)


class HeadReader:
    """Reads heads fast; one per process, shared by all connections of its event loop.

    It serves one path normalisation at a time: asked for another one, it forgets the request lines.
    """

    __slots__ = ("_lines", "_normalization", "_request_lines", "_status_lines")

    def __init__(self) -> None:
        self._lines: dict[bytes, Field] = {}
        self._request_lines: dict[bytes, _RequestLine] = {}
        self._status_lines: dict[bytes, _StatusLine] = {}
        self._normalization = PathNormalization.BASE

    @property
    def remembered(self) -> int:
        """How many lines are remembered now, of all sorts."""
        return len(self._lines) + len(self._request_lines) + len(self._status_lines)

    def read_request_head(
        self, head: bytes, *, limits: HeadLimits, normalization: PathNormalization, stream: int = 1
    ) -> RequestHead:
        """Do what `gate.parse_request_head` does, faster when the head is canonical."""
        parsed = self.try_request_head(head, limits, normalization, stream)
        if parsed is None:
            return parse_request_head(head, limits=limits, normalization=normalization, stream=stream)
        return parsed

    def read_response_head(
        self, head: bytes, *, request_method: bytes, limits: HeadLimits, stream: int = 1
    ) -> ResponseHead:
        """Do what `gate.parse_response_head` does, faster when the head is canonical."""
        parsed = self.try_response_head(head, request_method, limits, stream)
        if parsed is None:
            return parse_response_head(head, request_method=request_method, limits=limits, stream=stream)
        return parsed

    def try_request_head(
        self, head: bytes, limits: HeadLimits, normalization: PathNormalization, stream: int
    ) -> RequestHead | None:
        """Parse a canonical request head, or return None: then the gate decides."""
        lines = head.split(b"\r\n")
        # A whole head ends in two empty elements; a third one would be an empty line within, which is not canonical.
        if len(head) > limits.head_bytes or lines.pop() or lines.pop() or len(lines) > limits.fields + 1:
            return None
        if normalization is not self._normalization:
            self._request_lines.clear()
            self._normalization = normalization
        first = lines.pop(0)
        request_line = self._request_lines.get(first) or self._learn_request_line(first)
        if request_line is None:
            return None
        method, target, path, query, version = request_line
        authority = None
        content_length = 0
        has_length = False
        keep_alive = version == b"1.1"
        closes = False
        fields = []
        get = self._lines.get
        for line in lines:
            field = get(line) or self._learn_line(line)
            if field is None:
                return None
            fields.append(field)
            kind = field[3]
            if kind == _FRAMING:
                name = field[0]
                if name == b"host":
                    if authority is not None:
                        return None
                    authority = field[1]
                elif has_length or content_length:
                    return None
                elif name == b"content-length":
                    has_length = True
                    content_length = int(field[1])
                elif version == b"1.0":
                    return None
                else:
                    content_length = CHUNKED
            elif kind == _HOP and field[0] == b"connection":
                if field[1].lower() == b"close":
                    closes = True
                else:
                    keep_alive = True
        if authority is None:
            return None
        return RequestHead(
            stream,
            method,
            target,
            path,
            query,
            authority,
            version,
            fields,
            content_length,
            has_length,
            keep_alive and not closes,
            False,
            b"",
        )

    def try_response_head(
        self, head: bytes, request_method: bytes, limits: HeadLimits, stream: int
    ) -> ResponseHead | None:
        """Parse a canonical answer's head, or return None: then the gate decides."""
        lines = head.split(b"\r\n")
        if len(head) > limits.head_bytes or lines.pop() or lines.pop() or len(lines) > limits.fields + 1:
            return None
        first = lines.pop(0)
        status_line = self._status_lines.get(first) or self._learn_status_line(first)
        if status_line is None:
            return None
        status, reason_phrase, version = status_line
        declared = None
        chunked = False
        keep_alive = version == b"1.1"
        closes = False
        fields = []
        get = self._lines.get
        for line in lines:
            field = get(line) or self._learn_line(line)
            if field is None:
                return None
            fields.append(field)
            kind = field[3]
            if kind == _FRAMING:
                name = field[0]
                if name == b"host":
                    return None
                if chunked or declared is not None or status == 204:
                    return None
                if name == b"content-length":
                    declared = int(field[1])
                elif version == b"1.0":
                    return None
                else:
                    chunked = True
            elif kind == _HOP and field[0] == b"connection":
                if field[1].lower() == b"close":
                    closes = True
                else:
                    keep_alive = True
        if request_method == b"HEAD" or status in (204, 304):
            content_length = 0
        elif chunked:
            content_length = CHUNKED
        elif declared is not None:
            content_length = declared
        else:
            content_length = UNTIL_CLOSE
            closes = True
        return ResponseHead(
            stream,
            status,
            reason_phrase,
            version,
            fields,
            content_length,
            declared,
            keep_alive and not closes,
            b"",
        )

    def _learn_line(self, line: bytes) -> Field | None:
        """Put one header line through the rules; None when it is not canonical or asks for more than to be passed on.

        What is left to the gate: options in Connection other than keep-alive and close, Upgrade, Expect, any coding
        but chunked, an invalid Host or Content-Length.
        """
        parts = _FIELD_LINE(line)
        if parts is None:
            return None
        raw_name, value = parts.groups()
        name = raw_name.lower()
        kind = classify(name)
        if kind == _TRACE:
            return Field(name, value, line + b"\r\n", kind)
        if kind == _FRAMING:
            if name == b"host":
                if not is_authority(value):
                    return None
            elif name == b"content-length":
                if _DIGITS(value) is None or int(value) > CONTENT_LENGTH_MAX:
                    return None
            elif value.lower() != b"chunked":
                return None
        elif kind == _HOP and (
            name == b"upgrade" or name == b"expect" or (name == b"connection" and value.lower() not in _PERSISTENCE)
        ):
            return None
        field = Field(name, value, line + b"\r\n", kind)
        if len(line) <= LINE_BYTES:
            _remember(self._lines, line, field)
        return field

    def _learn_request_line(self, line: bytes) -> _RequestLine | None:
        parts = _REQUEST_LINE(line)
        if parts is None:
            return None
        method, target, path, query, version = parts.groups(b"")
        if method in _LEFT_TO_THE_GATE:
            return None
        try:
            path = normalize_path(path, self._normalization)
        except ProtocolError:
            return None
        request_line = _RequestLine(method, target, path, query, version)
        if len(line) <= LINE_BYTES:
            _remember(self._request_lines, line, request_line)
        return request_line

    def _learn_status_line(self, line: bytes) -> _StatusLine | None:
        parts = _STATUS_LINE(line)
        if parts is None:
            return None
        status_line = _StatusLine(int(parts[2]), parts[3], parts[1])
        if len(line) <= LINE_BYTES:
            _remember(self._status_lines, line, status_line)
        return status_line


def _remember(memory: dict[bytes, _Meaning], line: bytes, meaning: _Meaning) -> None:
    if len(memory) >= LINES:
        memory.clear()
    memory[line] = meaning
