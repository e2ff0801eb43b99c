"""Back-pressure end to end: who sends is stopped while the other side does not read, and nothing is lost after that."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from mesh import Backend, Mesh, Sidecar, Stream, eventually, get

SIZE = 64 * 1024 * 1024
PIECE = b"\xa5" * 65_536
SMALL = 65_536
STOPPED_WITHIN = 16 * 1024 * 1024
"""What kernels may hold on the way: the buffers of two sockets of the sidecar grow to some megabytes each."""


async def send_until_stopped(stream: Stream) -> int:
    """Send pieces until the kernel has taken nothing for a while, and say how many bytes it took."""
    sent, stopped_at = 0, time.monotonic() + 0.25
    while time.monotonic() < stopped_at and sent < SIZE:
        # What TLS did not take must be given again, the same bytes: every piece looks alike.
        taken = stream.send_now(PIECE[: min(len(PIECE), SIZE - sent)])
        sent += taken
        if taken:
            stopped_at = time.monotonic() + 0.25
        else:
            await asyncio.sleep(0.01)
    return sent


async def send_rest(stream: Stream, sent: int) -> None:
    while sent < SIZE:
        piece = PIECE[: min(len(PIECE), SIZE - sent)]
        await stream.send(piece)
        sent += len(piece)


async def count(stream: Stream, size: int) -> int:
    """Read and drop `size` bytes; keeps nothing."""
    seen = len(stream.unread)
    while seen < size:
        data = await stream.receive()
        if not data:
            break
        seen += len(data)
        stream.received.clear()
    return seen


def held(sidecar: Sidecar) -> int:
    """Bytes that the connections of a sidecar hold in this process."""
    handlers = [entry._handler for entry in sidecar.app.sidecar.registry]
    total = 0
    for handler in handlers:
        wires = [getattr(handler, "_wire", None)]
        exchange = getattr(handler, "_exchange", None)
        if exchange is not None:
            total += exchange._pending_bytes
            wires.append(exchange.upstream.wire if exchange.upstream is not None else None)
        total += sum(wire._held_bytes for wire in wires if wire is not None)
    return total


@pytest.mark.asyncio
async def test_the_client_is_stopped_while_the_backend_does_not_read(mesh: Mesh) -> None:
    go_on = asyncio.Event()
    seen: list[int] = []

    async def lazily(stream: Stream, backend: Backend) -> None:
        await stream.head()
        await go_on.wait()
        seen.append(await count(stream, SIZE))
        await stream.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await count(stream, 1)

    backend = await mesh.backend(lazily, receive_buffer=SMALL)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders, send_buffer=SMALL)
    await client.send(get("/", f"Content-Length: {SIZE}", method="PUT"))
    sent = await send_until_stopped(client)
    assert 0 < sent < STOPPED_WITHIN
    assert held(orders) < 256 * 1024
    go_on.set()
    await send_rest(client, sent)
    assert (await client.message()).status == 204
    assert seen == [SIZE]


@pytest.mark.asyncio
async def test_the_backend_is_stopped_while_the_client_does_not_read(mesh: Mesh) -> None:
    sent: list[int] = []

    async def floods(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SIZE)
        sent.append(await send_until_stopped(stream))
        await send_rest(stream, sent[0])
        with contextlib.suppress(EOFError):
            await backend.take(stream)

    backend = await mesh.backend(floods, send_buffer=SMALL)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders, receive_buffer=SMALL)
    await client.send(get())
    await client.head()
    await eventually(lambda: sent)
    assert 0 < sent[0] < STOPPED_WITHIN
    assert held(orders) < 256 * 1024
    assert await count(client, SIZE) == SIZE


@pytest.mark.asyncio
async def test_who_pipelines_and_does_not_read_gets_no_further_answers(mesh: Mesh) -> None:
    backend = await mesh.backend()
    backend.answer = lambda request: b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders, receive_buffer=SMALL)
    requests = 300
    await client.send(get("/") * requests)
    seen = -1
    while seen != len(backend.requests):
        seen = len(backend.requests)
        await asyncio.sleep(0.1)
    assert 0 < seen < requests // 2
    for _ in range(requests):
        assert len((await client.message()).body) == 100_000
        client.forget()


@pytest.mark.asyncio
async def test_answers_of_our_own_stop_as_well(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies="")
    client = await mesh.client(orders, receive_buffer=SMALL, send_buffer=SMALL)
    requests = 40_000  # as denials 8 MB: more than kernels hold for a client that does not read
    await client.send(get())
    first = await client.message()
    block = get() * 500
    sending = asyncio.create_task(send_blocks(client, block, requests // 500))
    await eventually(lambda: held(orders) > 16_384)
    await asyncio.sleep(0.1)
    assert held(orders) < 256 * 1024
    assert not sending.done()
    for _ in range(requests):
        answer = await client.message()
        assert (answer.status, answer.body) == (403, first.body)
        client.forget()
    await sending


async def send_blocks(client: Stream, block: bytes, times: int) -> None:
    for _ in range(times):
        await client.send(block)
