"""A page in parts: sent as its caller takes it, whole or visibly broken off, and the connection goes on after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from mesh import Mesh, eventually, get

from proxy.accept.listener import Listener, open_listener
from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageServer

PART = b"x" * 30_000 + b"\n"
COUNT = 400


class Parts:
    """Pages in parts, and how many parts were made."""

    def __init__(self) -> None:
        self.made = 0
        self.port = 0

    def many(self) -> Iterator[bytes]:
        for _ in range(COUNT):
            self.made += 1
            yield PART

    def broken(self) -> Iterator[bytes]:
        yield PART
        raise RuntimeError("the page is broken")


@pytest_asyncio.fixture
async def parts() -> AsyncIterator[Parts]:
    loop = asyncio.get_running_loop()
    found, clock = Parts(), CoarseClock(loop)
    pages = {
        "/many": lambda _: Page(parts=found.many()),
        "/broken": lambda _: Page(parts=found.broken()),
        "/empty": lambda _: Page(parts=iter([b""])),
        "/whole": lambda _: Page(body=b"whole"),
    }
    server = PageServer(loop, clock, pages)
    listener = Listener(
        loop, open_listener("127.0.0.1", 0), server.admit, name="pages", back_off=0.1, on_exhausted=lambda _: None
    )
    found.port = listener.port
    yield found
    listener.close()
    server.close()
    clock.stop()


@pytest.mark.asyncio
async def test_it_arrives_whole_and_the_next_request_is_answered(mesh: Mesh, parts: Parts) -> None:
    client = await mesh.plain_client(parts.port)
    await client.send(get("/many") + get("/whole") + get("/empty") + get("/whole"))
    first, second, third, fourth = [await client.message() for _ in range(4)]
    assert (first.body, second.body, third.body, fourth.body) == (PART * COUNT, b"whole", b"", b"whole")
    assert first.get("transfer-encoding") == b"chunked"
    assert first.get("x-content-type-options") == b"nosniff"


@pytest.mark.asyncio
async def test_a_caller_that_does_not_read_gets_no_more_made(mesh: Mesh, parts: Parts) -> None:
    client = await mesh.plain_client(parts.port, receive_buffer=4_096)
    await client.send(get("/many"))
    await eventually(lambda: parts.made, "the page is begun")
    await asyncio.sleep(0.3)
    made = parts.made
    assert made < COUNT
    await asyncio.sleep(0.1)
    assert parts.made == made
    assert (await client.message()).body == PART * COUNT


@pytest.mark.asyncio
async def test_a_close_that_was_asked_for_follows_the_last_part(mesh: Mesh, parts: Parts) -> None:
    client = await mesh.plain_client(parts.port)
    await client.send(get("/many", "Connection: close"))
    assert (await client.message()).body == PART * COUNT
    assert await client.closed() == "clean"


@pytest.mark.asyncio
async def test_http_10_and_head_have_a_length(mesh: Mesh, parts: Parts) -> None:
    old = await mesh.plain_client(parts.port)
    await old.send(b"GET /empty HTTP/1.0\r\nHost: h\r\n\r\n")
    answer = await old.message()
    assert (answer.get("content-length"), answer.get("transfer-encoding")) == (b"0", None)
    client = await mesh.plain_client(parts.port)
    await client.send(get("/empty", method="HEAD") + get("/whole"))
    assert b"content-length: 0" in (await client.message(to=b"HEAD")).head
    assert (await client.message()).body == b"whole"


@pytest.mark.asyncio
async def test_a_page_that_fails_midway_is_never_made_to_look_whole(
    mesh: Mesh, parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    client = await mesh.plain_client(parts.port)
    await client.send(get("/broken"))
    await client.closed()
    assert not client.received.endswith(b"0\r\n\r\n")
    assert "the page is broken" in caplog.text
    again = await mesh.plain_client(parts.port)
    await again.send(get("/whole"))
    assert (await again.message()).body == b"whole"
