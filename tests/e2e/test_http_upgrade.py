"""Upgrade (RFC 9110 section 7.8): a tunnel after 101 and only then, under the Permit of the request."""

from __future__ import annotations

import asyncio

import pytest
from mesh import OK, Backend, Mesh, Stream, eventually, get, policy, service

ASK = get("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def echo(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.send(SWITCH + b"hello")
    while data := await stream.receive():
        await stream.send(data)
    await stream.send(b"bye")
    await stream.end()


@pytest.mark.asyncio
async def test_bytes_both_ways_after_101(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(ASK)
    answer = await client.message()
    assert answer.status == 101
    assert (answer.get("upgrade"), answer.get("connection")) == (b"websocket", b"upgrade")
    assert answer.get("sec-websocket-accept") is not None
    assert await client.exactly(5) == b"hello"
    for data in (b"\x81\x02hi", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)):
        await client.send(data)
        assert await client.exactly(len(data)) == data
    await client.end()
    assert await client.rest() == b"bye"
    for sidecar in (web, orders):
        [record] = await sidecar.records(1, kind="request")
        assert (record["response_code"], record["decision"], record["reason"]) == (101, "allow", "ok")
        assert record["bytes_received"] == 4 + 18 + 100_000
        assert record["bytes_sent"] >= record["bytes_received"]
    await eventually(lambda: not orders.open_connections)


@pytest.mark.asyncio
async def test_a_reset_of_the_application_reaches_the_client_as_a_break(mesh: Mesh) -> None:
    async def breaks(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(SWITCH)
        await stream.exactly(4)
        stream.reset()

    backend = await mesh.backend(breaks)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(ASK)
    assert (await client.message()).status == 101
    await client.send(b"ping")
    assert await client.closed() == "broken"
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "upstream_reset"


@pytest.mark.asyncio
async def test_refused_by_the_application(mesh: Mesh) -> None:
    async def refuses(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\nnope")
        await stream.closed()

    backend = await mesh.backend(refuses)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(ASK)
    answer = await client.message()
    assert (answer.status, answer.body) == (426, b"nope")
    # Both sides may believe different things of what follows, so nothing follows.
    assert answer.get("connection") == b"close"
    assert await client.closed() == "clean"


@pytest.mark.asyncio
@pytest.mark.parametrize("together", [True, False])
async def test_bytes_before_101_end_it(mesh: Mesh, together: bool) -> None:
    switch = asyncio.Event()

    async def slow(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await switch.wait()
        await stream.send(SWITCH)
        await stream.closed()

    backend = await mesh.backend(slow)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    smuggled = get("/admin")
    if together:
        await client.send(ASK + smuggled)
    else:
        await client.send(ASK)
        await eventually(lambda: backend.requests)
        await client.send(smuggled)
    answer = await client.message()
    assert (answer.status, answer.get("connection")) == (400, b"close")
    assert await client.closed() == "clean"
    switch.set()
    assert b"/admin" not in backend.received
    records = await orders.records(1, kind="request")
    assert records[0]["reason"] == "upgrade_invalid"


@pytest.mark.asyncio
async def test_denied_by_policy_nothing_goes_out(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    rule = '[{to: [{operation: {notPaths: ["/ws"]}}]}]'
    orders = await mesh.sidecar("orders", app=backend, policies=policy("no-sockets", rule))
    client = await mesh.client(orders)
    await client.send(ASK)
    assert (await client.message()).status == 403
    assert backend.received == b""


@pytest.mark.asyncio
async def test_a_101_that_nobody_asked_for_is_an_invalid_answer(mesh: Mesh) -> None:
    async def switches(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(SWITCH + OK)
        await stream.closed()

    backend = await mesh.backend(switches)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/ws"))
    assert (await client.message()).status == 502
    [record] = await orders.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("upstream_response_invalid", "UPE")
