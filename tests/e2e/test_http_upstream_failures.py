"""A next hop that cannot be reached, does not answer in time or is not who it must be: status, flags and Reason."""

from __future__ import annotations

import asyncio
import socket

import pytest
from mesh import Backend, Mesh, Stream, authority, free_port, get, identity, service

from certs.bundle import TrustBundle


async def never(stream: Stream, backend: Backend) -> None:
    await backend.take(stream)
    await stream.closed()


@pytest.mark.asyncio
async def test_connection_refused(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=free_port())
    client = await mesh.client(orders)
    for _ in range(2):
        await client.send(get(method="POST", body=b"x" * 1_000))
        answer = await client.message()
        assert (answer.status, answer.get("connection")) == (503, None)
    records = await orders.records(2, kind="request")
    for record in records:
        assert (record["reason"], record["response_flags"]) == ("upstream_connect_failed", "UF")
        assert record["upstream_transport_failure_reason"]
        assert record["response_code_details"] == "upstream_connect_failed"


@pytest.mark.asyncio
async def test_a_connection_that_never_stands(mesh: Mesh) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        try:
            for sock in waiting:  # fills the queue: a further SYN is dropped
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            orders = await mesh.sidecar(
                "orders", app=full.getsockname()[1], limits={"upstream_connect_timeout": "0.1s"}
            )
            client = await mesh.client(orders)
            await client.send(get())
            assert (await client.message()).status == 503
        finally:
            for sock in waiting:
                sock.close()
    [record] = await orders.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("upstream_connect_timeout", "UF")


@pytest.mark.asyncio
async def test_no_answer_in_time(mesh: Mesh) -> None:
    backend = await mesh.backend(never)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders, timeout="0.2s")])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 504
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"], record["response_code"]) == ("upstream_timeout", "UT", 504)
    # The sidecar of the application sees that its peer has given up, and says so.
    [record] = await orders.records(1, kind="request")
    assert record["reason"] in ("downstream_closed", "downstream_reset")


@pytest.mark.asyncio
async def test_the_time_runs_from_the_end_of_the_request(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", backend, timeout="0.3s")])
    client = await mesh.plain_client(web)
    await client.send(get("/", "Content-Length: 5", method="POST"))
    for byte in b"hello":
        await asyncio.sleep(0.15)
        await client.send(bytes([byte]))
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_another_identity_than_expected(mesh: Mesh) -> None:
    backend = await mesh.backend()
    ledger = await mesh.sidecar("ledger", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", ledger)])
    client = await mesh.plain_client(web)
    await client.send(get())
    answer = await client.message()
    assert answer.status == 503
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("upstream_identity_rejected", "UF")
    assert record["decision"] == "none"
    assert identity("ledger") in record["upstream_transport_failure_reason"]
    assert backend.received == b""
    [connection] = await ledger.records(1, kind="connection")
    assert connection["reason"] == "peer_rejected_us"


@pytest.mark.asyncio
async def test_a_server_of_a_foreign_authority(mesh: Mesh) -> None:
    backend = await mesh.backend()
    impostor = authority().impostor
    orders = await mesh.sidecar(
        "orders", app=backend, certificate=impostor.svid("demo", "orders"), bundles=impostor.bundles
    )
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 503
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("upstream_identity_rejected", "UF")
    assert "issuer_unknown" in record["upstream_transport_failure_reason"]
    assert backend.received == b""


@pytest.mark.asyncio
async def test_a_server_that_refuses_us(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    impostor = authority().impostor
    both = TrustBundle(trust_domain=authority().trust_domain, certificates=(authority().root, impostor.root))
    web = await mesh.sidecar(
        "web",
        services=[service("orders", orders)],
        certificate=impostor.svid("demo", "web"),
        bundles={both.trust_domain: both},
    )
    client = await mesh.plain_client(web)
    await client.send(get("/secret"))
    assert (await client.message()).status == 503
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("peer_rejected_us", "UF")
    [connection] = await orders.records(1, kind="connection")
    assert connection["reason"] == "issuer_unknown"
    assert connection["source_principal"] == f"unverified {identity('web')}"
    assert backend.received == b""


@pytest.mark.asyncio
async def test_before_our_own_certificate_is_there(mesh: Mesh) -> None:
    backend = await mesh.backend()
    web = await mesh.sidecar("web", services=[service("orders", backend.port)], publish=False)
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 503
    [record] = await web.records(1, kind="request")
    assert (record["reason"], record["response_flags"]) == ("not_ready", "NR")
    assert backend.streams == []


@pytest.mark.asyncio
async def test_a_plaintext_endpoint_where_mutual_tls_is_expected(mesh: Mesh) -> None:
    async def greets(stream: Stream, backend: Backend) -> None:
        await stream.send(b"220 hello\r\n")
        await stream.closed()

    backend = await mesh.backend(greets)
    web = await mesh.sidecar("web", services=[service("orders", backend.port)])
    client = await mesh.plain_client(web)
    await client.send(get("/secret"))
    assert (await client.message()).status == 503
    [record] = await web.records(1, kind="request")
    assert record["reason"] == "upstream_handshake_failed"
    assert b"secret" not in backend.received
