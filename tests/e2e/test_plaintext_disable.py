"""DISABLE: plaintext only. TLS is the application's own, that of the mesh too, on whatever port it comes."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, get, policy
from plaintext import GREETING, change, echo, files, greet, is_refused, opened_with, other_tls, over_tls, peers, ping

DISABLE = peers("DISABLE")


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http", "auto"])
async def test_plaintext_is_read_as_the_port_says(mesh: Mesh, protocol: str) -> None:
    backend = await mesh.backend()
    only_open = policy("open", "[{to: [{operation: {paths: [/open]}}]}]")
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, policies=files(DISABLE, only_open))
    client = await mesh.plain_client(orders.port)
    await client.send(get("/open", "x-forwarded-client-cert: URI=spiffe://evil") + get("/shut"))
    assert [(await client.message()).status for _ in range(2)] == [200, 403]
    [request] = backend.requests
    assert request.get("x-forwarded-client-cert") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http", "tcp", "auto"])
@pytest.mark.parametrize("alpn", [(b"h2",), (b"istio-http/1.1",), (b"istio",)])
async def test_every_tls_goes_to_the_application(mesh: Mesh, protocol: str, alpn: tuple[bytes, ...]) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(over_tls), protocol=protocol, policies=files(DISABLE, ALLOW_ALL)
    )
    client = other_tls(mesh, orders, *alpn, account="web")
    await client.send(b"hello")
    assert await client.exactly(19) == b"shop.example: hello"
    client.close()
    [record] = await orders.records()
    assert opened_with(record) == ("TCP", None, "shop.example")


@pytest.mark.asyncio
async def test_a_certificate_shown_to_the_application_is_no_identity_here(mesh: Mesh) -> None:
    backend = await mesh.backend(over_tls)
    only_web = policy("web", '[{from: [{source: {serviceAccounts: ["web"]}}]}]')
    orders = await mesh.sidecar("orders", app=backend, policies=files(DISABLE, only_web))
    assert await is_refused(other_tls(mesh, orders, b"istio", account="web"))
    [record] = await orders.records()
    assert (record["reason"], record["source_principal"]) == ("denied_by_policy", None)
    assert not backend.streams


@pytest.mark.asyncio
async def test_a_server_that_speaks_first(mesh: Mesh) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(greet), protocol="tcp", policies=files(DISABLE, ALLOW_ALL)
    )
    client = await mesh.plain_client(orders.port)
    assert await client.exactly(len(GREETING)) == GREETING


@pytest.mark.asyncio
async def test_ports_have_modes_of_their_own(mesh: Mesh) -> None:
    backend, own_tls = await mesh.backend(), await mesh.backend(over_tls)
    orders = await mesh.sidecar(
        "orders",
        inbound=[
            {"port": 8080, "app": f"127.0.0.1:{backend.port}", "protocol": "http"},
            {"port": 8081, "app": f"127.0.0.1:{backend.port}", "protocol": "http"},
            {"port": 8443, "app": f"127.0.0.1:{own_tls.port}", "protocol": "http"},
        ],
        policies=files(peers("STRICT", ports={8081: "PERMISSIVE", 8443: "DISABLE"}), ALLOW_ALL),
    )
    strict, permissive, disabled = orders.app.bound_ports()["inbound"]
    statuses = []
    for port in (strict, permissive):
        mutual = await mesh.client(port)
        await mutual.send(get())
        statuses.append((await mutual.message()).status)
    plain = await mesh.plain_client(permissive)
    await plain.send(get())
    statuses.append((await plain.message()).status)
    assert statuses == [200, 200, 200]
    refused = await mesh.plain_client(strict)
    await refused.send(get())
    await refused.closed()
    assert b"200 OK" not in refused.received
    through = other_tls(mesh, disabled, b"istio")
    await through.send(b"hello")
    assert await through.exactly(19) == b"shop.example: hello"


@pytest.mark.asyncio
async def test_what_stands_over_mutual_tls_stays(mesh: Mesh) -> None:
    """The mode says how new connections are read; that this caller is known is no reason to send it away."""
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(echo), protocol="tcp", policies=files(peers("STRICT"), ALLOW_ALL)
    )
    mutual = await mesh.client(orders, alpn=[b"istio"])
    await ping(mutual)
    change(orders, DISABLE, ALLOW_ALL)
    plain = await mesh.plain_client(orders.port)
    while await is_refused(plain):
        plain = await mesh.plain_client(orders.port)
    await ping(mutual)
