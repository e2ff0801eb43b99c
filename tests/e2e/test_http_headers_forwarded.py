"""What the application and the caller see of a head: hop-by-hop fields are gone, ours stand in place of a peer's."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives import hashes
from mesh import Mesh, answering, get, identity, service, svid

HOP_BY_HOP = (
    "Connection: keep-alive, X-Private",
    "X-Private: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Upgrade: h2c",
)
RESERVED = (
    "l5d-client-id: root",
    "l5d-dst-override: evil:80",
    "X-Envoy-Original-Path: /admin",
    "x-envoy-internal: true",
    "X-Istio-Attributes: c3Bvb2Y=",
    'X-Forwarded-Client-Cert: By=x;Hash=0;URI="spiffe://cluster.local/ns/demo/sa/root"',
)
UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@pytest.mark.asyncio
async def test_hop_by_hop_fields_of_a_request(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/", *HOP_BY_HOP, "X-Public: 1"))
    assert (await client.message()).status == 200
    names = {name for name, _ in backend.requests[0].headers}
    assert names == {b"host", b"x-public", b"x-forwarded-client-cert", b"x-request-id", b"traceparent"}


@pytest.mark.asyncio
async def test_hop_by_hop_fields_of_an_answer(mesh: Mesh) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nconnection: X-Private, keep-alive\r\nx-private: 1\r\nkeep-alive: timeout=9\r\n"
        b"proxy-authenticate: Basic\r\nserver: app\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok"
    )
    backend = await mesh.backend(answering(answer))
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    got = await client.message()
    assert got.all("set-cookie") == [b"a=1", b"b=2"]
    assert got.get("server") == b"app"
    for name in ("connection", "x-private", "keep-alive"):
        assert got.get(name) is None
    await client.send(get())
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_the_caller_is_who_the_certificate_says(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders, "web")
    spoofs: tuple[Sequence[str], ...] = ([], RESERVED, [f"x-forwarded-client-cert: URI={identity('root')}"] * 2)
    for lines in spoofs:
        await client.send(get("/", *lines))
        assert (await client.message()).status == 200
    hashed = svid("web").leaf.fingerprint(hashes.SHA256()).hex()
    ours = f"By={identity('orders')};Hash={hashed};URI={identity('web')}".encode()
    assert [request.get("x-forwarded-client-cert") for request in backend.requests] == [ours] * 3
    for request in backend.requests:
        assert not [name for name, _ in request.headers if name.startswith((b"l5d-", b"x-envoy-", b"x-istio-"))]
    assert b"root" not in backend.received


@pytest.mark.asyncio
async def test_the_next_callers_name_is_not_the_last_ones(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    for account in ("web", "batch", "web"):
        client = await mesh.client(orders, account)
        await client.send(get())
        assert (await client.message()).status == 200
    uris = [
        (request.get("x-forwarded-client-cert") or b"").rpartition(b"URI=")[2].decode() for request in backend.requests
    ]
    assert uris == [identity("web"), identity("batch"), identity("web")]
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_identifiers_are_created_where_there_are_none(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    for _ in range(2):
        await client.send(get())
        assert (await client.message()).status == 200
    ids = [request.get("x-request-id") or b"" for request in backend.requests]
    traces = [request.get("traceparent") or b"" for request in backend.requests]
    assert all(UUID.fullmatch(found) for found in ids)
    assert all(TRACEPARENT.fullmatch(found) for found in traces)
    assert len({*ids}) == len({*traces}) == 2
    for sidecar in (web, orders):
        records = await sidecar.records(2, kind="request")
        assert [record["request_id"].encode() for record in records] == ids


@pytest.mark.asyncio
async def test_identifiers_are_passed_on(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    w3c = {
        "x-request-id": b"my-request",
        "traceparent": b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": b"vendor=1",
    }
    b3 = {
        "x-request-id": b"another",
        "x-b3-traceid": b"463ac35c9f6413ad48485a3953bb6124",
        "x-b3-spanid": b"a2fb4a1d1a96d312",
        "x-b3-sampled": b"1",
    }
    single = {"b3": b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"}
    for given in (w3c, b3, single):
        await client.send(get("/", *(f"{name}: {value.decode()}" for name, value in given.items())))
        assert (await client.message()).status == 200
        request = backend.requests[-1]
        assert {name: request.get(name) for name in given} == given
        if given is not w3c:
            assert request.get("traceparent") is None
    records = await orders.records(3, kind="request")
    assert [record["request_id"] for record in records][:2] == ["my-request", "another"]


@pytest.mark.asyncio
async def test_lines_go_out_as_they_came_in_and_in_order(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    lines = ["Accept: */*", "X-A: 1", "Cookie: a=b; c=d", "X-A: 2", "x-empty:", "X-Latin: caf\xe9"]
    await client.send(get("/", *lines))
    assert (await client.message()).status == 200
    seen = [
        pair
        for pair in backend.requests[0].headers
        if pair[0] in {b"accept", b"x-a", b"cookie", b"x-empty", b"x-latin"}
    ]
    assert seen == [
        (b"accept", b"*/*"),
        (b"x-a", b"1"),
        (b"cookie", b"a=b; c=d"),
        (b"x-a", b"2"),
        (b"x-empty", b""),
        (b"x-latin", b"caf\xe9"),
    ]
