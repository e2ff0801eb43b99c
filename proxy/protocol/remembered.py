"""What is made once of lines that come again and again, and used for every message that has them.

What was understood never changes: it is shared by all messages of an event loop.
"""

from __future__ import annotations

from proxy.protocol.stream import CHUNKED, Field, Kind, RequestHead, ResponseHead


class RequestLine:
    """A request line that was understood, and what is made of it for every request that has it.

    The texts and the `opening` are there once `prepare` was called.
    """

    __slots__ = ("method", "method_text", "opening", "path", "path_text", "query", "target", "version")

    def __init__(self, method: bytes, target: bytes, path: bytes, query: bytes, version: bytes) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.version = version
        self.method_text = self.path_text = ""
        self.opening = b""
        """As it goes out, up to the authority; b"" before `prepare`."""

    def prepare(self) -> None:
        """Write what a head is put together from; a third of the line's cost, so only where its block is known too."""
        method, path, query = self.method, self.path, self.query
        self.method_text = method.decode("latin-1")
        self.path_text = (path + query).decode("latin-1")
        self.opening = b"%b %b%b HTTP/1.1\r\nhost: " % (method, path, query)


class FieldBlock:
    """The lines of a request's head but those that trace, and what is made of them for every request that has them.

    `before` and `after` are the fields before and after the trace fields. `opening` is the authority and what goes out
    of `before`, `rest` what goes out of `after` and the framing; a mesh's own fields are in neither, and `reserved` is
    true when there were any.
    """

    __slots__ = (
        "after",
        "authority",
        "authority_text",
        "before",
        "closes",
        "content_length",
        "forwarded_for",
        "has_length",
        "opening",
        "persists",
        "reserved",
        "rest",
        "user_agent",
    )

    def __init__(self, head: RequestHead, before: list[Field], after: list[Field]) -> None:
        fields = before + after
        self.before = before
        self.after = after
        self.authority = head.authority
        self.content_length = head.content_length
        self.has_length = head.has_length
        options = [line.value.lower() for line in fields if line.name == b"connection"]
        self.closes = b"close" in options
        self.persists = bool(options) and not self.closes
        self.authority_text = head.authority.decode("latin-1")
        self.user_agent = self.forwarded_for = ""
        for line in fields:
            if line.name == b"user-agent":
                self.user_agent = line.value.decode("latin-1")
            elif line.name == b"x-forwarded-for":
                self.forwarded_for = line.value.decode("latin-1")
        self.reserved = any(line.kind is Kind.RESERVED for line in fields)
        self.opening = head.authority + b"\r\n" + _passed_on(before)
        self.rest = _passed_on(after)
        if head.content_length == CHUNKED:
            self.rest += b"transfer-encoding: chunked\r\n"
        elif head.has_length:
            self.rest += b"content-length: %d\r\n" % head.content_length


def _passed_on(fields: list[Field]) -> bytes:
    return b"".join([line.line for line in fields if line.kind is Kind.FORWARD])


Remembered = tuple[RequestLine, FieldBlock, bytes, bytes, bool]
"""What a head was put together from: line, block, trace lines, request id (b"": none), whether it is traced."""


class Answer:
    """An answer whose whole head was understood, and how it goes to a client of 1.1 whose connection stays open.

    `head` is shared by all answers that begin with the same bytes: its `stream` says nothing.
    """

    __slots__ = ("head", "length", "written")

    def __init__(self, head: ResponseHead, written: bytes) -> None:
        self.head = head
        self.length = head.content_length
        self.written = written
