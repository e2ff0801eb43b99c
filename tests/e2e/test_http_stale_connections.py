"""A pooled connection that the application closes just as a request goes out on it: sent again where that is safe."""

from __future__ import annotations

import pytest
from mesh import OK, Backend, Mesh, Script, Stream, eventually, fetch_page, get, keep_answering, service


async def close_on_second(stream: Stream, backend: Backend) -> None:
    """Answer the first request of a connection, close the connection on the second, unanswered."""
    await backend.take(stream)
    await stream.send(OK)
    await backend.take(stream)


async def reset_on_second(stream: Stream, backend: Backend) -> None:
    await close_on_second(stream, backend)
    stream.reset()


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [close_on_second, reset_on_second])
async def test_idempotent_requests_are_sent_again_once(mesh: Mesh, script: Script) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        await sent_again(mesh, script, method)


async def sent_again(mesh: Mesh, script: Script, method: str) -> None:
    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    body = b"content" if method == "PUT" else None
    await client.send(get("/first"))
    assert (await client.message()).status == 200
    await client.send(get("/second", method=method, body=body))
    assert (await client.message(to=method.encode())).status == 200
    assert [request.target for request in backend.requests] == [b"/first", b"/second", b"/second"]
    assert [request.body for request in backend.requests[1:]] == [body or b""] * 2
    assert len(backend.streams) == 2
    records = await orders.records(2, kind="request")
    assert [(record["retries"], record["reason"]) for record in records] == [(0, "ok"), (1, "ok")]
    metrics = (await fetch_page(orders.health_port, "/metrics")).body
    assert b"remora_retries_total 1.0" in metrics


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("script", "reason"), [(close_on_second, "upstream_closed"), (reset_on_second, "upstream_reset")]
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_others_are_not(mesh: Mesh, script: Script, reason: str, method: str) -> None:
    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/first"))
    assert (await client.message()).status == 200
    await client.send(get("/second", method=method, body=b"once"))
    assert (await client.message()).status == 503
    assert [request.target for request in backend.requests] == [b"/first", b"/second"]
    record = (await orders.records(2, kind="request"))[1]
    assert (record["retries"], record["reason"], record["response_code"]) == (0, reason, 503)


@pytest.mark.asyncio
async def test_a_second_time_it_fails(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        if len(backend.streams) == 1:
            await close_on_second(stream, backend)
        else:
            await backend.take(stream)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/first") + get("/second"))
    assert [(await client.message()).status for _ in range(2)] == [200, 503]
    assert len(backend.streams) == 2
    record = (await orders.records(2, kind="request"))[1]
    assert (record["retries"], record["reason"]) == (1, "upstream_closed")


@pytest.mark.asyncio
async def test_not_after_a_byte_of_the_answer(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(OK)
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab")

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/first"))
    assert (await client.message()).status == 200
    await client.send(get("/second"))
    assert await client.closed() == "broken"
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_a_connection_closed_while_idle_is_not_used(mesh: Mesh) -> None:
    async def once(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(OK)

    backend = await mesh.backend(once)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    pool = orders.app.sidecar.pools[0]
    for number in range(1, 4):
        await client.send(get(method="POST", body=b"x"))
        assert (await client.message()).status == 200
        assert len(backend.streams) == number
        await eventually(lambda: not pool.idle, "the closed connection leaves the pool")
    records = await orders.records(3, kind="request")
    assert {record["retries"] for record in records} == {0}


@pytest.mark.asyncio
async def test_a_large_body_that_was_streamed_is_not_sent_again(mesh: Mesh) -> None:
    backend = await mesh.backend(close_on_second)
    web = await mesh.sidecar("web", services=[service("orders", backend)])
    client = await mesh.plain_client(web)
    await client.send(get("/first"))
    assert (await client.message()).status == 200
    await client.send(get("/second", "Content-Length: 300000", method="PUT"))
    for _ in range(3):
        await eventually(lambda: b"/second" in backend.received)
        await client.send(b"x" * 100_000)
    assert (await client.message()).status == 503
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_idle_connections_end_before_the_application_ends_them(mesh: Mesh) -> None:
    backend = await mesh.backend(keep_answering)
    orders = await mesh.sidecar("orders", app=backend, limits={"upstream_idle_timeout": "0.1s"})
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 200
    await eventually(lambda: backend.streams[0].ended)
    await client.send(get())
    assert (await client.message()).status == 200
    assert len(backend.streams) == 2
