"""Opaque bytes both ways: whatever they are, they arrive as they were sent, and one record says who sent how many."""

from __future__ import annotations

import pytest
from mesh import Mesh, identity, service
from tcp_way import accepted, make_way, stay

EVERY_BYTE = bytes(range(256))


@pytest.mark.asyncio
async def test_every_byte_value_both_ways(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client = await way.client()
    await client.send(EVERY_BYTE)
    server = await way.server()
    assert await server.exactly(256) == EVERY_BYTE
    await server.send(EVERY_BYTE[::-1])
    assert await client.exactly(256) == EVERY_BYTE[::-1]


@pytest.mark.asyncio
async def test_what_looks_like_http_is_not_touched(mesh: Mesh) -> None:
    request = b"GET /../%2e HTTP/1.1\nHost: a\nHost: b\nx-forwarded-client-cert: forged\n\n"
    way = await make_way(mesh)
    client = await way.client()
    await client.send(request)
    server = await way.server()
    assert await server.exactly(len(request)) == request


@pytest.mark.asyncio
async def test_many_small_messages_in_turn(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    for number in range(200):
        message = b"message %d" % number
        await client.send(message)
        assert await server.exactly(len(message)) == message
        await server.send(message)
        assert await client.exactly(len(message)) == message


@pytest.mark.asyncio
async def test_one_record_on_each_side(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client = await way.client()
    await client.send(b"a question")
    server = await way.server()
    await server.exactly(10)
    await server.send(b"the answer to it")
    await client.exactly(16)
    await client.end()
    assert await server.closed() == "clean"
    await server.end()
    assert await client.closed() == "clean"

    out, into = await way.records()
    for record in (out, into):
        assert (record["kind"], record["protocol"], record["method"]) == ("connection", "TCP", None)
        assert (record["bytes_received"], record["bytes_sent"]) == (10, 16)
        assert (record["decision"], record["reason"], record["response_flags"]) == ("allow", "ok", "-")
        assert record["source_principal"] == identity("web")
        assert record["destination_principal"] == identity("orders")
    assert (out["direction"], out["policy"]) == ("outbound", "outbound[orders]")
    assert (into["direction"], into["policy"]) == ("inbound", "ns[demo]-policy[allow-all]-rule[0]")
    assert out["upstream_host"] == f"127.0.0.1:{way.orders.port}"
    assert into["upstream_host"] == f"127.0.0.1:{way.backend.port}"


@pytest.mark.asyncio
async def test_every_connection_has_its_own_record(mesh: Mesh) -> None:
    way = await make_way(mesh)
    clients = [await way.client() for _ in range(5)]
    for number, client in enumerate(clients):
        await client.send(bytes(number + 1))
    for number in range(5):
        server = await way.server(number)
        await server.receive()
        await server.end()
    for client in clients:
        await client.end()
        assert await client.closed() == "clean"
    for sidecar in (way.web, way.orders):
        records = await sidecar.records(5)
        assert sorted(record["bytes_received"] for record in records) == [1, 2, 3, 4, 5]


@pytest.mark.asyncio
async def test_a_plaintext_service(mesh: Mesh) -> None:
    """`tls: none` forwards in plaintext, and the record claims no identity of the server."""
    backend = await mesh.backend(stay)
    web = await mesh.sidecar("web", services=[service("legacy", backend, protocol="tcp")])
    client = await mesh.plain_client(web)
    await client.send(b"hello")
    server = await accepted(backend)
    assert await server.exactly(5) == b"hello"
    client.reset()
    assert await server.closed() == "broken"
    [record] = await web.records()
    assert (record["destination_principal"], record["policy"]) == (None, "outbound[legacy]")
