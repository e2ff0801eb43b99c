"""Open connections that a change forbids end within 2 s, reset or closed as configured, and each record says why."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Sequence

import pytest
from mesh import ALLOW_ALL, Mesh, Sidecar, Stream, authority, eventually, get, identity, policy, svid
from plaintext import change, echo, files, is_refused, other_tls, over_tls, peers, ping, switch, web_socket

from certs.testing import write_set

PERMISSIVE = peers("PERMISSIVE")
BOTH = policy("callers", '[{from: [{source: {serviceAccounts: ["web", "batch"]}}]}]')
ONLY_WEB = policy("callers", '[{from: [{source: {serviceAccounts: ["web"]}}]}]')
NO_BATCH = policy("no-batch", '[{from: [{source: {principals: ["*/sa/batch"]}}]}]', action="DENY")
UPGRADE = get("/chat", "Connection: upgrade", "Upgrade: websocket")
ENDS = {"reset": "broken", "close": "clean"}
revoked_either_way = pytest.mark.parametrize("revoked", list(ENDS))


async def all_end(streams: Sequence[Stream], revoked: str) -> None:
    """Wait for the end of each, which must come within 2 s and as configured, on the side of the application too."""
    began = time.monotonic()
    ends = await asyncio.gather(*(stream.closed() for stream in streams))
    assert ends == [ENDS[revoked]] * len(streams)
    assert time.monotonic() - began < 2


async def all_gone(sidecar: Sidecar, left: int) -> None:
    await eventually(lambda: sidecar.open_connections == left, f"{left} connections left")


@pytest.mark.asyncio
@revoked_either_way
async def test_strict_ends_what_has_no_identity(mesh: Mesh, revoked: str) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="tcp", policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked
    )
    plain, mutual = await mesh.plain_client(orders.port), await mesh.client(orders, alpn=[b"istio"])
    await ping(plain, mutual)
    change(orders, peers("STRICT", name="lock"), ALLOW_ALL)
    await all_end([plain, backend.streams[0]], revoked)
    await ping(mutual)
    [record] = await orders.records()
    assert (record["decision"], record["reason"], record["generation"]) == ("deny", "certificate_required", 2)
    assert "PeerAuthentication demo/lock" in record["explanation"]


@pytest.mark.asyncio
@revoked_either_way
async def test_strict_on_a_port_ends_tls_that_passes_through(mesh: Mesh, revoked: str) -> None:
    backend = await mesh.backend(over_tls)
    orders = await mesh.sidecar("orders", app=backend, policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked)
    through = other_tls(mesh, orders)
    await through.send(b"hello")
    assert await through.exactly(19) == b"shop.example: hello"
    change(orders, peers("PERMISSIVE", ports={8080: "STRICT"}), ALLOW_ALL)
    # Inside that TLS nobody but its ends can speak: to the client either end is a stream cut short.
    await all_end([through], "reset")
    [record] = await orders.records()
    assert (record["reason"], record["requested_server_name"]) == ("certificate_required", "shop.example")
    assert "PeerAuthentication demo/peers" in record["explanation"]


@pytest.mark.asyncio
@revoked_either_way
async def test_strict_ends_plaintext_http(mesh: Mesh, revoked: str) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked
    )
    plain, mutual = await mesh.plain_client(orders.port), await mesh.client(orders)
    for client in (plain, mutual):
        await client.send(get())
        assert (await client.message()).status == 200
    change(orders, peers("STRICT"), ALLOW_ALL)
    await all_end([plain], revoked)
    await mutual.send(get())
    assert (await mutual.message()).status == 200
    [record] = await orders.records(1, kind="connection")
    assert (record["reason"], record["decision"]) == ("certificate_required", "deny")


@pytest.mark.asyncio
@revoked_either_way
async def test_half_an_answer_is_never_made_to_look_whole(mesh: Mesh, revoked: str) -> None:
    async def script(stream: Stream, backend: object) -> None:
        await stream.head()
        await stream.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhalf of it")
        await stream.closed()

    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(script), policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked
    )
    plain = await mesh.plain_client(orders.port)
    await plain.send(get())
    await plain.until(b"half of it")
    change(orders, peers("STRICT"), ALLOW_ALL)
    await all_end([plain], "reset")
    records = await orders.records(2)
    assert {record["reason"] for record in records} == {"certificate_required"}


@pytest.mark.asyncio
@revoked_either_way
async def test_a_rule_ends_an_opaque_connection(mesh: Mesh, revoked: str) -> None:
    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=BOTH, revoked=revoked)
    batch, web = await mesh.client(orders, "batch", alpn=[b"istio"]), await mesh.client(orders, "web", alpn=[b"istio"])
    await ping(batch, web)
    change(orders, BOTH, NO_BATCH)
    await all_end([batch, backend.streams[0]], revoked)
    await ping(web)
    [record] = await orders.records()
    assert (record["reason"], record["policy"]) == ("denied_by_policy", "ns[demo]-policy[no-batch]-rule[0]")


@pytest.mark.asyncio
@revoked_either_way
async def test_a_rule_ends_a_web_socket(mesh: Mesh, revoked: str) -> None:
    backend = await mesh.backend(web_socket)
    orders = await mesh.sidecar("orders", app=backend, policies=BOTH, revoked=revoked)
    batch, web = await mesh.client(orders, "batch"), await mesh.client(orders, "web")
    await switch(batch, web, request=UPGRADE)
    await ping(batch, web)
    change(orders, BOTH, policy("no-chat", '[{from: [{source: {principals: ["*/sa/batch"]}}]}]', action="DENY"))
    await all_end([batch, backend.streams[0]], revoked)
    await ping(web)
    [record] = await orders.records(1, kind="request")
    assert (record["decision"], record["reason"], record["response_code"]) == ("deny", "denied_by_policy", 101)
    assert record["policy"] == "ns[demo]-policy[no-chat]-rule[0]"


@pytest.mark.asyncio
@revoked_either_way
async def test_strict_ends_a_plaintext_web_socket(mesh: Mesh, revoked: str) -> None:
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(web_socket), policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked
    )
    plain = await mesh.plain_client(orders.port)
    await switch(plain, request=UPGRADE)
    await ping(plain)
    change(orders, peers("STRICT"), ALLOW_ALL)
    await all_end([plain], revoked)
    records = await orders.records(2)
    assert {record["reason"] for record in records} == {"certificate_required"}


@pytest.mark.asyncio
@revoked_either_way
@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_trust_that_ends(mesh: Mesh, revoked: str, protocol: str) -> None:
    backend = await mesh.backend(echo if protocol == "tcp" else web_socket)
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, revoked=revoked)
    foreign = await mesh.client(orders, certificate=authority().neighbour.svid("demo", "partner"), alpn=[b"istio"])
    own = await mesh.client(orders, "web", alpn=[b"istio"])
    if protocol == "http":
        await switch(foreign, own, request=UPGRADE)
    await ping(foreign, own)
    write_set(svid("orders"), {authority().trust_domain: authority().bundle}, orders.identity_directory)
    await all_end([foreign], revoked)
    await ping(own)
    record = (await orders.records(1 if protocol == "tcp" else 2))[-1]
    assert record["reason"] == "trust_ended"


@pytest.mark.asyncio
@revoked_either_way
async def test_a_certificate_that_ends(mesh: Mesh, revoked: str) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=2)
    short = authority().svid("demo", "batch", not_after=soon.replace(microsecond=0))
    opaque = await mesh.sidecar("orders", app=await mesh.backend(echo), protocol="tcp", revoked=revoked)
    chat = await mesh.sidecar("orders", app=await mesh.backend(web_socket), revoked=revoked)
    clients = [await mesh.client(each, certificate=short, alpn=[b"istio"]) for each in (opaque, chat)]
    lasting = await mesh.client(opaque, "web", alpn=[b"istio"])
    await switch(clients[1], request=UPGRADE)
    await ping(*clients, lasting)
    await asyncio.gather(*(client.closed() for client in clients))
    late = datetime.datetime.now(datetime.UTC) - short.leaf.not_valid_after_utc
    assert 0 <= late.total_seconds() < 2
    assert [await client.closed() for client in clients] == [ENDS[revoked]] * 2
    await ping(lasting)
    for records in (await opaque.records(1), await chat.records(2)):
        assert {record["reason"] for record in records} == {"peer_certificate_ended"}
        assert {record["source_principal"] for record in records} == {identity("batch")}


@pytest.mark.asyncio
async def test_a_closed_tunnel_carries_nothing_more(mesh: Mesh) -> None:
    """What either side still says while it is being told of the end is dropped; who does not end is cut off."""
    loop = asyncio.get_running_loop()

    async def chatter(stream: Stream, data: bytes) -> None:
        while True:
            await stream.send(data)
            await asyncio.sleep(0.01)

    async def talk(stream: Stream, backend: object) -> None:
        said = loop.create_task(chatter(stream, b"from the application;"))
        try:
            await stream.closed()
            await asyncio.sleep(1)
        finally:
            said.cancel()

    limits = {"close_timeout": "0.5s"}
    backend = await mesh.backend(talk)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=BOTH, revoked="close", limits=limits)
    batch = await mesh.client(orders, "batch", alpn=[b"istio"])
    await batch.send(b"hello;")
    await batch.exactly(200)
    said = loop.create_task(chatter(batch, b"from the client;"))
    await eventually(lambda: len(backend.streams[0].received) > 200)
    change(orders, ONLY_WEB)
    assert await batch.closed() == "clean"
    assert orders.open_connections == 1  # it is still being closed: both sides go on talking
    with pytest.raises(ConnectionError):
        await said
    await all_gone(orders, 0)
    [record] = await orders.records()
    assert record["reason"] == "denied_by_policy"


@pytest.mark.asyncio
async def test_the_way_of_ending_can_be_changed_in_a_running_sidecar(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(echo), protocol="tcp", policies=BOTH)
    batch = await mesh.client(orders, "batch", alpn=[b"istio"])
    await ping(batch)
    orders.config_file.write_text(orders.config_file.read_text().replace("revoked: reset", "revoked: close"))
    await eventually(lambda: orders.app.sidecar.close_revoked() > 0)
    change(orders, ONLY_WEB)
    await all_end([batch], "close")


@pytest.mark.asyncio
@revoked_either_way
async def test_a_connection_that_is_still_being_set_up(mesh: Mesh, revoked: str) -> None:
    """It waits for first bytes inside TLS, and for nothing else once policy forbids it."""
    backend = await mesh.backend(echo)
    limits = {"detection_timeout": "60s"}
    orders = await mesh.sidecar(
        "orders", app=backend, protocol="auto", policies=files(PERMISSIVE, ALLOW_ALL), revoked=revoked, limits=limits
    )
    plain = await mesh.plain_client(orders.port)
    await plain.send(b"GE")  # perhaps HTTP, perhaps not
    await eventually(lambda: all(entry.judge is not None for entry in orders.app.sidecar.registry))
    await eventually(lambda: orders.open_connections == 1)
    change(orders, peers("STRICT"), ALLOW_ALL)
    await all_end([plain], revoked)
    assert not backend.streams
    [record] = await orders.records()
    assert (record["decision"], record["reason"]) == ("deny", "certificate_required")


@pytest.mark.asyncio
async def test_who_is_looked_at_while_the_mode_changes_is_judged_by_the_new_one(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), policies=files(PERMISSIVE, ALLOW_ALL))
    plain = await mesh.plain_client(orders.port)
    await eventually(lambda: orders.app.sidecar.handshaking == 1)
    change(orders, peers("STRICT"), ALLOW_ALL)
    await eventually(lambda: orders.app.sidecar.policy_generation == 2)
    assert await is_refused(plain, get()) or not plain.received
    [record] = await orders.records()
    assert record["reason"] == "certificate_required"
