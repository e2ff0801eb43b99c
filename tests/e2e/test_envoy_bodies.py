"""Large bodies between Envoy and us: up and down, with a length and chunked, both directions."""

from __future__ import annotations

import hashlib

import pytest
from envoy_sidecar import envoy_before, envoy_calling
from http_application import content
from mesh import Mesh, Message, get, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

BODY = content(3_000_000)
SIZE = 100_000


def twice(request: Message) -> bytes:
    """Give the body back, chunked when it came with a length and the other way round."""
    assert hashlib.sha256(request.body).digest() == hashlib.sha256(BODY).digest()
    if request.get("content-length") is None:
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(request.body) + request.body
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(request.body)


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + SIZE] for at in range(0, len(body), SIZE)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


UPLOADS = {
    "length": get("/orders", method="POST", body=BODY),
    "chunked": get("/orders", "Transfer-Encoding: chunked", method="POST") + chunked(BODY),
}


@pytest.mark.parametrize("framing", UPLOADS)
async def test_to_envoy(mesh: Mesh, framing: str) -> None:
    backend = await mesh.backend()
    backend.answer = twice
    async with envoy_before(mesh, backend) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port)])
        client = await mesh.plain_client(web)
        await client.send(UPLOADS[framing])
        answer = await client.message()
    assert (answer.status, answer.body == BODY) == (200, True)
    [ours] = await web.records()
    assert (ours["bytes_received"], ours["bytes_sent"]) == (len(BODY), len(BODY))


@pytest.mark.parametrize("framing", UPLOADS)
async def test_from_envoy(mesh: Mesh, framing: str) -> None:
    backend = await mesh.backend()
    backend.answer = twice
    orders = await mesh.sidecar("orders", app=backend)
    async with envoy_calling(mesh, orders) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(UPLOADS[framing])
        answer = await client.message()
    assert (answer.status, answer.body == BODY) == (200, True)
    [ours] = await orders.records(kind="request")
    assert (ours["bytes_received"], ours["bytes_sent"]) == (len(BODY), len(BODY))
