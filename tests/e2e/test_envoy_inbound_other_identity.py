"""Envoy presents another identity than the service names: we refuse it, and say so to both sides."""

from __future__ import annotations

import pytest
from envoy_sidecar import envoy_before
from mesh import Mesh, get, identity, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


async def test_the_request_is_answered_503(mesh: Mesh) -> None:
    backend = await mesh.backend()
    async with envoy_before(mesh, backend, account="billing") as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        client = await mesh.plain_client(web)
        await client.send(get("/orders"))
        assert (await client.message()).status == 503
        [theirs] = await envoy.records(kind="connections")
    # OpenSSL's client writes this alert before it begins to encrypt; BoringSSL takes it for a broken record.
    assert "DECRYPTION_FAILED_OR_BAD_RECORD_MAC" in theirs["downstream_transport_failure_reason"]
    assert theirs["source_principal"] is None
    [ours] = await web.records()
    assert (ours["reason"], ours["response_flags"]) == ("upstream_identity_rejected", "UF")
    assert ours["upstream_transport_failure_reason"].startswith("server_identity_unexpected: ")
    assert identity("billing") in ours["upstream_transport_failure_reason"]
    assert ours["destination_principal"] is None
    assert backend.streams == []
