"""Key sets behind a jwksUri, in a running sidecar: fetched, rotated, lost; what callers and operators see meanwhile."""

from __future__ import annotations

import functools
import socket
from typing import Any

import pytest
from mesh import ALLOW_ALL, Backend, Mesh, Sidecar, Stream, eventually, fetch_page, get
from token_issuer import Issuer, key_set_answer

from proxy.jwks import store
from proxy.jwks.fetch import Fetcher

OLD, NEW = Issuer(), Issuer(kid="rotated")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch anew within the patience of a test."""
    monkeypatch.setattr(store, "REFRESH_INTERVAL", 0.1)
    monkeypatch.setattr(store, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(store, "LONGEST_RETRY", 0.1)


async def sidecar(mesh: Mesh, app: Backend, uri: str, *, allow_loopback: bool = True) -> Sidecar:
    """A sidecar that trusts tokens by the keys at `uri`."""
    directory, config_file, _ = mesh.describe(
        "orders",
        free=lambda: 0,
        app=app,
        policies=OLD.authentication(jwksUri=uri, timeout="2s") + "---\n" + ALLOW_ALL,
    )
    leave = f"policy:\n  jwks_allow_loopback: {str(allow_loopback).lower()}\n"
    config_file.write_text(config_file.read_text().replace("policy:\n", leave))
    orders = Sidecar(directory, config_file)
    mesh._parts.append(orders)
    orders.app.start()
    return orders


def serve(backend: Backend, data: bytes) -> str:
    backend.answer = lambda request: data
    return f"http://127.0.0.1:{backend.port}/keys"


def up(orders: Sidecar) -> float | None:
    return next(iter(orders.app.sidecar.key_store.up().values()), None)


async def status(client: Stream, issuer: Issuer | None) -> int:
    lines = [] if issuer is None else [f"Authorization: Bearer {issuer.token()}"]
    await client.send(get("/", *lines))
    return (await client.message()).status


@pytest.mark.asyncio
async def test_keys_are_fetched_and_rotate(mesh: Mesh) -> None:
    issuer, app = await mesh.backend(), await mesh.backend()
    orders = await sidecar(mesh, app, serve(issuer, key_set_answer(OLD.key_set())))
    client = await mesh.client(orders)
    await eventually(functools.partial(up, orders))
    assert [await status(client, OLD), await status(client, NEW)] == [200, 401]
    serve(issuer, key_set_answer(NEW.key_set()))
    before = orders.app.sidecar.key_store.keys(f"http://127.0.0.1:{issuer.port}/keys")
    await eventually(lambda: orders.app.sidecar.key_store.keys(f"http://127.0.0.1:{issuer.port}/keys") != before)
    assert [await status(client, OLD), await status(client, NEW)] == [401, 200]
    reasons = [record["reason"] for record in await orders.records(4, kind="request")]
    assert reasons == ["ok", "token_key_unknown", "token_key_unknown", "ok"]


@pytest.mark.asyncio
async def test_a_key_that_is_taken_back_ends_the_web_sockets_that_it_opened(mesh: Mesh) -> None:
    async def chat(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await stream.receive()

    issuer, app = await mesh.backend(), await mesh.backend(chat)
    orders = await sidecar(mesh, app, serve(issuer, key_set_answer(OLD.key_set())))
    await eventually(functools.partial(up, orders))
    client = await mesh.client(orders)
    await client.send(get("/", "Connection: upgrade", "Upgrade: websocket", f"Authorization: Bearer {OLD.token()}"))
    assert (await client.message()).status == 101
    serve(issuer, key_set_answer(NEW.key_set()))
    assert await client.closed() == "broken"
    [record] = await orders.records(1, kind="request")
    assert (record["decision"], record["reason"]) == ("deny", "token_key_unknown")


@pytest.mark.asyncio
async def test_a_failed_fetch_keeps_the_last_keys_and_says_so(mesh: Mesh) -> None:
    issuer, app = await mesh.backend(), await mesh.backend()
    uri = serve(issuer, key_set_answer(OLD.key_set()))
    orders = await sidecar(mesh, app, uri)
    client = await mesh.client(orders)
    await eventually(functools.partial(up, orders))
    serve(issuer, b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    await eventually(lambda: up(orders) == 0)
    page = await fetch_page(orders.health_port, "/metrics")
    assert f'remora_jwks_up{{uri="{uri}"}} 0.0'.encode() in page.body
    assert (await fetch_page(orders.health_port, "/readyz")).status == 200
    assert [await status(client, OLD), await status(client, NEW), await status(client, None)] == [200, 401, 200]
    serve(issuer, key_set_answer(OLD.key_set()))
    await eventually(functools.partial(up, orders))


@pytest.mark.asyncio
async def test_keys_that_are_too_old_count_no_more(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer, app = await mesh.backend(), await mesh.backend()
    orders = await sidecar(mesh, app, serve(issuer, key_set_answer(OLD.key_set())))
    client = await mesh.client(orders)
    await eventually(functools.partial(up, orders))
    assert await status(client, OLD) == 200
    monkeypatch.setattr(store, "KEPT_FOR", 0.3)
    issuer.stop_listening()
    uri = f"http://127.0.0.1:{issuer.port}/keys"
    await eventually(lambda: orders.app.sidecar.key_store.keys(uri) is None)
    assert [await status(client, OLD), await status(client, None)] == [401, 200]
    _, record, _ = await orders.records(3, kind="request")
    assert record["reason"] == "token_keys_unavailable"


@pytest.mark.asyncio
@pytest.mark.parametrize("case", ["redirect", "nothing", "silence"])
async def test_without_keys_a_token_is_refused_and_no_token_passes(mesh: Mesh, case: str) -> None:
    async def silent(stream: Stream, backend: Backend) -> None:
        await stream.receive()
        await stream.receive()

    elsewhere, app = await mesh.backend(), await mesh.backend()
    issuer = await (mesh.backend(silent) if case == "silence" else mesh.backend())
    target = serve(elsewhere, key_set_answer(OLD.key_set()))
    uri = serve(issuer, key_set_answer(OLD.key_set(), f"Location: {target}", status="302 Found"))
    if case == "nothing":
        issuer.stop_listening()
    orders = await sidecar(mesh, app, uri)
    client = await mesh.client(orders)
    assert (await fetch_page(orders.health_port, "/readyz")).status == 200
    for _ in range(3):
        assert [await status(client, OLD), await status(client, None)] == [401, 200]
    if case == "redirect":
        await eventually(lambda: len(issuer.requests) > 1)
    assert not elsewhere.requests
    assert up(orders) == 0


@pytest.mark.asyncio
async def test_uris_that_no_policy_names_are_forgotten(mesh: Mesh) -> None:
    issuer, app = await mesh.backend(), await mesh.backend()
    orders = await sidecar(mesh, app, serve(issuer, key_set_answer(OLD.key_set())))
    await eventually(functools.partial(up, orders))
    (orders.policy_directory / "policies.yaml").write_text(ALLOW_ALL)
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    assert up(orders) is None
    client = await mesh.client(orders)
    asked = len(issuer.streams)
    assert await status(client, OLD) == 200, "nobody looks at tokens any more"
    await client.send(get("/", f"Authorization: Bearer {OLD.token()}"))
    assert (await client.message()).status == 200
    assert len(issuer.streams) <= asked + 1
    assert app.requests[-1].get("authorization") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_http_and_loopback_need_leave(mesh: Mesh, scheme: str) -> None:
    issuer, app = await mesh.backend(), await mesh.backend()
    uri = serve(issuer, key_set_answer(OLD.key_set())).replace("http", scheme)
    orders = await sidecar(mesh, app, uri, allow_loopback=False)
    page = await fetch_page(orders.health_port, "/readyz")
    assert page.status == 503, "such a policy is not valid"
    assert not issuer.streams


@pytest.mark.asyncio
async def test_a_name_that_leads_to_loopback_is_found_out_when_it_is_looked_up(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rebound(self: Fetcher, host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(Fetcher, "_look_up", rebound)
    issuer, app = await mesh.backend(), await mesh.backend()
    uri = f"https://issuer.example:{issuer.port}/keys"
    orders = await sidecar(mesh, app, uri, allow_loopback=False)
    client = await mesh.client(orders)
    await eventually(lambda: orders.app.sidecar.key_store._followed[uri].fault)
    assert "is loopback" in orders.app.sidecar.key_store._followed[uri].fault
    assert [await status(client, OLD), await status(client, None)] == [401, 200]
    assert not issuer.streams
