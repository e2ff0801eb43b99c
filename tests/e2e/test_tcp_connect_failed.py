"""An application or an endpoint that cannot be reached is a reset for the client, and the record says what failed."""

from __future__ import annotations

import pytest
from mesh import Mesh, free_port, service
from tcp_way import make_way, settled


@pytest.mark.asyncio
async def test_the_application_does_not_listen(mesh: Mesh) -> None:
    way = await make_way(mesh)
    way.backend.stop_listening()
    client = await way.client()
    assert await client.closed() == "broken"
    out, into = await way.records()
    assert (into["reason"], into["response_flags"]) == ("upstream_connect_failed", "UF")
    assert (into["decision"], into["upstream_host"]) == ("allow", None)
    assert f"cannot connect to 127.0.0.1:{way.backend.port}" in into["upstream_transport_failure_reason"]
    assert out["reason"] == "upstream_reset"


@pytest.mark.asyncio
async def test_the_endpoint_does_not_listen(mesh: Mesh) -> None:
    web = await mesh.sidecar("web", services=[service("orders", free_port(), protocol="tcp")])
    client = await mesh.plain_client(web)
    assert await client.closed() == "broken"
    [record] = await settled(web)
    assert (record["reason"], record["response_flags"]) == ("upstream_connect_failed", "UF")


@pytest.mark.asyncio
async def test_another_endpoint_is_tried(mesh: Mesh) -> None:
    way = await make_way(mesh)
    dead = free_port()
    caller = await mesh.sidecar("web", services=[service("orders", dead, way.orders, protocol="tcp")])
    for number in range(2):
        client = await mesh.plain_client(caller)
        await client.send(b"x")
        assert await (await way.server(number)).exactly(1) == b"x"


@pytest.mark.asyncio
async def test_the_endpoint_is_somebody_else(mesh: Mesh) -> None:
    """Secure naming: the identity of a server that is not one of the service's is refused before a byte is sent."""
    way = await make_way(mesh)
    identities = ["spiffe://cluster.local/ns/demo/sa/ledger"]
    caller = await mesh.sidecar("web", services=[service("ledger", way.orders, protocol="tcp", identities=identities)])
    client = await mesh.plain_client(caller)
    await client.send(b"secret")
    assert await client.closed() == "broken"
    [record] = await settled(caller)
    assert record["reason"] == "upstream_identity_rejected"
    assert "ns/demo/sa/orders" in record["upstream_transport_failure_reason"]
    assert not way.backend.streams


@pytest.mark.asyncio
async def test_the_client_may_have_ended_already(mesh: Mesh) -> None:
    way = await make_way(mesh)
    way.backend.stop_listening()
    client = await way.client()
    await client.send(b"x")
    await client.end()
    assert await client.closed() == "broken"
    await settled(way.web, way.orders)
