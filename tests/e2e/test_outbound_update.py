"""A service that changes while it is in use: endpoints drain, open connections are held to identities and trust."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from mesh import OK, Backend, Mesh, Sidecar, Stream, eventually, get, identity, service

from certs.spiffe import SpiffeId
from proxy.config import Address, Service
from proxy.connection import Outbound
from proxy.forward.pool import TRUST_GRACE


def outbound(web: Sidecar) -> Outbound:
    [(_, found)] = web.app.traffic.services.values()
    return found


def change(web: Sidecar, **fields: Any) -> Service:
    service = dataclasses.replace(outbound(web).service, **fields)
    outbound(web).update(service)
    return service


class Gate:
    """A script that answers /slow when it is let, and everything else at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            if request.target == b"/slow":
                await self.open.wait()
            await stream.send(OK)


@pytest.mark.asyncio
async def test_an_endpoint_that_is_removed_drains(mesh: Mesh) -> None:
    gate = Gate()
    backends = [await mesh.backend(gate), await mesh.backend()]
    sidecars = [await mesh.sidecar("orders", app=backend) for backend in backends]
    web = await mesh.sidecar("web", services=[service("orders", sidecars[0])])
    slow, quick = [await mesh.plain_client(web) for _ in range(2)]
    await slow.send(get("/slow"))
    await eventually(lambda: backends[0].requests)
    await quick.send(get())
    assert (await quick.message()).status == 200
    change(web, endpoints=(Address(host="127.0.0.1", port=sidecars[1].port),))
    for _ in range(3):  # on a connection that stood before the change
        await quick.send(get())
        assert (await quick.message()).status == 200
    assert (len(backends[0].requests), len(backends[1].requests)) == (2, 3)
    gate.open.set()
    assert (await slow.message()).status == 200
    await eventually(lambda: sidecars[0].open_connections == 0)
    assert {record["reason"] for record in await web.records(5, kind="request")} == {"ok"}


@pytest.mark.asyncio
async def test_the_timeout_holds_from_the_next_request(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    web = await mesh.sidecar("web", services=[service("orders", backend)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200
    change(web, timeout=0.1)
    await client.send(get("/slow"))
    assert (await client.message()).status == 504


@pytest.mark.asyncio
async def test_a_server_that_may_not_answer_any_more_is_left(mesh: Mesh) -> None:
    gate = Gate()
    backend = await mesh.backend(gate)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    busy, idle = [await mesh.plain_client(web) for _ in range(2)]
    await busy.send(get("/slow", method="POST", body=b"once"))
    await eventually(lambda: backend.requests)
    await idle.send(get())
    assert (await idle.message()).status == 200
    started = time.monotonic()
    change(web, identities=frozenset({SpiffeId.parse(identity("orders-v2"))}))
    assert (await busy.message()).status == 503
    assert time.monotonic() - started < TRUST_GRACE + 1
    await eventually(lambda: orders.open_connections == 0)
    await idle.send(get())
    assert (await idle.message()).status == 503
    reasons = [record["reason"] for record in await web.records(3, kind="request")]
    assert reasons == ["ok", "trust_ended", "upstream_identity_rejected"]
    assert len(backend.requests) == 2


@pytest.mark.asyncio
async def test_an_opaque_connection_to_a_server_that_is_not_vouched_for_ends(mesh: Mesh) -> None:
    async def echo(stream: Stream, backend: Backend) -> None:
        while data := await stream.receive():
            await stream.send(data)

    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp")
    web = await mesh.sidecar("web", services=[service("orders", orders, protocol="tcp")])
    client = await mesh.plain_client(web)
    await client.send(b"hello")
    assert await client.receive() == b"hello"
    outbound(web).judge_again(lambda peer: True)
    await client.send(b"again")
    assert await client.receive() == b"again"
    outbound(web).judge_again(lambda peer: False)
    assert await client.closed() == "broken"
    [record] = await web.records(1, kind="connection")
    assert record["reason"] == "trust_ended"


@pytest.mark.asyncio
async def test_an_upgraded_connection_to_a_server_that_is_not_vouched_for_ends(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await stream.closed()

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get("/chat", "Connection: upgrade", "Upgrade: websocket"))
    assert (await client.message()).status == 101
    outbound(web).judge_again(lambda peer: False)
    assert await client.closed() == "broken"
    [record] = await web.records(1, kind="request")
    assert record["reason"] == "trust_ended"


@pytest.mark.asyncio
async def test_from_plaintext_to_mutual_tls_and_back(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", backend)])
    kept = await mesh.plain_client(web)
    await kept.send(get()[:5])
    seen: list[str] = []

    async def principal() -> str:
        client = await mesh.plain_client(web)
        await client.send(get())
        assert (await client.message()).status == 200
        seen.append((await web.records(len(seen) + 1, kind="request"))[-1].get("destination_principal", ""))
        return seen[-1]

    plain = outbound(web).service
    assert not await principal()
    change(
        web,
        mutual=True,
        identities=frozenset({SpiffeId.parse(identity("orders"))}),
        endpoints=(Address(host="127.0.0.1", port=orders.port),),
    )
    assert await principal() == identity("orders")
    outbound(web).update(plain)
    assert not await principal()
    await eventually(lambda: orders.open_connections == 0)
    # A connection keeps the record of who was called on it: it ends with the change.
    assert await kept.closed() == "clean"
