"""One scrape of the health listener gives the application's metrics and the sidecar's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mesh import Backend, Mesh, Stream, eventually, fetch_page, free_port
from mesh_streams import Message
from worker_process import crew


def health(port: int, **more: Any) -> dict[str, Any]:
    return {"health": {"listen": "127.0.0.1:0", "application_metrics": {"port": port, "path": "/stats", **more}}}


def text(body: bytes, status: int = 200) -> Any:
    def answer(request: Message) -> bytes:
        return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)

    return answer


@pytest.mark.asyncio
async def test_both_are_there_and_the_applications_stand_last(mesh: Mesh) -> None:
    backend = await mesh.backend()
    backend.answer = text(b"# TYPE orders_total counter\norders_total 7\nremora_ready 0\n# EOF\n")
    orders = await mesh.sidecar("orders", app=backend, **health(backend.port))
    page = await fetch_page(orders.health_port, "/metrics")
    assert page.status == 200
    assert page.body.endswith(b"remora_application_metrics_up 1\n# TYPE orders_total counter\norders_total 7\n")
    assert page.body.count(b"\nremora_ready ") == 1
    assert b"remora_ready 1" in page.body
    [request] = backend.requests
    assert request.target == b"/stats"
    assert request.get("accept") == b"text/plain;version=0.0.4"


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [204, 404, 500])
async def test_what_is_no_answer_is_left_out_and_counted(
    mesh: Mesh, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    backend = await mesh.backend()
    backend.answer = text(b"" if status == 204 else b"orders_total 7\n", status)
    orders = await mesh.sidecar("orders", app=backend, **health(backend.port))
    for _ in range(2):
        page = await fetch_page(orders.health_port, "/metrics")
        assert page.status == 200
        assert page.body.endswith(b"remora_application_metrics_up 0\n")
        assert b"remora_ready 1" in page.body
    assert caplog.text.count(f"are left out: it answers {status}") == 1, "said once, not at each scrape"


@pytest.mark.asyncio
async def test_an_application_that_is_not_there_takes_nothing_along(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", **health(free_port()))
    page = await fetch_page(orders.health_port, "/metrics")
    assert page.body.endswith(b"remora_application_metrics_up 0\n")


@pytest.mark.asyncio
async def test_an_application_that_hangs_takes_nothing_along(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await asyncio.sleep(30)

    monkeypatch.setattr("proxy.application.service.METRICS_SECONDS", 0.2)
    backend = await mesh.backend(silent)
    orders = await mesh.sidecar("orders", app=backend, **health(backend.port))
    page = await fetch_page(orders.health_port, "/metrics")
    assert page.body.endswith(b"remora_application_metrics_up 0\n")


@pytest.mark.asyncio
async def test_too_much_is_left_out_whole(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.application.service.MAX_METRICS", 1000)
    backend = await mesh.backend()
    backend.answer = text(b"a 1\n" * 1000)
    orders = await mesh.sidecar("orders", app=backend, **health(backend.port))
    assert (await fetch_page(orders.health_port, "/metrics")).body.endswith(b"remora_application_metrics_up 0\n")


@pytest.mark.asyncio
async def test_a_crew_of_workers_gives_them_once(mesh: Mesh) -> None:
    backend = await mesh.backend()
    backend.answer = text(b"orders_total 7\n")
    port = free_port()
    orders = await crew(
        mesh,
        app=backend,
        health={
            "listen": f"127.0.0.1:{port}",
            "application_metrics": {"port": backend.port, "path": "/stats"},
            "probes": [{"path": "/app-health/app/livez", "http_get": {"port": backend.port}}],
        },
        ready=False,
    )
    await eventually(lambda: "ready as" in orders.process.output)
    page = await fetch_page(port, "/metrics")
    assert page.body.count(b"orders_total 7\n") == 1
    assert page.body.count(b"remora_workers 2") == 1
    assert (await fetch_page(port, "/app-health/app/livez")).status == 200
