"""First bytes are looked at without being taken, however they come, and half a ClientHello costs no processor time."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from handshake_peers import TIMEOUT
from hellos import hello
from mesh import ALLOW_ALL, Mesh, eventually, get, identity
from mesh_streams import Stream
from plaintext import GREETING, drip, echo, files, greet, opened_with, over_tls, peers, ping

from proxy.accept import first_bytes
from proxy.accept.first_bytes import FirstLook, look_at
from proxy.constants import ALPN_MESH
from proxy.detect import Opening, Opens
from proxy.errors import HandshakeError, Reason

MESH_HELLO = hello(b"orders.demo", b"istio")
MESH_TLS = FirstLook(opening=Opening(opens=Opens.MESH_TLS, server_name="orders.demo"))
PERMISSIVE = files(peers("PERMISSIVE"), ALLOW_ALL)


class Counting(socket.socket):
    """A socket that counts how often it was looked at."""

    looks = 0

    def recv(self, *arguments: Any) -> bytes:
        self.looks += 1
        return super().recv(*arguments)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, Counting]]:
    """Both ends of a TCP connection: the client's, and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, Counting(fileno=accepted.detach()) as server:
        server.setblocking(False)
        yield client, server


async def looked(server: socket.socket, *, silence: float = math.inf, within: float = TIMEOUT) -> FirstLook:
    return await look_at(server, mesh=ALPN_MESH, silence=silence, within=within)


@pytest.mark.asyncio
async def test_a_hello_byte_by_byte_is_seen_whole_and_left_whole() -> None:
    with pair() as (client, server):
        look = asyncio.get_running_loop().create_task(looked(server))
        for at in range(len(MESH_HELLO)):
            client.send(MESH_HELLO[at : at + 1])
            if at % 8 == 0:
                await asyncio.sleep(0)
        assert await look == MESH_TLS
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        assert server.recv(65_536) == MESH_HELLO


@pytest.mark.asyncio
@pytest.mark.parametrize("half", [MESH_HELLO[:1], MESH_HELLO[:5], MESH_HELLO[:700], MESH_HELLO[:-1]])
async def test_half_a_hello_wakes_nobody(half: bytes) -> None:
    with pair() as (client, server):
        client.send(half)
        look = asyncio.get_running_loop().create_task(looked(server))
        await asyncio.sleep(0.3)
        assert server.looks <= 2
        client.send(MESH_HELLO[len(half) :])
        assert await look == MESH_TLS
        assert server.looks <= 3


@pytest.mark.asyncio
async def test_half_a_hello_ends_at_the_deadline() -> None:
    with pair() as (client, server):
        client.send(MESH_HELLO[:700])
        with pytest.raises(HandshakeError, match="half a ClientHello, 700 bytes") as caught:
            await looked(server, silence=0.05, within=0.2)
        assert caught.value.reason is Reason.HANDSHAKE_TIMEOUT
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pytest.mark.asyncio
async def test_half_a_hello_and_an_end() -> None:
    """The end makes the socket readable for ever: it must be seen, not waited for again and again."""
    with pair() as (client, server):
        client.send(MESH_HELLO[:700])
        look = asyncio.get_running_loop().create_task(looked(server))
        await asyncio.sleep(0.05)
        client.shutdown(socket.SHUT_WR)
        assert await look == FirstLook(opening=Opening(opens=Opens.OTHER_TLS))
        assert server.looks <= 4
        assert server.recv(65_536) == MESH_HELLO[:700]


