"""One question to the admin listener of a sidecar, for the commands that ask a running one."""

from __future__ import annotations

import http.client
import socket
from typing import Final, NamedTuple

from proxy.config import Address
from proxy.config_text import Use, parse_address
from proxy.constants import DEFAULT_ADMIN

_SECONDS: Final = 5.0
_MOST: Final = 4 * 1024 * 1024


__all__ = ["DEFAULT_ADMIN", "AdminAnswer", "AdminError", "ask_admin", "parse_admin", "place_of"]


class AdminError(Exception):
    """Why there is no answer, in one line."""


class AdminAnswer(NamedTuple):
    """An answer: its status and its body."""

    status: int
    body: bytes


def parse_admin(text: str) -> Address | str:
    """Read `HOST:PORT` or `unix:PATH`; raises TextError."""
    return text.removeprefix("unix:") if text.startswith("unix:") else parse_address(text, Use.DIAL)


def place_of(where: Address | str) -> str:
    """Name an admin listener as it is written."""
    return f"unix:{where}" if isinstance(where, str) else str(where)


def ask_admin(where: Address | str, path: str, *, act: bool = False) -> AdminAnswer:
    """GET one page, or POST to one that does something. Raises AdminError."""
    place = place_of(where)
    connection = http.client.HTTPConnection("localhost", timeout=_SECONDS)
    try:
        connection.sock = _connect(where)
        headers = {"Connection": "close"} | ({"X-Remora-Admin": "true"} if act else {})
        connection.request("POST" if act else "GET", path, headers=headers)
        answer = connection.getresponse()
        return AdminAnswer(answer.status, answer.read(_MOST))
    except (FileNotFoundError, ConnectionRefusedError) as failure:
        raise AdminError(f"nothing listens on {place}; name the admin listener with --admin") from failure
    except (OSError, http.client.HTTPException) as failure:
        why = getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
        raise AdminError(f"{place} gives no answer: {' '.join(why.split())}") from failure
    finally:
        connection.close()


def _connect(where: Address | str) -> socket.socket:
    if isinstance(where, Address):
        return socket.create_connection((where.host, where.port), timeout=_SECONDS)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_SECONDS)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock
