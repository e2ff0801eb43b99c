"""The last bytes before a close arrive, however slowly the client takes them; one that takes none sees a break."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mesh import Backend, Mesh, Sidecar, Stream, eventually, service

SMALL = 65_536
ASK = b"GET / HTTP/1.0\r\nHost: orders\r\n\r\n"
LIMITS = {"close_timeout": "0.2s", "stream_idle_timeout": "1s"}


class UntilClose:
    """A script that answers with so many bytes, which end with the connection."""

    size = 16 * 1024 * 1024

    async def __call__(self, stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * self.size)


async def pump_of(sidecar: Sidecar) -> Any:
    """Give what runs the one open connection, as soon as something does."""
    return await eventually(lambda: next((entry._handler for entry in sidecar.app.sidecar.registry), None))


async def held_while_closing(mesh: Mesh) -> tuple[Sidecar, Stream, UntilClose]:
    """Make a connection whose answer is complete but for some bytes that only the sidecar holds."""
    script = UntilClose()
    backend = await mesh.backend(script)
    web = await mesh.sidecar("web", services=[service("orders", backend)], limits=LIMITS)
    # What the kernel takes of a large answer shows how large one must be so that a little of it is left.
    probe = await mesh.plain_client(web, receive_buffer=SMALL)
    await probe.send(ASK)
    wire = (await pump_of(web))._wire
    await eventually(lambda: wire.congested)
    await asyncio.sleep(0.05)
    script.size = wire.bytes_written + SMALL // 2
    probe.reset()
    await eventually(lambda: not web.open_connections)
    client = await mesh.plain_client(web, receive_buffer=SMALL)
    await client.send(ASK)
    pump = await pump_of(web)
    await eventually(lambda: pump._lingering)
    assert pump._wire._held_bytes
    return web, client, script


@pytest.mark.asyncio
async def test_a_slow_client_gets_everything(mesh: Mesh) -> None:
    _, client, script = await held_while_closing(mesh)
    await asyncio.sleep(0.5)  # longer than close_timeout
    assert len((await client.message()).body) == script.size
    assert await client.closed() == "clean"


@pytest.mark.asyncio
async def test_a_client_that_takes_nothing_sees_a_break(mesh: Mesh) -> None:
    web, client, _ = await held_while_closing(mesh)
    await eventually(lambda: not web.open_connections)
    assert await client.closed() == "broken"
    connections = await web.records(2, kind="connection")
    assert connections[1]["reason"] == "idle_timeout"


@pytest.mark.asyncio
async def test_a_client_that_does_not_close_is_closed(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", backend)], limits=LIMITS)
    client = await mesh.plain_client(web)
    await client.send(ASK)
    assert (await client.message()).status == 200
    await eventually(lambda: not web.open_connections)
    await web.records(1, kind="connection")
