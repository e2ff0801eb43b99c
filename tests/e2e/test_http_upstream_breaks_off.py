"""An upstream that breaks off in the middle of an answer: the client sees a break, never a clean end."""

from __future__ import annotations

import asyncio

import pytest
from mesh import Backend, Mesh, Script, Stream, get, service

LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"


def breaking(answer: bytes, how: str) -> Script:
    async def script(stream: Stream, backend: Backend) -> None:
        await backend.take(stream)
        await stream.send(answer)
        await asyncio.sleep(0.05)  # a reset takes along what was not read yet: let the head arrive first
        if how == "reset":
            stream.reset()
        elif how == "garbles":
            await stream.send(b"zz\r\n")
            await stream.closed()

    return script


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "how", "reason"),
    [
        (LENGTH, "closes", "upstream_response_incomplete"),
        (CHUNKED, "closes", "upstream_response_incomplete"),
        (LENGTH, "reset", "upstream_reset"),
        (CHUNKED, "reset", "upstream_reset"),
        (CHUNKED, "garbles", "upstream_response_invalid"),
    ],
    ids=["length-closes", "chunked-closes", "length-reset", "chunked-reset", "chunked-garbles"],
)
async def test_the_break_is_carried_on(mesh: Mesh, answer: bytes, how: str, reason: str) -> None:
    backend = await mesh.backend(breaking(answer, how))
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    for client in (await mesh.client(orders), await mesh.plain_client(web)):
        await client.send(get())
        assert await client.closed() == "broken"
    records = await orders.records(2, kind="request")
    assert {(record["response_code"], record["reason"]) for record in records} == {(200, reason)}
    [record] = await web.records(1, kind="request")
    assert (record["response_code"], record["reason"]) == (200, "upstream_reset")
