"""What a denied caller sees, and what the record says to who runs the mesh (policy by identity, method and route)."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, get, policy

POLICIES = (
    policy(
        "web-reads",
        '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}],'
        ' to: [{operation: {methods: ["GET"], paths: ["/orders/*"]}}]}]',
    )
    + "---\n"
    + policy("no-secrets", '[{to: [{operation: {paths: ["/orders/secret"]}}]}]', action="DENY")
)


@pytest.mark.asyncio
async def test_the_answer_says_little_and_the_record_all(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=POLICIES)
    cases = [
        ("web", get("/orders/1"), 200),
        ("batch", get("/orders/1"), 403),
        ("web", get("/orders/1", method="POST", body=b"x"), 403),
        ("web", get("/elsewhere"), 403),
        ("web", get("/orders/secret"), 403),
    ]
    for account, request, status in cases:
        client = await mesh.client(orders, account)
        await client.send(request)
        answer = await client.message()
        assert answer.status == status
        if status == 403:
            assert answer.body == b"RBAC: access denied"
            assert answer.get("content-type") == b"text/plain"
            assert b"web-reads" not in answer.head
            assert b"no-secrets" not in answer.head
    allowed, *denied = await orders.records(5, kind="request")
    assert allowed["policy"] == "ns[demo]-policy[web-reads]-rule[0]"
    for record in denied:
        assert (record["decision"], record["response_code"], record["bytes_sent"]) == ("deny", 403, 19)
        assert record["explanation"]
        assert record["upstream_host"] is None
        assert record["response_code_details"].startswith("rbac_access_denied_matched_policy[")
    assert {record["reason"] for record in denied} == {"denied_by_policy"}
    assert [record["response_code_details"] for record in denied[2:]] == [
        "rbac_access_denied_matched_policy[none]",
        "rbac_access_denied_matched_policy[ns[demo]-policy[no-secrets]-rule[0]]",
    ]
    assert "cluster.local/ns/demo/sa/batch" in denied[0]["nearest_miss"]
    assert "web-reads" in str(denied[1]["nearest_miss"])
    assert [request.target for request in backend.requests] == [b"/orders/1"]


@pytest.mark.asyncio
async def test_the_request_id_to_quote(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies="")
    client = await mesh.client(orders)
    await client.send(get("/", "x-request-id: mine") + get())
    quoted = [(await client.message()).get("x-request-id") for _ in range(2)]
    assert quoted[0] == b"mine"
    records = await orders.records(2, kind="request")
    assert [record["request_id"].encode() for record in records] == quoted


@pytest.mark.asyncio
async def test_an_empty_directory_denies_everything(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies={})
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 403
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "denied_by_default"
    assert backend.received == b""


@pytest.mark.asyncio
async def test_an_audit_policy_is_on_record_and_decides_nothing(mesh: Mesh) -> None:
    backend = await mesh.backend()
    audit = policy("look", '[{to: [{operation: {paths: ["/watched"]}}]}]', action="AUDIT")
    orders = await mesh.sidecar("orders", app=backend, policies={"a.yaml": ALLOW_ALL, "b.yaml": audit})
    client = await mesh.client(orders)
    await client.send(get("/watched") + get("/other"))
    assert [(await client.message()).status for _ in range(2)] == [200, 200]
    watched, other = await orders.records(2, kind="request")
    assert "look" in watched["explanation"]
    assert other["explanation"] is None


@pytest.mark.asyncio
async def test_a_denial_by_identity_alone_is_still_an_answer(mesh: Mesh) -> None:
    backend = await mesh.backend()
    deny = policy("no-batch", '[{from: [{source: {serviceAccounts: ["batch"]}}]}]', action="DENY")
    orders = await mesh.sidecar("orders", app=backend, policies={"a.yaml": ALLOW_ALL, "b.yaml": deny})
    for account, status in (("web", 200), ("batch", 403)):
        client = await mesh.client(orders, account)
        await client.send(get() + get())
        assert [(await client.message()).status for _ in range(2)] == [status, status]
    assert len(backend.requests) == 2
