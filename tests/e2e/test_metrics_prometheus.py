"""A real Prometheus scrapes a sidecar, and its promtool finds nothing wrong but what Istio's own names are."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from mesh import Mesh, Sidecar, fetch_page, free_port, get, policy, service
from programs import run, running

pytestmark = pytest.mark.debian

ONLY_OPEN = policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')

ISTIOS_OWN = 'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"'
"""What promtool says of the one name that Istio chose against its advice; dashboards ask for that name."""


async def traffic(mesh: Mesh) -> tuple[Sidecar, Sidecar]:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_OPEN)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get("/open") * 3 + get("/shut") * 2)
    assert [(await client.message()).status for _ in range(5)] == [200] * 3 + [403] * 2
    return orders, web


@pytest.mark.asyncio
async def test_promtool_finds_nothing(mesh: Mesh) -> None:
    for sidecar in await traffic(mesh):
        text = (await fetch_page(sidecar.health_port, "/metrics")).body
        result = await run("promtool", "check", "metrics", given=text)
        assert (result.text + result.err).strip().splitlines() == [ISTIOS_OWN]
        seconds = text.replace(b"istio_request_duration_milliseconds", b"istio_request_duration_seconds")
        (await run("promtool", "check", "metrics", given=seconds)).ok()


async def query(port: int, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus for what an expression is now."""
    answer = await fetch_page(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
    if answer.status == 503:  # it listens before it has read its storage
        return []
    assert answer.status == 200, answer.body
    return list(json.loads(answer.body)["data"]["result"])


async def query_until(port: int, expression: str, *, count: int) -> list[dict[str, Any]]:
    """Ask until so many series have been scraped."""
    found: list[dict[str, Any]] = []
    for _ in range(100):
        found = await query(port, expression)
        if len(found) >= count:
            break
        await asyncio.sleep(0.2)
    return found


@pytest.mark.asyncio
async def test_prometheus_scrapes_both_sides(mesh: Mesh, tmp_path: Path) -> None:
    orders, web = await traffic(mesh)
    port = free_port()
    targets = [f"127.0.0.1:{sidecar.health_port}" for sidecar in (orders, web)]
    configuration = tmp_path / "prometheus.yml"
    job = {"job_name": "mesh", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    configuration.write_text(json.dumps({"scrape_configs": [job]}))
    program = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(program, tmp_path, port):
        found = {
            (one["metric"]["reporter"], one["metric"]["response_code"]): (one["value"][1], one["metric"])
            for one in await query_until(port, "istio_requests_total", count=4)
        }
        assert {key: value for key, (value, _) in found.items()} == {
            ("destination", "200"): "3",
            ("destination", "403"): "2",
            ("source", "200"): "3",
            ("source", "403"): "2",
        }
        for reporter, security in (("destination", "mutual_tls"), ("source", "unknown")):
            labels = found[reporter, "200"][1]
            assert labels["source_principal"] == "spiffe://cluster.local/ns/demo/sa/web"
            assert labels["destination_principal"] == "spiffe://cluster.local/ns/demo/sa/orders"
            assert labels["connection_security_policy"] == security
        [up] = await query(port, "sum(up)")
        assert up["value"][1] == "2"
        [quantile] = await query(
            port,
            "histogram_quantile(0.99, sum by (le) (istio_request_duration_milliseconds_bucket"
            '{reporter="destination", response_code="200"}))',
        )
        assert 0 < float(quantile["value"][1]) < 30_000
