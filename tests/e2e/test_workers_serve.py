"""Two workers behind one port: both serve, and whoever looks sees one sidecar."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from mesh import ROOT, Mesh, Process, get, policy
from worker_process import WORKERS, crew

ONLY_OPEN = policy("open", '[{to: [{operation: {paths: ["/", "/open"]}}]}]')


@pytest.mark.asyncio
async def test_both_serve_and_are_one_in_metrics_and_pages(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    assert len(orders.workers) == WORKERS
    clients = await orders.clients_of_each(mesh, 2)
    opened = [client for of_worker in clients.values() for client in of_worker]
    served = len(opened)
    assert await orders.requests() == served
    metrics = await orders.metrics()
    assert metrics["remora_ready"] == 1
    assert metrics["remora_workers"] == WORKERS
    assert metrics['remora_connections_active{direction="inbound"}'] == served
    assert metrics['remora_connections_opened_total{direction="inbound"}'] == served
    istio = [value for name, value in metrics.items() if name.startswith("istio_requests_total")]
    assert istio == [served], "one label set, summed"
    overview = await orders.page("/")
    assert overview["facts"]["inbound_open"] == served
    assert overview["facts"]["workers"] == WORKERS
    assert len(overview["permits"]) == served
    assert sum(row["requests"] for row in overview["traffic"]) == served
    assert (await orders.page("/connections"))["open"] == served


@pytest.mark.asyncio
async def test_a_denial_is_found_whichever_worker_made_it(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend(), policies=ONLY_OPEN)
    clients = await orders.clients_of_each(mesh)
    for number, [client, *_] in clients.items():
        await client.send(get("/shut", f"x-request-id: asked-{number}"))
        assert (await client.message()).status == 403
    for number in clients:
        found = await orders.page(f"/decisions?request_id=asked-{number}")
        assert found["count"] == 1
        assert found["decisions"][0]["path"] == "/shut"
        assert found["decisions"][0]["explained"]["decision"] == "deny"
        told = await orders.page(f"/explain?request_id=asked-{number}")
        assert told["path"]["sent"] == "/shut"
        assert told["nearest_miss"]["rule"].endswith("open]-rule[0]")
    denied = await orders.page("/decisions?decision=deny")
    assert {row["request_id"] for row in denied["decisions"]} >= {f"asked-{number}" for number in clients}
    asked = await orders.page("/explain?question=%7Bpath:%20/shut%7D")
    assert asked["decision"] == "deny"


@pytest.mark.asyncio
async def test_a_port_of_another_process_is_not_shared(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    second = Process(orders.process.directory, orders.process.config_file, {"pages": [0]})
    try:
        assert await second.ended() == 1
        assert "cannot listen on" in second.output
    finally:
        await second.close()
    client = await mesh.client(orders.process)
    await client.send(get("/"))
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_status_tells_of_the_workers(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    await orders.clients_of_each(mesh)
    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "remora", "status", "--admin", f"127.0.0.1:{orders.admin}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert f"workers      {WORKERS}\n" in told.stdout
