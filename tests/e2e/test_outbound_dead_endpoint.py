"""One endpoint refuses, one swallows connections, one answers: callers notice little, and the dead may come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from mesh import Backend, Mesh, Sidecar, Stream, eventually, free_port, get, service

from proxy.forward.balance import PATIENCE


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: a SYN is dropped, so that a connection neither stands nor fails."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full.getsockname()[1]


async def timed(client: Stream) -> float:
    """Make a request that must succeed; give the seconds that it took."""
    started = time.monotonic()
    await client.send(get())
    assert (await client.message()).status == 200
    return time.monotonic() - started


@pytest.mark.asyncio
async def test_requests_pass_over_the_dead(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    with black_hole() as hole:
        web = await mesh.sidecar("web", services=[service("orders", free_port(), hole, orders)])
        clients = [await mesh.plain_client(web) for _ in range(4)]
        times: list[float] = []

        async def call(client: Stream) -> None:
            for _ in range(25):
                times.append(await timed(client))

        await asyncio.gather(*map(call, clients))
        assert len(times) == 100
        # Whoever met the black hole first has waited; connecting to it takes all of 5 s.
        assert max(times) < 2 * PATIENCE
        assert sum(seconds > PATIENCE / 2 for seconds in times) <= len(clients)
        records = await web.records(100, kind="request")
        assert {record["upstream_host"] for record in records} == {f"127.0.0.1:{orders.port}"}
        assert {record["reason"] for record in records} == {"ok"}
        assert web.app.sidecar.metrics.retries == 0
        await web.close()


@pytest.mark.asyncio
async def test_opaque_connections_pass_over_the_dead(mesh: Mesh) -> None:
    async def greet(stream: Stream, backend: Backend) -> None:
        await stream.send(b"220 hello\r\n")
        await stream.closed()

    backend = await mesh.backend(greet)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp")
    with black_hole() as hole:
        web = await mesh.sidecar("web", services=[service("orders", free_port(), hole, orders, protocol="tcp")])
        started = time.monotonic()
        for _ in range(5):
            client = await mesh.plain_client(web)
            assert await client.receive() == b"220 hello\r\n"
        assert time.monotonic() - started < 3 * PATIENCE


@pytest.mark.asyncio
async def test_an_endpoint_that_comes_back_gets_traffic(mesh: Mesh) -> None:
    backends = [await mesh.backend() for _ in range(2)]
    port = free_port()
    one = await mesh.sidecar("orders", app=backends[0])
    web = await mesh.sidecar("web", services=[service("orders", port, one)])
    client = await mesh.plain_client(web)
    for _ in range(4):
        await timed(client)
    inbound = [{"listen": f"127.0.0.1:{port}", "port": 8080, "app": f"127.0.0.1:{backends[1].port}"}]
    back: Sidecar = await mesh.sidecar("orders", inbound=inbound)
    assert back.port == port
    deadline = time.monotonic() + 10
    while not backends[1].requests:
        assert time.monotonic() < deadline
        assert await timed(client) < PATIENCE
        await asyncio.sleep(0.02)
    before = len(backends[0].requests)
    for _ in range(10):
        await timed(client)
    assert len(backends[0].requests) - before == 5


@pytest.mark.asyncio
async def test_an_endpoint_that_hangs_up_is_left_alone(mesh: Mesh) -> None:
    async def hang_up(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)

    broken, sound = await mesh.backend(hang_up), await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", broken, sound)])
    client = await mesh.plain_client(web)
    statuses = []
    for _ in range(30):
        await client.send(get())
        statuses.append((await client.message()).status)
    assert statuses.count(503) == 5
    assert set(statuses[10:]) == {200}


@pytest.mark.asyncio
async def test_all_dead_is_said_after_each_was_tried(mesh: Mesh) -> None:
    ports = [free_port() for _ in range(3)]
    web = await mesh.sidecar("web", services=[service("orders", *ports)])
    client = await mesh.plain_client(web)
    for _ in range(3):
        await client.send(get())
        answer = await client.message()
        assert answer.status == 503
        assert b"upstream_connect_failed" in answer.body
    [endpoints] = [outbound.balancer.endpoints for _, outbound in web.app.traffic.services.values()]
    assert all(endpoint.ejected for endpoint in endpoints)
    await eventually(lambda: all(endpoint.active == 0 for endpoint in endpoints))
