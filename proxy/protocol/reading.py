"""The reading half of an HTTP/1 codec: find a head, cut a body, hold what is not understood yet.

Facts true between two calls:

1. `_buffer[_at:]` are the bytes received and not yet understood, or, while a head is incomplete, `_grown` is.
2. A head that drips in grows in place and is searched once: the cost is linear in its bytes.
3. A body slice is cut once, and not at all when a receive brought nothing else.
"""

from __future__ import annotations

from typing import Final

from proxy.errors import ProtocolError, Reason
from proxy.protocol.chunked import ChunkedDecoder
from proxy.protocol.fields import refuse_forbidden_bytes
from proxy.protocol.stream import CHUNKED, Data, End, Event, HeadLimits, Trailers

HEAD: Final = 0
LENGTH: Final = 1
CHUNKS: Final = 2
TO_THE_END: Final = 3
END: Final = 4
DONE: Final = 5
TUNNEL: Final = 6
"""States, in the order of a message; up to END something of it is still to be told, from DONE on nothing is read."""


class Reading:
    """The reading half that both sides share: find a head, cut a body, hold what is not understood."""

    __slots__ = ("_at", "_buffer", "_decoder", "_eof", "_grown", "_limits", "_missing", "_scanned", "_state", "stream")

    def __init__(self, limits: HeadLimits, state: int, stream: int) -> None:
        self._limits = limits
        self._state = state
        self.stream = stream
        self._buffer = b""
        self._at = 0
        self._grown: bytearray | None = None
        self._scanned = 0
        self._missing = 0
        self._decoder: ChunkedDecoder | None = None
        self._eof = False

    @property
    def buffered(self) -> int:
        """Bytes held that no event has given out: pipelined requests, or a head or line that is not complete."""
        held = len(self._buffer) - self._at
        if self._grown is not None:
            held += len(self._grown)
        if self._decoder is not None:
            held += self._decoder.held
        return held

    def receive(self, data: bytes) -> None:
        """Take what was read from the wire; b"" is its end."""
        if not data:
            self._eof = True
        elif self._grown is not None:
            self._grown += data
        elif self._at == len(self._buffer):
            self._buffer, self._at = data, 0
        else:
            self._buffer, self._at = self._buffer[self._at :] + data, 0

    def take_rest(self) -> bytes:
        """Give up the bytes not understood, for a tunnel that takes over from here."""
        self._settle()
        rest, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return rest

    def _settle(self) -> None:
        """Turn the growing head back into plain bytes."""
        if self._grown is not None:
            self._buffer, self._at, self._grown = bytes(self._grown), 0, None

    def _take_head(self) -> bytes | None:
        """Cut the next head off the buffer, or return None and remember where the search ended.

        Raises ProtocolError when the head is too long or already holds what none may hold, so that a client that
        ends lines in LF gets an answer instead of a timeout.
        """
        grown = self._grown
        if grown is None:
            end = self._buffer.find(b"\r\n\r\n", self._at)
            if end >= 0:
                end += 4
                head = self._buffer[self._at : end]
                self._at = end
                return head
            # A bytearray grows in place; joining bytes would copy the whole head for each byte that drips in.
            grown = self._grown = bytearray(self._buffer[self._at :])
            self._buffer, self._at, self._scanned = b"", 0, 0
        start = max(0, self._scanned - 3)
        end = grown.find(b"\r\n\r\n", start)
        if end >= 0:
            self._settle()
            self._at = end + 4
            return self._buffer[: self._at]
        if len(grown) > self._limits.head_bytes:
            raise ProtocolError(f"the head is larger than {self._limits.head_bytes} bytes", Reason.HEAD_TOO_LARGE)
        refuse_forbidden_bytes(grown, max(0, self._scanned - 1))
        self._look_at_first_line(grown)
        self._scanned = len(grown)
        return None

    def _look_at_first_line(self, grown: bytearray) -> None:
        """Refuse a first line as soon as it is there, before the head is."""

    def _begin_body(self, content_length: int, *, underscores: bool) -> None:
        if content_length == 0:
            self._state = END
        elif content_length > 0:
            self._state, self._missing = LENGTH, content_length
        elif content_length == CHUNKED:
            self._state, self._decoder = CHUNKS, ChunkedDecoder(self._limits, underscores=underscores)
        else:
            self._state = TO_THE_END

    def _take_rest_as_data(self) -> bytes:
        data = self._buffer[self._at :] if self._at else self._buffer
        self._buffer, self._at = b"", 0
        return data

    def _next_of_body(self, incomplete: Reason, side: str) -> Event | None:
        """Return the next event of the body being read, None when more bytes are needed."""
        state = self._state
        if state == END:
            decoder = self._decoder
            if decoder is not None:
                self._decoder = None
                if decoder.trailers:
                    return Trailers(self.stream, decoder.trailers)
            self._state = DONE
            return End(self.stream)
        available = len(self._buffer) - self._at
        if not available:
            if not self._eof:
                return None
            if state == TO_THE_END:
                self._state = DONE
                return End(self.stream)
            raise ProtocolError("the connection ended within a message body", incomplete, side)
        if state == LENGTH:
            if available <= self._missing:
                data = self._take_rest_as_data()
                self._missing -= available
            else:
                until = self._at + self._missing
                data = self._buffer[self._at : until]
                self._at, self._missing = until, 0
            if not self._missing:
                self._state = END
            return Data(self.stream, data)
        if state == TO_THE_END:
            return Data(self.stream, self._take_rest_as_data())
        decoder = self._decoder
        if decoder is None:
            raise ProtocolError("a chunked body is read without a decoder", Reason.INTERNAL_ERROR, side)
        data = decoder.feed(self._take_rest_as_data())
        if decoder.complete:
            self._buffer, decoder.rest = decoder.rest, b""
            self._state = END
        if data:
            return Data(self.stream, data)
        return self._next_of_body(incomplete, side)
