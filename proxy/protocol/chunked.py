"""The chunked coding, read strictly, in bounded memory (RFC 9112 section 7.1).

    chunk-size [ ;extension ] CRLF  chunk-data CRLF  …  0 CRLF  *( trailer CRLF )  CRLF
    ------- SIZE ----------------   DATA      DATA_END          TRAILERS           complete

Between two calls the decoder holds at most one unfinished line: 16 digits and a bounded extension, or one trailer.
Body bytes are handed out in the call that brought them, whatever the size of the chunks.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import ProtocolError, Reason
from proxy.protocol.fields import parse_field_line, refuse_forbidden_bytes
from proxy.protocol.stream import Field, HeadLimits, Kind

EXTENSION_MAX: Final = 256
"""Bytes of one chunk's extension; nobody uses them, so a small number hurts nobody."""
OVERHEAD_MAX: Final = 16_384
"""Bytes of all extensions of one message; without it, one byte of body could cost 256 of reading for ever."""
CHUNK_MAX: Final = 1 << 53
"""Bytes of one chunk, as for Content-Length."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;([\t\x20-\x7e\x80-\xff]{0,256}))?\r\n").match
_SIZE_LINE_BEGUN: Final = re.compile(
    rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}(?:;[\t\x20-\x7e\x80-\xff]{0,256})?\r?"
).fullmatch
_LINE_MAX: Final = 16 + 1 + EXTENSION_MAX + 2

_DROPPED_TRAILERS: Final = frozenset(
    (
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expires",
        b"forwarded",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"trailer",
        b"vary",
        b"www-authenticate",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)
"""RFC 9110 section 6.5.1: fields that are no trailers, because somebody has already decided by their absence."""

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3


class ChunkedDecoder:
    """Decode one chunked body, piece by piece.

    After `complete` is true, `trailers` holds the fields to pass on and `rest` the bytes after the body. Trailers
    obey the rules and limits of header lines. Framing fields in them (Host, Content-Length, Transfer-Encoding) are
    refused; other fields that may not be trailers, those of a mesh and hop-by-hop ones are dropped.
    """

    __slots__ = (
        "_held",
        "_limits",
        "_missing",
        "_overhead",
        "_state",
        "_trailer_bytes",
        "_trailer_count",
        "_underscores",
        "complete",
        "rest",
        "trailers",
    )

    def __init__(self, limits: HeadLimits, *, underscores: bool = False) -> None:
        self._limits = limits
        self._underscores = underscores
        self._state = _SIZE
        self._held = b""
        self._missing = 0
        self._overhead = 0
        self._trailer_bytes = 0
        self._trailer_count = 0
        self.complete = False
        self.rest = b""
        self.trailers: list[Field] = []

    @property
    def held(self) -> int:
        """Bytes kept between two calls."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take bytes off the wire and return the body bytes among them, b"" when there are none.

        One piece of body is a slice of `data`; several are joined, so that many small chunks cost one event.
        Raises ProtocolError with CHUNK_INVALID or TRAILER_INVALID.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        at, end = 0, len(data)
        pieces: list[bytes] = []
        while at < end:
            state = self._state
            if state == _DATA:
                until = at + self._missing
                if until > end:
                    self._missing = until - end
                    pieces.append(data[at:] if at else data)
                    break
                pieces.append(data[at:until])
                at = until
                self._state = _DATA_END
            elif state == _DATA_END:
                ending = data[at : at + 2]
                if ending == b"\r\n":
                    at += 2
                    self._state = _SIZE
                elif ending == b"\r":
                    self._held = ending
                    break
                else:
                    raise ProtocolError("chunk data is not followed by CRLF", Reason.CHUNK_INVALID)
            elif state == _SIZE:
                line = _SIZE_LINE(data, at)
                if line is None:
                    self._hold_size_line(data[at:])
                    break
                at = line.end()
                self._begin_chunk(line)
            else:
                line_end = data.find(b"\r\n", at)
                if line_end < 0:
                    self._hold_trailer(data[at:])
                    break
                if line_end == at:
                    self.complete = True
                    self.rest = data[at + 2 :]
                    break
                self._take_trailer(data[at:line_end])
                at = line_end + 2
        if not pieces:
            return b""
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _begin_chunk(self, line: re.Match[bytes]) -> None:
        size = int(line[1], 16)
        if size > CHUNK_MAX:
            raise ProtocolError("a chunk is larger than 2^53 bytes", Reason.CHUNK_INVALID)
        extension = line[2]
        if extension is not None:
            self._overhead += len(extension) + 1
            if self._overhead > OVERHEAD_MAX:
                raise ProtocolError(
                    f"chunk extensions are longer than {OVERHEAD_MAX} bytes together", Reason.CHUNK_INVALID
                )
        self._missing = size
        self._state = _DATA if size else _TRAILERS

    def _hold_size_line(self, begun: bytes) -> None:
        # STRICTER than RFC 9112 section 7.1.1: no white space between size and `;`. Section 2.2 lets a recipient take
        # LF for CRLF in heads only; a bare LF here is the classic of two parsers counting differently.
        if len(begun) >= _LINE_MAX or _SIZE_LINE_BEGUN(begun) is None:
            raise ProtocolError(f"{begun[:32]!r} is no chunk size line", Reason.CHUNK_INVALID)
        self._held = begun

    def _hold_trailer(self, begun: bytes) -> None:
        if self._trailer_bytes + len(begun) > self._limits.head_bytes:
            raise ProtocolError("the trailers are larger than a head may be", Reason.TRAILER_INVALID)
        self._refuse_bytes(begun)
        self._held = begun

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        self._trailer_count += 1
        if self._trailer_bytes > self._limits.head_bytes or self._trailer_count > self._limits.fields:
            raise ProtocolError("the trailers are larger than a head may be", Reason.TRAILER_INVALID)
        self._refuse_bytes(line)
        try:
            field = parse_field_line(line, underscores=self._underscores)
        except ProtocolError as fault:
            raise ProtocolError(f"in a trailer: {fault}", Reason.TRAILER_INVALID) from fault
        if field.kind is Kind.FRAMING:
            raise ProtocolError(f"{field.name.decode('ascii')} is no trailer", Reason.TRAILER_INVALID)
        if field.kind is Kind.FORWARD and field.name not in _DROPPED_TRAILERS:
            self.trailers.append(field)

    def _refuse_bytes(self, line: bytes) -> None:
        try:
            refuse_forbidden_bytes(line)
        except ProtocolError as fault:
            raise ProtocolError(f"in a trailer: {fault}", Reason.TRAILER_INVALID) from fault
