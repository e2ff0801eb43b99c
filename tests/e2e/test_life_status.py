"""`remora status` against a running sidecar: what it shows, and how it says that there is none."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path

import pytest
from admin_caller import ADMIN, admin_port
from mesh import ROOT, Mesh, Stream, answering, free_port, get, identity, policy, service

ONLY_WEB = policy("web-only", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}]}]')


async def status(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "remora", "status", *arguments),
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(columns)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


@pytest.mark.asyncio
async def test_what_a_sidecar_does_is_shown(mesh: Mesh) -> None:
    ledger = await mesh.sidecar("ledger", app=await mesh.backend())
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), policies=ONLY_WEB, services=[service("ledger", ledger)], admin=ADMIN
    )
    ids = []
    for account in ("web", "batch"):
        client = await mesh.client(orders, account)
        await client.send(get(f"/{account}"))
        ids.append((await client.message()).get("x-request-id"))
    where = f"127.0.0.1:{admin_port(orders)}"
    for columns in (80, 100):
        code, out, error = await status("--admin", where, columns=columns)
        assert (code, error) == (0, "")
        assert max(map(len, out.splitlines())) <= columns
        for words in (
            "demo/orders  ready",
            identity("orders"),
            "generation 1, 1 rule, default deny",
            "ledger",
            "denied_by_policy  403 GET /batch",
            (ids[1] or b"").decode(),
            "web-only",
        ):
            assert words in out
        assert "\x1b" not in out
    code, out, error = await status("--admin", where, "--json")
    assert (code, error) == (0, "")
    assert json.loads(out)["identity"]["spiffe_id"] == identity("orders")


@pytest.mark.asyncio
async def test_a_unix_socket_is_asked_as_well(mesh: Mesh) -> None:
    path = mesh.directory / "admin.sock"
    await mesh.sidecar("orders", app=await mesh.backend(), admin={"listen": f"unix:{path}"})
    code, out, _ = await status("--admin", f"unix:{path}")
    assert code == 0
    assert "demo/orders  ready" in out


@pytest.mark.asyncio
async def test_a_terminal_gets_colour(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "remora", "status", "--admin", f"127.0.0.1:{admin_port(orders)}"),
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "NO_COLOR"},
            stdout=theirs,
        )
        assert await process.wait() == 0
        assert b"\x1b[32mready\x1b[0m" in os.read(ours, 65_536)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.asyncio
async def test_nobody_there_is_one_line_and_exit_code_1(mesh: Mesh, tmp_path: Path) -> None:
    async def rubbish(stream: Stream, backend: object) -> None:
        await stream.send(b"220 hello\r\n")

    orders = await mesh.sidecar("orders", app=await mesh.backend())
    other = await mesh.backend(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"))
    smtp = await mesh.backend(rubbish)
    places = {
        f"127.0.0.1:{free_port()}": "nothing listens on",
        f"unix:{tmp_path}/none.sock": "nothing listens on",
        f"127.0.0.1:{orders.health_port}": "is no admin listener of Remora (status 404)",
        f"127.0.0.1:{other.port}": "is no admin listener of Remora (status 200)",
        f"127.0.0.1:{smtp.port}": "gives no answer",
    }
    for place, words in places.items():
        code, out, error = await status("--admin", place)
        assert (code, out) == (1, ""), place
        assert error.startswith("remora status: ")
        assert error.count("\n") == 1
        assert words in error
        assert place in error
