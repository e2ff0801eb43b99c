"""Our caller, Envoy before the application: Envoy knows who calls, judges, and its answer passes through."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from envoy_sidecar import agreed_names, envoy_before
from mesh import Mesh, get, identity, service, svid

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]


async def test_allowed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend()
    async with envoy_before(mesh, backend) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        client = await mesh.plain_client(web)
        await client.send(get("/orders"))
        answer = await client.message()
        assert (answer.status, answer.body, answer.get("server")) == (200, b"ok", b"istio-envoy")

        [theirs] = await envoy.records()
    # istio-http/1.1 in our offer chose Envoy's HTTP chain; http/1.1 is what such a server agrees on.
    assert (theirs["filter_chain"], names) == ("http", [b"http/1.1"])
    assert (theirs["source_principal"], theirs["downstream_tls_version"]) == (identity("web"), "TLSv1.3")
    [ours] = await web.records()
    assert (ours["decision"], ours["reason"], ours["response_code_details"]) == ("allow", "ok", "via_upstream")
    assert (ours["source_principal"], ours["destination_principal"]) == (identity("web"), identity("orders"))

    [request] = backend.requests
    element = (request.get("x-forwarded-client-cert") or b"").decode().split(",")[-1]
    said = dict(part.split("=", 1) for part in element.split(";"))
    assert (said["By"], said["URI"]) == (identity("orders"), identity("web"))
    assert said["Hash"] == svid("web").leaf.fingerprint(SHA256()).hex()
    assert request.get("x-request-id") == ours["request_id"].encode()


@pytest.mark.parametrize(("account", "path"), [("batch", "/orders"), ("web", "/admin")], ids=["identity", "path"])
async def test_denied(mesh: Mesh, account: str, path: str) -> None:
    backend = await mesh.backend()
    async with envoy_before(mesh, backend) as envoy:
        caller = await mesh.sidecar(account, services=[service("orders", envoy.port)])
        client = await mesh.plain_client(caller)
        await client.send(get(path))
        answer = await client.message()
        assert (answer.status, answer.body) == (403, b"RBAC: access denied")
        [theirs] = await envoy.records()
    assert theirs["response_code_details"] == "rbac_access_denied_matched_policy[none]"
    assert theirs["source_principal"] == identity(account)
    [ours] = await caller.records()
    # The call went out with a permit; it was the server that said no.
    assert (ours["decision"], ours["response_code"], ours["response_code_details"]) == ("allow", 403, "via_upstream")
    assert backend.requests == []
