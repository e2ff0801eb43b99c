"""Istio's metrics, scraped from two sidecars after requests and opaque connections between them."""

from __future__ import annotations

import pytest
from mesh import Mesh, Sidecar, eventually, fetch_page, free_port, get, policy, service, svid
from prometheus_client.parser import text_string_to_metric_families

ONLY_OPEN = policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')
ONLY_WEB = policy("web", '[{from: [{source: {serviceAccounts: ["demo/web"]}}]}]')
WEB, ORDERS = "spiffe://cluster.local/ns/demo/sa/web", "spiffe://cluster.local/ns/demo/sa/orders"


async def of(sidecar: Sidecar, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The samples of one name, by some of their labels."""
    answer = await fetch_page(sidecar.health_port, "/metrics")
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            if sample.name == name:
                key = tuple(sample.labels[label] for label in labels)
                assert key not in found, key
                found[key] = sample.value
    return found


@pytest.mark.asyncio
async def test_both_sides_report_the_same_requests(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_OPEN)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get("/open", method="POST", body=b"x" * 300) + get("/open") + get("/shut"))
    assert [(await client.message()).status for _ in range(3)] == [200, 200, 403]
    await orders.records(3, kind="request")
    labels = ("reporter", "source_principal", "destination_principal", "response_code", "connection_security_policy")
    assert await of(orders, "istio_requests_total", *labels) == {
        ("destination", WEB, ORDERS, "200", "mutual_tls"): 2,
        ("destination", WEB, ORDERS, "403", "mutual_tls"): 1,
    }
    assert await of(web, "istio_requests_total", *labels) == {
        ("source", WEB, ORDERS, "200", "unknown"): 2,
        ("source", WEB, ORDERS, "403", "unknown"): 1,
    }
    workloads = ("source_workload", "destination_workload", "destination_service", "destination_app", "source_app")
    assert set(await of(orders, "istio_request_bytes_sum", *workloads, "response_code")) == {
        ("unknown", "orders", "unknown", "orders", "unknown", code) for code in ("200", "403")
    }
    assert set(await of(web, "istio_request_bytes_sum", *workloads, "response_code")) == {
        ("web", "unknown", "orders.demo", "unknown", "web", code) for code in ("200", "403")
    }
    for sidecar in (orders, web):
        assert (await of(sidecar, "istio_request_bytes_sum", "response_code"))["200",] == 300
        assert (await of(sidecar, "istio_response_bytes_sum", "response_code"))["403",] == len("RBAC: access denied")
        assert (await of(sidecar, "istio_request_duration_milliseconds_sum", "response_code"))["200",] > 0
        stages = await of(sidecar, "remora_stage_duration_seconds_count", "direction", "stage")
        direction = "inbound" if sidecar is orders else "outbound"
        assert stages[direction, "handshake"] == 1
        assert stages[direction, "upstream_response"] == (2 if sidecar is orders else 3)


@pytest.mark.asyncio
async def test_an_opaque_connection_counts_its_bytes_while_it_is_open(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), protocol="tcp", policies=ONLY_WEB)
    web = await mesh.sidecar(
        "web",
        services=[
            service("orders", orders, protocol="tcp"),
            service("nobody", free_port(), protocol="tcp", identities=["spiffe://cluster.local/x"]),
        ],
    )
    client = await mesh.plain_client(web)
    await client.send(get("/open"))
    answer = await client.message()
    size = len(answer.head) + len(answer.body)
    names = ("source_principal", "destination_principal", "request_protocol", "response_flags")
    for sidecar in (orders, web):
        assert await of(sidecar, "istio_tcp_connections_opened_total", *names) == {(WEB, ORDERS, "tcp", "-"): 1}
        assert await of(sidecar, "istio_tcp_received_bytes_total", *names) == {
            (WEB, ORDERS, "tcp", "-"): len(get("/open"))
        }
        assert (await of(sidecar, "istio_tcp_sent_bytes_total", *names))[WEB, ORDERS, "tcp", "-"] >= size
        assert await of(sidecar, "istio_tcp_connections_closed_total") == {}
        assert await of(sidecar, "istio_requests_total") == {}
    await client.end()
    await web.records(1, kind="connection")
    await orders.records(1, kind="connection")
    for sidecar in (orders, web):
        assert await of(sidecar, "istio_tcp_connections_closed_total", *names) == {(WEB, ORDERS, "tcp", "-"): 1}

    batch = await mesh.client(orders, certificate=svid("batch"), alpn=(b"istio",))
    await batch.send(b"hello")
    await batch.closed()
    closed = await of(orders, "istio_tcp_connections_closed_total", "source_principal")
    assert closed["spiffe://cluster.local/ns/demo/sa/batch",] == 1

    nobody = await mesh.plain_client(web.app.bound_ports()["outbound"][1])
    await nobody.closed()
    flags = ("destination_service_name", "destination_principal", "response_flags")
    closed = await of(web, "istio_tcp_connections_closed_total", *flags)
    assert closed["nobody", "unknown", "UF"] == 1


@pytest.mark.asyncio
async def test_silence_on_an_auto_port_is_counted_by_port(mesh: Mesh) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), protocol="auto", limits={"detection_timeout": "0.02s"}
    )
    for _ in range(2):
        client = await mesh.client(orders, alpn=(b"istio",))
        await client.send(b"")
        client.close()
    silent = await mesh.client(orders, alpn=(b"istio",))
    await silent.send(b"S")
    await eventually(lambda: orders.app.sidecar.metrics.detection_timeouts, "a time-out of detection")
    assert await of(orders, "remora_detection_timeouts_total", "upstream_cluster") == {("inbound|8080",): 1}


@pytest.mark.asyncio
async def test_pools_by_next_hop(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get("/open"))
    assert (await client.message()).status == 200
    for sidecar, words in ((web, "orders"), (orders, str(backend.port))):
        found = await of(sidecar, "remora_pool_connections", "next_hop", "state")
        assert sum(found.values()) == 1
        [next_hop] = [hop for (hop, state), count in found.items() if state == "idle" and count]
        assert words in next_hop
        assert await of(sidecar, "remora_pool_waiting", "next_hop") == dict.fromkeys({(hop,) for hop, _ in found}, 0)
