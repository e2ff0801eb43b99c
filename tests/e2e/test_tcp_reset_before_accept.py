"""A connection that was reset while it waited to be accepted costs nothing, least of all a place among handshakes."""

from __future__ import annotations

import pytest
from mesh import Mesh
from mesh_streams import Stream, dial
from tcp_way import make_way


@pytest.mark.asyncio
async def test_its_place_among_handshakes_is_free_again(mesh: Mesh) -> None:
    way = await make_way(mesh, limits={"handshakes": 1})
    for number in range(3):
        Stream(dial(way.orders.port)).reset()  # the loop has not run since, so nobody has accepted it
        client = await way.client()
        await client.send(b"x")
        server = await way.server(number)
        assert await server.exactly(1) == b"x"
