"""One JSON line for each request and one for each connection, whatever ended them."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Script, Sidecar, Stream, eventually, get, identity, policy, service

KEYS_OF_ISTIO = {
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
}
OUR_KEYS = {
    "kind",
    "direction",
    "source_principal",
    "destination_principal",
    "decision",
    "policy",
    "reason",
    "explanation",
    "nearest_miss",
    "generation",
    "retries",
    "stage_us",
}


async def never(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.closed()


async def half(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await stream.closed()


async def settled(sidecar: Sidecar) -> None:
    """Wait until no connection is open; then every record must be there."""
    await eventually(lambda: not sidecar.open_connections)


@pytest.mark.asyncio
async def test_every_key_is_there(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(
        get(
            "/a?b=c",
            "User-Agent: curl/8",
            "X-Forwarded-For: 10.0.0.1",
            method="POST",
            body=b"12345",
            host="orders.demo",
        )
    )
    assert (await client.message()).status == 200
    await client.end()
    for sidecar, direction, cluster in ((web, "outbound", "outbound|orders"), (orders, "inbound", "inbound|8080")):
        [record] = await sidecar.records(1, kind="request")
        assert set(record) >= KEYS_OF_ISTIO | OUR_KEYS
        assert {name: record[name] for name in ("method", "path", "protocol", "response_code", "response_flags")} == {
            "method": "POST",
            "path": "/a?b=c",
            "protocol": "HTTP/1.1",
            "response_code": 200,
            "response_flags": "-",
        }
        assert (record["bytes_received"], record["bytes_sent"], record["retries"]) == (5, 2, 0)
        assert (record["direction"], record["upstream_cluster"]) == (direction, cluster)
        assert record["source_principal"] == identity("web")
        assert record["destination_principal"] == identity("orders")
        assert (record["decision"], record["reason"]) == ("allow", "ok")
        assert (record["user_agent"], record["x_forwarded_for"]) == ("curl/8", "10.0.0.1")
        assert record["authority"] == "orders.demo"
        stages = record["stage_us"]
        assert stages["total"] >= stages["transfer"] >= 0
        assert record["upstream_host"].startswith("127.0.0.1:")
    [inbound] = await orders.records(1, kind="request")
    assert inbound["requested_server_name"] == "orders"
    assert inbound["policy"] == "ns[demo]-policy[allow-all]-rule[0]"
    assert inbound["generation"] == 1
    [connection] = await web.records(1, kind="connection")
    assert (connection["requests"], connection["reason"]) == (1, "ok")
    assert connection["method"] is None


@pytest.mark.asyncio
@pytest.mark.parametrize("script", [never, half])
@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_client_that_goes_away_in_the_middle(mesh: Mesh, script: Script, how: str) -> None:
    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/", method="POST", body=b"abc"))
    await eventually(lambda: backend.requests)
    if script is half:
        await client.head()
    if how == "reset":
        client.reset()
    else:
        client.close()
    await settled(orders)
    [request] = await orders.records(1, kind="request")
    assert request["reason"] == "downstream_reset"
    assert request["response_flags"] == "DC"
    assert request["response_code"] == (200 if script is half else 0)
    assert request["bytes_received"] == 3
    [connection] = await orders.records(1, kind="connection")
    assert connection["reason"] == "downstream_reset"
    await eventually(lambda: backend.streams[0].ended or backend.streams[0].broken)


@pytest.mark.asyncio
async def test_the_end_of_the_process_in_the_middle(mesh: Mesh) -> None:
    backend = await mesh.backend(half)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    await client.head()
    idle = await mesh.client(orders)
    await idle.send(b"GET / HT")
    await eventually(lambda: orders.app.sidecar.registry.count("inbound") == 2)
    greeting = await mesh.plain_client(orders.port)  # a connection that is still in its handshake
    await greeting.send(b"\x16\x03\x01")
    await eventually(lambda: orders.app.sidecar.registry.count("inbound") == 3)
    await orders.close()
    await web.close()
    [request] = await orders.records(1, kind="request")
    assert (request["reason"], request["response_code"]) == ("drain_deadline", 200)
    connections = await orders.records(3, kind="connection")
    assert {record["reason"] for record in connections} == {"drain_deadline"}
    [request] = await web.records(1, kind="request")
    assert request["reason"] in ("upstream_reset", "drain_deadline")
    await web.records(1, kind="connection")


@pytest.mark.asyncio
async def test_requests_before_a_connection_is_dialled(mesh: Mesh) -> None:
    backend = await mesh.backend(never)
    orders = await mesh.sidecar("orders", app=backend, limits={"pool_connections": 1, "pool_wait_timeout": "60s"})
    clients = [await mesh.client(orders) for _ in range(3)]
    for client in clients:
        await client.send(get())
    await eventually(lambda: orders.open_connections == 3)
    await eventually(lambda: backend.requests)
    await asyncio.sleep(0.05)
    await orders.close()
    requests = await orders.records(3, kind="request")
    assert {record["reason"] for record in requests} <= {"drain_deadline", "drained"}
    await orders.records(3, kind="connection")


@pytest.mark.asyncio
async def test_denied_requests_and_refused_connections(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar(
        "orders", app=backend, policies=policy("open", '[{to: [{operation: {paths: ["/open"]}}]}]')
    )
    client = await mesh.client(orders)
    await client.send(get("/open") + get("/shut") + b"nonsense\r\n\r\n")
    assert [(await client.message()).status for _ in range(3)] == [200, 403, 400]
    await client.end()
    plain = await mesh.plain_client(orders.port)
    await plain.send(get("/open"))
    await plain.closed()
    plain.close()
    await settled(orders)
    requests = await orders.records(3, kind="request")
    assert [(record["decision"], record["reason"]) for record in requests] == [
        ("allow", "ok"),
        ("deny", "denied_by_policy"),
        ("none", "request_line_invalid"),
    ]
    assert requests[1]["explanation"]
    connections = await orders.records(2, kind="connection")
    assert {record["reason"] for record in connections} == {"request_line_invalid", "not_tls"}
    assert [record.get("requests") for record in connections if record["source_principal"]] == [2]


@pytest.mark.asyncio
async def test_a_thousand_requests_a_thousand_lines(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    clients = [await mesh.client(orders) for _ in range(10)]

    async def hundred(client: Stream) -> None:
        for _ in range(100):
            await client.send(get())
            assert (await client.message()).status == 200
            client.forget()

    await asyncio.gather(*(hundred(client) for client in clients))
    records = await orders.records(1_000, kind="request")
    assert len({record["request_id"] for record in records}) == 1_000
    for client in clients:
        await client.end()
    await orders.records(10, kind="connection")
