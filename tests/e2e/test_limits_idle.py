"""Idle times: between requests, within a request, within an answer, in a tunnel; each ends with its Reason."""

from __future__ import annotations

import asyncio
import time

import pytest
from mesh import Backend, Mesh, Stream, get

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


async def half(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await stream.closed()


async def switches(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.send(SWITCH)
    await stream.closed()


@pytest.mark.asyncio
async def test_every_idle_time(mesh: Mesh) -> None:
    """All four at once, since the shortest time that may be set is a second."""
    plain, slow, upgrade = await mesh.backend(), await mesh.backend(half), await mesh.backend(switches)
    ports = [
        {"port": 8080 + number, "app": f"127.0.0.1:{backend.port}", "protocol": "http"}
        for number, backend in enumerate((plain, slow, upgrade))
    ]
    limits = {"http_idle_timeout": "1s", "stream_idle_timeout": "1s", "tcp_idle_timeout": "1s"}
    orders = await mesh.sidecar("orders", inbound=ports, limits=limits)
    first, second, third = orders.app.bound_ports()["inbound"]
    started = time.monotonic()

    async def between_requests() -> None:
        client = await mesh.client(first)
        await client.send(get())
        assert (await client.message()).status == 200
        assert await client.closed() == "clean"

    async def within_a_request() -> None:
        client = await mesh.client(first)
        await client.send(get("/stalled", "Content-Length: 10", method="POST") + b"123")
        answer = await client.message()
        assert (answer.status, answer.get("connection")) == (408, b"close")
        assert await client.closed() == "clean"

    async def within_an_answer() -> None:
        client = await mesh.client(second)
        await client.send(get("/half"))
        assert await client.closed() == "broken"

    async def in_a_tunnel() -> None:
        client = await mesh.client(third)
        await client.send(get("/ws", "Connection: Upgrade", "Upgrade: websocket"))
        assert await client.closed() == "broken"
        assert client.received.startswith(b"HTTP/1.1 101")

    await asyncio.gather(between_requests(), within_a_request(), within_an_answer(), in_a_tunnel())
    assert 0.9 < time.monotonic() - started < 3
    requests = {record["path"]: record for record in await orders.records(4, kind="request")}
    assert {path: record["reason"] for path, record in requests.items()} == {
        "/": "ok",
        "/stalled": "idle_timeout",
        "/half": "idle_timeout",
        "/ws": "idle_timeout",
    }
    assert requests["/half"]["response_flags"] == "SI"
    await orders.records(4, kind="connection")
