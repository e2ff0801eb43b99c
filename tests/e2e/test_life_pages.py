"""Health and admin pages: one word for everybody, detail on loopback, and GET alone is served."""

from __future__ import annotations

import socket

import pytest
from mesh import ALLOW_ALL, Mesh, Stream, fetch_page


@pytest.mark.asyncio
async def test_detail_is_for_admin(mesh: Mesh) -> None:
    path = mesh.directory / "admin.sock"
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), policies=ALLOW_ALL + "nonsense: 1\n", admin={"listen": f"unix:{path}"}
    )
    word = await fetch_page(orders.health_port, "/readyz")
    assert word.status == 503
    assert b"nonsense" not in word.body
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        stream = Stream(sock)
        await stream.send(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await stream.message()
    assert answer.status == 503
    assert b"policies.yaml" in answer.body
    assert path.stat().st_mode & 0o077 == 0
    await orders.close()
    assert not path.exists()


@pytest.mark.asyncio
async def test_what_is_not_served(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend())
    requests = {
        b"POST /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx": 405,
        b"GET /../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n": 404,
        b"GET /livez HTTP/1.1\r\n\r\n": 400,
        b"GET /livez HTTP/1.1\nHost: h\n\n": 400,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": 505,
    }
    for request, status in requests.items():
        stream = mesh.hold(Stream(socket.create_connection(("127.0.0.1", orders.health_port))))
        await stream.send(request)
        assert (await stream.message()).status == status
    live = await fetch_page(orders.health_port, "/livez?x=y")
    assert live.status == 200
