"""`protocol: auto`: first bytes that are HTTP/1 are judged and forwarded as HTTP, however slowly they come."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Stream, get, policy, service

OPEN_ONLY = policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')


@pytest.mark.asyncio
async def test_http_on_both_sides(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=OPEN_ONLY)
    web = await mesh.sidecar("web", services=[service("orders", orders, protocol="auto")])
    client = await mesh.plain_client(web)
    await client.send(get("/open") + get("/shut"))
    assert [(await client.message()).status for _ in range(2)] == [200, 403]
    for sidecar in (web, orders):
        records = await sidecar.records(2, kind="request")
        assert [record["response_code"] for record in records] == [200, 403]


@pytest.mark.asyncio
async def test_byte_by_byte(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", limits={"detection_timeout": "5s"})
    client = await mesh.client(orders, alpn=())
    for byte in get("/open"):
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.message()).status == 200
    assert backend.requests[0].get("x-forwarded-client-cert") is not None


@pytest.mark.asyncio
async def test_what_is_not_http_goes_as_opaque_bytes(mesh: Mesh) -> None:
    async def echo(stream: Stream, backend: Backend) -> None:
        while data := await stream.receive():
            await stream.send(data)

    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, protocol="auto")
    client = await mesh.client(orders, alpn=(b"istio",))
    await client.send(b"\x00\x01PING")
    assert await client.exactly(6) == b"\x00\x01PING"
    await client.end()
    assert await client.closed() == "clean"
    [connection] = await orders.records(1, kind="connection")
    assert (connection["protocol"], connection["decision"], connection["bytes_sent"]) == ("TCP", "allow", 6)


@pytest.mark.asyncio
async def test_opaque_bytes_where_policy_looks_at_http_are_denied(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=OPEN_ONLY)
    client = await mesh.client(orders, alpn=(b"istio",))
    await client.send(b"\x00\x01PING")
    assert await client.closed() in ("clean", "broken")
    assert client.received == b""
    assert backend.streams == []
    [connection] = await orders.records(1, kind="connection")
    assert connection["decision"] == "deny"
