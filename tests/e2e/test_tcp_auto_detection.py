"""`protocol: auto`: first bytes say whether it is HTTP/1, judged request by request, or opaque, judged once."""

from __future__ import annotations

import asyncio

import pytest
from mesh import ALLOW_ALL, Mesh, Stream, get, keep_answering, policy
from tcp_way import accepted, make_way, settled, stay

READ_ONLY = policy("read-only", "[{to: [{operation: {methods: [GET]}}]}]")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


async def bytes_in_pieces(stream: Stream, data: bytes, pause: float) -> None:
    for at in range(len(data)):
        await stream.send(data[at : at + 1])
        await asyncio.sleep(pause)


@pytest.mark.asyncio
async def test_http_is_judged_request_by_request(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=READ_ONLY)
    client = await mesh.client(orders)
    for method, status in (("GET", 200), ("POST", 403), ("GET", 200)):
        await client.send(get(method=method, body=b"" if method == "POST" else None))
        assert (await client.message()).status == status
    assert [request.method for request in backend.requests] == [b"GET", b"GET"]
    assert [record["decision"] for record in await orders.records(3, kind="request")] == ["allow", "deny", "allow"]


@pytest.mark.asyncio
async def test_http_over_two_auto_hops(mesh: Mesh) -> None:
    way = await make_way(mesh, protocol="auto", script=keep_answering)
    client = await way.client()
    for _ in range(2):
        await client.send(get())
        assert (await client.message()).status == 200
    [request, _] = way.backend.requests
    assert request.get("x-forwarded-client-cert") is not None
    assert len(way.backend.streams) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "first", [b"\x00\x00\x00\x08", b"get / HTTP/1.1\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"\n", b"{}"]
)
async def test_opaque_by_its_first_bytes(mesh: Mesh, first: bytes) -> None:
    """Known at once: the deadline of detection is not waited for."""
    way = await make_way(mesh, protocol="auto", limits={"detection_timeout": "60s"})
    client = await way.client()
    await client.send(first)
    server = await way.server()
    assert await server.exactly(len(first)) == first
    await server.send(b"opaque it is")
    assert await client.exactly(12) == b"opaque it is"


@pytest.mark.asyncio
async def test_a_request_in_pieces_within_the_deadline_is_http(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies=READ_ONLY, limits={"detection_timeout": "5s"}
    )
    client = await mesh.client(orders)
    await bytes_in_pieces(client, get(), 0.002)
    assert (await client.message()).status == 200
    [record] = await orders.records(kind="request")
    assert record["decision"] == "allow"


@pytest.mark.asyncio
async def test_a_method_that_is_not_whole_at_the_deadline_is_opaque(mesh: Mesh) -> None:
    """Opaque means that L4 policy decides: a slow client cannot slip past rules that look at requests."""
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies=READ_ONLY, limits={"detection_timeout": "0.05s"}
    )
    client = await mesh.client(orders)
    await client.send(b"GE")
    await client.closed()
    assert not client.received
    [record] = await settled(orders)
    assert (record["kind"], record["reason"], record["policy"]) == ("connection", "denied_by_policy", "none")
    assert not backend.streams


@pytest.mark.asyncio
async def test_what_was_read_before_the_deadline_is_not_lost(mesh: Mesh) -> None:
    way = await make_way(mesh, protocol="auto", limits={"detection_timeout": "0.05s"})
    client = await way.client()
    await client.send(b"GE")
    server = await way.server()
    assert await server.exactly(2) == b"GE"
    await client.send(b"T / and no HTTP\n")
    assert await server.exactly(16) == b"T / and no HTTP\n"


@pytest.mark.asyncio
async def test_an_end_before_anything_is_known(mesh: Mesh) -> None:
    way = await make_way(mesh, protocol="auto", limits={"detection_timeout": "60s"})
    client = await way.client()
    await client.send(b"GE")
    await client.end()
    server = await way.server()
    assert await server.rest() == b"GE"
    await server.send(b"?")
    await server.end()
    assert await client.rest() == b"?"


@pytest.mark.asyncio
@pytest.mark.parametrize("pieces", [False, True])
async def test_an_http2_preface_is_opaque(mesh: Mesh, pieces: bool) -> None:
    way = await make_way(mesh, protocol="auto", limits={"detection_timeout": "5s"})
    client = await way.client()
    if pieces:
        await bytes_in_pieces(client, PREFACE, 0.001)
    else:
        await client.send(PREFACE)
    server = await way.server()
    assert await server.exactly(len(PREFACE)) == PREFACE


@pytest.mark.asyncio
async def test_http2_does_not_pass_where_requests_are_judged(mesh: Mesh) -> None:
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=READ_ONLY)
    client = await mesh.client(orders)
    await client.send(PREFACE)
    await client.closed()
    assert not client.received
    assert not backend.streams


@pytest.mark.asyncio
async def test_a_malformed_request_is_answered_and_not_carried_as_opaque_bytes(mesh: Mesh) -> None:
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="auto", policies=ALLOW_ALL)
    client = await mesh.client(orders)
    await client.send(b"GET /admin HTTP/1.1\nHost: a\n\n")
    assert (await client.message()).status == 400
    assert not backend.streams


@pytest.mark.asyncio
async def test_tls_inside_tls_is_opaque(mesh: Mesh) -> None:
    hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4"
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="auto")
    client = await mesh.client(orders)
    await client.send(hello)
    server = await accepted(backend)
    assert await server.exactly(len(hello)) == hello
