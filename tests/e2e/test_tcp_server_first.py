"""Protocols in which the server speaks first: the greeting reaches a client that has sent nothing."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Stream
from tcp_way import make_way

GREETING = b"5.5.5-10.11.19-Server\x00"


async def greet(stream: Stream, backend: Backend) -> None:
    """Greet, then answer line by line as long as the client asks."""
    await stream.send(GREETING)
    while (line := await stream.until(b"\n")) != b"quit\n":
        await stream.send(b"you said " + line)


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["tcp", "auto"])
async def test_the_greeting_comes_first(mesh: Mesh, protocol: str) -> None:
    way = await make_way(mesh, protocol=protocol, script=greet, limits={"detection_timeout": "0.05s"})
    client = await way.client()
    assert await client.exactly(len(GREETING)) == GREETING
    await client.send(b"hello\n")
    assert await client.until(b"\n") == b"you said hello\n"
    await client.send(b"quit\n")
    assert await client.closed() == "clean"
    await client.end()
    out, into = await way.records()
    assert [record["protocol"] for record in (out, into)] == ["TCP", "TCP"]
    assert (out["bytes_sent"], out["bytes_received"]) == (len(GREETING) + 15, 11)


@pytest.mark.asyncio
async def test_an_auto_port_waits_for_the_client_until_the_deadline(mesh: Mesh) -> None:
    """Before the deadline nobody knows that the client will not speak HTTP, so nobody is judged or dialled."""
    way = await make_way(mesh, protocol="auto", script=greet, limits={"detection_timeout": "0.4s"})
    client = await mesh.client(way.orders)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.receive(), 0.2)
    assert not way.backend.streams
    assert await client.exactly(len(GREETING)) == GREETING
