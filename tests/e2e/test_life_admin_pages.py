"""The admin pages of a running sidecar: each as text and as JSON, and a 403's request id leads to its decision."""

from __future__ import annotations

import json

import pytest
from admin_caller import ADMIN, admin_port, ask, ask_json
from mesh import ALLOW_ALL, Mesh, eventually, fetch_page, get, identity, policy, service, svid

PAGES = ("/", "/config", "/connections", "/certificates", "/readyz", "/decisions", "/services", "/policy", "/loglevel")
ONLY_WEB = policy("web-only", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}]}]')


@pytest.mark.asyncio
async def test_every_page_as_text_and_as_json(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    port = admin_port(orders)
    key = (orders.identity_directory / "tls.key").read_text().splitlines()[1]
    for path in PAGES:
        text = await ask(port, path)
        assert (text.status, text.get("content-type")) == (200, b"text/plain; charset=utf-8"), path
        by_accept, by_query = await ask_json(port, path), json.loads((await ask(port, f"{path}?format=json")).body)
        assert by_accept.keys() == by_query.keys(), path
        for answer in (text, await ask(port, f"{path}?format=json")):
            assert answer.get("x-content-type-options") == b"nosniff"
            assert answer.get("cache-control") == b"no-store"
            assert answer.get("cross-origin-resource-policy") == b"same-origin"
            assert key not in answer.body.decode()
            assert b"PRIVATE KEY" not in answer.body
    assert (await ask(port, "/nowhere")).status == 404
    assert (await ask(port, "/metrics")).status == (await ask(port, "/livez")).status == 200


@pytest.mark.asyncio
async def test_admin_pages_are_not_on_the_health_listener(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    for path in PAGES:
        if path != "/readyz":
            assert (await fetch_page(orders.health_port, path)).status == 404


@pytest.mark.asyncio
async def test_the_request_id_of_a_403_leads_to_its_decision(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_WEB, admin=ADMIN)
    port = admin_port(orders)
    client = await mesh.client(orders, "batch")
    await client.send(get("/orders/7"))
    answer = await client.message()
    assert answer.status == 403
    request_id = (answer.get("x-request-id") or b"").decode()
    [decision] = (await ask_json(port, f"/decisions?request_id={request_id}"))["decisions"]
    [record] = await orders.records(kind="request")
    assert decision["explanation"] == record["explanation"]
    assert decision["nearest_miss"] == record["nearest_miss"]
    assert (decision["source"], decision["path"], decision["status"]) == (identity("batch"), "/orders/7", 403)
    text = (await ask(port, f"/decisions?request_id={request_id}")).body.decode()
    assert "web-only" in text
    assert "no ALLOW rule allows" in text
    missing = await ask(port, "/decisions?request_id=never")
    assert missing.status == 404
    assert (await ask(port, "/decisions?request_id=never&format=json")).status == 404


@pytest.mark.asyncio
async def test_decisions_of_both_kinds_and_of_refused_handshakes(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_WEB, admin=ADMIN)
    port = admin_port(orders)
    for account in ("web", "batch"):
        client = await mesh.client(orders, account)
        await client.send(get())
        await client.message()
    plain = await mesh.plain_client(orders.port)
    await plain.send(get())
    await plain.closed()
    await orders.records(1, kind="connection")
    counts = {
        kind: (await ask_json(port, f"/decisions?decision={kind}"))["count"] for kind in ("allow", "deny", "none")
    }
    assert counts == {"allow": 1, "deny": 1, "none": 1}
    shown = await ask_json(port, "/decisions")
    assert [each["reason"] for each in shown["decisions"]] == ["not_tls", "denied_by_policy", "ok"]


@pytest.mark.asyncio
async def test_open_connections_are_named_with_their_identity(mesh: Mesh) -> None:
    ledger = await mesh.sidecar("ledger", app=await mesh.backend())
    orders = await mesh.sidecar("orders", app=await mesh.backend(), services=[service("ledger", ledger)], admin=ADMIN)
    port = admin_port(orders)
    inbound, outbound = await mesh.client(orders), await mesh.plain_client(orders)
    await inbound.send(get())
    await inbound.message()
    await outbound.send(get(host="ledger"))
    await outbound.message()
    shown = await ask_json(port, "/connections")
    assert shown["open"] == 2
    first, second = sorted(shown["connections"], key=lambda row: str(row["direction"]))
    assert (first["direction"], first["by"], first["peer"]) == ("inbound", "inbound|8080", identity("web"))
    assert first["serial"] == f"{svid('web').chain[0].serial_number:x}"
    assert 0 <= first["age_seconds"] < 60
    assert (second["direction"], second["by"], second["peer"]) == ("outbound", "outbound|ledger", None)
    services = await ask_json(port, "/services")
    assert [(each["name"], each["identities"]) for each in services["services"]] == [("ledger", [identity("ledger")])]
    assert sum(hop["connections"] for hop in services["next_hops"]) == 2
    assert all(hop["idle"] == hop["connections"] and not hop["waiting"] for hop in services["next_hops"])
    traffic = (await ask_json(port, "/"))["traffic"]
    assert {(row["direction"], row["peer"], row["requests"], row["ok"]) for row in traffic} == {
        ("inbound", identity("web"), 1, 1),
        ("outbound", identity("ledger"), 1, 1),
    }
    inbound.close()
    outbound.close()
    await eventually(lambda: orders.open_connections == 0)
    assert await ask_json(port, "/connections") == {"open": 0, "connections": []}


@pytest.mark.asyncio
async def test_what_is_refused_is_counted_by_reason(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ONLY_WEB, admin=ADMIN)
    for _ in range(3):
        client = await mesh.client(orders, "batch")
        await client.send(get())
        await client.message()
    assert (await ask_json(admin_port(orders), "/"))["refused"] == [
        {"direction": "inbound", "what": "requests", "reason": "denied_by_policy", "count": 3}
    ]


@pytest.mark.asyncio
async def test_what_is_broken_is_told_in_full(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=ALLOW_ALL + "nonsense: 1\n", admin=ADMIN)
    port = admin_port(orders)
    answer = await ask(port, "/readyz?format=json")
    assert answer.status == 503
    shown = json.loads(answer.body)
    assert shown["ready"] is False
    assert "policies.yaml" in shown["missing"]["policy"][0]
    page = (await ask(port, "/", {"Accept": "text/html,*/*"})).body.decode()
    assert "not ready" in page
    assert "policies.yaml" in page
    assert (await ask_json(port, "/policy"))["rules"] == []


@pytest.mark.asyncio
async def test_a_browser_gets_the_page_and_its_policy(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), admin=ADMIN)
    for path, accept in (("/", "text/html,application/xhtml+xml"), ("/?format=html", "*/*")):
        answer = await ask(admin_port(orders), path, {"Accept": accept})
        assert answer.get("content-type") == b"text/html; charset=utf-8"
        assert answer.body.startswith(b"<!DOCTYPE html>")
        content_security_policy = answer.get("content-security-policy") or b""
        assert content_security_policy.startswith(b"default-src 'none'; style-src 'sha256-")
        assert identity("orders").encode() in answer.body


@pytest.mark.asyncio
async def test_without_an_admin_listener_no_decision_is_kept(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    assert orders.app.sidecar.decision_log is None
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 200
