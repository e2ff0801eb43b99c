"""Asks an admin listener, with the headers that a test chooses."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh import Message, Sidecar, Stream
from mesh_streams import dial

ADMIN = {"listen": "127.0.0.1:0"}
MEANT = {"X-Remora-Admin": "true"}


def admin_port(sidecar: Sidecar) -> int:
    """The port of the admin listener of a sidecar with `admin=ADMIN`."""
    return sidecar.app.bound_ports()["pages"][1]


async def ask(
    where: int | Path, path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", body: bytes = b""
) -> Message:
    """Send one request to a port, or to a unix socket, and give the answer; Host is loopback unless said otherwise."""
    lines = {"Host": "127.0.0.1", "Connection": "close", **(headers or {})}
    if method == "POST":
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    if isinstance(where, int):
        stream = Stream(dial(where))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(where))
        stream = Stream(sock)
    try:
        await stream.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await stream.message()
    finally:
        stream.close()


async def ask_json(where: int | Path, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """Get a page as JSON."""
    answer = await ask(where, path, {"Accept": "application/json", **(headers or {})})
    assert answer.get("content-type") == b"application/json"
    return json.loads(answer.body)
