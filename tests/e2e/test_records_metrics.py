"""/metrics parses, and its counts are those of what happened."""

from __future__ import annotations

import pytest
from mesh import Mesh, Sidecar, fetch_page, free_port, get, policy, service
from prometheus_client.parser import text_string_to_metric_families


async def samples(sidecar: Sidecar) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await fetch_page(sidecar.health_port, "/metrics")
    assert answer.status == 200
    assert (answer.get("content-type") or b"").startswith(b"text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@pytest.mark.asyncio
async def test_counts_of_both_directions(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, policies=policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')
    )
    web = await mesh.sidecar(
        "web",
        services=[service("orders", orders), service("nobody", free_port(), identities=["spiffe://cluster.local/x"])],
    )
    client = await mesh.plain_client(web)
    await client.send(get("/open") * 3 + get("/shut") * 2 + b"GET  / HTTP/1.1\r\n\r\n")
    assert [(await client.message()).status for _ in range(6)] == [200] * 3 + [403] * 2 + [400]
    assert await client.closed() == "clean"
    await client.end()
    await web.records(1, kind="connection")
    nobody = await mesh.plain_client(web.app.bound_ports()["outbound"][1])
    await nobody.send(get())
    assert (await nobody.message()).status == 503
    plain = await mesh.plain_client(orders.port)
    await plain.send(b"hello\r\n")
    await plain.closed()
    plain.close()
    await orders.records(1, kind="connection")

    found = await samples(orders)
    requests, handshakes = "remora_requests_total", "remora_handshakes_total"
    allowed = {"direction": "inbound", "decision": "allow", "reason": "ok"}
    assert found[key(requests, response_code="200", **allowed)] == 3
    denied = {"direction": "inbound", "decision": "deny", "reason": "denied_by_policy"}
    assert found[key(requests, response_code="403", **denied)] == 2
    assert found[key(handshakes, direction="inbound", reason="ok")] == 1
    assert found[key(handshakes, direction="inbound", reason="not_tls")] == 1
    assert found[key("remora_connections_opened_total", direction="inbound")] == 2
    assert found[key("remora_connections_active", direction="inbound")] == 1
    assert found[key("remora_ready")] == 1
    assert found[key("remora_policy_generation")] == 1
    assert found[key("remora_certificate_generation")] == 1
    assert found[key("remora_access_records_dropped_total")] == 0
    assert {found[key("remora_config_rejected", kind=kind)] for kind in ("certificates", "policy", "config")} == {0}
    assert found[key("remora_certificate_expiry_seconds")] > 1_700_000_000
    assert sum(value for (name, _), value in found.items() if name == requests) == 5

    found = await samples(web)
    outbound = {"direction": "outbound"}
    assert found[key(requests, response_code="200", decision="allow", reason="ok", **outbound)] == 3
    assert found[key(requests, response_code="403", decision="allow", reason="ok", **outbound)] == 2
    assert found[key(requests, response_code="400", decision="none", reason="request_line_invalid", **outbound)] == 1
    unreached = {"decision": "none", "reason": "upstream_connect_failed"}
    assert found[key(requests, response_code="503", **unreached, **outbound)] == 1
    assert found[key(handshakes, reason="ok", **outbound)] == 1


@pytest.mark.asyncio
async def test_pages(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    live, ready = [await fetch_page(orders.health_port, page) for page in ("/livez", "/readyz")]
    assert (live.status, ready.status) == (200, 200)
    missing = await fetch_page(orders.health_port, "/config")
    assert missing.status == 404
