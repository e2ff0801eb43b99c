"""What the admin listener does: log level, drain, end. And who cannot make it: a stranger's page in a browser."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from admin_caller import ADMIN, MEANT, admin_port, ask, ask_json
from mesh import Mesh, accepts, eventually, free_port, get, service

ACTIONS = ("/loglevel?level=debug", "/drain", "/quitquitquit")
STRANGERS = {
    "a form": {"Origin": "http://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
    "a form in a sandbox": {"Origin": "null"},
    "a form of an old browser": {"Content-Type": "text/plain", "Referer": "http://evil.example/"},
    "a script after a preflight": {"Origin": "http://evil.example", **MEANT},
    "a page of this machine": {"Origin": "http://localhost:3000", **MEANT},
    "a name that was rebound": {"Host": "evil.example:15000", **MEANT},
    "a name like loopback": {"Host": "127.0.0.1.evil.example", **MEANT},
    "another address": {"Host": "10.0.0.7", **MEANT},
    "the header with another word": {"X-Remora-Admin": "yes"},
}


@pytest.fixture(autouse=True)
def level_restored() -> Iterator[None]:
    logger = logging.getLogger("remora")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.asyncio
@pytest.mark.parametrize("who", STRANGERS)
async def test_a_stranger_changes_nothing(mesh: Mesh, who: str) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    level = logging.getLogger("remora").level
    for path in ACTIONS:
        answer = await ask(admin_port(orders), path, STRANGERS[who], method="POST")
        assert answer.status == 403, path
        assert answer.get("access-control-allow-origin") is None
    assert logging.getLogger("remora").level == level
    assert not orders.app.sidecar.draining
    assert not orders.app._stopping.is_set()


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Host": "h"}])
async def test_a_stranger_reads_nothing(mesh: Mesh, headers: dict[str, str]) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    for path in ("/", "/config", "/decisions", "/metrics", "/readyz", "/nowhere"):
        answer = await ask(admin_port(orders), path, headers)
        assert answer.status == 403
        assert b"demo" not in answer.body


@pytest.mark.asyncio
async def test_a_preflight_is_not_answered_with_leave(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    headers = {
        "Origin": "http://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-remora-admin",
    }
    answer = await ask(admin_port(orders), "/quitquitquit", headers, method="OPTIONS")
    assert answer.status == 405
    assert not [name for name, _ in answer.headers if name.startswith(b"access-control-")]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ACTIONS)
async def test_looking_does_nothing(mesh: Mesh, path: str) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    level = logging.getLogger("remora").level
    answer = await ask(admin_port(orders), path, MEANT)
    assert answer.status == (200 if path.startswith("/loglevel") else 405)
    assert logging.getLogger("remora").level == level
    assert not orders.app.sidecar.draining


@pytest.mark.asyncio
async def test_the_log_level_is_set(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    port = admin_port(orders)
    for path, body, level in (
        ("/loglevel?level=debug", b"", "debug"),
        ("/loglevel", b"level=ERROR", "error"),
        ("/loglevel", b"info\n", "info"),
    ):
        answer = await ask(port, path, MEANT, method="POST", body=body)
        assert answer.status == 200
        assert await ask_json(port, "/loglevel") == {"level": level}
    for path, body in (("/loglevel?level=loud", b""), ("/loglevel", b""), ("/loglevel", b"\xff\r\nforged")):
        answer = await ask(port, path, MEANT, method="POST", body=body)
        assert answer.status == 400
        assert b"debug, info, warning, error" in answer.body
    assert await ask_json(port, "/loglevel") == {"level": "info"}


@pytest.mark.asyncio
async def test_drain_turns_peers_away_and_lets_the_application_go_on(mesh: Mesh) -> None:
    ledger = await mesh.sidecar("ledger", app=await mesh.backend())
    orders = await mesh.sidecar("orders", app=await mesh.backend(), services=[service("ledger", ledger)], admin=ADMIN)
    port, inbound_port = admin_port(orders), orders.port
    client, application = await mesh.client(orders), await mesh.plain_client(orders)
    await client.send(get())
    await client.message()
    for _ in range(2):
        answer = await ask(port, "/drain", MEANT, method="POST")
        assert answer.status == 200
    assert await client.closed() == "clean"
    client.close()
    await eventually(lambda: orders.app.sidecar.registry.count("inbound") == 0)
    assert not accepts(inbound_port)
    await application.send(get(host="ledger"))
    assert (await application.message()).status == 200
    ready = await ask(port, "/readyz")
    assert ready.status == 503
    assert b"drain: it was asked for" in ready.body


@pytest.mark.asyncio
async def test_the_process_ends_when_asked_on_its_unix_socket(mesh: Mesh) -> None:
    path = mesh.directory / "admin.sock"
    orders = await mesh.process("orders", app=await mesh.backend(), admin={"listen": f"unix:{path}"})
    assert (await ask(path, "/quitquitquit", {"Host": "localhost"}, method="POST")).status == 403
    answer = await ask(path, "/quitquitquit", {"Host": "localhost", **MEANT}, method="POST")
    assert answer.status == 200
    assert await orders.ended() == 0
    assert "asked to end, by the admin listener" in orders.output
    assert "drained" in orders.output
    assert not path.exists()


@pytest.mark.asyncio
async def test_the_process_ends_when_asked_on_loopback(mesh: Mesh) -> None:
    port = free_port()
    orders = await mesh.process("orders", app=await mesh.backend(), admin={"listen": f"127.0.0.1:{port}"})
    assert (await ask(port, "/quitquitquit", MEANT, method="POST")).status == 200
    assert await orders.ended() == 0
