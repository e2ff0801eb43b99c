"""What a token's end ends: the next request at once, an upgraded connection within two seconds, no answer in flight."""

from __future__ import annotations

import asyncio
import time

import pytest
from mesh import ALLOW_ALL, Backend, Mesh, Stream, eventually, get, policy
from token_issuer import Issuer

ISSUER = Issuer()
LIVES = 1.0
"""Seconds that a token of these tests counts."""


def upgrade(token: str) -> bytes:
    return get("/chat", "Connection: upgrade", "Upgrade: websocket", f"Authorization: Bearer {token}")


async def chat(stream: Stream, backend: Backend) -> None:
    """Switch protocols, then echo."""
    await backend.take(stream)
    await stream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    while data := await stream.receive():
        await stream.send(data)


async def opened(client: Stream, token: str) -> None:
    await client.send(upgrade(token))
    assert (await client.message()).status == 101
    await client.send(b"ping")
    assert await client.receive() == b"ping"


@pytest.mark.asyncio
async def test_a_web_socket_ends_with_its_token(mesh: Mesh) -> None:
    backend = await mesh.backend(chat)
    orders = await mesh.sidecar("orders", app=backend, policies=ISSUER.authentication() + "---\n" + ALLOW_ALL)
    short, longer = await mesh.client(orders), await mesh.client(orders)
    token = ISSUER.token(lives=LIVES)
    until = time.time() + LIVES
    await opened(short, token)
    await opened(longer, ISSUER.token())
    assert await short.closed() == "broken"
    assert -0.2 < time.time() - until < 2.0
    await longer.send(b"pong")
    assert await longer.receive() == b"pong"
    [record] = await orders.records(1, kind="request")
    assert (record["reason"], record["response_code"], record["decision"]) == ("token_expired", 101, "allow")


@pytest.mark.asyncio
async def test_a_busy_web_socket_ends_too(mesh: Mesh) -> None:
    backend = await mesh.backend(chat)
    orders = await mesh.sidecar("orders", app=backend, policies=ISSUER.authentication() + "---\n" + ALLOW_ALL)
    client = await mesh.client(orders)
    until = time.time() + LIVES
    await opened(client, ISSUER.token(lives=LIVES))
    ended = False
    while not ended and time.time() < until + 2.0:
        try:
            await client.send(b"busy")
            await client.receive()
        except ConnectionError:
            ended = True
        await asyncio.sleep(0.02)
    assert ended
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "token_expired"


@pytest.mark.asyncio
async def test_a_remembered_token_is_refused_once_it_has_expired(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies=ISSUER.authentication() + "---\n" + ALLOW_ALL)
    client = await mesh.client(orders)
    request = get("/same", f"Authorization: Bearer {ISSUER.token(lives=LIVES)}")
    began, statuses = time.time(), []
    while time.time() < began + LIVES + 0.5:
        await client.send(request)
        statuses.append(((await client.message()).status, time.time() - began))
        await asyncio.sleep(0.02)
    assert {status for status, at in statuses if at < LIVES - 0.1} == {200}
    assert {status for status, at in statuses if at > LIVES + 0.1} == {401}


@pytest.mark.asyncio
async def test_an_answer_in_flight_is_finished_after_its_token_has_ended(mesh: Mesh) -> None:
    go_on = asyncio.Event()

    async def slow(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl")
        await go_on.wait()
        await stream.send(b"ow")
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    backend = await mesh.backend(slow)
    orders = await mesh.sidecar("orders", app=backend, policies=ISSUER.authentication() + "---\n" + ALLOW_ALL)
    client = await mesh.client(orders)
    await client.send(get("/", f"Authorization: Bearer {ISSUER.token(lives=LIVES)}"))
    await eventually(lambda: backend.requests)
    await asyncio.sleep(LIVES + 0.5)
    orders.app.sidecar.registry.judge_again()
    go_on.set()
    answer = await client.message()
    assert (answer.status, answer.body) == (200, b"slow")
    await client.send(get("/next"))
    assert (await client.message()).status == 200, "and the connection goes on"


@pytest.mark.asyncio
async def test_an_issuer_that_is_trusted_no_more_ends_its_web_sockets(mesh: Mesh) -> None:
    backend = await mesh.backend(chat)
    other = Issuer("https://other.example", kid="two")
    authentication = ISSUER.authentication() + "---\n" + other.authentication("other")
    orders = await mesh.sidecar("orders", app=backend, policies=authentication + "---\n" + ALLOW_ALL)
    gone, stays = await mesh.client(orders), await mesh.client(orders)
    await opened(gone, other.token())
    await opened(stays, ISSUER.token())
    (orders.policy_directory / "policies.yaml").write_text(ISSUER.authentication() + "---\n" + ALLOW_ALL)
    assert await gone.closed() == "broken"
    await stays.send(b"pong")
    assert await stays.receive() == b"pong"
    [record] = await orders.records(1, kind="request")
    assert (record["decision"], record["reason"], record["generation"]) == ("deny", "token_issuer_unknown", 2)


@pytest.mark.asyncio
async def test_a_policy_on_claims_judges_open_web_sockets_again(mesh: Mesh) -> None:
    backend = await mesh.backend(chat)
    files = {"tokens.yaml": ISSUER.authentication(), "policy.yaml": ALLOW_ALL}
    orders = await mesh.sidecar("orders", app=backend, policies=files)
    bob, alice = await mesh.client(orders), await mesh.client(orders)
    await opened(bob, ISSUER.token(sub="bob"))
    await opened(alice, ISSUER.token())
    only_alice = policy("alice", '[{from: [{source: {requestPrincipals: ["https://issuer.example/alice"]}}]}]')
    (orders.policy_directory / "policy.yaml").write_text(only_alice)
    assert await bob.closed() == "broken"
    await alice.send(b"pong")
    assert await alice.receive() == b"pong"
    [record] = await orders.records(1, kind="request")
    assert (record["decision"], record["reason"]) == ("deny", "denied_by_policy")
