"""The end of a sidecar of several workers, and what is asked of all of them at once."""

from __future__ import annotations

import asyncio
import signal

import pytest
from mesh import OK, Backend, Mesh, Stream, accepts, eventually, get, service
from worker_process import Crew, crew


class Slow:
    """A script whose answers to /slow wait until `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            if request.target == b"/slow":
                await self.go_on.wait()
            await stream.send(OK)


async def slow_in_each(mesh: Mesh, orders: Crew, backend: Backend) -> list[Stream]:
    """Have a request that waits in every worker."""
    clients = [client for [client, *_] in (await orders.clients_of_each(mesh)).values()]
    for client in clients:
        await client.send(get("/slow"))
    await eventually(lambda: sum(request.target == b"/slow" for request in backend.requests) == len(clients))
    return clients


@pytest.mark.asyncio
async def test_every_worker_finishes_what_it_carries(mesh: Mesh) -> None:
    slow = Slow()
    backend = await mesh.backend(slow)
    orders = await crew(mesh, app=backend)
    clients = await slow_in_each(mesh, orders, backend)
    workers = orders.workers
    orders.process.signal(signal.SIGTERM)
    await eventually(lambda: not accepts(orders.process.port), "no worker accepts")
    await orders.process.readiness(503)
    slow.go_on.set()
    for client in clients:
        answer = await client.message()
        assert (answer.status, answer.get("connection")) == (200, b"close")
        assert await client.closed() == "clean"
        client.close()
    assert await orders.process.ended() == 0
    assert "drained" in orders.process.output
    assert "killed" not in orders.process.output
    assert len(workers) == 2
    lines = [line for line in orders.process.access_log.read_text().splitlines() if '"/slow"' in line]
    assert len(lines) == 2, "records are written out to the end"


@pytest.mark.asyncio
async def test_at_the_deadline_or_the_second_signal_what_is_left_is_cut(mesh: Mesh) -> None:
    backend = await mesh.backend(Slow())
    orders = await crew(mesh, app=backend)
    clients = await slow_in_each(mesh, orders, backend)
    orders.process.signal(signal.SIGTERM)
    await eventually(lambda: not accepts(orders.process.port))
    orders.process.signal(signal.SIGTERM)
    for client in clients:
        assert await client.closed() != "", "it ends"
        client.close()
    assert await orders.process.ended() == 0
    text = orders.process.access_log.read_text()
    assert text.count("drain_deadline") >= len(clients)


@pytest.mark.asyncio
async def test_a_drain_that_was_asked_for_leaves_the_way_out_open(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await crew(mesh, app=backend, services=[service("ledger", backend)])
    clients = [client for [client, *_] in (await orders.clients_of_each(mesh)).values()]
    assert (await orders.act("/drain")).status == 200
    for client in clients:
        assert await client.closed() == "clean"
    await eventually(lambda: not accepts(orders.process.port))
    await orders.process.readiness(503)
    for _ in range(8):
        out = await mesh.plain_client(orders.process)
        await out.send(get("/", host="ledger"))
        assert (await out.message()).status == 200
    assert (await orders.act("/quitquitquit")).status == 200
    for client in mesh._streams:
        client.close()
    assert await orders.process.ended() == 0


@pytest.mark.asyncio
async def test_a_log_level_reaches_every_worker(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    workers = orders.workers
    assert (await orders.act("/loglevel?level=loud")).status == 400
    for level, told in (("error", 0), ("info", 2)):
        assert (await orders.act(f"/loglevel?level={level}")).status == 200
        assert (await orders.page("/loglevel"))["level"] == level
        orders.process.access_log.unlink()
        orders.process.signal(signal.SIGUSR1)
        await eventually(orders.process.access_log.exists)
        for number in range(told):  # what a worker says of it is of level info
            said = f"worker {number + 1}: the access log is open anew"
            await eventually(lambda said=said: orders.process.output.count(said) == 1)  # type: ignore[misc]
    assert orders.workers == workers


@pytest.mark.asyncio
async def test_every_worker_opens_a_log_anew_that_was_moved_away(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    moved = orders.process.directory / "access.log.1"
    orders.process.access_log.rename(moved)
    orders.process.signal(signal.SIGUSR1)
    await eventually(lambda: orders.process.output.count("the access log is open anew") == 2)
    clients = [client for [client, *_] in (await orders.clients_of_each(mesh)).values()]
    for client in clients:
        await client.send(get("/after"))
        assert (await client.message()).status == 200

    def written() -> int:
        return orders.process.access_log.read_text().count('"/after"')

    await eventually(lambda: written() == len(clients))
    assert '"/after"' not in moved.read_text()
