"""A DENY rule never loses a condition silently: where it would have to look at HTTP, opaque bytes are denied."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, OK, Mesh, get, policy
from tcp_way import settled

NO_DELETE = policy("no-delete", "[{to: [{operation: {methods: [DELETE]}}]}]", action="DENY")
NO_DELETE_BY_BATCH = policy(
    "no-delete",
    '[{from: [{source: {serviceAccounts: ["batch"]}}], to: [{operation: {methods: [DELETE]}}]}]',
    action="DENY",
)
OPAQUE = b"\x00\x01 not HTTP at all\r\n\r\n"


@pytest.mark.asyncio
async def test_opaque_bytes_on_an_auto_port(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies={"a.yaml": ALLOW_ALL, "b.yaml": NO_DELETE}
    )
    client = await mesh.client(orders)
    await client.send(OPAQUE)
    await client.closed()
    assert not client.received
    [record] = await settled(orders)
    assert record["reason"] == "denied_protocol_opaque"
    assert record["policy"] == "ns[demo]-policy[no-delete]-rule[0]"
    assert "methods" in record["explanation"]
    assert not backend.streams


@pytest.mark.asyncio
async def test_http_on_the_same_port_is_judged_by_it(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies={"a.yaml": ALLOW_ALL, "b.yaml": NO_DELETE}
    )
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).head + b"ok" == OK
    await client.send(get(method="DELETE"))
    assert (await client.message()).status == 403
    assert [request.method for request in backend.requests] == [b"GET"]


@pytest.mark.asyncio
async def test_who_does_not_match_the_rest_of_the_rule_goes_on(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies={"a.yaml": ALLOW_ALL, "b.yaml": NO_DELETE_BY_BATCH}
    )
    batch = await mesh.client(orders, "batch")
    await batch.send(OPAQUE)
    await batch.closed()
    assert not backend.streams
    web = await mesh.client(orders, "web")
    await web.send(b"\x00 something else")
    await web.end()
    await web.closed()
    assert backend.received == b"\x00 something else"
    decisions = {record["source_principal"][-5:]: record["reason"] for record in await orders.records(2)}
    assert decisions["batch"] == "denied_protocol_opaque"
