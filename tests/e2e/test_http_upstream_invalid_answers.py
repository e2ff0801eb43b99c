"""Answers that two parsers could read differently are replaced by 502, and their connection is not used again."""

from __future__ import annotations

import pytest
from mesh import Backend, Mesh, Stream, get

INVALID = {
    "length_and_chunked": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two_lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "length_of_letters": b"HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\nok",
    "length_with_a_sign": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "bare_line_feed": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "folded_line": b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
    "nul_in_value": b"HTTP/1.1 200 OK\r\nx-a: b\x00c\r\ncontent-length: 2\r\n\r\nok",
    "space_before_colon": b"HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 2\r\n\r\nok",
    "no_http": b"220 mail.example ESMTP ready\r\n\r\n",
    "http2": b"HTTP/2 200\r\n\r\n",
    "status_too_short": b"HTTP/1.1 20 OK\r\n\r\n",
    "status_too_large": b"HTTP/1.1 1000 OK\r\n\r\n",
    "unknown_coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.asyncio
async def test_replaced_by_502(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        request = await backend.take(stream)
        await stream.send(INVALID[request.target[1:].decode()])
        await stream.closed()

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for number, name in enumerate(INVALID, 1):
        await client.send(get(f"/{name}"))
        answer = await client.message()
        assert (answer.status, answer.get("content-type")) == (502, b"text/plain"), name
        assert answer.get("x-request-id") is not None
        assert len(backend.streams) == number, name
    records = await orders.records(len(INVALID), kind="request")
    for record in records:
        assert (record["response_code"], record["response_flags"]) == (502, "UPE")
        assert (record["reason"], record["decision"]) == ("upstream_response_invalid", "allow")
        assert record["upstream_transport_failure_reason"]


@pytest.mark.asyncio
async def test_an_end_without_an_answer_is_503(mesh: Mesh) -> None:
    async def silent(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)

    backend = await mesh.backend(silent)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 503
    [record] = await orders.records(1, kind="request")
    assert (record["reason"], record["response_flags"], record["retries"]) == ("upstream_closed", "UC", 0)


@pytest.mark.asyncio
async def test_an_end_within_a_head_is_502(mesh: Mesh) -> None:
    async def cut(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-le")

    backend = await mesh.backend(cut)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 502
    [record] = await orders.records(1, kind="request")
    assert record["reason"] == "upstream_response_incomplete"


@pytest.mark.asyncio
async def test_chunks_after_a_204_are_no_answer_to_the_next_request(mesh: Mesh) -> None:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        await stream.closed()

    backend = await mesh.backend(script)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for number in (1, 2):
        await client.send(get())
        answer = await client.message()
        assert (answer.status, answer.get("transfer-encoding")) == (204, None)
        assert len(backend.streams) == number


@pytest.mark.asyncio
async def test_bytes_after_an_answer_are_never_given_to_anybody(mesh: Mesh) -> None:
    poison = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"

    async def poisons(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok" + poison)
        await stream.closed()

    backend = await mesh.backend(poisons)
    orders = await mesh.sidecar("orders", app=backend)
    client = await mesh.client(orders)
    for number in (1, 2, 3):
        await client.send(get())
        assert (await client.message()).body == b"ok"
        assert len(backend.streams) == number
