"""A client that ends its side after a request still gets its answer, whole."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Stream, eventually, get, service


async def slow(stream: Stream, backend: Backend) -> None:
    while True:
        await backend.take(stream)
        await asyncio.sleep(0.05)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"y" * 50_000)
        await asyncio.sleep(0.05)
        await stream.send(b"y" * 50_000)


@pytest.mark.asyncio
async def test_over_mutual_tls(mesh: Mesh) -> None:
    backend = await mesh.backend(slow)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/a") + get("/b"))
    await client.end()
    for _ in range(2):
        assert len((await client.message()).body) == 100_000
    assert await client.closed() == "clean"
    await orders.records(2, kind="request")
    await eventually(lambda: not orders.open_connections)


@pytest.mark.asyncio
async def test_in_plaintext_through_two_hops(mesh: Mesh) -> None:
    backend = await mesh.backend(slow)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get("/", method="POST", body=b"z" * 1_000))
    await client.end()
    assert len((await client.message()).body) == 100_000
    assert await client.closed() == "clean"


@pytest.mark.asyncio
async def test_an_idle_connection_is_closed_in_return(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    await client.message()
    await client.end()
    assert await client.closed() == "clean"
    await eventually(lambda: not orders.open_connections)
