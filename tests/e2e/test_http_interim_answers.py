"""Interim answers and `Expect: 100-continue` (RFC 9110 sections 10.1.1 and 15.2)."""

from __future__ import annotations

import asyncio

import pytest
from mesh import OK, Backend, Mesh, Stream, answering, eventually, get, service

EXPECTING = get("/", "Expect: 100-continue", "Content-Length: 5", method="POST")


@pytest.mark.asyncio
async def test_interim_answers_are_passed_on_before_the_final_one(mesh: Mesh) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n"
    backend = await mesh.backend(answering(hints + b"HTTP/1.1 102 Processing\r\n\r\n" + OK))
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get() + get())
    answers = [await client.message() for _ in range(4)]
    assert [answer.status for answer in answers] == [103, 102, 200, 200]
    assert answers[0].get("link") == b"</a.css>"
    records = await orders.records(2, kind="request")
    assert [record["response_code"] for record in records] == [200, 200]


@pytest.mark.asyncio
async def test_an_http10_client_gets_no_interim_answer(mesh: Mesh) -> None:
    backend = await mesh.backend(answering(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK))
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(b"GET / HTTP/1.0\r\nHost: orders\r\n\r\n")
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_the_body_waits_for_the_applications_100(mesh: Mesh) -> None:
    asked = asyncio.Event()

    async def script(stream: Stream, backend: Backend) -> None:
        head = await stream.head()
        assert head.get("expect") == b"100-continue"
        await asked.wait()
        await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        backend.requests.append(await stream.body_of(head))
        await stream.send(OK)
        await backend.take(stream)
        await stream.send(OK)

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(EXPECTING)
    await eventually(lambda: b"\r\n\r\n" in backend.received)
    assert client.received == b""
    asked.set()
    assert (await client.message()).status == 100
    await client.send(b"hello")
    assert (await client.message()).status == 200
    assert backend.requests[0].body == b"hello"
    await client.send(get())
    assert (await client.message()).status == 200


@pytest.mark.asyncio
async def test_denied_there_is_no_100_and_the_connection_ends(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies="")
    client = await mesh.client(orders)
    await client.send(EXPECTING)
    answer = await client.message()
    assert (answer.status, answer.get("connection")) == (403, b"close")
    # The body may come all the same, and must not be read as a request.
    await client.send(b"hello")
    assert await client.closed() == "clean"
    assert client.unread == b""
    assert backend.received == b""
    [record] = await orders.records(1, kind="request")
    assert (record["response_code"], record["decision"]) == (403, "deny")


@pytest.mark.asyncio
async def test_a_final_answer_instead_of_100_ends_the_connection(mesh: Mesh) -> None:
    async def refuse(stream: Stream, backend: Backend) -> None:
        await stream.head()
        await stream.send(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        await stream.closed()

    backend = await mesh.backend(refuse)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(EXPECTING)
    answer = await client.message()
    assert (answer.status, answer.get("connection")) == (413, b"close")
    assert await client.closed() == "clean"
    await eventually(lambda: backend.streams[0].ended)


@pytest.mark.asyncio
async def test_a_body_that_does_not_wait_is_taken(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(EXPECTING + b"hello" + get())
    assert [(await client.message()).status for _ in range(2)] == [200, 200]
    assert [request.body for request in backend.requests] == [b"hello", b""]
