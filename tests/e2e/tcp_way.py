"""The whole way of an opaque connection: application -> sidecar "web" -> mutual TLS -> sidecar "orders" -> backend.

way = await make_way(mesh)
client = await way.client()          # the application's end
server = await way.server()          # the backend's end of the same connection
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh import ALLOW_ALL, Backend, Mesh, Records, Script, Sidecar, Stream, eventually, service

QUIET = 0.3
"""Seconds without progress after which a transfer counts as stopped."""


async def stay(stream: Stream, backend: Backend) -> None:
    """The script of a backend whose connections the test moves itself."""
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Two sidecars in a row and the backend behind them."""

    mesh: Mesh
    web: Sidecar
    orders: Sidecar
    backend: Backend

    async def client(self, **buffers: int) -> Stream:
        """Open a connection as the application of `web`."""
        return await self.mesh.plain_client(self.web, **buffers)

    async def server(self, number: int = 0) -> Stream:
        """Wait for the backend's end of connection `number`."""
        return await accepted(self.backend, number)

    async def records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Wait for the one record of each sidecar: that of `web`, then that of `orders`."""
        [out], [into] = await self.web.records(), await self.orders.records()
        return out, into


async def make_way(
    mesh: Mesh,
    *,
    protocol: str = "tcp",
    script: Script = stay,
    policies: str | Mapping[str, str] | None = ALLOW_ALL,
    limits: Mapping[str, Any] | None = None,
    receive_buffer: int = 0,
    send_buffer: int = 0,
) -> Way:
    """Start a backend and the two sidecars before it; `policies` are of `orders`, buffers of the backend."""
    backend = await mesh.backend(script, receive_buffer=receive_buffer, send_buffer=send_buffer)
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, policies=policies, limits=limits)
    web = await mesh.sidecar("web", services=[service("orders", orders, protocol=protocol)], limits=limits)
    return Way(mesh=mesh, web=web, orders=orders, backend=backend)


async def accepted(backend: Backend, number: int = 0) -> Stream:
    """Wait until the backend has accepted connection `number`, and give its end."""
    await eventually(lambda: len(backend.streams) > number, f"connection {number} at the backend")
    return backend.streams[number]


async def push(stream: Stream, data: bytes) -> int:
    """Send until nothing has been taken for a while: how many bytes of `data` were taken."""
    loop = asyncio.get_running_loop()
    sent, moved = 0, loop.time()
    while sent < len(data) and loop.time() - moved < QUIET:
        if taken := stream.send_now(data[sent : sent + 262_144]):
            sent, moved = sent + taken, loop.time()
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(0.005)
    return sent


async def settled(*sidecars: Sidecar, count: int = 1) -> Records:
    """Wait until the sidecars have no connection open, and give the `count` records of each."""
    await eventually(lambda: not any(sidecar.open_connections for sidecar in sidecars), "all connections closed")
    return [record for sidecar in sidecars for record in await sidecar.records(count)]
