"""Envoy does not know our root: its alert is on our record by name.

Under TLS 1.3 the refusal comes after our side of the handshake is done, with the first read.
"""

from __future__ import annotations

import pytest
from envoy_sidecar import envoy_before
from mesh import Mesh, authority, get, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


def check(ours: dict[str, object]) -> None:
    """Envoy closes right behind its alert with our bytes unread: its kernel sends a reset, and that may come first."""
    if ours["reason"] == "peer_rejected_us":
        assert ours["response_flags"] == "UF"
        assert "unknown_ca" in str(ours["upstream_transport_failure_reason"]) or ours["kind"] == "connection"
    else:
        assert (ours["reason"], ours["response_flags"]) == ("upstream_reset", "UR")


async def test_a_request(mesh: Mesh) -> None:
    backend = await mesh.backend()
    async with envoy_before(mesh, backend, trust=authority().neighbour.bundle) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        client = await mesh.plain_client(web)
        await client.send(get("/orders"))
        assert (await client.message()).status == 503
        [theirs] = await envoy.records(kind="connections")
    assert "CERTIFICATE_VERIFY_FAILED" in theirs["downstream_transport_failure_reason"]
    [ours] = await web.records()
    check(ours)
    assert backend.streams == []


async def test_an_opaque_connection(mesh: Mesh) -> None:
    backend = await mesh.backend()
    async with envoy_before(mesh, backend, trust=authority().neighbour.bundle) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port, protocol="tcp")])
        client = await mesh.plain_client(web)
        await client.send(b"anything")
        assert await client.closed() == "broken"
    [ours] = await web.records()
    check(ours)
    # Envoy's tcp_proxy may have dialled before its handshake was done; not a byte of ours got there.
    assert [stream.received for stream in backend.streams if stream.received] == []
