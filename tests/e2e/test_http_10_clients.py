"""HTTP/1.0 clients: one answer and a close, or keep-alive where they ask for it; never a chunk."""

from __future__ import annotations

import pytest
from mesh import Backend, Mesh, Stream, answering, get

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-t: 1\r\n\r\n"


@pytest.mark.asyncio
async def test_closed_after_one_answer(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(b"GET /a HTTP/1.0\r\nHost: orders\r\n\r\n")
    answer = await client.message()
    assert (answer.status, answer.body, answer.get("connection")) == (200, b"ok", b"close")
    assert await client.closed() == "clean"
    assert backend.requests[0].line == b"GET /a HTTP/1.1"


@pytest.mark.asyncio
async def test_keep_alive_where_asked_for(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for _ in range(2):
        await client.send(b"GET / HTTP/1.0\r\nHost: orders\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.message()
        assert (answer.status, answer.get("connection")) == (200, b"keep-alive")
    records = await orders.records(2, kind="request")
    assert {record["protocol"] for record in records} == {"HTTP/1.0"}


@pytest.mark.asyncio
@pytest.mark.parametrize("keep_alive", [False, True])
async def test_a_chunked_answer_comes_without_chunks_until_the_close(mesh: Mesh, keep_alive: bool) -> None:
    backend = await mesh.backend(answering(CHUNKED))
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    line = b"Connection: keep-alive\r\n" if keep_alive else b""
    await client.send(b"GET / HTTP/1.0\r\nHost: orders\r\n%b\r\n" % line)
    answer = await client.message()
    assert answer.get("transfer-encoding") is None
    assert (answer.body, answer.get("connection")) == (b"hello world", b"close")
    await orders.records(1, kind="request")
    await_next = await mesh.client(orders)
    await await_next.send(get())
    assert (await await_next.message()).status == 200
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_an_answer_cut_short_is_no_clean_end(mesh: Mesh) -> None:
    async def breaks(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(CHUNKED[:-20])

    backend = await mesh.backend(breaks)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(b"GET / HTTP/1.0\r\nHost: orders\r\n\r\n")
    assert await client.closed() == "broken"


@pytest.mark.asyncio
async def test_an_upstream_that_speaks_http10(mesh: Mesh) -> None:
    async def old(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.0 200 OK\r\n\r\nold body")

    backend = await mesh.backend(old)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for number in (1, 2):
        await client.send(get())
        answer = await client.message()
        assert (answer.line, answer.body) == (b"HTTP/1.1 200 OK", b"old body")
        assert len(backend.streams) == number
