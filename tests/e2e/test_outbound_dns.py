"""Endpoints by name: each address of an answer is one, and later answers take effect while traffic runs."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from mesh import Mesh, Sidecar, eventually, free_port, get, service

from proxy.forward import names

ADDRESSES = ("127.0.0.1", "127.0.0.2")


class Resolver:
    """Answers `loop.getaddrinfo` for the names that it knows; None fails, an Event is waited for first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[str] | None] = {}
        self.gate: asyncio.Event | None = None
        self.asked = 0
        loop = asyncio.get_running_loop()
        self._literal = loop.getaddrinfo
        monkeypatch.setattr(loop, "getaddrinfo", self)
        monkeypatch.setattr(names, "LOOKUP_INTERVAL", 0.05)
        monkeypatch.setattr(names, "RETRY_INTERVAL", 0.05)

    async def __call__(self, host: str, port: int, **more: Any) -> Any:
        if host in ADDRESSES:  # uvloop asks for each address that it connects to
            return await self._literal(host, port, **more)
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        found = self.answers[host]
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


async def two_addresses(mesh: Mesh) -> tuple[int, list[Any], list[Sidecar]]:
    """The same port at two addresses of this machine, with a backend behind each."""
    port = free_port()
    backends = [await mesh.backend() for _ in ADDRESSES]
    sidecars = [
        await mesh.sidecar(
            "orders", inbound=[{"listen": f"{host}:{port}", "port": 8080, "app": f"127.0.0.1:{backend.port}"}]
        )
        for host, backend in zip(ADDRESSES, backends, strict=True)
    ]
    return port, backends, sidecars


def named(port: int, **more: Any) -> dict[str, Any]:
    return service("orders", port) | {"endpoints": [f"orders.demo.svc:{port}"]} | more


@pytest.mark.asyncio
async def test_each_address_of_the_answer_gets_requests(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers["orders.demo.svc"] = list(ADDRESSES)
    port, backends, _ = await two_addresses(mesh)
    web = await mesh.sidecar("web", services=[named(port)])
    client = await mesh.plain_client(web)
    for _ in range(6):
        await client.send(get())
        assert (await client.message()).status == 200
    assert [len(backend.requests) for backend in backends] == [3, 3]
    records = await web.records(6, kind="request")
    assert {record["upstream_host"] for record in records} == {f"{host}:{port}" for host in ADDRESSES}


@pytest.mark.asyncio
async def test_a_later_answer_moves_traffic_without_a_failed_request(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers["orders.demo.svc"] = ["127.0.0.1"]
    port, backends, sidecars = await two_addresses(mesh)
    web = await mesh.sidecar("web", services=[named(port)])
    client = await mesh.plain_client(web)

    async def until(backend: Any) -> None:
        before = len(backend.requests)
        deadline = time.monotonic() + 10
        while len(backend.requests) == before:
            assert time.monotonic() < deadline
            await client.send(get())
            assert (await client.message()).status == 200
            await asyncio.sleep(0.005)

    await until(backends[0])
    resolver.answers["orders.demo.svc"] = ["127.0.0.2"]
    await until(backends[1])
    # The connection to the address that is gone is closed once it idles, and nothing goes there any more.
    await eventually(lambda: sidecars[0].open_connections == 0)
    resolver.answers["orders.demo.svc"] = None
    asked = resolver.asked
    await eventually(lambda: resolver.asked > asked + 2)
    await until(backends[1])
    resolver.answers["orders.demo.svc"] = ["127.0.0.1"]
    await until(backends[0])


@pytest.mark.asyncio
async def test_the_first_requests_wait_for_the_answer(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers["orders.demo.svc"] = ["127.0.0.1"]
    resolver.gate = asyncio.Event()
    port, backends, _ = await two_addresses(mesh)
    opaque = named(port, protocol="tcp") | {"name": "opaque", "hosts": ["opaque"]}
    web = await mesh.sidecar("web", services=[named(port), opaque])
    clients = [await mesh.plain_client(each) for each in web.app.bound_ports()["outbound"]]
    for client in clients:
        await client.send(get())
    await eventually(lambda: web.open_connections == 2)
    assert backends[0].streams == []
    resolver.gate.set()
    assert (await clients[0].message()).status == 200


@pytest.mark.asyncio
async def test_a_name_that_is_not_answered_for_is_503_in_time(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.gate = asyncio.Event()
    web = await mesh.sidecar("web", services=[named(15443)], limits={"upstream_connect_timeout": "0.2s"})
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 503
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("upstream_name_unresolved", "DF")


@pytest.mark.asyncio
async def test_a_name_that_does_not_resolve_is_refused_until_it_does(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(monkeypatch)
    resolver.answers["orders.demo.svc"] = None
    port, _, _ = await two_addresses(mesh)
    web = await mesh.sidecar("web", services=[named(port)])
    client = await mesh.plain_client(web)
    await client.send(get())
    answer = await client.message()
    assert answer.status == 503
    assert b"orders.demo.svc does not resolve" in answer.body
    resolver.answers["orders.demo.svc"] = ["127.0.0.1"]
    asked = resolver.asked
    await eventually(lambda: resolver.asked > asked + 1)
    await client.send(get())
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_a_lookup_that_hangs_holds_up_no_other_endpoint(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(monkeypatch)
    resolver.gate = asyncio.Event()
    port, backends, _ = await two_addresses(mesh)
    both = named(port) | {"endpoints": [f"127.0.0.1:{port}", f"orders.demo.svc:{port}"]}
    web = await mesh.sidecar("web", services=[both])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200
    assert len(backends[0].requests) == 1
