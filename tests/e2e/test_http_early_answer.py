"""An answer that comes before the request is complete: the client gets it, and no connection is reused half-way."""

from __future__ import annotations

import asyncio

import pytest
from mesh import OK, Backend, Mesh, Stream, eventually, get, policy


async def early(stream: Stream, backend: Backend) -> None:
    """Answer as soon as the head is there, and never read the body."""
    await stream.head()
    await stream.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig")
    await asyncio.sleep(30)


@pytest.mark.asyncio
async def test_the_client_may_finish_and_go_on(mesh: Mesh) -> None:
    backend = await mesh.backend(early)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/", "Content-Length: 10", method="POST") + b"12345")
    answer = await client.message()
    assert (answer.status, answer.body) == (413, b"big")
    if answer.get("connection") != b"close":
        await client.send(b"67890" + get("/next"))
        assert (await client.message()).status == 413
        assert len(backend.streams) == 2
        assert b"67890" not in bytes(backend.streams[1].received)


@pytest.mark.asyncio
async def test_the_upstream_connection_is_not_used_again(mesh: Mesh) -> None:
    backend = await mesh.backend(early)
    orders = await mesh.sidecar("orders", app=backend)
    for number in range(1, 4):
        client = await mesh.client(orders)
        await client.send(get("/", "Content-Length: 1000000", method="POST") + b"x" * 500_000)
        assert (await client.message()).status == 413
        client.close()
        assert len(backend.streams) == number
    records = await orders.records(3, kind="request")
    assert {(record["response_code"], record["reason"]) for record in records} == {(413, "ok")}


@pytest.mark.asyncio
async def test_the_body_of_a_denied_request_is_never_read_as_a_request(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, policies=policy("get-only", '[{to: [{operation: {methods: ["GET"]}}]}]')
    )
    client = await mesh.client(orders)
    smuggled = get("/admin")
    await client.send(get("/", f"Content-Length: {len(smuggled)}", method="POST"))
    assert (await client.message()).status == 403
    await client.send(smuggled + get("/after"))
    assert (await client.message()).status == 200
    assert [request.target for request in backend.requests] == [b"/after"]


@pytest.mark.asyncio
async def test_an_endless_body_of_a_denied_request_ends_the_connection(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies="", limits={"close_timeout": "0.1s"})
    client = await mesh.client(orders)
    await client.send(get("/", "Content-Length: 100000000", method="POST"))
    assert (await client.message()).status == 403

    async def without_end() -> None:
        for _ in range(10_000):
            await client.send(b"x" * 16_384)

    with pytest.raises(ConnectionError):
        await without_end()
    assert backend.received == b""
    await eventually(lambda: not orders.open_connections)


@pytest.mark.asyncio
async def test_an_answer_before_the_end_of_a_chunked_request(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        head = await stream.head()
        await stream.send(OK)
        backend.requests.append(await stream.body_of(head))
        await backend.take(stream)
        await stream.send(OK)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n")
    first = await client.message()
    assert first.status == 200
    if first.get("connection") == b"close":
        assert await client.closed() == "clean"
    else:
        await client.send(b"0\r\n\r\n" + get("/second"))
        assert (await client.message()).status in (200, 503)
