"""A connection ends when the peer's certificate does, however busy it is."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from mesh import ALLOW_ALL, Mesh, authority, service
from tcp_way import accepted, settled, stay

from certs.authority import Svid


def short_lived(account: str) -> Svid:
    """A certificate with one to two seconds left."""
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    return authority().svid("demo", account, not_after=soon.replace(microsecond=0))


@pytest.mark.asyncio
async def test_the_callers_and_the_servers(mesh: Mesh) -> None:
    """Both at the same time, because both take their time."""
    await asyncio.gather(the_callers_certificate(mesh), the_servers_certificate(mesh))


async def the_callers_certificate(mesh: Mesh) -> None:
    """A caller without a sidecar talks without a pause until its certificate ends."""
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=ALLOW_ALL)
    certificate = short_lived("web")
    client = await mesh.client(orders, certificate=certificate, alpn=(b"istio",))

    async def chatter() -> None:
        while True:
            await client.send(b".")
            await asyncio.sleep(0.05)

    talking = asyncio.get_running_loop().create_task(chatter())
    server = await accepted(backend)
    assert await server.closed() == "broken"
    late = datetime.datetime.now(datetime.UTC) - certificate.leaf.not_valid_after_utc
    with pytest.raises(ConnectionError):
        await talking
    assert 0 <= late.total_seconds() < 1
    assert len(server.received) > 5
    [record] = await settled(orders)
    assert (record["reason"], record["decision"]) == ("peer_certificate_ended", "allow")


async def the_servers_certificate(mesh: Mesh) -> None:
    """A caller's sidecar ends what it has to a server whose certificate ends."""
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", certificate=short_lived("orders"))
    web = await mesh.sidecar("web", services=[service("orders", orders, protocol="tcp")])
    client = await mesh.plain_client(web)
    await client.send(b"hello")
    server = await accepted(backend)
    assert await client.closed() == "broken"
    assert await server.closed() == "broken"
    [record] = await settled(web)
    assert record["reason"] == "peer_certificate_ended"
