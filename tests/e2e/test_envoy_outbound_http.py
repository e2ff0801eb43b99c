"""Envoy calls, we are before the application: we know who calls, judge, and tell the application."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from envoy_config import SERVER_NAME
from envoy_sidecar import agreed_names, envoy_calling
from mesh import Mesh, get, identity, policy, svid

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

WEB_READS = policy(
    "orders",
    '[{from: [{source: {serviceAccounts: ["demo/web"]}}], to: [{operation: {methods: ["GET"], paths: ["/orders"]}}]}]',
)


@pytest.mark.parametrize("protocol", ["http", "auto"])
async def test_allowed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, policies=WEB_READS)
    async with envoy_calling(mesh, orders) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders"))
        answer = await client.message()
        assert (answer.status, answer.body) == (200, b"ok")
        [theirs] = await envoy.records()
    assert names == [b"istio-http/1.1"]
    assert (theirs["destination_principal"], theirs["upstream_tls_version"]) == (identity("orders"), "TLSv1.3")
    [ours] = await orders.records(kind="request")
    assert (ours["decision"], ours["reason"]) == ("allow", "ok")
    assert (ours["source_principal"], ours["destination_principal"]) == (identity("web"), identity("orders"))
    assert ours["requested_server_name"] == SERVER_NAME
    [request] = backend.requests
    assert request.get("x-request-id") == ours["request_id"].encode()


@pytest.mark.parametrize(
    ("account", "request_"),
    [("batch", get("/orders")), ("web", get("/admin")), ("web", get("/orders", method="POST", body=b"x"))],
    ids=["identity", "path", "method"],
)
async def test_denied(mesh: Mesh, account: str, request_: bytes) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=WEB_READS)
    async with envoy_calling(mesh, orders, account=account) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(request_)
        answer = await client.message()
        assert (answer.status, answer.body) == (403, b"RBAC: access denied")
        [theirs] = await envoy.records()
    assert (theirs["response_flags"], theirs["response_code_details"]) == ("-", "via_upstream")
    [ours] = await orders.records(kind="request")
    assert (ours["decision"], ours["reason"], ours["response_code"]) == ("deny", "denied_by_policy", 403)
    assert (ours["source_principal"], ours["destination_principal"]) == (identity(account), identity("orders"))
    assert backend.streams == []


async def test_the_application_is_told_who_calls_by_us_alone(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    forged = f"By={identity('orders')};Hash=00;URI={identity('admin')}"
    async with envoy_calling(mesh, orders, forward_client_cert="ALWAYS_FORWARD_ONLY") as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(get("/orders", f"x-forwarded-client-cert: {forged}", "x-envoy-internal: true"))
        assert (await client.message()).status == 200
    [request] = backend.requests
    expected = f"By={identity('orders')};Hash={svid('web').leaf.fingerprint(SHA256()).hex()};URI={identity('web')}"
    assert request.get("x-forwarded-client-cert") == expected.encode()
    assert [name for name, _ in request.headers if name.startswith(b"x-envoy-")] == []
