"""A page listener may keep connections open between requests for longer than a request may take to come."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.runtime import pages
from proxy.runtime.clock import CoarseClock
from proxy.runtime.pages import Page, PageServer

ASK = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.asyncio
async def test_a_kept_connection_outlives_one_on_which_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_IDLE", 0.3)
    loop = asyncio.get_running_loop()
    clock = CoarseClock(loop)
    server = PageServer(loop, clock, {"/": lambda _: Page(body=b"here\n")}, idle=60.0)

    def opened() -> socket.socket:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        server.admit(theirs)
        return ours

    async def ask(sock: socket.socket) -> bytes:
        await loop.sock_sendall(sock, ASK)
        return await loop.sock_recv(sock, 4096)

    with opened() as kept:
        assert (await ask(kept)).endswith(b"here\n")
        with opened() as silent:
            assert await loop.sock_recv(silent, 1) == b"", "half a minute of silence ends it"
        assert (await ask(kept)).endswith(b"here\n")
    server.close()
    clock.stop()
