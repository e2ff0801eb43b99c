"""A pool of upstream connections that is full: requests wait a bounded time, in order and in bounded number."""

from __future__ import annotations

import asyncio

import pytest
from mesh import OK, Backend, Mesh, Sidecar, Stream, eventually, get

from proxy.forward.http import HttpForward


class Gate:
    """A script that answers each request when it is let."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)

    async def __call__(self, stream: Stream, backend: Backend) -> None:
        while True:
            await backend.take(stream)
            await self.turns.acquire()
            await stream.send(OK)


async def begun(sidecar: Sidecar, count: int) -> None:
    """Wait until the open connections of a sidecar have brought so many requests."""

    def brought() -> bool:
        handlers = [entry._handler for entry in sidecar.app.sidecar.registry]
        return sum(handler.requests for handler in handlers if isinstance(handler, HttpForward)) == count

    await eventually(brought)


@pytest.mark.asyncio
async def test_who_waits_too_long_gets_503(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    orders = await mesh.sidecar(
        "orders", app=backend, limits={"pool_connections": 1, "pool_wait_timeout": "0.2s", "pool_waiters": 10}
    )
    first, second = await mesh.client(orders), await mesh.client(orders)
    await first.send(get("/first"))
    await eventually(lambda: backend.requests)
    await second.send(get("/second"))
    assert (await second.message()).status == 503
    gate.turns.release()
    assert (await first.message()).status == 200
    gate.turns.release()
    await second.send(get("/third"))
    assert (await second.message()).status == 200
    assert [request.target for request in backend.requests] == [b"/first", b"/third"]
    records = {record["path"]: record for record in await orders.records(3, kind="request")}
    assert (records["/second"]["reason"], records["/second"]["response_flags"]) == ("pool_limit", "UO")
    assert records["/second"]["decision"] == "allow"


@pytest.mark.asyncio
async def test_who_waits_is_served_in_order(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    orders = await mesh.sidecar("orders", app=backend, limits={"pool_connections": 1, "pool_wait_timeout": "5s"})
    clients = [await mesh.client(orders) for _ in range(4)]
    for number, client in enumerate(clients):
        await client.send(get(f"/{number}"))
        await begun(orders, number + 1)
    for client in clients:
        gate.turns.release()
        assert (await client.message()).status == 200
    assert [request.target for request in backend.requests] == [b"/0", b"/1", b"/2", b"/3"]
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_one_too_many_is_refused_at_once(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    orders = await mesh.sidecar(
        "orders", app=backend, limits={"pool_connections": 1, "pool_waiters": 0, "pool_wait_timeout": "60s"}
    )
    first, second = await mesh.client(orders), await mesh.client(orders)
    await first.send(get())
    await eventually(lambda: backend.requests)
    await second.send(get())
    assert (await second.message()).status == 503
    gate.turns.release()
    assert (await first.message()).status == 200


@pytest.mark.asyncio
async def test_who_gives_up_waiting_is_forgotten(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    orders = await mesh.sidecar("orders", app=backend, limits={"pool_connections": 1, "pool_wait_timeout": "5s"})
    first, second, third = [await mesh.client(orders) for _ in range(3)]
    await first.send(get("/first"))
    await eventually(lambda: backend.requests)
    await second.send(get("/second"))
    await begun(orders, 2)
    second.reset()
    await orders.records(1, kind="request")
    await third.send(get("/third"))
    gate.turns.release()
    gate.turns.release()
    assert (await first.message()).status == 200
    assert (await third.message()).status == 200
    assert [request.target for request in backend.requests] == [b"/first", b"/third"]
