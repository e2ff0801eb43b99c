"""What a page is told of a request is all that was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from proxy.protocol.http1 import ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageRequest, PageServer


class Seen:
    """A server with one page, and the requests that came to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.requests: list[PageRequest] = []
        self._server = PageServer(loop, CoarseClock(loop), {"/": self._page})

    def ask(self, *lines: str) -> PageRequest:
        codec = ServerCodec(HeadLimits(), PathNormalization.BASE)
        codec.receive("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = codec.next_event()
        assert isinstance(head, RequestHead)
        self._server.answer(head, b"")
        return self.requests[-1]

    def _page(self, request: PageRequest) -> Page:
        self.requests.append(request)
        return Page()


@pytest.fixture
def seen() -> Iterator[Seen]:
    loop = asyncio.new_event_loop()
    try:
        yield Seen(loop)
    finally:
        loop.close()


def test_of_header_lines_with_one_name_none_hides_the_others(seen: Seen) -> None:
    request = seen.ask("GET / HTTP/1.1", "host: a", "x-role: admin", "accept: text/plain", "X-Role: reader")
    assert request.headers["x-role"] == "admin, reader"
    assert (request.headers["accept"], request.headers["host"]) == ("text/plain", "a")


def test_a_query_is_taken_apart(seen: Seen) -> None:
    request = seen.ask("HEAD /?confirms=7&instance=a%2Fb HTTP/1.1", "host: a")
    assert (request.method, request.path, dict(request.query)) == ("GET", "/", {"confirms": "7", "instance": "a/b"})
