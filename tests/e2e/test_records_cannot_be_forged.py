"""A caller's bytes stay inside their place of a record: no line is added, none is broken."""

from __future__ import annotations

import pytest
from mesh import Mesh, get

HOSTILE = [
    'x" , "decision": "allow',
    "\\",
    "</script><script>alert(1)</script>",
    "caf\xe9 \x80\xff",
    "%s%n{0}${jndi:ldap://x}",
    "\t tab",
    "'; DROP TABLE requests; --",
]


@pytest.mark.asyncio
async def test_header_values(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for value in HOSTILE:
        await client.send(get("/", f"User-Agent: {value}", f"X-Forwarded-For: {value}", f"X-Request-Id: {value}"))
        assert (await client.message()).status == 200
    records = await orders.records(len(HOSTILE), kind="request")
    for value, record in zip(HOSTILE, records, strict=True):
        assert record["user_agent"] == record["x_forwarded_for"] == record["request_id"] == value.strip("\t ")
    assert all(byte < 0x80 for byte in orders.access_log.read_bytes())


@pytest.mark.asyncio
async def test_targets(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    targets = ["/%0d%0a%22%7D", "/?a=%0A{}", '/?"},{"decision":"allow"}', "/\\u000a"]
    for target in targets:
        await client.send(get(target))
        assert (await client.message()).status == 200
    records = await orders.records(len(targets), kind="request")
    assert [record["path"] for record in records] == [*targets[:3], "//u000a"]


@pytest.mark.asyncio
async def test_server_names(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    names = ['x"}\\,{"decision": "allow"\x01', "a\nb"]
    for name in names:
        client = await mesh.client(orders, server_name=name)
        await client.send(get())
        assert (await client.message()).status == 200
        await client.end()
        assert await client.closed() == "clean"
    records = await orders.records(2, kind="connection")
    assert [record["requested_server_name"] for record in records] == names


@pytest.mark.asyncio
@pytest.mark.parametrize("line", [b"GET /a\nb HTTP/1.1", b'GET /" \r HTTP/1.1', b"G\xc3\xa9T / HTTP/1.1", b"\x00" * 20])
async def test_lines_that_are_refused(mesh: Mesh, line: bytes) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    client = await mesh.client(orders)
    await client.send(line + b"\r\nHost: orders\r\nUser-Agent: a\r\n\r\n")
    assert (await client.message()).status == 400
    await client.end()
    [record] = await orders.records(1, kind="request")
    assert record["response_code"] == 400
    assert record["upstream_transport_failure_reason"]
    await orders.records(1, kind="connection")