@pytest.mark.asyncio
async def test_woken_for_nothing_it_rests_and_still_keeps_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under memory pressure, when the kernel ignores the low-water mark."""
    monkeypatch.setattr(first_bytes, "_low_water", lambda sock, count: None)
    with pair() as (client, server):
        client.send(MESH_HELLO[:700])
        with pytest.raises(HandshakeError):
            await looked(server, within=0.5)
        assert server.looks <= 15


@pytest.mark.asyncio
async def test_silence() -> None:
    with pair() as (client, server):
        assert await looked(server, silence=0.05) == FirstLook(opening=Opening(opens=Opens.PLAINTEXT), silent=True)
        with pytest.raises(HandshakeError, match="speaks_first: server") as caught:
            await looked(server, within=0.05)
        assert caught.value.reason is Reason.HANDSHAKE_TIMEOUT
        client.shutdown(socket.SHUT_WR)
        assert await looked(server) == FirstLook(opening=Opening(opens=Opens.PLAINTEXT))


@pytest.mark.asyncio
async def test_a_reset_is_a_break() -> None:
    with pair() as (client, server):
        look = asyncio.get_running_loop().create_task(looked(server))
        await asyncio.sleep(0.05)
        Stream(client).reset()
        with pytest.raises(ConnectionResetError):
            await look


@pytest.mark.asyncio
async def test_cancelled_it_leaves_the_loop_alone() -> None:
    with pair() as (client, server):
        client.send(MESH_HELLO[:700])
        look = asyncio.get_running_loop().create_task(looked(server))
        await asyncio.sleep(0.05)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look
        assert not asyncio.get_running_loop().remove_reader(server.fileno())
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


# --- the same through a sidecar ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("server_name", ["", "orders.demo"])
async def test_a_handshake_whose_hello_is_cut_up(mesh: Mesh, server_name: str) -> None:
    """CVE-2020-8660: not even a hello that comes byte by byte is taken for something that is not of the mesh."""
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=PERMISSIVE)
    between = await mesh.backend(lambda stream, _: one_byte_at_a_time(mesh, stream, orders.port))
    client = await mesh.client(between.port, server_name=server_name)
    await client.send(get())
    assert (await client.message()).status == 200
    [record] = await orders.records(1, kind="request")
    assert record["source_principal"] == identity("web")


async def one_byte_at_a_time(mesh: Mesh, caller: Stream, port: int) -> None:
    """Carry a connection on, its first 1,000 bytes one by one."""
    called = await mesh.plain_client(port)
    first = await caller.exactly(1_000)
    await drip(called, first)

    async def carry(source: Stream, target: Stream) -> None:
        await target.send(source.unread)
        while data := await source.receive():
            await target.send(data)

    await asyncio.gather(carry(caller, called), carry(called, caller))


@pytest.mark.asyncio
async def test_a_server_that_speaks_first(mesh: Mesh) -> None:
    limits = {"detection_timeout": "0.1s"}
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(greet), protocol="tcp", policies=PERMISSIVE, limits=limits
    )
    silent, mutual = await mesh.plain_client(orders.port), await mesh.client(orders, alpn=[b"istio"])
    await mutual.send(b"hello\n")  # its handshake begins with the first bytes
    for client in (silent, mutual):
        assert await client.exactly(len(GREETING)) == GREETING
    await silent.send(b"hello\n")
    for client in (silent, mutual):
        assert await client.until(b"\n") == b"you said hello\n"
        await client.end()
    assert {opened_with(record) for record in await orders.records(2)} == {
        ("TCP", None, None),
        ("TCP", identity("web"), None),
    }


@pytest.mark.asyncio
async def test_on_an_auto_port_silence_is_waited_for_once(mesh: Mesh) -> None:
    limits = {"detection_timeout": "0.3s"}
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(greet), protocol="auto", policies=PERMISSIVE, limits=limits
    )
    client = await mesh.plain_client(orders.port)
    began = asyncio.get_running_loop().time()
    assert await client.exactly(len(GREETING)) == GREETING
    assert 0.3 <= asyncio.get_running_loop().time() - began < 0.6


@pytest.mark.asyncio
async def test_an_http_port_waits_for_its_client(mesh: Mesh) -> None:
    limits = {"detection_timeout": "0.05s", "handshake_timeout": "0.5s"}
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=PERMISSIVE, limits=limits)
    slow, silent = await mesh.plain_client(orders.port), await mesh.plain_client(orders.port)
    await asyncio.sleep(0.2)
    await slow.send(get())
    assert (await slow.message()).status == 200
    assert await silent.closed() == "clean"
    [record] = await orders.records(1, kind="connection")
    assert record["reason"] == "handshake_timeout"
    assert "speaks_first: server" in record["upstream_transport_failure_reason"]


@pytest.mark.asyncio
async def test_half_a_hello_holds_a_place_among_handshakes_until_its_deadline(mesh: Mesh) -> None:
    limits = {"handshakes": 1, "handshake_timeout": "0.5s"}
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(echo), protocol="tcp", policies=PERMISSIVE, limits=limits
    )
    half = await mesh.plain_client(orders.port)
    await half.send(MESH_HELLO[:700])
    await eventually(lambda: orders.app.sidecar.handshaking == 1)
    refused = await mesh.plain_client(orders.port)
    await refused.closed()
    await half.closed()
    await eventually(lambda: orders.app.sidecar.handshaking == 0)
    await ping(await mesh.plain_client(orders.port))
    records = await orders.records(2)
    assert [record["reason"] for record in records] == ["handshake_limit", "handshake_timeout"]


@pytest.mark.asyncio
async def test_a_hello_longer_than_is_looked_at_is_the_applications(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, policies=PERMISSIVE)
    client = await mesh.plain_client(orders.port)
    long = hello(b"orders.demo", *(b"n%03d" % number for number in range(3_300)), b"istio", size=200)
    assert len(long) > 16_384
    await client.send(long)
    assert await client.exactly(len(long)) == long


@pytest.mark.asyncio
async def test_other_tls_byte_by_byte(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(over_tls), policies=PERMISSIVE)
    between = await mesh.backend(lambda stream, _: one_byte_at_a_time(mesh, stream, orders.port))
    client = await mesh.client(between.port, alpn=[b"h2"], server_name="shop.example")
    await client.send(b"hello")
    assert await client.exactly(19) == b"shop.example: hello"
