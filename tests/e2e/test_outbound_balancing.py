"""The endpoint that is least busy gets the next request or connection."""

from __future__ import annotations

import asyncio

import pytest
from mesh import OK, Backend, Mesh, Stream, eventually, get, service

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.asyncio
async def test_a_slow_endpoint_gets_fewer_requests(mesh: Mesh) -> None:
    go_on = asyncio.Event()

    async def slow(stream: Stream, backend: Backend) -> None:
        while True:
            await backend.take(stream)
            await go_on.wait()
            await stream.send(OK)

    slow_one, quick_one = await mesh.backend(slow), await mesh.backend()
    sidecars = [await mesh.sidecar("orders", app=backend) for backend in (slow_one, quick_one)]
    web = await mesh.sidecar("web", services=[service("orders", *sidecars)])
    clients = [await mesh.plain_client(web) for _ in range(3)]
    await clients[0].send(get())
    await eventually(lambda: slow_one.requests)
    for _ in range(20):
        for client in clients[1:]:
            await client.send(get())
            assert (await client.message()).status == 200
    assert (len(slow_one.requests), len(quick_one.requests)) == (1, 40)
    go_on.set()
    assert (await clients[0].message()).status == 200


@pytest.mark.asyncio
async def test_opaque_connections_go_to_who_has_fewest(mesh: Mesh) -> None:
    async def echo(stream: Stream, backend: Backend) -> None:
        while data := await stream.receive():
            await stream.send(data)

    async def talk() -> Stream:
        client = await mesh.plain_client(web)
        await client.send(b"hello")
        assert await client.receive() == b"hello"
        return client

    backends = [await mesh.backend(echo) for _ in range(2)]
    sidecars = [await mesh.sidecar("orders", app=backend, protocol="tcp") for backend in backends]
    web = await mesh.sidecar("web", services=[service("orders", *sidecars, protocol="tcp")])
    clients = [await talk() for _ in range(4)]
    assert [len(backend.streams) for backend in backends] == [2, 2]
    for client in (clients[0], clients[2]):
        await client.end()
        assert await client.closed() == "clean"
    await eventually(lambda: web.open_connections == 2)
    for _ in range(2):
        await talk()
    assert [len(backend.streams) for backend in backends] == [4, 2]


@pytest.mark.asyncio
async def test_an_upgraded_connection_counts_until_it_ends(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            if request.get("upgrade"):
                await stream.send(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                await stream.closed()
                return
            await stream.send(OK)

    backends = [await mesh.backend(script) for _ in range(2)]
    sidecars = [await mesh.sidecar("orders", app=backend) for backend in backends]
    web = await mesh.sidecar("web", services=[service("orders", *sidecars)])
    socket, client = [await mesh.plain_client(web) for _ in range(2)]
    await socket.send(get("/chat", "Connection: upgrade", "Upgrade: websocket"))
    assert (await socket.message()).status == 101
    for _ in range(4):
        await client.send(get())
        assert (await client.message()).status == 200
    assert [len(backend.requests) for backend in backends] == [1, 4]
    socket.close()
    await eventually(lambda: web.open_connections == 1)
    for _ in range(4):
        await client.send(get())
        assert (await client.message()).status == 200
    assert [len(backend.requests) for backend in backends] == [3, 6]
