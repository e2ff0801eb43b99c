"""A tunnel in which nothing moves is reset at its idle deadline; every byte, either way, puts the deadline off."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Mesh
from tcp_way import make_way, settled


@pytest.mark.asyncio
async def test_idle_is_ended_and_active_is_not(mesh: Mesh) -> None:
    way = await make_way(mesh, limits={"tcp_idle_timeout": "1s"})
    idle, idle_server = await way.client(), await way.server(0)
    active, active_server = await way.client(), await way.server(1)
    for turn in range(4):  # 1.4 s in all, and neither side alone is active enough
        await asyncio.sleep(0.35)
        source, target = (active, active_server) if turn % 2 else (active_server, active)
        await source.send(b".")
        assert await target.exactly(1) == b"."
    assert await idle.closed() == "broken"
    assert await idle_server.closed() == "broken"
    active.reset()
    assert await active_server.closed() == "broken"
    reasons = {record["reason"] for sidecar in (way.web, way.orders) for record in await sidecar.records(2)}
    assert "idle_timeout" in reasons


@pytest.mark.asyncio
async def test_the_record_says_so(mesh: Mesh) -> None:
    way = await make_way(mesh, limits={"tcp_idle_timeout": "1s"})
    client = await mesh.client(way.orders, alpn=(b"istio",))
    await client.send(b"hello")
    server = await way.server()
    await server.exactly(5)
    assert await client.closed() == "broken"
    assert await server.closed() == "broken"
    [record] = await settled(way.orders)
    assert (record["reason"], record["response_flags"], record["bytes_received"]) == ("idle_timeout", "SI", 5)
    assert record["duration"] >= 900
