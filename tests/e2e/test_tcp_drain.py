"""Opaque connections have no point at which they could be ended whole: a drain waits for them, then cuts them."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Mesh, Sidecar, service
from mesh_streams import Stream, dial
from tcp_way import make_way, stay


def drain(sidecar: Sidecar) -> asyncio.Task[None]:
    """Ask a sidecar to end, as SIGTERM does; the task is done when it has."""
    running = asyncio.get_running_loop().create_task(sidecar.app.run_until_stopped())
    sidecar.app.stop()
    return running


@pytest.mark.asyncio
async def test_a_tunnel_goes_on_and_may_end_by_itself(mesh: Mesh) -> None:
    way = await make_way(mesh, limits={"drain_timeout": "20s"})
    client, server = await way.client(), await way.server()
    ending = drain(way.orders)
    await asyncio.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        dial(way.orders.port)
    await client.send(b"still here")
    assert await server.exactly(10) == b"still here"
    await server.send(b"me too")
    await server.end()
    await client.end()
    assert await client.rest() == b"me too"
    await ending
    [record] = await way.orders.records()
    assert (record["reason"], record["bytes_received"], record["bytes_sent"]) == ("ok", 10, 6)


@pytest.mark.asyncio
async def test_it_is_cut_at_the_deadline(mesh: Mesh) -> None:
    way = await make_way(mesh, limits={"drain_timeout": "0.3s"})
    client, server = await way.client(), await way.server()
    await client.send(b"x")
    await server.exactly(1)
    ending = drain(way.orders)
    assert await client.closed() == "broken"
    assert await server.closed() == "broken"
    await ending
    out, into = await way.records()
    assert (into["reason"], into["bytes_received"]) == ("drain_deadline", 1)
    assert out["reason"] == "upstream_reset"
    assert 0.2 < into["duration"] / 1_000 < 3


@pytest.mark.asyncio
async def test_the_application_may_call_out_while_inbound_drains(mesh: Mesh) -> None:
    way = await make_way(mesh)
    backend = await mesh.backend()
    both = await mesh.sidecar(
        "web",
        app=backend,
        protocol="tcp",
        services=[service("orders", way.orders, protocol="tcp")],
        limits={"drain_timeout": "20s"},
    )
    caller = await mesh.client(both, alpn=(b"istio",))
    await caller.send(b"GET ")
    ending = drain(both)
    await asyncio.sleep(0.1)
    client = await mesh.plain_client(both)
    await client.send(b"on behalf of the last request")
    server = await way.server()
    assert await server.exactly(29) == b"on behalf of the last request"
    client.reset()
    caller.reset()
    await ending


@pytest.mark.asyncio
async def test_a_connection_still_being_set_up_is_on_record_too(mesh: Mesh) -> None:
    way = await make_way(mesh, protocol="auto", limits={"drain_timeout": "0s", "detection_timeout": "60s"})
    peer = await mesh.client(way.orders)
    await peer.send(b"GE")
    await asyncio.sleep(0.1)
    await drain(way.orders)
    assert await peer.closed() == "broken"
    [record] = await way.orders.records()
    assert (record["reason"], record["decision"]) == ("drain_deadline", "none")


@pytest.mark.asyncio
async def test_a_connection_accepted_at_the_last_moment_is_on_record_too(mesh: Mesh) -> None:
    backend = await mesh.backend(stay)
    for turns in range(6):
        orders = await mesh.sidecar("orders", app=backend, protocol="tcp")
        mesh.hold(Stream(dial(orders.port)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await orders.close()
        opened = orders.app.sidecar.metrics.opened.get("inbound", 0)
        assert len(await orders.records(opened)) == opened
