"""Where a request of the application goes: the endpoints of its service in turn, past those that do not answer."""

from __future__ import annotations

import pytest
from mesh import Mesh, eventually, free_port, get, identity, service


@pytest.mark.asyncio
async def test_connections_go_to_the_endpoints_in_turn(mesh: Mesh) -> None:
    backends = [await mesh.backend() for _ in range(3)]
    sidecars = [await mesh.sidecar("orders", app=backend) for backend in backends]
    web = await mesh.sidecar("web", services=[service("orders", *sidecars)])
    clients = [await mesh.plain_client(web) for _ in range(6)]
    # All at once, so that each needs a connection of its own.
    for client in clients:
        await client.send(get())
    for client in clients:
        assert (await client.message()).status == 200
    counts = [sidecar.app.sidecar.metrics.opened["inbound"] for sidecar in sidecars]
    assert all(counts)
    assert sum(len(backend.requests) for backend in backends) == 6


@pytest.mark.asyncio
async def test_an_endpoint_that_is_down_is_passed_over(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar(
        "web", services=[service("orders", free_port(), orders, free_port())], limits={"mesh_idle_timeout": "0.1s"}
    )
    client = await mesh.plain_client(web)
    for _ in range(3):
        await client.send(get())
        assert (await client.message()).status == 200
        await eventually(lambda: not any(pool.idle for pool in web.app.sidecar.pools), "so that the next one dials")
    records = await web.records(3, kind="request")
    assert {record["upstream_host"] for record in records} == {f"127.0.0.1:{orders.port}"}


@pytest.mark.asyncio
async def test_an_endpoint_of_the_wrong_identity_is_passed_over(mesh: Mesh) -> None:
    wrong, right = await mesh.backend(), await mesh.backend()
    impostor = await mesh.sidecar("ledger", app=wrong)
    orders = await mesh.sidecar("orders", app=right)
    web = await mesh.sidecar("web", services=[service("orders", impostor, orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200
    assert wrong.received == b""
    [record] = await web.records(1, kind="request")
    assert record["destination_principal"] == identity("orders")


@pytest.mark.asyncio
async def test_any_of_the_identities_may_answer(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    both = [identity("orders"), identity("orders-v2")]
    web = await mesh.sidecar("web", services=[service("orders", orders, identities=both)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_services_do_not_share_connections(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    first = service("orders", orders)
    web = await mesh.sidecar("web", services=[first, first | {"name": "other", "hosts": ["other"]}])
    for port in web.app.bound_ports()["outbound"]:
        client = await mesh.plain_client(port)
        await client.send(get())
        assert (await client.message()).status == 200
    assert orders.app.sidecar.metrics.opened["inbound"] == 2
    records = await web.records(2, kind="request")
    assert [record["upstream_cluster"] for record in records] == ["outbound|orders", "outbound|other"]


@pytest.mark.asyncio
async def test_a_name_as_endpoint(mesh: Mesh) -> None:
    backend = await mesh.backend()
    here = service("orders", backend) | {"endpoints": [f"localhost:{backend.port}"]}
    nowhere = service("gone", backend) | {"endpoints": ["no-such-host.invalid:80"]}
    web = await mesh.sidecar("web", services=[here, nowhere])
    statuses = []
    for port in web.app.bound_ports()["outbound"]:
        client = await mesh.plain_client(port)
        await client.send(get())
        statuses.append((await client.message()).status)
    assert statuses == [200, 503]
    record = (await web.records(2, kind="request"))[1]
    assert (record["reason"], record["response_flags"]) == ("upstream_name_unresolved", "DF")
