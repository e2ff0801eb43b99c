"""The end of a sidecar: what runs is finished, nothing new is taken, and the process ends with exit code 0."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from mesh import OK, Backend, Mesh, Process, Stream, accepts, eventually, get, service


class Slow:
    """A script whose answers wait until `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, stream: Stream, backend: Backend) -> None:
        while True:
            await backend.take(stream)
            await self.go_on.wait()
            await stream.send(OK)


async def asked_to_end(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    process.signal(number)
    await eventually(lambda: "draining" in process.output)
    assert not accepts(process.port)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_what_runs_is_finished(mesh: Mesh, number: signal.Signals) -> None:
    slow = Slow()
    backend = await mesh.backend(slow)
    orders = await mesh.process("orders", app=backend)
    busy, idle, half = [await mesh.client(orders) for _ in range(3)]
    slow.go_on.set()
    for client in (busy, idle):
        await client.send(get())
        assert (await client.message()).status == 200
    slow.go_on.clear()
    await busy.send(get("/last") + get("/pipelined-after"))
    await half.send(get("/body", "Content-Length: 4", method="POST") + b"ab")
    await eventually(lambda: b"/last" in backend.received and backend.received.endswith(b"ab"))
    await asked_to_end(orders, number)
    assert await idle.closed() == "clean"
    await orders.readiness(503)
    await half.send(b"cd")
    slow.go_on.set()
    for client in (busy, half):
        answer = await client.message()
        assert (answer.status, answer.get("connection")) == (200, b"close")
        assert await client.closed() == "clean"
        assert client.unread == b""
        client.close()
    idle.close()
    assert await orders.ended() == 0
    assert b"pipelined-after" not in backend.received
    requests = await orders.records(4, kind="request")
    assert {record["reason"] for record in requests} == {"ok"}
    connections = await orders.records(3, kind="connection")
    assert {record["reason"] for record in connections} <= {"ok", "drained"}


@pytest.mark.asyncio
async def test_the_application_calls_out_while_inbound_drains(mesh: Mesh) -> None:
    slow = Slow()
    backend, ledger = await mesh.backend(slow), await mesh.backend()
    orders = await mesh.process("orders", app=backend, services=[service("ledger", ledger)])
    client = await mesh.client(orders)
    await client.send(get())
    await eventually(lambda: backend.requests)
    old = await mesh.plain_client(orders)
    await old.send(get(host="ledger"))
    assert (await old.message()).status == 200
    await asked_to_end(orders)
    new = await mesh.plain_client(orders)
    for outbound in (old, new):
        await outbound.send(get(host="ledger"))
        answer = await outbound.message()
        assert (answer.status, answer.get("connection")) == (200, None)
    slow.go_on.set()
    assert (await client.message()).status == 200
    client.close()
    assert await old.closed() == await new.closed() == "clean"
    old.close()
    new.close()
    assert await orders.ended() == 0
    assert len(ledger.requests) == 3


@pytest.mark.asyncio
async def test_the_deadline_cuts_what_does_not_end(mesh: Mesh) -> None:
    backend = await mesh.backend(Slow())
    orders = await mesh.process("orders", app=backend, limits={"drain_timeout": "0.3s"})
    client = await mesh.client(orders)
    await client.send(get())
    await eventually(lambda: backend.requests)
    started = time.monotonic()
    await asked_to_end(orders)
    assert await client.closed() == "broken"
    assert await orders.ended() == 0
    assert 0.2 < time.monotonic() - started < 2
    [request] = await orders.records(1, kind="request")
    assert request["reason"] == "drain_deadline"
    await orders.records(1, kind="connection")
    assert "cutting 1 connections" in orders.output


@pytest.mark.asyncio
async def test_a_second_signal_ends_at_once(mesh: Mesh) -> None:
    backend = await mesh.backend(Slow())
    orders = await mesh.process("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    await eventually(lambda: backend.requests)
    await asked_to_end(orders)
    orders.signal(signal.SIGTERM)
    assert await client.closed() == "broken"
    assert await orders.ended() == 0
    await orders.records(1, kind="request")
    await orders.records(1, kind="connection")


@pytest.mark.asyncio
async def test_nothing_to_finish(mesh: Mesh) -> None:
    orders = await mesh.process("orders", app=await mesh.backend())
    started = time.monotonic()
    orders.signal(signal.SIGTERM)
    assert await orders.ended() == 0
    assert time.monotonic() - started < 2
