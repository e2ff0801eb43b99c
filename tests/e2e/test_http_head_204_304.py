"""Answers that have no body (RFC 9112 section 6.3): to HEAD, 204 and 304, whatever their fields announce."""

from __future__ import annotations

import pytest
from mesh import OK, Mesh, Message, get, service

CASES = {
    "head_length": (b"HEAD", b"200 OK", b"content-length: 1234\r\n", ("content-length", b"1234")),
    "head_chunked": (b"HEAD", b"200 OK", b"transfer-encoding: chunked\r\n", None),
    "head_nothing": (b"HEAD", b"200 OK", b"", None),
    "head_not_found": (b"HEAD", b"404 Not Found", b"content-length: 9\r\n", ("content-length", b"9")),
    "no_content": (b"DELETE", b"204 No Content", b"", None),
    "not_modified": (b"GET", b"304 Not Modified", b"etag: x\r\ncontent-length: 77\r\n", ("etag", b"x")),
}


@pytest.mark.asyncio
async def test_no_body_and_the_connection_goes_on(mesh: Mesh) -> None:
    def answer_of(request: Message) -> bytes:
        _, status, fields, _ = CASES[request.target[1:].decode()]
        return b"HTTP/1.1 %b\r\n%b\r\n" % (status, fields)

    backend = await mesh.backend()
    backend.answer = lambda request: OK if request.target == b"/next" else answer_of(request)
    orders = await mesh.sidecar("orders", app=backend)
    web = await mesh.sidecar("web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    for name, (method, status, _, kept) in CASES.items():
        await client.send(get(f"/{name}", method=method.decode()) + get("/next"))
        answer = await client.message(to=method)
        assert answer.line == b"HTTP/1.1 " + status, name
        if kept is not None:
            assert answer.get(kept[0]) == kept[1]
        following = await client.message()
        assert (following.status, following.body) == (200, b"ok"), name
        assert client.unread == b""
    assert len(backend.streams) == 1


@pytest.mark.asyncio
async def test_a_denied_head_request_gets_the_headers_only(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies="")
    client = await mesh.client(orders)
    await client.send(get(method="HEAD") + get())
    first, second = await client.message(to=b"HEAD"), await client.message()
    assert (first.status, first.body, first.get("content-length")) == (403, b"", b"19")
    assert (second.status, second.body) == (403, b"RBAC: access denied")
    assert backend.received == b""
