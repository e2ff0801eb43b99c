"""What the page listener lets its owner say: who called, how much may be posted, what answers too much, and 304."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from test_wire_pages import Caller, get

from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageRequest, PageServer


class Desk:
    """A page server with an origin for each connection, and its callers."""

    def __init__(self, *, connections: int = 8, is_polite: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.clock = CoarseClock(loop)
        self.pages = PageServer(
            loop,
            self.clock,
            {"/who": lambda request: Page(body=f"{request.origin}\n".encode()), "/same": self._same},
            actions={"/post": lambda request: Page(body=b"%d\n" % len(request.body))},
            oversize=self._too_large if is_polite else None,
            max_body=10_000,
            connections=connections,
        )
        self.callers: list[Caller] = []

    def call(self, origin: object = None) -> Caller:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.callers.append(Caller(theirs))
        self.pages.admit(ours, origin=origin)
        return self.callers[-1]

    def close(self) -> None:
        self.pages.close()
        self.clock.stop()
        for caller in self.callers:
            caller.sock.close()

    def _same(self, request: PageRequest) -> Page:
        return Page(status=304, body=b"what 200 would bring", headers={"etag": '"7"'})

    def _too_large(self, request: PageRequest) -> Page:
        return Page(status=413, body=f"too much for {request.path} of {request.origin}\n".encode())


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    made.close()


def post(size: int) -> bytes:
    return b"POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size


@pytest.mark.asyncio
async def test_a_page_knows_who_called(desk: Desk) -> None:
    for origin in ("alice", "bob"):
        caller = desk.call(origin)
        await caller.ask(get(b"/who"))
        assert (await caller.hear(until=b"\n")).endswith(f"\r\n\r\n{origin}\n".encode())


@pytest.mark.asyncio
async def test_a_body_up_to_the_limit_is_taken(desk: Desk) -> None:
    caller = desk.call()
    await caller.ask(post(10_000))
    assert (await caller.hear(until=b"10000\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio
@pytest.mark.parametrize("is_polite", [True, False])
async def test_a_larger_body_is_answered_by_the_owner_and_ends_the_connection(is_polite: bool) -> None:
    desk = Desk(is_polite=is_polite)
    try:
        caller = desk.call("alice")
        await caller.ask(post(10_001))
        answer = await caller.hear()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close\r\n" in answer
        told = b"too much for /post of alice\n" if is_polite else b"a body is 10000 bytes at most here\n"
        assert answer.endswith(told)
    finally:
        desk.close()


@pytest.mark.asyncio
async def test_a_body_that_is_announced_too_large_is_not_waited_for(desk: Desk) -> None:
    caller = desk.call("alice")
    await caller.ask(post(10_001).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert (await caller.hear()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.asyncio
async def test_not_modified_has_the_length_of_what_it_stands_for_and_no_body(desk: Desk) -> None:
    caller = desk.call()
    await caller.ask(get(b"/same") + get(b"/who", b"connection: close"))
    answer = await caller.hear()
    assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert b"content-length: 20\r\n" in answer
    assert b"what 200" not in answer
    assert answer.count(b"HTTP/1.1") == 2


@pytest.mark.asyncio
async def test_one_too_many_is_closed_at_once() -> None:
    desk = Desk(connections=1)
    try:
        first = desk.call("alice")
        assert desk.pages.is_full
        assert await desk.call("bob").hear() == b""
        await first.ask(get(b"/who"))
        assert (await first.hear(until=b"\n")).endswith(b"alice\n")
    finally:
        desk.close()
