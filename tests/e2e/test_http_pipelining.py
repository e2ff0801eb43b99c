"""Pipelined requests are answered in order, one upstream request at a time, each judged and recorded by itself."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Message, Stream, eventually, get, policy


def named_after(request: Message) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(request.target), request.target)


@pytest.mark.asyncio
async def test_answers_come_in_order(mesh: Mesh) -> None:
    backend = await mesh.backend()
    backend.answer = named_after
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    targets = [f"/{number}" for number in range(50)]
    await client.send(b"".join(get(target, body=b"x" * number) for number, target in enumerate(targets)))
    answers = [await client.message() for _ in targets]
    assert [answer.body.decode() for answer in answers] == targets
    assert [len(request.body) for request in backend.requests] == list(range(50))
    assert len(backend.streams) == 1
    await orders.records(50, kind="request")


@pytest.mark.asyncio
async def test_a_denied_one_between_allowed_ones(mesh: Mesh) -> None:
    backend = await mesh.backend()
    backend.answer = named_after
    orders = await mesh.sidecar(
        "orders", app=backend, policies=policy("open", '[{to: [{operation: {paths: ["/open*"]}}]}]')
    )
    client = await mesh.client(orders)
    await client.send(get("/open/1") + get("/shut", body=b"secret") + get("/open/2"))
    answers = [await client.message() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 403, 200]
    assert [request.target for request in backend.requests] == [b"/open/1", b"/open/2"]
    assert b"secret" not in backend.received


@pytest.mark.asyncio
async def test_the_next_request_waits_for_the_answer(mesh: Mesh) -> None:
    go_on = asyncio.Event()

    async def slowly(stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            await go_on.wait()
            await stream.send(named_after(request))

    backend = await mesh.backend(slowly)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/a") + get("/b"))
    await eventually(lambda: backend.requests)
    await client.send(get("/c"))
    await asyncio.sleep(0.05)
    assert len(backend.received.split(b"\r\n\r\n")) == 2
    go_on.set()
    assert [(await client.message()).body for _ in range(3)] == [b"/a", b"/b", b"/c"]


@pytest.mark.asyncio
async def test_a_fault_after_a_good_request_is_answered_after_it(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/a") + b"GET /b HTTP/1.1\r\n\r\n" + get("/c"))
    assert [(await client.message()).status for _ in range(2)] == [200, 400]
    assert await client.closed() == "clean"
    assert [request.target for request in backend.requests] == [b"/a"]
