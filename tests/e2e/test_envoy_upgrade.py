"""WebSocket between Envoy and us: 101 passes, then bytes flow both ways until both sides have ended."""

from __future__ import annotations

import pytest
from envoy_sidecar import envoy_before, envoy_calling
from mesh import Backend, Mesh, Stream, get, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

ASK = get("/orders", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def echo(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.send(SWITCH + b"hello")
    while data := await stream.receive():
        await stream.send(data)


async def converse(client: Stream) -> None:
    await client.send(ASK)
    answer = await client.message()
    assert (answer.status, answer.get("upgrade")) == (101, b"websocket")
    assert await client.exactly(5) == b"hello"
    for data in (b"\x81\x02hi", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)):
        await client.send(data)
        assert await client.exactly(len(data)) == data
    client.close()


async def test_to_envoy(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    async with envoy_before(mesh, backend) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        await converse(await mesh.plain_client(web))
        [ours] = await web.records(kind="request")
    assert (ours["response_code"], ours["decision"], ours["bytes_received"]) == (101, "allow", 100_022)


async def test_from_envoy(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend)
    async with envoy_calling(mesh, orders) as envoy:
        await converse(await mesh.plain_client(envoy.port))
        [ours] = await orders.records(kind="request")
    assert (ours["response_code"], ours["decision"], ours["bytes_received"]) == (101, "allow", 100_022)
