"""Bodies of both framings stream through both hops unchanged, trailers included."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest
from mesh import Backend, Mesh, Stream, answering, eventually, get, service

BODY = bytes(range(256)) * 4_096  # 1 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()


def in_chunks(body: bytes, size: int, trailers: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_body_through_two_hops(mesh: Mesh, framing: str) -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    if framing == "length":
        answer = head + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
        request = get("/up", method="POST", body=BODY)
    else:
        answer = head + b"transfer-encoding: chunked\r\n\r\n" + in_chunks(BODY, 10_000)
        request = get("/up", "Transfer-Encoding: chunked", method="POST") + in_chunks(BODY, 7_001)
    backend = await mesh.backend(answering(answer))
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(request)
    got = await client.message()
    assert hashlib.sha256(got.body).hexdigest() == DIGEST
    [seen] = backend.requests
    assert hashlib.sha256(seen.body).hexdigest() == DIGEST
    name, absent = ("content-length", "transfer-encoding")[:: 1 if framing == "length" else -1]
    for message in (got, seen):
        assert message.get(name) is not None
        assert message.get(absent) is None
    for sidecar in (web, orders):
        [record] = await sidecar.records(1, kind="request")
        assert (record["bytes_received"], record["bytes_sent"]) == (len(BODY), len(BODY))
    await client.send(get("/again"))
    assert (await client.message()).status == 200
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_a_body_is_forwarded_as_it_comes(mesh: Mesh) -> None:
    async def echo(stream: Stream, backend: Backend) -> None:
        await stream.head()
        await stream.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int((await stream.until(b"\r\n"))[:-2], 16):
            data = await stream.exactly(size + 2)
            await stream.send(b"%x\r\n%b" % (size, data))
        await stream.until(b"\r\n")
        await stream.send(b"0\r\n\r\n")

    backend = await mesh.backend(echo)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get("/echo", "Transfer-Encoding: chunked", method="POST"))
    assert (await client.head()).status == 200
    for word in (b"one", b"twelve bytes"):
        await client.send(b"%x\r\n%b\r\n" % (len(word), word))
        assert await client.until(word + b"\r\n")
    await client.send(b"0\r\n\r\n")
    assert await client.until(b"0\r\n\r\n")


@pytest.mark.asyncio
async def test_trailers_both_ways(mesh: Mesh) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n"
    backend = await mesh.backend(answering(answer + in_chunks(b"hello", 3, b"x-sum: 7\r\nx-more: a\r\n")))
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(
        get("/", "Transfer-Encoding: chunked", "TE: trailers", method="POST") + in_chunks(b"up", 1, b"X-Check: yes\r\n")
    )
    got = await client.message()
    assert (got.body, got.trailers) == (b"hello", [(b"x-sum", b"7"), (b"x-more", b"a")])
    assert (backend.requests[0].body, backend.requests[0].trailers) == (b"up", [(b"x-check", b"yes")])


@pytest.mark.asyncio
async def test_a_body_cut_off_by_the_client_never_looks_whole(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    inputs = (
        get("/", "Content-Length: 10", method="POST") + b"12345",
        get("/", "Transfer-Encoding: chunked", method="POST") + b"5\r\n12345\r\n",
    )

    def seen(count: int) -> bool:
        return backend.received.count(b"12345") == count

    for number, raw in enumerate(inputs, 1):
        client = await mesh.client(orders)
        await client.send(raw)
        await eventually(partial(seen, number))
        client.reset()
        await eventually(lambda: backend.streams[-1].ended or backend.streams[-1].broken)
    assert backend.requests == []
    records = await orders.records(2, kind="request")
    assert {record["reason"] for record in records} == {"downstream_reset"}
