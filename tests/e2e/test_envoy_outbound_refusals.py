"""Envoy calls and one side refuses the other's certificate: Envoy answers 503 and both sides know the cause."""

from __future__ import annotations

import datetime

import pytest
from envoy_sidecar import envoy_calling
from mesh import Mesh, authority, get, identity

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


async def test_envoy_expects_another_server(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    async with envoy_calling(mesh, orders, expected="billing") as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders"))
        answer = await client.message()
        assert answer.status == 503
        [theirs] = await envoy.records()
    assert theirs["response_flags"] == "UF"
    assert "CERTIFICATE_VERIFY_FAILED" in theirs["upstream_transport_failure_reason"]
    [ours] = await orders.records(kind="connection")
    assert ours["reason"] == "peer_rejected_us"
    assert "certificate_unknown" in ours["upstream_transport_failure_reason"]
    assert backend.streams == []


async def test_the_certificate_of_envoy_has_expired(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    hour, now = datetime.timedelta(hours=1), authority().now
    expired = authority().svid("demo", "web", not_before=now - 2 * hour, not_after=now - hour)
    async with envoy_calling(mesh, orders, certificate=expired) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders"))
        answer = await client.message()
        assert answer.status == 503
        [theirs] = await envoy.records()
    # Under TLS 1.3 the alert comes after Envoy's side of the handshake, and its access log tells no cause then.
    assert theirs["response_code_details"] == "upstream_reset_before_response_started{connection_termination}"
    assert "ALERT_CERTIFICATE_EXPIRED" in envoy.output
    [ours] = await orders.records(kind="connection")
    assert ours["reason"] == "certificate_expired"
    assert ours["source_principal"] == f"unverified {identity('web')}"
    assert backend.streams == []
