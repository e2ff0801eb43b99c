"""Keep-alive on both sides: many requests of one client go out on one connection to the next hop."""

from __future__ import annotations

import pytest
from mesh import Mesh, get, identity, service


@pytest.mark.asyncio
async def test_one_connection_on_both_sides(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for number in range(5):
        await client.send(get(f"/{number}"))
        answer = await client.message()
        assert (answer.status, answer.body) == (200, b"ok")
    assert [request.target for request in backend.requests] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    assert len(backend.streams) == 1
    records = await orders.records(5, kind="request")
    assert {record["source_principal"] for record in records} == {identity("web")}
    assert {record["decision"] for record in records} == {"allow"}


@pytest.mark.asyncio
async def test_two_hops(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    for number in range(5):
        await client.send(get(f"/{number}"))
        assert (await client.message()).status == 200
    assert len(backend.streams) == 1
    assert orders.app.sidecar.metrics.opened == {"inbound": 1}
    assert web.app.sidecar.metrics.opened == {"outbound": 1}
