"""The two sides of an HTTP/1 connection, without I/O: bytes in, events out, bytes to write back.

    server    HEAD --RequestHead--> BODY* --Data*--> END --End--> DONE --start_next_stream--> HEAD
    client    DONE --start_request--> HEAD --ResponseHead--> BODY* --Data*--> END --End--> DONE
                                      HEAD <--interim 1xx--+      +--101--> TUNNEL

Facts true in each state:

1. In DONE nothing is parsed, so pipelined requests wait as bytes and `buffered` tells how many.
2. In TUNNEL, and after an upgrade request, the bytes that came behind the head belong to `take_rest`.
3. A raised ProtocolError is final: the codec is not asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.errors import ProtocolError, Reason
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head, parse_request_line, parse_response_head
from proxy.protocol.headers import frames_in_chunks, write_request_head, write_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.reading import DONE, END, HEAD, TUNNEL, Reading
from proxy.protocol.remembered import Answer
from proxy.protocol.stream import (
    CHUNKED,
    End,
    Event,
    Field,
    HeadLimits,
    Kind,
    RequestHead,
    ResponseHead,
)

CR: Final = 13


class ServerCodec(Reading):
    """The side that reads requests and writes answers.

    One CRLF before a request line is skipped, because old clients send one after a body (RFC 9112 section 2.2 asks
    for "at least one"). STRICTER: a second one is refused.
    """

    __slots__ = (
        "_normalization",
        "_out_chunked",
        "_out_empty",
        "_reader",
        "_skipped_empty_line",
        "_version",
        "must_close",
    )

    def __init__(self, limits: HeadLimits, normalization: PathNormalization, reader: HeadReader | None = None) -> None:
        super().__init__(limits, HEAD, 1)
        self._normalization = normalization
        self._reader = reader
        self._skipped_empty_line = False
        self._version = b"1.1"
        self._out_chunked = False
        self._out_empty = False
        self.must_close = False

    @property
    def at_end(self) -> bool:
        """The client has closed its side between two messages: no further request can come."""
        return self._eof and self._state in (HEAD, DONE) and not self.buffered

    def next_event(self) -> Event | None:
        """Return the next event, None when more bytes or `start_next_stream` are needed; raises ProtocolError."""
        state = self._state
        if state == HEAD:
            return self._next_head()
        if state == END and self._decoder is None:
            self._state = DONE
            return End(self.stream)
        if state >= DONE:
            return None
        return self._next_of_body(Reason.REQUEST_INCOMPLETE, "downstream")

    def take_whole(self, data: bytes) -> RequestHead | None:
        """Take what was read when it is one whole request in canonical form, or nothing of it, and return None.

        The request is at its End then, and what follows its head in `data` is its body. It saves the steps of five
        events and of the buffer, 0.6 µs.
        """
        reader = self._reader
        if reader is None or self._state != HEAD or self._grown is not None or self._at != len(self._buffer):
            return None
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        size = len(data)
        head = reader.try_request_head(
            data if end == size else data[:end], self._limits, self._normalization, self.stream
        )
        if head is None or head.content_length != size - end:
            return None
        self._version = head.version
        if not head.keep_alive:
            self.must_close = True
        self._out_empty = head.method == b"HEAD"
        self._state = DONE
        return head

    def start_next_stream(self) -> bool:
        """Begin the next request: the answer to this one is complete and the request was read to its End.

        True when bytes of it are there already.
        """
        if self._state != DONE:
            raise ProtocolError("the request has not been read to its end", Reason.INTERNAL_ERROR)
        self._state = HEAD
        self._skipped_empty_line = False
        self.stream += 1
        return self._at != len(self._buffer)

    @property
    def may_be_prepared(self) -> bool:
        """An answer may go out as `Answer.written` has it: to a client of 1.1 that stays, and does not only ask for a
        head."""
        return self._state == DONE and not (self.must_close or self._out_empty) and self._version == b"1.1"

    def _next_head(self) -> Event | None:
        if self._grown is None:
            if self._at == len(self._buffer):
                return None
            if self._buffer[self._at] == CR and not self._skip_empty_line():
                return None
        head = self._take_head()
        if head is None:
            if self._eof and self.buffered:
                raise ProtocolError("the connection ended within a request head", Reason.REQUEST_INCOMPLETE)
            return None
        reader = self._reader
        if reader is not None:
            parsed = reader.read_request_head(
                head, limits=self._limits, normalization=self._normalization, stream=self.stream
            )
        else:
            parsed = parse_request_head(
                head, limits=self._limits, normalization=self._normalization, stream=self.stream
            )
        self._version = parsed.version
        if not parsed.keep_alive:
            self.must_close = True
        self._out_empty = parsed.method == b"HEAD"
        self._begin_body(parsed.content_length, underscores=False)
        return parsed

    def _skip_empty_line(self) -> bool:
        """Skip one CRLF before the request line; return False when nothing else is there yet."""
        line = self._buffer[self._at : self._at + 2]
        if line == b"\r" and not self._eof:
            return False
        if self._skipped_empty_line or line != b"\r\n":
            raise ProtocolError("an empty line stands where a request must begin", Reason.REQUEST_LINE_INVALID)
        self._skipped_empty_line = True
        self._at += 2
        return self._at < len(self._buffer) and (self._buffer[self._at] != CR or self._skip_empty_line())

    def _look_at_first_line(self, grown: bytearray) -> None:
        if grown.find(b"\r\n", 0, max(0, self._scanned)) >= 0:
            return
        end = grown.find(b"\r\n")
        if end >= 0:
            parse_request_line(bytes(grown[:end]))

    def encode_response(self, head: ResponseHead, *, extra: bytes = b"", close: bool = False) -> bytes:
        """Write an answer's head and remember how its body must be framed.

        `close` asks for `Connection: close`; it is also written when the codec itself must close: the client asked
        for it, or cannot be told the length otherwise. An interim answer is written as it is, and not at all to an
        HTTP/1.0 client (RFC 9110 section 15.2).
        """
        if head.status < 200 and head.interim:
            if self._version == b"1.0":
                return b""
            return write_response_head(head, extra=extra, close=False, to_version=self._version, chunked=False)
        self._out_chunked = False
        if close:
            self.must_close = True
        if head.content_length < 0 and not self._out_empty:  # CHUNKED or UNTIL_CLOSE
            self._out_chunked = frames_in_chunks(head, self._version)
            if not self._out_chunked:
                self.must_close = True
        return write_response_head(
            head, extra=extra, close=self.must_close, to_version=self._version, chunked=self._out_chunked
        )

    def encode_data(self, data: bytes) -> bytes:
        """Write body bytes in the framing of the head written last; an answer to HEAD has none."""
        if self._out_chunked:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return b"" if self._out_empty else data

    def encode_end(self, trailers: Sequence[Field] = ()) -> bytes:
        """Write the end of the answer. If the request was not read to its End by now, the connection must close."""
        if self._state != DONE:
            self.must_close = True
        if not self._out_chunked:
            return b""
        self._out_chunked = False
        return _last_chunk(trailers)


class ClientCodec(Reading):
    """The side that writes requests and reads answers."""

    __slots__ = ("_asked_upgrade", "_keep_alive", "_method", "_out_chunked", "_reader", "_request_open")

    def __init__(self, limits: HeadLimits, reader: HeadReader | None = None) -> None:
        super().__init__(limits, DONE, 0)
        self._reader = reader
        self._method = b""
        self._asked_upgrade = b""
        self._keep_alive = True
        self._out_chunked = False
        self._request_open = False

    @property
    def reusable(self) -> bool:
        """Another request may be sent: both messages are complete, both sides keep alive, no byte too many came."""
        return (
            self._state == DONE
            and self._keep_alive
            and not self._request_open
            and not self._eof
            and self._at == len(self._buffer)
        )

    @property
    def at_end(self) -> bool:
        """The upstream has closed its side and no answer is being read."""
        return self._eof and self._state == DONE

    def start_request(self, method: bytes, upgrade: bytes = b"") -> None:
        """Expect the answer to a request with this method; `upgrade` is the protocol asked for, b"" for none.

        Raises ProtocolError on a connection that is not `reusable`: what lies in its buffer would be taken for the
        answer to this request.
        """
        if not self.reusable:
            raise ProtocolError(
                "the upstream sent bytes that no request had asked for", Reason.UPSTREAM_RESPONSE_INVALID, "upstream"
            )
        self._method = method
        self._asked_upgrade = upgrade
        self._keep_alive = True
        self._state = HEAD
        self.stream += 1

    def take_whole(self, data: bytes) -> Answer | None:
        """Take what was read when it is one whole answer in canonical form, or nothing of it, and return None.

        The answer is complete then; the last `length` bytes of `data` are its body.
        """
        reader = self._reader
        if (
            reader is None
            or self._state != HEAD
            or self._method == b"HEAD"
            or self._grown is not None
            or self._at != len(self._buffer)
        ):
            return None
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        answer = reader.read_answer(data[:end], self._limits)
        if answer is None or answer.length != len(data) - end:
            return None
        self._state = DONE
        return answer

    def encode_request(self, head: RequestHead, *, extra: bytes = b"", strip_reserved: bool) -> bytes:
        """Write a request's head, expect its answer, and remember how its body must be framed."""
        self.start_request(head.method, head.upgrade)
        self._out_chunked = head.content_length == CHUNKED
        self._request_open = head.content_length != 0
        return write_request_head(head, extra=extra, strip_reserved=strip_reserved)

    def encode_whole(self, head: RequestHead, body: bytes, *, extra: bytes, strip_reserved: bool) -> bytes:
        """Write a request at whose end `body` ends, and expect its answer; a body of known length only."""
        if head.upgrade or not self.reusable:
            self.start_request(head.method, head.upgrade)
        else:  # the same without the call
            self._method = head.method
            self._asked_upgrade = b""
            self._state = HEAD
            self.stream += 1
        out = write_request_head(head, extra=extra, strip_reserved=strip_reserved)
        return out + body if body else out

    def encode_data(self, data: bytes) -> bytes:
        """Write body bytes in the framing of the request."""
        if self._out_chunked:
            return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        return data

    def encode_end(self, trailers: Sequence[Field] = ()) -> bytes:
        """Write the end of the request."""
        self._request_open = False
        if not self._out_chunked:
            return b""
        self._out_chunked = False
        return _last_chunk(trailers)

    def next_event(self) -> Event | None:
        """Return the next event, None when more bytes are needed; raises ProtocolError with side "upstream"."""
        state = self._state
        try:
            if state == HEAD:
                return self._next_head()
            if state == END and self._decoder is None:
                self._state = DONE
                return End(self.stream)
            if state >= DONE:
                return None
            return self._next_of_body(Reason.UPSTREAM_RESPONSE_INCOMPLETE, "upstream")
        except ProtocolError as fault:
            if fault.side == "upstream":
                raise
            raise ProtocolError(str(fault), Reason.UPSTREAM_RESPONSE_INVALID, side="upstream") from fault

    def _next_head(self) -> Event | None:
        head = self._take_head()
        if head is None:
            if not self._eof:
                return None
            if self.buffered:
                raise ProtocolError(
                    "the upstream closed within the head of its answer", Reason.UPSTREAM_RESPONSE_INCOMPLETE, "upstream"
                )
            raise ProtocolError("the upstream closed before it answered", Reason.UPSTREAM_CLOSED, "upstream")
        reader = self._reader
        if reader is not None:
            parsed = reader.read_response_head(
                head, request_method=self._method, limits=self._limits, stream=self.stream
            )
        else:
            parsed = parse_response_head(head, request_method=self._method, limits=self._limits, stream=self.stream)
        if parsed.status < 200:
            if parsed.status == 101:
                if not self._asked_upgrade or parsed.upgrade != self._asked_upgrade:
                    raise ProtocolError(
                        "the upstream switches to a protocol that nobody asked for",
                        Reason.UPSTREAM_RESPONSE_INVALID,
                        "upstream",
                    )
                self._state = TUNNEL
            return parsed
        self._keep_alive = parsed.keep_alive
        self._begin_body(parsed.content_length, underscores=True)
        return parsed


def _last_chunk(trailers: Sequence[Field]) -> bytes:
    """Write the last chunk, the trailer fields that may pass, and the empty line."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % b"".join([field.line for field in trailers if field.kind is Kind.FORWARD])
