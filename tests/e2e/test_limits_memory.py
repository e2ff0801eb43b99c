"""Memory stays bounded whatever a peer sends: a body in chunks of one byte, and requests that nobody answers."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Stream, eventually, get

CHUNKS = b"1\r\nx\r\n" * 2_730
FIRST, ALL = 60, 260
"""Pieces of CHUNKS: 160,000 chunks to warm up, then 540,000 more, which at 2 bytes a chunk would be 1.08 MB."""
GROWTH = 1024 * 1024
FLOOD = 32 * 1024 * 1024


@pytest.mark.asyncio
async def test_chunks_of_one_byte(mesh: Mesh) -> None:
    counted = 0

    async def count(stream: Stream, backend: Backend) -> None:
        nonlocal counted
        await stream.head()
        stream.forget()
        while not stream.received.endswith(b"\r\n0\r\n\r\n"):
            await stream.receive()
            counted += stream.received.count(b"x", 7)
            del stream.received[:-7]
        await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    backend = await mesh.backend(count)
    orders = await mesh.process("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/", "Transfer-Encoding: chunked", method="POST"))
    for _ in range(FIRST):
        await client.send(CHUNKS)
    await eventually(lambda: counted > 0.9 * FIRST * 2_730)
    before = orders.resident
    for _ in range(ALL - FIRST):
        await client.send(CHUNKS)
    await eventually(lambda: counted > 0.9 * ALL * 2_730)
    assert orders.resident - before < GROWTH
    await client.send(b"0\r\n\r\n")
    assert (await client.message()).status == 204
    [record] = await orders.records(1, kind="request")
    assert record["bytes_received"] == ALL * 2_730


@pytest.mark.asyncio
async def test_requests_that_nobody_answers(mesh: Mesh) -> None:
    async def never(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await asyncio.sleep(60)

    backend = await mesh.backend(never)
    orders = await mesh.process("orders", app=backend)
    client = await mesh.client(orders, send_buffer=65_536)
    await client.send(get())
    await eventually(lambda: backend.requests)
    before = orders.resident
    block = get("/more") * 500
    sent = quiet = 0
    while sent < FLOOD and quiet < 25:
        taken = client.send_now(block[sent % len(block) :])
        sent += taken
        quiet = 0 if taken else quiet + 1
        if not taken:
            await asyncio.sleep(0.01)
    assert sent < FLOOD // 2
    assert orders.resident - before < 4 * GROWTH
    assert len(backend.requests) == 1
