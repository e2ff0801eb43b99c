"""Half-close is carried end to end: one side ends, the other goes on for as long as it likes."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Mesh, eventually
from tcp_way import make_way, settled

LARGE = bytes(range(256)) * 8_192
"""2 MiB: more than one read and one record, so that the end comes while bytes are still held."""


@pytest.mark.asyncio
async def test_the_client_ends_and_the_server_answers(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client = await way.client()
    await client.send(b"all of my question")
    await client.end()
    server = await way.server()
    assert await server.rest() == b"all of my question"
    for part in (b"a long ", b"answer"):
        await server.send(part)
        assert await client.exactly(len(part)) == part
    assert way.orders.open_connections == 1
    await server.end()
    assert await client.closed() == "clean"


@pytest.mark.asyncio
async def test_the_server_ends_and_the_client_goes_on(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    await server.send(b"that is all")
    await server.end()
    assert await client.rest() == b"that is all"
    for part in (b"but I have ", b"more to say"):
        await client.send(part)
        assert await server.exactly(len(part)) == part
    assert way.web.open_connections == 1
    await client.end()
    assert await server.closed() == "clean"


@pytest.mark.asyncio
async def test_an_end_without_a_byte(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    await client.end()
    assert await server.rest() == b""
    await server.end()
    assert await client.rest() == b""
    out, into = await way.records()
    assert [(record["reason"], record["bytes_received"]) for record in (out, into)] == [("ok", 0)] * 2


@pytest.mark.asyncio
@pytest.mark.parametrize("sender", ["client", "server"])
async def test_the_end_comes_after_all_that_was_held(mesh: Mesh, sender: str) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    source, target = (client, server) if sender == "client" else (server, client)

    async def give() -> None:
        await source.send(LARGE)
        await source.end()

    giving = asyncio.get_running_loop().create_task(give())
    await asyncio.sleep(0.05)
    assert await target.rest() == LARGE
    await giving
    await target.send(b"thank you")
    assert await source.exactly(9) == b"thank you"
    await target.end()
    assert await source.closed() == "clean"


@pytest.mark.asyncio
async def test_both_end_at_once(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    await asyncio.gather(client.end(), server.end())
    assert (await client.closed(), await server.closed()) == ("clean", "clean")
    await settled(way.web, way.orders)


@pytest.mark.asyncio
async def test_close_notify_is_sent_to_the_peer(mesh: Mesh) -> None:
    """A TLS client without a sidecar: the server's end is a close_notify, and the client may still send."""
    way = await make_way(mesh)
    peer = await mesh.client(way.orders, alpn=(b"istio",))
    await peer.send(b"x")
    server = await way.server()
    await server.exactly(1)
    await server.end()
    assert await peer.closed() == "clean"
    await peer.send(b"more")
    assert await server.exactly(4) == b"more"
    await peer.end()
    assert await server.closed() == "clean"
    await eventually(lambda: not way.orders.open_connections)
