"""A reset is carried on as a reset, through both sidecars, in both directions, and never made to look like an end.

Only a clean end says that nothing is missing (RFC 8446 section 6.1), so a TLS stream cut short is a reset as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from handshake_peers import Peer
from mesh import Backend, Mesh, Stream, service, svid
from tcp_way import make_way, push, settled


def reasons(records: list[dict[str, object]]) -> list[object]:
    return [record["reason"] for record in records]


@pytest.mark.asyncio
async def test_the_client_resets(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client = await way.client()
    await client.send(b"half of a ")
    server = await way.server()
    await server.exactly(10)
    client.reset()
    assert await server.closed() == "broken"
    records = await settled(way.web, way.orders)
    assert reasons(records) == ["downstream_reset", "downstream_reset"]
    assert [record["bytes_received"] for record in records] == [10, 10]


@pytest.mark.asyncio
async def test_the_server_resets(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    await server.send(b"half of a ")
    await client.exactly(10)
    server.reset()
    assert await client.closed() == "broken"
    records = await settled(way.web, way.orders)
    assert reasons(records) == ["upstream_reset", "upstream_reset"]
    assert [record["response_flags"] for record in records] == ["UR", "UR"]


@pytest.mark.asyncio
@pytest.mark.parametrize("resets", ["client", "server"])
async def test_a_reset_after_the_other_side_has_ended(mesh: Mesh, resets: str) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    breaking, ended = (client, server) if resets == "client" else (server, client)
    await ended.end()
    assert await breaking.closed() == "clean"
    breaking.reset()
    assert await ended.closed() == "broken"
    await settled(way.web, way.orders)


@pytest.mark.asyncio
@pytest.mark.parametrize("resets", ["client", "server"])
async def test_a_reset_while_the_other_side_takes_nothing(mesh: Mesh, resets: str) -> None:
    """Bytes that are held for a slow reader do not hide the reset behind them."""
    way = await make_way(mesh)
    client, server = await way.client(receive_buffer=4_096), await way.server()
    breaking, slow = (client, server) if resets == "client" else (server, client)
    await push(breaking, bytes(64 << 20))
    breaking.reset()
    assert await slow.closed() == "broken"
    await settled(way.web, way.orders)


@pytest.mark.asyncio
@pytest.mark.parametrize("resets", ["client", "server"])
@pytest.mark.parametrize("size", [1, 300_000])
async def test_bytes_and_a_reset_right_behind_them(mesh: Mesh, resets: str, size: int) -> None:
    """Both are there when the sidecar looks; libuv shows such a descriptor once and never again."""
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    breaking, other = (client, server) if resets == "client" else (server, client)
    assert breaking.send_now(bytes(size))
    breaking.reset()
    assert await other.closed() == "broken"
    await settled(way.web, way.orders)


@pytest.mark.asyncio
async def test_an_application_that_accepts_and_resets_at_once(mesh: Mesh) -> None:
    async def reset(stream: Stream, backend: Backend) -> None:
        stream.reset()

    way = await make_way(mesh, script=reset)
    for _ in range(10):
        client = await way.client()
        assert await client.closed() == "broken"
    for sidecar in (way.web, way.orders):
        records = await sidecar.records(10)
        assert set(reasons(records)) == {"upstream_reset"}


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["close", "half"])
async def test_a_client_that_ends_without_close_notify(mesh: Mesh, how: str) -> None:
    way = await make_way(mesh)
    peer = await mesh.client(way.orders, alpn=(b"istio",))
    await peer.send(b"half of a ")
    server = await way.server()
    await server.exactly(10)
    if how == "close":
        peer.close()
    else:
        peer.sock.shutdown(socket.SHUT_WR)
    assert await server.closed() == "broken"
    [record] = await settled(way.orders)
    assert record["reason"] == "downstream_reset"


@contextlib.asynccontextmanager
async def tls_server(mesh: Mesh) -> AsyncIterator[tuple[Stream, Peer]]:
    """An application's connection through a sidecar to a TLS server that this test moves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        web = await mesh.sidecar("web", services=[service("orders", port, protocol="tcp")])
        client = await mesh.plain_client(web)
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        with accepted:
            peer = Peer(accepted, svid("orders"), server_side=True)
            await peer.handshake()
            yield client, peer
        [record] = await settled(web)
        assert record["reason"] == "upstream_reset"


@pytest.mark.asyncio
async def test_a_server_that_ends_without_close_notify(mesh: Mesh) -> None:
    async with tls_server(mesh) as (client, peer):
        await peer.send(b"half of a ")
        await client.exactly(10)
        peer.sock.shutdown(socket.SHUT_WR)
        assert await client.closed() == "broken"
        assert not client.unread


@pytest.mark.asyncio
async def test_a_server_that_sends_bytes_that_are_not_tls(mesh: Mesh) -> None:
    async with tls_server(mesh) as (client, peer):
        await peer.send(b"good")
        await client.exactly(4)
        peer.sock.send(b"\x17\x03\x03\x00\x20" + b"forged bytes that nobody signed.")
        assert await client.closed() == "broken"
        assert not client.unread
