"""Listening for real: addresses, the unix socket's mode, connections that wait, faults that say where."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from proxy.accept.listener import Listener, open_listener, open_unix_listener


async def accepted(listening: socket.socket, address: str | tuple[str, int]) -> list[int]:
    """Connect once and give the families of what was admitted."""
    admitted: list[socket.socket] = []
    news = asyncio.Event()

    def admit(sock: socket.socket) -> None:
        admitted.append(sock)
        news.set()

    listener = Listener(
        asyncio.get_running_loop(), listening, admit, name="test", back_off=0.1, on_exhausted=lambda failure: None
    )
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect(address)
            async with asyncio.timeout(5):
                await news.wait()
        return [sock.family for sock in admitted]
    finally:
        listener.close()
        for sock in admitted:
            assert not sock.getblocking()
            sock.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(("host", "to"), [("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")])
async def test_an_address_is_listened_on_and_the_unspecified_one_takes_both_families(host: str, to: str) -> None:
    listening = open_listener(host, 0)
    assert len(await accepted(listening, (to, listening.getsockname()[1]))) == 1


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
            open_listener("127.0.0.1", port)
    with pytest.raises(OSError, match=r"cannot listen on .*nowhere"):
        open_unix_listener(str(tmp_path / "nowhere" / "admin.sock"))


@pytest.mark.asyncio
async def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    listening = open_unix_listener(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await accepted(listening, str(path)) == [socket.AF_UNIX]
