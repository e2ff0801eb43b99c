"""Connections between Envoy and us are kept: many requests, from several clients, cost one handshake."""

from __future__ import annotations

import pytest
from envoy_sidecar import agreed_names, envoy_before, envoy_calling
from mesh import Mesh, get, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


async def test_to_envoy(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend()
    async with envoy_before(mesh, backend) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        # Envoy's refusal must leave its connection usable too.
        await ask_each(mesh, web.outbound_port, [("/orders", 200), ("/admin", 403), ("/orders", 200)])
        counters = await envoy.counters()
    assert len(names) == 1
    assert counters["http.inbound_0.0.0.0_8080.downstream_cx_total"] == 1
    assert {record["retries"] for record in await web.records(6)} == {0}


async def test_from_envoy(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    async with envoy_calling(mesh, orders) as envoy:
        await ask_each(mesh, envoy.port, [("/orders", 200), ("/admin", 200), ("/orders", 200)])
    assert len(names) == 1
    assert len({record["downstream_remote_address"] for record in await orders.records(6, kind="request")}) == 1
    assert len(backend.streams) == 1


async def ask_each(mesh: Mesh, port: int, expected: list[tuple[str, int]]) -> None:
    """Make the same requests on two connections, one after the other."""
    for _ in range(2):
        client = await mesh.plain_client(port)
        for path, status in expected:
            await client.send(get(path))
            assert (await client.message()).status == status
