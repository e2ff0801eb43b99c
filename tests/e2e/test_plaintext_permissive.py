"""PERMISSIVE: mutual TLS, plaintext and TLS of the application come to one port, and each is judged as what it is."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, fetch_page, get, identity, policy
from plaintext import change, echo, files, is_refused, opened_with, other_tls, over_tls, peers, ping
from prometheus_client.parser import text_string_to_metric_families

PERMISSIVE = peers("PERMISSIVE")
OPEN_TO_ALL = policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')
ONLY_WEB = policy("web", '[{from: [{source: {serviceAccounts: ["web"]}}]}]')
SHOP = policy("shop", '[{when: [{key: connection.sni, values: ["shop.example"]}]}]')


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http", "auto"])
async def test_http_in_plaintext_and_over_mutual_tls(mesh: Mesh, protocol: str) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, policies=files(PERMISSIVE, ALLOW_ALL))
    plain, mutual = await mesh.plain_client(orders.port), await mesh.client(orders)
    for client in (plain, mutual):
        await client.send(get("/a", "x-forwarded-client-cert: By=spiffe://evil;URI=spiffe://evil") + get("/b"))
        assert [(await client.message()).status for _ in range(2)] == [200, 200]
    told = [request.get("x-forwarded-client-cert") for request in backend.requests]
    assert told[:2] == [None, None]  # nobody is known, and what the client said of itself is gone
    assert all(identity("web").encode() in (element or b"") and b"evil" not in (element or b"") for element in told[2:])
    await plain.end()
    await mutual.end()
    records = await orders.records(6)
    assert {(record["kind"], record["source_principal"]) for record in records} == {
        ("request", None),
        ("request", identity("web")),
        ("connection", None),
        ("connection", identity("web")),
    }
    assert all(record["decision"] == "allow" for record in records if record["kind"] == "request")


@pytest.mark.asyncio
async def test_rules_on_identity_keep_plaintext_out(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=files(PERMISSIVE, OPEN_TO_ALL, ONLY_WEB))
    plain, mutual = await mesh.plain_client(orders.port), await mesh.client(orders)
    await plain.send(get("/open") + get("/shut"))
    assert [(await plain.message()).status for _ in range(2)] == [200, 403]
    await mutual.send(get("/shut"))
    assert (await mutual.message()).status == 200
    denied = (await orders.records(3, kind="request"))[1]
    assert (denied["reason"], denied["source_principal"]) == ("denied_by_policy", None)
    assert "from a peer without identity" in denied["explanation"]


@pytest.mark.asyncio
async def test_an_opaque_port_takes_both(mesh: Mesh) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(echo), protocol="tcp", policies=files(PERMISSIVE, ALLOW_ALL)
    )
    plain, mutual = await mesh.plain_client(orders.port), await mesh.client(orders, alpn=[b"istio"])
    await ping(plain, mutual)
    for client in (plain, mutual):
        await client.end()
        assert await client.closed() == "clean"
    records = {opened_with(record): record for record in await orders.records(2)}
    assert set(records) == {("TCP", None, None), ("TCP", identity("web"), None)}
    assert "detection" in records["TCP", None, None]["stage_us"]
    assert "handshake" not in records["TCP", None, None]["stage_us"]


@pytest.mark.asyncio
async def test_metrics_tell_plaintext_from_mutual_tls(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=files(PERMISSIVE, ALLOW_ALL))
    for client in (await mesh.plain_client(orders.port), await mesh.client(orders)):
        await client.send(get())
        assert (await client.message()).status == 200
    await orders.records(2, kind="request")
    page = (await fetch_page(orders.health_port, "/metrics")).body.decode()
    found = {
        (sample.labels["source_principal"], sample.labels["connection_security_policy"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "istio_requests_total"
    }
    assert found == {("unknown", "none"): 1, (identity("web"), "mutual_tls"): 1}


# --- TLS of the application -------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["http", "tcp", "auto"])
@pytest.mark.parametrize("alpn", [(), (b"h2", b"http/1.1")])
async def test_other_tls_goes_to_the_application_as_it_is(mesh: Mesh, protocol: str, alpn: tuple[bytes, ...]) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(over_tls), protocol=protocol, policies=files(PERMISSIVE, ALLOW_ALL)
    )
    client = other_tls(mesh, orders, *alpn, account="web")  # its certificate is between it and the application
    await client.send(b"hello")
    assert await client.exactly(19) == b"shop.example: hello"
    await client.end()
    assert await client.closed() == "clean"
    client.close()
    [record] = await orders.records()
    assert opened_with(record) == ("TCP", None, "shop.example")
    assert (record["decision"], record["policy"]) == ("allow", "ns[demo]-policy[allow-all]-rule[0]")


@pytest.mark.asyncio
async def test_it_is_judged_by_what_is_known_of_a_connection(mesh: Mesh) -> None:
    """CVE-2021-31921: passing through is no way around policy; `connection.sni` speaks of such connections."""
    orders = await mesh.sidecar("orders", app=await mesh.backend(over_tls), policies=files(PERMISSIVE, SHOP))
    for name, allowed in (("shop.example", True), ("SHOP.example", True), ("other.example", False), ("", False)):
        client = other_tls(mesh, orders, server_name=name)
        if allowed:
            await client.send(b"hello")
            assert await client.exactly(19) == name.encode() + b": hello"
            client.close()
        else:
            assert await is_refused(client)
    denied = [record for record in await orders.records(4) if record["decision"] == "deny"]
    assert [record["requested_server_name"] for record in denied] == ["other.example", None]
    assert {record["reason"] for record in denied} == {"denied_by_policy"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("rules", "action", "reason"),
    [
        ("[{to: [{operation: {paths: [/open]}}]}]", "ALLOW", "denied_by_policy"),
        ('[{from: [{source: {principals: ["*"]}}]}]', "ALLOW", "denied_by_policy"),
        ("[{to: [{operation: {paths: [/admin]}}]}]", "DENY", "denied_protocol_opaque"),
        ('[{from: [{source: {notPrincipals: ["*"]}}]}]', "DENY", "denied_by_policy"),
    ],
)
async def test_rules_that_cannot_see_into_it_do_not_let_it_pass(
    mesh: Mesh, rules: str, action: str, reason: str
) -> None:
    backend = await mesh.backend(over_tls)
    orders = await mesh.sidecar(
        "orders", app=backend, default="allow-all", policies=files(PERMISSIVE, policy("p", rules, action=action))
    )
    assert await is_refused(other_tls(mesh, orders))
    [record] = await orders.records()
    assert (record["reason"], record["protocol"], record["upstream_host"]) == (reason, "TCP", None)
    assert not backend.streams


@pytest.mark.asyncio
async def test_strict_terminates_every_tls(mesh: Mesh) -> None:
    """Its names, and that it asks for the application, are nothing on a STRICT port: it needs an identity."""
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=files(peers("STRICT"), SHOP, ALLOW_ALL))
    assert await is_refused(other_tls(mesh, orders))
    own = other_tls(mesh, orders, b"http/1.1", account="web")
    await own.send(get())
    assert (await own.message()).status == 200
    [record] = await orders.records(1, kind="connection")
    assert record["reason"] == "certificate_required"
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_a_mesh_name_needs_a_mesh_identity(mesh: Mesh) -> None:
    """Who says that it is of the mesh is not let through as somebody else's TLS when it cannot show who it is."""
    backend = await mesh.backend(over_tls)
    orders = await mesh.sidecar("orders", app=backend, policies=files(PERMISSIVE, ALLOW_ALL))
    assert await is_refused(other_tls(mesh, orders, b"h2", b"istio"))
    [record] = await orders.records()
    assert record["reason"] == "certificate_required"
    assert not backend.streams


@pytest.mark.asyncio
async def test_without_a_policy_the_default_allow_all_is_istios_world(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies={}, default="allow-all")
    plain = await mesh.plain_client(orders.port)
    await plain.send(get())
    assert (await plain.message()).status == 200
    change(orders, peers("STRICT"))
    assert await plain.closed() == "broken"
    late = await mesh.plain_client(orders.port)
    await late.send(get())
    await late.closed()
    assert b"200" not in late.received
    records = await orders.records(2, kind="connection")
    assert [record["reason"] for record in records] == ["certificate_required", "not_tls"]


@pytest.mark.asyncio
async def test_without_certificates_plaintext_is_refused_too(mesh: Mesh) -> None:
    """GHSA-qm8v-g4f9-qhjx: material that is missing never turns mutual TLS into plaintext."""
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=files(PERMISSIVE, ALLOW_ALL), publish=False)
    client = await mesh.plain_client(orders.port)
    await client.send(get())
    await client.closed()
    assert not client.received
    [record] = await orders.records()
    assert record["reason"] == "not_ready"
    assert not backend.streams
