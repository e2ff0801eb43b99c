"""A connection ends when the peer's certificate does: an idle one at once, a busy one after its request."""

from __future__ import annotations

import asyncio
import datetime
import time

import pytest
from mesh import OK, Backend, Mesh, Stream, authority, eventually, get, service

from certs.authority import Svid


def lives_for(seconds: float, account: str) -> Svid:
    now = datetime.datetime.now(datetime.UTC)
    return authority().svid("demo", account, not_after=now + datetime.timedelta(seconds=seconds))


@pytest.mark.asyncio
async def test_of_a_caller(mesh: Mesh) -> None:
    go_on = asyncio.Event()

    async def script(stream: Stream, backend: Backend) -> None:
        while True:
            request = await backend.take(stream)
            if request.target == b"/slow":
                await go_on.wait()
            await stream.send(OK)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    certificate = lives_for(2, "web")
    idle, busy = [await mesh.client(orders, certificate=certificate) for _ in range(2)]
    started = time.monotonic()
    await idle.send(get())
    assert (await idle.message()).status == 200
    await busy.send(get("/slow"))
    assert await idle.closed() == "clean"
    assert 0.5 < time.monotonic() - started < 4
    idle.close()
    [connection] = await orders.records(1, kind="connection")
    assert connection["reason"] == "peer_certificate_ended"
    go_on.set()
    answer = await busy.message()
    assert (answer.status, answer.get("connection")) == (200, b"close")
    assert await busy.closed() == "clean"


@pytest.mark.asyncio
async def test_of_a_server(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, certificate=lives_for(2, "orders"))
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200
    opened = orders.app.sidecar.metrics.opened["inbound"]
    assert opened == 1
    pool = web.app.sidecar.pools[0]
    assert pool.idle == 1
    await eventually(lambda: not pool.idle)
    # What the server presents now is refused, and so is the request.
    await client.send(get())
    assert (await client.message()).status == 503
    record = (await web.records(2, kind="request"))[1]
    assert record["reason"] == "upstream_identity_rejected"
