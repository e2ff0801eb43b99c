"""A small HTTP listener for pages: health, metrics, admin. It never sees traffic of the mesh.

It reads with the same strict codec as the data path and answers from a function. GET and HEAD are for pages, POST for
the few paths that do something. Connections are kept alive, their number and idle time bounded, since a kubelet, a
scraper and a person are all the callers that there should be.

What a browser may do with an answer is said in every one: not guess its type, not keep it, not show it inside or to
another site.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from proxy.errors import ProtocolError
from proxy.interfaces import ByteEnd, Clock
from proxy.protocol.headers import local_response
from proxy.protocol.http1 import ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import Data, End, HeadLimits, RequestHead
from proxy.runtime.wire import LoopWire, PlainEnd

MAX_BODY: Final = 4096
"""Bytes of a request's body: what is posted here is a word or nothing."""

CONNECTIONS: Final = 64
"""A scraper and a kubelet need two; more than this is somebody's mistake and must not cost the data path."""
_IDLE: Final = 30.0
_PARAMETERS: Final = 16

_SECURITY: Final = (
    b"x-content-type-options: nosniff\r\ncache-control: no-store\r\ncross-origin-resource-policy: same-origin\r\n"
)

_log = logging.getLogger("remora.pages")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """What was asked: header names are lower case, `query` and `body` as sent; a HEAD comes as a GET.

    Header lines of one name are joined by commas.

    `origin` is what the one who admitted the connection knows of it, None if nothing.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer: `body` is text in UTF-8 bytes, `content_type` its media type, `headers` further ones.

    A long one has `parts` instead, which are made one by one as the caller takes them, with traffic in between. With
    status 304 the body is what 200 would have brought, and stays here (RFC 9110 section 8.6).
    """

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    parts: Iterator[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


_BROKEN: Final = Page(status=500, body=b"the page could not be made; the log says why\n")

PageMaker = Callable[[PageRequest], "Page | asyncio.Future[Page]"]
"""Makes an answer, now or as soon as others have been asked; requests behind it on the connection wait."""


class PageServer:
    """Answers GET by `pages` and POST by `actions`: path -> function that makes the answer.

    `guard` sees every request first; a page that it gives is the answer. `oversize` answers a request whose body is
    larger than `max_body`; it comes without the body, and the connection ends. `idle` is how many seconds a connection
    may stand open between two requests; None for the usual half minute.
    """

    __slots__ = (
        "_actions",
        "_clock",
        "_connections",
        "_guard",
        "_idle",
        "_loop",
        "_most",
        "_oversize",
        "_pages",
        "max_body",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        pages: Mapping[str, PageMaker],
        *,
        actions: Mapping[str, PageMaker] | None = None,
        guard: Callable[[PageRequest], Page | None] | None = None,
        oversize: Callable[[PageRequest], Page] | None = None,
        max_body: int = MAX_BODY,
        connections: int = CONNECTIONS,
        idle: float | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._pages = pages
        self._actions = actions or {}
        self._guard = guard
        self._oversize = oversize
        self.max_body = max_body
        self._most = connections
        self._idle = idle
        self._connections: set[_PageConnection] = set()

    @property
    def is_full(self) -> bool:
        """Whether the next connection would be one too many."""
        return len(self._connections) >= self._most

    @property
    def idle(self) -> float:
        """How many seconds a connection may stand open between two requests."""
        return _IDLE if self._idle is None else self._idle

    @property
    def most(self) -> int:
        """How many connections may be open."""
        return self._most

    @property
    def origins(self) -> Iterator[object]:
        """What is known of each open connection, as it was admitted."""
        return (connection.origin for connection in self._connections)

    def admit(self, sock: socket.socket, end: ByteEnd | None = None, origin: object = None) -> None:
        """Serve a connection, or close it when there are too many; `end` is TLS on the socket, None for none."""
        if self.is_full:
            if end is not None:
                end.release()
            sock.close()
            return
        wire = LoopWire(self._loop, self._clock, sock, PlainEnd(sock) if end is None else end)
        connection = _PageConnection(self._loop, self, wire, self._clock, origin)
        self._connections.add(connection)
        connection.start()
        wire.read_now()  # behind the last flight of a handshake data may stand already

    def forget(self, connection: _PageConnection) -> None:
        """Drop a connection that has ended."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._connections):
            connection.close()

    def refuse_body(self, head: RequestHead, origin: object) -> Page:
        """Make the answer to a request whose body is too large."""
        if self._oversize is not None:
            try:
                return self._oversize(_request(head, head.path.decode("latin-1"), b"", origin))
            except ValueError:
                return Page(status=400, body=b"the query has too many parts\n")
            except Exception:
                _log.exception("a request that is too large could not be answered")
                return _BROKEN
        return Page(status=413, body=b"a body is %d bytes at most here\n" % self.max_body)

    def answer(self, head: RequestHead, body: bytes, origin: object = None) -> Page | asyncio.Future[Page]:
        """Make the page for a request, or begin to."""
        path = head.path.decode("latin-1")
        post = head.method == b"POST"
        if not post and head.method not in (b"GET", b"HEAD"):
            return Page(status=405, body=b"only GET and POST are served here\n")
        try:
            request = _request(head, path, body, origin)
        except ValueError:
            return Page(status=400, body=b"the query has too many parts\n")
        try:
            if self._guard is not None and (refusal := self._guard(request)) is not None:
                return refusal
            make = (self._actions if post else self._pages).get(path)
            return make(request) if make is not None else self._no_such(path)
        except Exception:
            _log.exception("the page %s could not be made", path)
            return _BROKEN

    def _no_such(self, path: str) -> Page:
        if path in self._actions:
            body = f"{path} does something: it takes POST\n".encode("latin-1")
            return Page(status=405, body=body, headers={"allow": "POST"})
        if path in self._pages:
            return Page(status=405, body=b"this is a page: it takes GET\n", headers={"allow": "GET, HEAD"})
        known = " ".join(sorted({*self._pages, *self._actions}))
        return Page(status=404, body=f"no such page; there are {known}\n".encode())


def _request(head: RequestHead, path: str, body: bytes, origin: object) -> PageRequest:
    query = parse_qsl(head.query[1:].decode("latin-1"), keep_blank_values=True, max_num_fields=_PARAMETERS)
    headers: dict[str, str] = {}
    for field_name, field_value, _, _ in head.fields:
        name, value = field_name.decode("latin-1"), field_value.decode("latin-1")
        # RFC 9110 section 5.3. Of lines of one name none may hide the others: policies look at them.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return PageRequest(
        method="POST" if head.method == b"POST" else "GET",
        path=path,
        query=dict(query),
        headers=headers | {"host": head.authority.decode("latin-1")},
        body=body,
        origin=origin,
    )


class _PageConnection:
    """One connection of the page listener."""

    __slots__ = (
        "_body",
        "_clock",
        "_closing",
        "_codec",
        "_head",
        "_loop",
        "_making",
        "_next",
        "_parts",
        "_server",
        "_wire",
        "deadline",
        "origin",
        "slot",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, server: PageServer, wire: LoopWire, clock: Clock, origin: object
    ) -> None:
        self._loop = loop
        self.origin = origin
        self._parts: Iterator[bytes] | None = None
        self._next: asyncio.Handle | None = None
        self._making: asyncio.Future[Page] | None = None
        self._server = server
        self._wire = wire
        self._clock = clock
        self._codec = ServerCodec(HeadLimits(), PathNormalization.BASE)
        self._head: RequestHead | None = None
        self._body = b""
        self._closing = False
        self.deadline = self.slot = math.inf

    def start(self) -> None:
        self._wire.receiver = self
        self._wire.start()
        self._clock.arm(self, _IDLE)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        # The deadline does not move with each piece of data: a head, and a body, have to be whole in time.
        self._codec.receive(data)
        self._pump()

    def _pump(self) -> None:
        codec = self._codec
        try:
            while (event := codec.next_event()) is not None:
                if isinstance(event, RequestHead):
                    self._clock.arm(self, _IDLE)
                    self._head = event
                    self._body = b""
                    if event.content_length > self._server.max_body:
                        self._say(self._server.refuse_body(event, self.origin))
                        return
                elif isinstance(event, Data):
                    self._body += event.data
                    if len(self._body) > self._server.max_body and self._head is not None:
                        self._say(self._server.refuse_body(self._head, self.origin))
                        return
                elif isinstance(event, End) and self._head is not None:
                    page = self._server.answer(self._head, self._body, self.origin)
                    if isinstance(page, asyncio.Future):
                        self._clock.arm(self, _IDLE)
                        self._wire.pause()
                        self._making = page
                        page.add_done_callback(self._made)
                        return
                    if not self._give(self._head, page):
                        return
        except ProtocolError as fault:
            self._say(Page(status=fault.reason.consequence.status or 400, body=f"{fault}\n".encode()))

    def _give(self, head: RequestHead, page: Page) -> bool:
        """Write a page; say whether the next request can be read at once."""
        if page.parts is not None and head.method != b"HEAD" and head.version != b"1.0":
            self._begin(page, page.parts, close=not head.keep_alive)
            return False
        self._clock.arm(self, self._server.idle)
        self._wire.write(_written(page, close=not head.keep_alive, head_request=head.method == b"HEAD"))
        if not head.keep_alive or self._wire.congested:
            self._end()
            return False
        self._codec.start_next_stream()
        return True

    def _made(self, making: asyncio.Future[Page]) -> None:
        """Give a page that took time to make."""
        self._making = None
        if self._wire.closed or self._head is None:
            return
        if making.cancelled():
            self.close()
            return
        failure = making.exception()
        if failure is not None:
            _log.error("the page %s could not be made", self._head.path.decode("latin-1"), exc_info=failure)
        self._wire.resume()
        self._clock.arm(self, _IDLE)
        if self._give(self._head, _BROKEN if failure is not None else making.result()):
            self._pump()

    def _begin(self, page: Page, parts: Iterator[bytes], *, close: bool) -> None:
        """Send a page in parts; the next request is read when it is out."""
        self._wire.pause()
        self._wire.write(_chunked_head(page, close=close))
        self._closing = close
        self._parts = parts
        self._go_on()

    def _go_on(self) -> None:
        self._next = None
        parts, wire = self._parts, self._wire
        if parts is None or wire.closed:
            return
        try:
            part = next(parts, None)
        except Exception:
            _log.exception("a page could not be made to its end")
            wire.abort()  # nothing is made to look whole
            self.close()
            return
        if part is None:
            self._parts = None
            wire.write(b"0\r\n\r\n")
            wire.resume()
            if self._closing:
                self._end()
            else:
                self._codec.start_next_stream()
                self._pump()
            return
        self._clock.arm(self, _IDLE)
        if part:
            wire.write(b"%x\r\n%b\r\n" % (len(part), part))
        if not wire.congested and not wire.closed:
            self._next = self._loop.call_soon(self._go_on)

    def _say(self, page: Page) -> None:
        self._wire.write(_written(page, close=True, head_request=False))
        self._end()

    def _end(self) -> None:
        """End our side; what still comes is dropped until the caller ends its own."""
        self._closing = True
        self._wire.close_write()

    def end_received(self) -> None:
        self.close()

    def wire_lost(self, reason: OSError) -> None:
        self.close()

    def write_ready(self) -> None:
        """The caller has taken what was written: let the next part follow."""
        if self._parts is not None and self._next is None:
            self._go_on()

    def deadline_passed(self) -> None:
        self.close()

    def close(self) -> None:
        self._clock.disarm(self)
        self._parts = None
        if self._making is not None:
            self._making.cancel()
            self._making = None
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._wire.close()
        self._server.forget(self)


def _written(page: Page, *, close: bool, head_request: bool) -> bytes:
    return local_response(
        page.status,
        page.body if page.parts is None else b"".join(page.parts),
        content_type=page.content_type.encode(),
        extra=_extra(page),
        close=close,
        head_request=head_request or page.status == 304,
    )


def _chunked_head(page: Page, *, close: bool) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n%b%b\r\n" % (
        page.content_type.encode(),
        b"connection: close\r\n" if close else b"",
        _extra(page),
    )


def _extra(page: Page) -> bytes:
    return _SECURITY + b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in page.headers.items())
