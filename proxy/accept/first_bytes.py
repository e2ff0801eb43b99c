"""Look at the first bytes of an accepted connection without taking them: TLS then starts on an untouched socket.

    peek --judged--> Opening                          SO_RCVLOWAT is 1 again, nothing was taken
      |
      +--more is needed--> SO_RCVLOWAT = seen + 1 --readable--> peek
      +--nothing for `silence` seconds--> the server speaks first: plaintext, and `silent`
      +--`timeout` seconds--> HANDSHAKE_TIMEOUT

What was peeked at stays readable, so a loop that waits for readability would spin on half a ClientHello. The low-water
mark keeps the kernel quiet until there is more. The kernel wakes the loop all the same when the peer ends, and when its
memory runs short: the first is read off a poll, and for the second the socket is left alone for a moment.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from proxy.detect.client_hello import MAX_HELLO
from proxy.detect.opening import Opening, Opens, judge_opening
from proxy.errors import HandshakeError, Reason

_REST: Final = 0.05
"""Seconds between two looks at a socket that is readable and has nothing new: longer delays a handshake under memory
pressure, shorter costs wake-ups when there is least to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """How a connection opens; `silent`: its client sent nothing while it was waited for, so the server speaks first."""

    opening: Opening
    silent: bool = False


async def look_at(sock: socket.socket, *, mesh: Collection[bytes], silence: float, within: float) -> FirstLook:
    """Look until it is known how the connection opens; `mesh` are the ALPN names of the mesh.

    A client that has sent nothing for `silence` seconds waits for the server and speaks plaintext; math.inf says that
    it has to speak first. Raises HandshakeError with HANDSHAKE_TIMEOUT when nothing is known `within` seconds, and
    OSError when the connection broke.
    """
    loop = asyncio.get_running_loop()
    deadline, speaks_by = loop.time() + within, loop.time() + silence
    seen = _peek(sock)
    ended = False
    try:
        while (opening := judge_opening(seen, mesh=mesh, ended=ended)) is None:
            if seen:
                _low_water(sock, len(seen) + 1)
            until = deadline if seen else min(deadline, speaks_by)
            if loop.time() >= until or not await _readable(loop, sock, until):
                if seen or deadline <= speaks_by:
                    raise HandshakeError(_overdue(seen, within), Reason.HANDSHAKE_TIMEOUT)
                return FirstLook(opening=Opening(opens=Opens.PLAINTEXT), silent=True)
            before, seen = len(seen), _peek(sock)
            if len(seen) == before:
                ended = _has_ended(sock)
                if not ended:
                    await asyncio.sleep(_REST)
        return FirstLook(opening=opening)
    finally:
        if seen:
            _low_water(sock, 1)


def _peek(sock: socket.socket) -> bytes:
    """Give the bytes that are there, b"" for none."""
    try:
        return sock.recv(MAX_HELLO, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return b""


def _low_water(sock: socket.socket, count: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _has_ended(sock: socket.socket) -> bool:
    """Say whether the peer has ended its side, behind bytes that nobody has taken yet."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


async def _readable(loop: asyncio.AbstractEventLoop, sock: socket.socket, until: float) -> bool:
    """Wait until the socket can be read: True, or False at the time `until` of the loop."""
    ready: asyncio.Future[bool] = loop.create_future()
    descriptor = sock.fileno()
    loop.add_reader(descriptor, _settle, ready, True)
    timer = loop.call_at(until, _settle, ready, False)
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)


def _overdue(seen: bytes, within: float) -> str:
    if seen:
        return f"half a ClientHello, {len(seen)} bytes, and no more within {within:g} s; the peer is slow or stuck"
    return (
        f"the client has sent nothing within {within:g} s; if the application speaks first on this port, "
        "write `speaks_first: server`"
    )
