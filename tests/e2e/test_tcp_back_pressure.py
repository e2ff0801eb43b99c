"""A slow reader stops the sender at the other end of the way: what is between them is bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from mesh import Mesh, Stream
from tcp_way import Way, make_way, push

OFFERED = random.Random(1).randbytes(1 << 20) * 96
"""96 MiB: far more than the kernel buffers of three connections hold (up to 10 MiB each)."""
NEVER_GIVEN_UP = {"buffer_limit": "256MiB"}
"""So that a sidecar that does not stop its source would go on collecting, and the sender would get rid of it all."""


async def ends(way: Way, sender: str) -> tuple[Stream, Stream]:
    client, server = await way.client(), await way.server()
    return (client, server) if sender == "client" else (server, client)


async def digest_of(stream: Stream, size: int) -> str:
    """Read `size` bytes and give their digest, holding none of them."""
    found = hashlib.sha256()
    while size:
        await stream.receive()
        found.update(stream.received)
        size -= len(stream.received)
        stream.received.clear()
    return found.hexdigest()


@pytest.mark.asyncio
@pytest.mark.parametrize("sender", ["client", "server"])
async def test_a_reader_that_takes_nothing_stops_the_sender(mesh: Mesh, sender: str) -> None:
    way = await make_way(mesh, limits=NEVER_GIVEN_UP)
    source, target = await ends(way, sender)
    taken = await push(source, OFFERED)
    assert taken < len(OFFERED)
    assert await digest_of(target, taken) == hashlib.sha256(OFFERED[:taken]).hexdigest()
    # It goes on where it stopped.
    await source.send(b"and so on")
    assert await target.exactly(9) == b"and so on"


@pytest.mark.asyncio
async def test_both_directions_stop_on_their_own(mesh: Mesh) -> None:
    """A direction that is full does not hold up the other one."""
    way = await make_way(mesh, limits=NEVER_GIVEN_UP)
    client, server = await way.client(), await way.server()
    taken = await push(client, OFFERED)
    assert taken < len(OFFERED)
    for number in range(20):
        await server.send(b"%2d" % number)
        assert await client.exactly(2) == b"%2d" % number
    assert await digest_of(server, taken) == hashlib.sha256(OFFERED[:taken]).hexdigest()


@pytest.mark.asyncio
async def test_large_transfers_both_ways_at_once(mesh: Mesh) -> None:
    way = await make_way(mesh)
    client, server = await way.client(), await way.server()
    up, down = OFFERED[: 8 << 20], OFFERED[1_000 : (8 << 20) + 1_000]

    async def give(stream: Stream, data: bytes) -> None:
        await stream.send(data)
        await stream.end()

    _, _, at_server, at_client = await asyncio.gather(
        give(client, up), give(server, down), digest_of(server, len(up)), digest_of(client, len(down))
    )
    assert at_server == hashlib.sha256(up).hexdigest()
    assert at_client == hashlib.sha256(down).hexdigest()
    out, into = await way.records()
    assert [(record["bytes_received"], record["bytes_sent"]) for record in (out, into)] == [(len(up), len(down))] * 2


@pytest.mark.asyncio
async def test_what_pausing_cannot_bound_is_given_up(mesh: Mesh) -> None:
    """With a limit below two reads the source is stopped too late: both sides are reset, and the record says why."""
    way = await make_way(mesh, limits={"buffer_limit": "64KiB", "buffer_high_water": "63KiB"})
    client, server = await way.client(), await way.server()
    with pytest.raises(ConnectionError):
        await push(client, OFFERED)
    assert await server.closed() == "broken"
    reasons = {record["reason"] for record in await way.records()}
    assert "buffer_limit" in reasons
