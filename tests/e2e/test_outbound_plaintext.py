"""A service with `tls: none`: no identity is claimed or checked, everything else holds."""

from __future__ import annotations

import pytest
from mesh import Mesh, get, identity, service


@pytest.mark.asyncio
async def test_it_is_forwarded_as_it_is(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("legacy", backend)])
    client = await mesh.plain_client(web)
    await client.send(get("/a/../b", "X-Forwarded-Client-Cert: mine", "Connection: close", host="legacy"))
    answer = await client.message()
    assert (answer.status, answer.get("connection")) == (200, b"close")
    [request] = backend.requests
    assert (request.target, request.get("host")) == (b"/b", b"legacy")
    # What the application says of itself is not touched: only a peer's claims are.
    assert request.get("x-forwarded-client-cert") == b"mine"
    assert request.get("connection") is None
    [record] = await web.records(1, kind="request")
    assert (record["decision"], record["policy"]) == ("allow", "outbound[legacy]")
    assert (record["source_principal"], record["destination_principal"]) == (identity("web"), None)


@pytest.mark.asyncio
async def test_policy_and_its_default_speak_to_inbound_only(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("legacy", backend)], policies={}, default="deny")
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200
