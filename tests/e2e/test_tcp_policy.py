"""Identity and L4 policy come before the first byte: the application of a denied peer never sees a connection."""

from __future__ import annotations

from typing import Any

import pytest
from mesh import ALLOW_ALL, Mesh, identity, policy
from tcp_way import accepted, settled, stay

ONLY_WEB = policy("ledger", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/web"]}}]}]')
NO_BATCH = policy("no-batch", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/batch"]}}]}]', action="DENY")
DENIED = {"decision": "deny", "bytes_sent": 0, "upstream_host": None, "protocol": "TCP", "kind": "connection"}


async def denied(mesh: Mesh, account: str, **options: Any) -> dict[str, Any]:
    """Connect as `account`, speak at once, and give the record of the refusal: nothing got through."""
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, **{"protocol": "tcp", **options})
    client = await mesh.client(orders, account, alpn=(b"istio",))
    try:
        await client.send(b"\x03SELECT * FROM accounts;")
        await client.closed()
    except ConnectionError:
        pass  # closed while it still spoke
    assert not client.received
    [record] = await settled(orders)
    assert not backend.streams
    assert {key: record[key] for key in DENIED} == DENIED
    assert record["source_principal"] == identity(account)
    return record


@pytest.mark.asyncio
async def test_who_is_named_may_and_is_on_record(mesh: Mesh) -> None:
    backend = await mesh.backend(stay)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=ONLY_WEB)
    client = await mesh.client(orders, "web", alpn=(b"istio",))
    await client.send(b"hello")
    server = await accepted(backend)
    assert await server.exactly(5) == b"hello"
    client.reset()
    [record] = await settled(orders)
    assert (record["decision"], record["policy"]) == ("allow", "ns[demo]-policy[ledger]-rule[0]")
    assert record["generation"] == 1


@pytest.mark.asyncio
async def test_whom_no_rule_allows(mesh: Mesh) -> None:
    record = await denied(mesh, "batch", policies=ONLY_WEB)
    assert (record["reason"], record["policy"]) == ("denied_by_policy", "none")
    assert record["connection_termination_details"] == "rbac_access_denied_matched_policy[none]"
    assert record["nearest_miss"].startswith("ns[demo]-policy[ledger]-rule[0]")
    assert "cluster.local/ns/demo/sa/batch" in record["nearest_miss"]


@pytest.mark.asyncio
async def test_whom_a_deny_rule_names(mesh: Mesh) -> None:
    record = await denied(mesh, "batch", policies={"a.yaml": ALLOW_ALL, "b.yaml": NO_BATCH})
    assert (record["reason"], record["policy"]) == ("denied_by_policy", "ns[demo]-policy[no-batch]-rule[0]")
    assert record["connection_termination_details"] == (
        "rbac_access_denied_matched_policy[ns[demo]-policy[no-batch]-rule[0]]"
    )


@pytest.mark.asyncio
async def test_without_any_rule_the_default_is_deny(mesh: Mesh) -> None:
    record = await denied(mesh, "web", policies="")
    assert (record["reason"], record["policy"]) == ("denied_by_default", "none")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("rules", "clause"),
    [
        ('[{from: [{source: {ipBlocks: ["192.0.2.0/24"]}}]}]', "ipBlocks"),
        ('[{to: [{operation: {ports: ["9999"]}}]}]', "ports"),
        ('[{from: [{source: {namespaces: ["prod"]}}]}]', "namespaces"),
        ('[{from: [{source: {serviceAccounts: ["batch"]}}]}]', "serviceAccounts"),
        ('[{when: [{key: source.ip, values: ["192.0.2.7"]}]}]', "source.ip"),
    ],
)
async def test_every_l4_field_counts(mesh: Mesh, rules: str, clause: str) -> None:
    record = await denied(mesh, "web", policies=policy("ledger", rules))
    assert clause in record["nearest_miss"]


@pytest.mark.asyncio
async def test_an_allow_rule_with_http_fields_never_allows_opaque_bytes(mesh: Mesh) -> None:
    """On an auto port, where such a rule may stand for requests; on a tcp port it is refused at load."""
    rules = '[{from: [{source: {principals: ["*"]}}], to: [{operation: {methods: ["*"]}}]}]'
    record = await denied(mesh, "web", protocol="auto", policies=policy("orders", rules))
    assert (record["reason"], record["policy"]) == ("denied_by_policy", "none")
