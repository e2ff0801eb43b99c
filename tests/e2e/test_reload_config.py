"""The configuration file is followed: ports, services, endpoints and policy settings change, the rest is named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from mesh import Backend, Mesh, Sidecar, Stream, accepts, eventually, free_port, get, service


def edit(sidecar: Sidecar, change: Callable[[dict[str, Any]], object]) -> None:
    document = yaml.safe_load(sidecar.config_file.read_text())
    change(document)
    sidecar.config_file.write_text(yaml.safe_dump(document, sort_keys=False))


async def answer(mesh: Mesh, to: Sidecar | int) -> bytes:
    client = await mesh.plain_client(to)
    await client.send(get())
    message = await client.message()
    client.close()
    return message.body


def saying(word: bytes) -> Any:
    async def script(stream: Stream, backend: Backend) -> None:
        while True:
            await backend.take(stream)
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(word), word))

    return script


@pytest.mark.asyncio
async def test_endpoints_move_under_an_open_connection(mesh: Mesh) -> None:
    one = await mesh.sidecar("orders", app=await mesh.backend(saying(b"one")))
    two = await mesh.sidecar("orders", app=await mesh.backend(saying(b"two")))
    web = await mesh.sidecar("web", services=[service("orders", one)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).body == b"one"
    edit(web, lambda it: it["outbound"]["services"][0].update(endpoints=[f"127.0.0.1:{two.port}"]))

    async def moved() -> bool:
        await client.send(get())
        return (await client.message()).body == b"two"

    for _ in range(200):
        if await moved():
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("the open connection still reaches the endpoint that was removed")
    await eventually(lambda: not one.open_connections)  # what idled there was closed


@pytest.mark.asyncio
async def test_a_service_and_its_listener_come_and_go(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(saying(b"orders")))
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    port = free_port()
    original = web.config_file.read_text()

    def more(it: dict[str, Any]) -> None:
        it["outbound"]["services"].append(
            service("more", orders.port, identities=["spiffe://cluster.local/ns/demo/sa/orders"])
        )
        it["outbound"]["listeners"].append({"listen": f"127.0.0.1:{port}", "service": "more"})

    edit(web, more)
    await eventually(lambda: len(web.app.bound_ports()["outbound"]) == 2, seconds=2)
    assert await answer(mesh, port) == b"orders"
    kept = await mesh.plain_client(port)
    await kept.send(get())
    await kept.message()
    web.config_file.write_text(original)
    await eventually(lambda: len(web.app.bound_ports()["outbound"]) == 1, seconds=2)
    assert await kept.closed() == "clean"  # idle, so the drain of its service ended it
    assert not accepts(port)
    assert await answer(mesh, web) == b"orders"


@pytest.mark.asyncio
async def test_an_inbound_port_leads_to_another_application(mesh: Mesh) -> None:
    other = await mesh.backend(saying(b"two"))
    orders = await mesh.sidecar("orders", app=await mesh.backend(saying(b"one")))
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    assert await answer(mesh, web) == b"one"
    edit(orders, lambda it: it["inbound"]["ports"][0].update(app=f"127.0.0.1:{other.port}"))
    await eventually(lambda: orders.app.config.inbound[0].app.port == other.port, seconds=2)
    assert await answer(mesh, web) == b"two"


@pytest.mark.asyncio
async def test_policy_settings_change_with_the_policy_that_they_compile(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies="")
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    assert await answer(mesh, web) == b"RBAC: access denied"
    edit(orders, lambda it: it["policy"].update(default="allow-authenticated"))
    await eventually(lambda: orders.app.sidecar.policy_generation == 2, seconds=2)
    assert await answer(mesh, web) == b"ok"


@pytest.mark.asyncio
async def test_a_broken_file_changes_nothing(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(saying(b"one")))
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    edit(web, lambda it: it["outbound"]["services"][0].update(identites=[]))
    await eventually(lambda: "config" in web.app.readiness.rejected, seconds=2)
    [sentence] = web.app.readiness.rejected["config"]
    assert str(web.config_file) in sentence
    assert "identites" in sentence
    assert await answer(mesh, web) == b"one"


@pytest.mark.asyncio
async def test_an_address_that_cannot_be_had_changes_nothing(mesh: Mesh) -> None:
    backend = await mesh.backend(saying(b"one"))
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    edit(
        web, lambda it: it["outbound"]["listeners"].append({"listen": f"127.0.0.1:{backend.port}", "service": "orders"})
    )
    await eventually(lambda: "config" in web.app.readiness.rejected, seconds=2)
    assert "cannot listen" in " ".join(web.app.readiness.rejected["config"])
    assert len(web.app.bound_ports()["outbound"]) == 1
    assert await answer(mesh, web) == b"one"


@pytest.mark.asyncio
async def test_what_needs_a_restart_is_named(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    orders = await mesh.sidecar("orders", app=await mesh.backend(saying(b"one")))

    def change(it: dict[str, Any]) -> None:
        it["workload"]["name"] = "other"
        it["limits"]["head_fields"] = 50
        it["policy"]["path_normalization"] = "merge_slashes"

    edit(orders, change)
    await eventually(lambda: orders.app.config.policy.path_normalization == "merge_slashes", seconds=2)
    assert "changes of workload, limits take effect after a restart" in caplog.text
    assert orders.app.config.workload.labels == {"app": "orders"}


@pytest.mark.asyncio
async def test_a_sidecar_that_drains_opens_no_port(mesh: Mesh) -> None:
    backend = await mesh.backend(saying(b"one"))
    orders = await mesh.sidecar("orders", app=backend)
    port = free_port()
    app = f"127.0.0.1:{backend.port}"
    orders.app.begin_drain()
    edit(
        orders,
        lambda it: it["inbound"]["ports"].append({"listen": f"127.0.0.1:{port}", "port": 8081, "app": app}),
    )
    source = next(source for source in orders.app.mounts.sources if source.kind == "config")
    source.look(first=False)
    act = source.look(first=False)
    if act is not None:
        act()
    assert not accepts(port)
    assert len(orders.app.config.inbound) == 1
