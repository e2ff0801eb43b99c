"""An answer whose body ends with the upstream's connection: chunked to a 1.1 client, whose connection lives on."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Stream, get, service


@pytest.mark.asyncio
async def test_chunked_to_the_client(mesh: Mesh) -> None:
    async def until_close(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nfirst ")
        await asyncio.sleep(0.02)
        await stream.send(b"second")

    backend = await mesh.backend(until_close)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    for _ in range(3):
        await client.send(get())
        answer = await client.message()
        assert answer.body == b"first second"
        assert answer.get("transfer-encoding") == b"chunked"
        assert answer.get("connection") is None
    assert len(backend.streams) == 3
    records = await orders.records(3, kind="request")
    assert {record["reason"] for record in records} == {"ok"}


@pytest.mark.asyncio
async def test_an_end_by_reset_is_no_end(mesh: Mesh) -> None:
    async def reset(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nfirst ")
        await asyncio.sleep(0.05)
        stream.reset()

    backend = await mesh.backend(reset)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert await client.closed() == "broken"
    for sidecar in (orders, web):
        [record] = await sidecar.records(1, kind="request")
        assert record["reason"] == "upstream_reset"
