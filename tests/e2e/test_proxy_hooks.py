"""What a pod's hooks call: `remora proxy wait` and `drain`, and /quitquitquit for the end of a Job."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import Any

import pytest
from admin_caller import ask
from mesh import Mesh, Process, accepts, authority, eventually, free_port, get, svid

from certs.testing import write_set


async def remora(*words: str) -> tuple[int, str]:
    """Run a command; its exit code and what it said on standard error."""
    argv = [sys.executable, "-m", "remora", "proxy", *words]
    child = await asyncio.to_thread(subprocess.run, argv, stderr=subprocess.PIPE, check=False)
    return child.returncode, child.stderr.decode()


async def started(mesh: Mesh, **options: Any) -> tuple[Process, str]:
    admin = f"127.0.0.1:{free_port()}"
    return await mesh.process("orders", admin={"listen": admin}, **options), admin


@pytest.mark.asyncio
async def test_wait_ends_when_the_sidecar_is_ready(mesh: Mesh) -> None:
    orders, admin = await started(mesh, ready=False, publish=False)
    waiting = asyncio.ensure_future(remora("wait", "--admin", admin, "--timeout", "20s"))
    await orders.readiness(503)
    assert not waiting.done()
    write_set(svid("orders"), authority().bundles, orders.identity_directory)
    assert await waiting == (0, "")


@pytest.mark.asyncio
async def test_wait_says_what_is_missing_at_its_end(mesh: Mesh) -> None:
    orders, admin = await started(mesh, ready=False, publish=False)
    await orders.readiness(503)
    code, said = await remora("wait", "--admin", admin, "--timeout", "0.3s")
    assert code == 1
    assert "not ready after 0.3 s: " in said
    assert "certificates" in said
    code, said = await remora("wait", "--admin", f"127.0.0.1:{free_port()}", "--timeout", "0.1s")
    assert code == 1
    assert "nothing listens on" in said


@pytest.mark.asyncio
async def test_drain_ends_when_what_runs_has_ended(mesh: Mesh) -> None:
    gate = asyncio.Event()

    async def slow(stream: Any, backend: Any) -> None:
        await backend.take(stream)
        await gate.wait()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = await mesh.backend(slow)
    orders, admin = await started(mesh, app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    await eventually(lambda: backend.requests)
    draining = asyncio.ensure_future(remora("drain", "--admin", admin, "--timeout", "20s"))
    await orders.readiness(503)
    await eventually(lambda: not accepts(orders.port))
    assert not draining.done()
    gate.set()
    assert (await client.message()).status == 200
    assert await draining == (0, "")
    assert orders.popen.poll() is None, "the process stays until it is told to end"


@pytest.mark.asyncio
async def test_drain_goes_on_as_before_for_its_delay(mesh: Mesh) -> None:
    orders, admin = await started(mesh, app=await mesh.backend())
    draining = asyncio.ensure_future(remora("drain", "--admin", admin, "--delay", "1s"))
    await asyncio.sleep(0.3)
    await orders.readiness(200)
    assert await draining == (0, "")
    assert not accepts(orders.port)


@pytest.mark.asyncio
async def test_drain_says_what_is_left_at_its_end(mesh: Mesh) -> None:
    gate = asyncio.Event()

    async def slow(stream: Any, backend: Any) -> None:
        await backend.take(stream)
        await gate.wait()

    backend = await mesh.backend(slow)
    orders, admin = await started(mesh, app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    await eventually(lambda: backend.requests)
    code, said = await remora("drain", "--admin", admin, "--timeout", "0.3s")
    gate.set()
    assert (code, said) == (1, "remora proxy drain: 1 inbound connections are left after 0.3 s\n")


@pytest.mark.asyncio
async def test_drain_of_nobody_is_an_error_in_one_line(mesh: Mesh) -> None:
    code, said = await remora("drain", "--admin", f"127.0.0.1:{free_port()}")
    assert code == 1
    assert said.count("\n") == 1
    assert "nothing listens on" in said


@pytest.mark.asyncio
async def test_who_is_in_the_pod_may_end_the_sidecar_of_a_job(mesh: Mesh) -> None:
    port = free_port()
    orders = await mesh.process("orders", ready=False, health={"listen": f"127.0.0.1:{port}", "quit": "loopback"})
    await eventually(lambda: accepts(port))
    assert (await ask(port, "/quitquitquit")).status == 405
    assert (await ask(port, "/quitquitquit", method="POST")).status == 200
    assert await orders.ended() == 0


@pytest.mark.asyncio
async def test_nobody_else_may_and_nobody_where_it_was_not_asked_for(mesh: Mesh) -> None:
    away = address_of_this_machine()
    port = free_port()
    orders = await mesh.process("orders", ready=False, health={"listen": f"0.0.0.0:{port}", "quit": "loopback"})
    await eventually(lambda: accepts(port))
    if away:
        with socket.create_connection((away, port), timeout=5) as other:
            other.sendall(b"POST /quitquitquit HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 403 ")
    assert orders.popen.poll() is None
    plain = await mesh.process("web")
    assert (await ask(plain.health_port, "/quitquitquit", method="POST")).status == 404
    assert plain.popen.poll() is None


def address_of_this_machine() -> str:
    """An address of this machine that is not loopback, "" when it has none; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address = str(probe.getsockname()[0])
        return "" if address.startswith("127.") else address
