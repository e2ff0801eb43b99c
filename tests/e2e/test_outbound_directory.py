"""Services come from files of a directory and are followed: missing ones make it wait, broken ones change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from mesh import Mesh, Process, accepts, eventually, free_port, get, service


def publish(directory: Path, *services: dict[str, Any], text: str = "") -> None:
    directory.mkdir(exist_ok=True)
    new = directory / ".new"
    new.write_text(text or yaml.safe_dump({"services": list(services)}))
    new.replace(directory / "services.yaml")


async def caller(mesh: Mesh, directory: Path, port: int, **more: Any) -> Process:
    outbound = {
        "directory": str(directory),
        "listeners": [{"listen": f"127.0.0.1:{port}", "service": "orders"}],
    }
    return await mesh.process("web", outbound=outbound, **more)


async def call(mesh: Mesh, port: int) -> int:
    client = await mesh.plain_client(port)
    await client.send(get())
    status = (await client.message()).status
    client.close()
    return status


@pytest.mark.asyncio
async def test_services_of_the_directory_are_called(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    directory, port = mesh.directory / "services", free_port()
    publish(directory, service("orders", orders, addresses=["10.96.0.12:80"]))
    await caller(mesh, directory, port)
    assert await call(mesh, port) == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("workers", [1, 2])
async def test_until_they_are_there_it_is_alive_and_not_ready(mesh: Mesh, workers: int) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    directory, port = mesh.directory / "services", free_port()
    runtime = {"workers": workers, "watch_interval": "0.05s"}
    web = await caller(mesh, directory, port, ready=False, runtime=runtime)
    await web.readiness(503)
    await eventually(lambda: "the directory of services cannot be read" in web.output)
    assert not accepts(port)
    publish(directory, text="services: [{name: orders}]")
    await eventually(lambda: "services.yaml:1:12: `services[0]` lacks the key `endpoints`" in web.output)
    await web.readiness(503)
    publish(directory, service("orders", orders))
    await web.readiness(200)
    await eventually(lambda: accepts(port))
    assert await call(mesh, port) == 200


@pytest.mark.asyncio
async def test_a_broken_change_keeps_what_is_in_force(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    directory, port = mesh.directory / "services", free_port()
    publish(directory, service("orders", orders))
    web = await caller(mesh, directory, port)
    publish(directory, text="services: 5")
    await eventually(lambda: "`services` must be a list" in web.output)
    assert await call(mesh, port) == 200
    await web.readiness(200)
    publish(directory, service("orders", free_port()))
    await eventually(lambda: "config in force" in web.output)
    assert await call(mesh, port) == 503
    assert "Traceback" not in web.output


@pytest.mark.asyncio
async def test_broken_services_at_the_start_are_waited_out(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    directory, port = mesh.directory / "services", free_port()
    publish(directory, text="nonsense: [")
    web = await caller(mesh, directory, port, ready=False)
    await web.readiness(503)
    publish(directory, service("orders", orders))
    await web.readiness(200)
    await eventually(lambda: accepts(port))
    assert await call(mesh, port) == 200
