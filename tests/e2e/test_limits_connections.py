"""Limits on connections and handshakes: one more is closed at once, with its Reason, and room is made again."""

from __future__ import annotations

import pytest
from mesh import Mesh, Sidecar, Stream, eventually, fetch_page, get, service


async def refused(client: Stream) -> None:
    """Fail unless a request gets no answer at all."""
    with pytest.raises((ConnectionError, EOFError)):
        await answered(client)


async def answered(client: Stream) -> int:
    await client.send(get())
    return (await client.message()).status


async def counted(sidecar: Sidecar, reason: str) -> int:
    metrics = (await fetch_page(sidecar.health_port, "/metrics")).body.decode()
    for line in metrics.splitlines():
        if line.startswith(f'remora_limits_reached_total{{reason="{reason}"}}'):
            return int(float(line.split()[1]))
    return 0


@pytest.mark.asyncio
async def test_connections_of_peers(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, limits={"inbound_connections": 2})
    clients = [await mesh.client(orders) for _ in range(2)]
    for client in clients:
        await client.send(get())
        assert (await client.message()).status == 200
    await refused(await mesh.client(orders))
    [record] = await orders.records(1, kind="connection")
    assert (record["reason"], record["response_flags"]) == ("connection_limit", "OM")
    assert await counted(orders, "connection_limit") == 1
    await clients[0].end()
    await eventually(lambda: orders.open_connections == 1)
    again = await mesh.client(orders)
    await again.send(get())
    assert (await again.message()).status == 200


@pytest.mark.asyncio
async def test_connections_of_the_application_are_counted_apart(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar(
        "web",
        app=backend,
        services=[service("orders", backend)],
        limits={"outbound_connections": 1, "inbound_connections": 1},
    )
    inbound, outbound = await mesh.client(web, "batch"), await mesh.plain_client(web)
    for client in (inbound, outbound):
        await client.send(get())
        assert (await client.message()).status == 200
    await refused(await mesh.plain_client(web))
    [record] = await web.records(1, kind="connection", direction="outbound")
    assert record["reason"] == "connection_limit"


@pytest.mark.asyncio
async def test_handshakes_at_once(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, limits={"handshakes": 2})
    stuck = [await mesh.plain_client(orders.port) for _ in range(2)]
    await eventually(lambda: orders.open_connections == 2)
    await refused(await mesh.client(orders))
    [record] = await orders.records(1, kind="connection")
    assert record["reason"] == "handshake_limit"
    assert await counted(orders, "handshake_limit") == 1
    for stream in stuck:
        stream.close()
    await eventually(lambda: not orders.open_connections)
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_the_time_of_a_handshake(mesh: Mesh, begun: bytes) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), limits={"handshake_timeout": "0.2s"})
    slow = await mesh.plain_client(orders.port)
    await slow.send(begun)
    assert await slow.closed() in ("clean", "broken")
    assert slow.received == b""
    [record] = await orders.records(1, kind="connection")
    assert record["reason"] == "handshake_timeout"
    assert not orders.open_connections
