"""The port's `protocol` decides how bytes are read, never what the peer's ALPN says."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, get, policy
from tcp_way import accepted, stay

READ_ONLY = policy("read-only", "[{to: [{operation: {methods: [GET]}}]}]")
OFFERS = [(), (b"istio",), (b"istio-http/1.1",), (b"istio-http/1.0",), (b"http/1.1",), (b"istio-http/1.1", b"istio")]


@pytest.mark.asyncio
@pytest.mark.parametrize("alpn", OFFERS, ids=lambda names: b"+".join(names).decode() or "none")
async def test_an_http_port_reads_requests(mesh: Mesh, alpn: tuple[bytes, ...]) -> None:
    """Above all: `istio` does not make it opaque, which would carry a request past the rules for requests."""
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="http", policies=READ_ONLY)
    client = await mesh.client(orders, alpn=alpn)
    await client.send(get(method="DELETE"))
    assert (await client.message()).status == 403
    await client.send(get())
    assert (await client.message()).status == 200
    assert [request.method for request in backend.requests] == [b"GET"]


@pytest.mark.asyncio
@pytest.mark.parametrize("alpn", [(), (b"istio",)], ids=lambda names: b"+".join(names).decode() or "none")
async def test_a_tcp_port_reads_nothing(mesh: Mesh, alpn: tuple[bytes, ...]) -> None:
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=ALLOW_ALL)
    client = await mesh.client(orders, alpn=alpn)
    request = get("/..//%2e", method="BREW")
    await client.send(request)
    server = await accepted(backend)
    assert await server.exactly(len(request)) == request


@pytest.mark.asyncio
async def test_an_auto_port_looks_at_bytes(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=READ_ONLY)
    client = await mesh.client(orders, alpn=(b"istio",))
    await client.send(get(method="DELETE"))
    assert (await client.message()).status == 403
    assert not backend.streams
