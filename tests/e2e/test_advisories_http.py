"""What went wrong in other meshes over HTTP and is shown nowhere else: one test per advisory."""

from __future__ import annotations

import pytest
from mesh import Mesh, get, policy, service

EVERYTHING = policy("everything", "[{}]")


def without(rules: str) -> str:
    """Allow everything but what `rules` name."""
    return f"{EVERYTHING}---\n{policy('refused', rules, action='DENY')}"


async def statuses(mesh: Mesh, policies: str, *requests: bytes) -> list[int]:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=policies)
    found = []
    for request in requests:
        client = await mesh.client(orders)
        await client.send(request)
        found.append((await client.message()).status)
    assert len(backend.requests) == found.count(200)
    return found


@pytest.mark.asyncio
async def test_a_host_with_a_port_or_a_dot_is_another_value(mesh: Mesh) -> None:
    """ISTIO-SECURITY-2021-008: `evil.com` does not name `evil.com:80`, so a policy names both; `evil.com.` too."""
    hosts = ("evil.com", "EVIL.com", "evil.com:80", "EVIL.COM:8080", "evil.com.", "good.com")
    requests = [get(host=host) for host in hosts]
    named_once = without('[{to: [{operation: {hosts: ["evil.com"]}}]}]')
    assert await statuses(mesh, named_once, *requests) == [403, 403, 200, 200, 200, 200]
    named_whole = without('[{to: [{operation: {hosts: ["evil.com", "evil.com:*", "evil.com.", "evil.com.:*"]}}]}]')
    assert await statuses(mesh, named_whole, *requests) == [403, 403, 403, 403, 403, 200]


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["v1", "v1beta1"])
async def test_both_versions_of_the_format_mean_the_same(mesh: Mesh, version: str) -> None:
    """CVE-2022-21679: hosts were matched in another way by a proxy of another version than its control plane."""
    policies = without('[{to: [{operation: {hosts: ["evil.com", "*.evil.com"]}}]}]').replace("/v1\n", f"/{version}\n")
    assert version in policies
    requests = [get(host=host) for host in ("evil.com", "a.EVIL.com", "evil.com.good.com", "notevil.com")]
    assert await statuses(mesh, policies, *requests) == [403, 403, 200, 200]


@pytest.mark.asyncio
async def test_matrix_parameters_are_judged_and_forwarded_alike(mesh: Mesh) -> None:
    """CVE-2026-73511, CVE-2026-73553: one side cut `;x=y` off a segment and the other did not."""
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, policies=without('[{to: [{operation: {paths: ["/admin", "/admin/*"]}}]}]')
    )
    client = await mesh.client(orders)
    target = "/admin;x=y/action;foo=bar"
    await client.send(get(target))
    assert (await client.message()).status == 200, "it is another path than /admin/..., and stays one"
    assert [request.target for request in backend.requests] == [target.encode()]
    [record] = await orders.records(1, kind="request")
    assert record["path"] == target


@pytest.mark.asyncio
async def test_the_original_path_of_a_client_is_neither_believed_nor_recorded(mesh: Mesh) -> None:
    """CVE-2023-27487: a client could set x-envoy-original-path, and checks and logs took it for the path."""
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=without('[{to: [{operation: {paths: ["/admin"]}}]}]'))
    client = await mesh.client(orders)
    await client.send(get("/admin", "X-Envoy-Original-Path: /public"))
    assert (await client.message()).status == 403
    await client.send(get("/public", "X-Envoy-Original-Path: /admin"))
    assert (await client.message()).status == 200
    assert [record["path"] for record in await orders.records(2, kind="request")] == ["/admin", "/public"]
    assert b"original" not in backend.received.lower()


@pytest.mark.asyncio
async def test_a_scheme_in_any_case_is_one_scheme(mesh: Mesh) -> None:
    """CVE-2023-35944: requests with a scheme such as `HtTp` went around rules that knew `http`."""
    policies = without('[{to: [{operation: {paths: ["/admin"]}}]}]')
    requests = [
        f"GET {scheme}://orders{path} HTTP/1.1\r\nHost: orders\r\n\r\n".encode()
        for scheme in ("http", "HtTp", "HTTPS")
        for path in ("/admin", "/public")
    ]
    assert await statuses(mesh, policies, *requests) == [403, 200] * 3


@pytest.mark.asyncio
async def test_headers_of_a_mesh_let_nobody_in(mesh: Mesh) -> None:
    """CVE-2020-8843, CVE-2024-45806: x-istio-* and x-envoy-* of a peer were believed, some by address range."""
    names = ("x-istio-attributes", "x-envoy-internal", "x-envoy-external-address", "l5d-client-id")
    rules = ", ".join(f'{{when: [{{key: "request.headers[{name}]", values: ["*"]}}]}}' for name in names)
    requests = [get("/", f"{name}: true") for name in names]
    assert await statuses(mesh, policy("believing", f"[{rules}]"), *requests) == [403] * len(names)


@pytest.mark.asyncio
async def test_a_dot_in_an_account_is_a_dot(mesh: Mesh) -> None:
    """CVE-2026-39350: account names became regular expressions, in which `a.b` also is `axb`."""
    backend = await mesh.backend()
    rules = '[{from: [{source: {serviceAccounts: ["demo/a.b"]}}]}]'
    orders = await mesh.sidecar("orders", app=backend, policies=policy("dotted", rules))
    for account, status in (("a.b", 200), ("axb", 403), ("a.bc", 403)):
        client = await mesh.client(orders, account)
        await client.send(get())
        assert (await client.message()).status == status, account


@pytest.mark.asyncio
async def test_a_service_without_trust_is_not_called_in_plaintext(mesh: Mesh) -> None:
    """CVE-2020-8664, GHSA-qm8v-g4f9-qhjx: material that could not be had left a connection without validation."""
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", backend.port)], publish=False)
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 503
    assert backend.received == b""
