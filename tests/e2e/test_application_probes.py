"""Probes of the application are performed by the sidecar on its health listener: HTTP, HTTPS, TCP and gRPC."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from admin_caller import ask
from mesh import Backend, Mesh, Stream, fetch_page, free_port
from mesh_streams import Message

from injector.certificate import CHAIN, KEY, advance


def health(*probes: dict[str, Any]) -> dict[str, Any]:
    return {"health": {"listen": "127.0.0.1:0", "probes": list(probes)}}


def http(port: int, **more: Any) -> dict[str, Any]:
    return {"path": "/app-health/app/livez", "http_get": {"port": port, "path": "/live?x=1", **more}}


def with_status(status: int) -> Callable[[Message], bytes]:
    return lambda request: b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nLocation: http://other.example/\r\n\r\n" % status


@pytest.mark.asyncio
@pytest.mark.parametrize(("status", "said"), [(200, 200), (204, 200), (302, 200), (399, 200), (400, 503), (500, 503)])
async def test_a_status_below_400_is_success_and_nothing_is_followed(mesh: Mesh, status: int, said: int) -> None:
    backend = await mesh.backend()
    backend.answer = with_status(status)
    orders = await mesh.sidecar("orders", app=backend, **health(http(backend.port)))
    page = await fetch_page(orders.health_port, "/app-health/app/livez")
    assert page.status == said
    assert str(status).encode() in page.body
    assert len(backend.requests) == 1


@pytest.mark.asyncio
async def test_the_request_is_the_probes_own(mesh: Mesh) -> None:
    backend = await mesh.backend()
    probe = http(backend.port, headers=[{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "shop.example"}])
    orders = await mesh.sidecar("orders", app=backend, **health(probe))
    page = await ask(orders.health_port, "/app-health/app/livez", {"User-Agent": "kube-probe/1.31", "X-Other": "no"})
    assert page.status == 200
    [request] = backend.requests
    assert request.line == b"GET /live?x=1 HTTP/1.1"
    assert request.get("x-probe") == b"yes"
    assert request.get("host") == b"shop.example"
    assert request.get("user-agent") == b"kube-probe/1.31"
    assert request.get("x-other") is None


@pytest.mark.asyncio
async def test_who_does_not_answer_in_time_is_not_well(mesh: Mesh) -> None:
    async def silent(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await asyncio.sleep(30)

    backend = await mesh.backend(silent)
    orders = await mesh.sidecar("orders", app=backend, **health({**http(backend.port), "timeout": "0.2s"}))
    page = await fetch_page(orders.health_port, "/app-health/app/livez")
    assert (page.status, page.body) == (503, b"no answer within 0.2 s\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1"])
async def test_who_answers_no_http_is_not_well(mesh: Mesh, answer: bytes) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(answer)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend, **health(http(backend.port)))
    assert (await fetch_page(orders.health_port, "/app-health/app/livez")).status == 503


@pytest.mark.asyncio
async def test_a_port_that_nobody_listens_on_is_not_well(mesh: Mesh) -> None:
    port = free_port()
    tcp = {"path": "/app-health/app/readyz", "tcp_socket": {"port": port}}
    orders = await mesh.sidecar("orders", **health(http(port), tcp))
    for path in ("/app-health/app/livez", "/app-health/app/readyz"):
        page = await fetch_page(orders.health_port, path)
        assert page.status == 503
        assert f"port {port} takes no connection".encode() in page.body


@pytest.mark.asyncio
async def test_tcp_is_opened_and_no_more(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, **health({"path": "/app-health/db/livez", "tcp_socket": {"port": backend.port}})
    )
    assert (await fetch_page(orders.health_port, "/app-health/db/livez")).status == 200
    assert backend.requests == []


@pytest.mark.asyncio
async def test_a_certificate_that_nobody_vouches_for_is_taken(mesh: Mesh, tmp_path: Path) -> None:
    step = advance({}, ("elsewhere.example",), datetime.datetime.now(datetime.UTC))
    assert step is not None
    files = step.files
    (tmp_path / "pair.pem").write_bytes(files[KEY] + files[CHAIN])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        orders = await mesh.sidecar("orders", **health(http(port, scheme="HTTPS")))
        assert (await fetch_page(orders.health_port, "/app-health/app/livez")).status == 200
        plain = await mesh.sidecar("web", **health(http(port)))
        assert (await fetch_page(plain.health_port, "/app-health/app/livez")).status == 503


class HealthServer(grpc.GenericRpcHandler):
    """Serves grpc.health.v1.Health/Check by grpcio until it is left: `answers` by the name of the service."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self.answers = answers
        self.port = 0

    def __enter__(self) -> HealthServer:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._server = grpc.server(self._pool, handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stop(None).wait(10)
        self._pool.shutdown()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, request: bytes, context: Any) -> bytes:
        service = request[2:].decode()
        if service not in self.answers:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self.answers[service]


@pytest.mark.asyncio
async def test_grpc_is_asked_by_its_health_service(mesh: Mesh) -> None:
    with HealthServer(
        {"": b"\x08\x01", "shop.Orders": b"\x08\x01", "shop.Ledger": b"\x08\x02", "shop.New": b""}
    ) as server:
        services = {"/all": "", "/orders": "shop.Orders", "/ledger": "shop.Ledger", "/new": "shop.New", "/other": "x"}
        probes = [
            {"path": path, "grpc": {"port": server.port, **({"service": name} if name else {})}}
            for path, name in services.items()
        ]
        orders = await mesh.sidecar("orders", **health(*probes))
        said = {path: await fetch_page(orders.health_port, path) for path in services}
        assert {path: page.status for path, page in said.items()} == {
            "/all": 200,
            "/orders": 200,
            "/ledger": 503,
            "/new": 503,
            "/other": 503,
        }
        assert b"status 2" in said["/ledger"].body
        assert b"ends with status 5" in said["/other"].body


@pytest.mark.asyncio
async def test_who_speaks_no_grpc_is_not_well(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, **health({"path": "/g", "grpc": {"port": backend.port}}))
    assert (await fetch_page(orders.health_port, "/g")).status == 503


@pytest.mark.asyncio
async def test_only_what_is_configured_is_asked(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, **health(http(backend.port)))
    for path in ("/app-health/app/readyz", "/app-health/other/livez", "/app-health/app/livez/../x"):
        assert (await fetch_page(orders.health_port, path)).status in (400, 404)
    assert backend.requests == []
