"""Open connections are judged again: what is no longer allowed is closed with a record, all else is untouched."""

from __future__ import annotations

import asyncio
import socket

import pytest
from mesh import Backend, Mesh, Stream, authority, eventually, get, policy, svid

from certs.testing import write_set
from proxy import connection as connection_page

BOTH = policy("callers", '[{from: [{source: {serviceAccounts: ["web", "batch"]}}]}]')
ONLY_WEB = policy("callers", '[{from: [{source: {serviceAccounts: ["web"]}}]}]')


async def echo(stream: Stream, backend: Backend) -> None:
    while data := await stream.receive():
        await stream.send(data)


@pytest.mark.asyncio
async def test_a_policy_that_forbids_a_caller_ends_its_open_connection(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=BOTH)
    batch, web = await mesh.client(orders, "batch", alpn=[b"istio"]), await mesh.client(orders, "web", alpn=[b"istio"])
    for client in (batch, web):
        await client.send(b"hello")
        assert await client.receive() == b"hello"
    (orders.directory / "policy" / "policies.yaml").write_text(ONLY_WEB)
    assert await batch.closed() == "broken"
    await web.send(b"still here")
    assert await web.receive() == b"still here"
    [record] = await orders.records(1, kind="connection")
    assert record["source_principal"].endswith("/sa/batch")
    assert (record["decision"], record["reason"], record["generation"]) == ("deny", "denied_by_policy", 2)
    assert "saw" in record["nearest_miss"]


@pytest.mark.asyncio
async def test_an_http_connection_lives_on_and_its_next_request_is_judged_anew(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=BOTH)
    batch = await mesh.client(orders, "batch")
    await batch.send(get())
    assert (await batch.message()).status == 200
    (orders.directory / "policy" / "policies.yaml").write_text(ONLY_WEB)
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    await batch.send(get())
    assert (await batch.message()).status == 403


@pytest.mark.asyncio
async def test_a_web_socket_ends_when_its_request_would_be_denied(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await echo(stream, backend)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend, policies=BOTH)
    clients = [await mesh.client(orders, account) for account in ("batch", "web")]
    for client in clients:
        await client.send(get("/chat", "Connection: upgrade", "Upgrade: websocket"))
        assert (await client.message()).status == 101
        await client.send(b"ping")
        assert await client.receive() == b"ping"
    (orders.directory / "policy" / "policies.yaml").write_text(ONLY_WEB)
    assert await clients[0].closed() == "broken"
    await clients[1].send(b"pong")
    assert await clients[1].receive() == b"pong"
    [record] = await orders.records(1, kind="request")
    assert (record["decision"], record["reason"], record["response_code"]) == ("deny", "denied_by_policy", 101)


@pytest.mark.asyncio
async def test_an_answer_in_flight_is_finished_and_its_connection_ends(mesh: Mesh) -> None:
    go_on = asyncio.Event()

    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await go_on.wait()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend, policies=BOTH)
    batch = await mesh.client(orders, "batch")
    await batch.send(get())
    await eventually(lambda: backend.requests)
    (orders.directory / "policy" / "policies.yaml").write_text(ONLY_WEB)
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    go_on.set()
    answer = await batch.message()
    assert (answer.status, answer.get("connection")) == (200, b"close")
    assert await batch.closed() == "clean"


@pytest.mark.asyncio
async def test_a_foreign_domain_that_loses_its_bundle_loses_its_connections(mesh: Mesh) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="tcp", policies=policy("all", "[{}]"), bundles=authority().bundles
    )
    neighbour = authority().neighbour.svid("demo", "partner")
    foreign = await mesh.client(orders, certificate=neighbour, alpn=[b"istio"])
    own = await mesh.client(orders, "web", alpn=[b"istio"])
    for client in (foreign, own):
        await client.send(b"hello")
        assert await client.receive() == b"hello"
    write_set(svid("orders"), {authority().trust_domain: authority().bundle}, orders.directory / "identity")
    assert await foreign.closed() == "broken"
    await own.send(b"still here")
    assert await own.receive() == b"still here"
    [record] = await orders.records(1, kind="connection")
    assert record["reason"] == "trust_ended"


@pytest.mark.asyncio
async def test_a_change_while_the_next_hop_is_dialled_is_not_missed(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialling, go_on = asyncio.Event(), asyncio.Event()
    real = connection_page.dial

    async def slow_dial(host: str, port: int, *, seconds: float, source: str = "") -> socket.socket:
        dialling.set()
        await go_on.wait()
        return await real(host, port, seconds=seconds, source=source)

    monkeypatch.setattr(connection_page, "dial", slow_dial)
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=BOTH)
    batch = await mesh.client(orders, "batch", alpn=[b"istio"])
    await batch.send(b"hello")
    await dialling.wait()
    (orders.directory / "policy" / "policies.yaml").write_text(ONLY_WEB)
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    go_on.set()
    assert await batch.closed() == "broken"
    [record] = await orders.records(1, kind="connection")
    assert (record["decision"], record["reason"], record["generation"]) == ("deny", "denied_by_policy", 2)
    assert not any(stream.received for stream in backend.streams)
