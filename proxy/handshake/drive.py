"""Drives one handshake on the running event loop: waits for the socket, keeps the deadline, lets a refusal arrive."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from proxy.errors import HandshakeError, Reason
from proxy.handshake.engine import Session
from proxy.interfaces import Want

_LINGER: Final = 1.0
"""Seconds that a refused peer has to take its alert. Closing with unread bytes makes the kernel send a reset, and a
reset throws away what the peer has not read yet: without this wait most refusals arrive as "connection reset"."""
_DRAIN_SIZE: Final = 16_384
_NOTHING_TO_TELL: Final = frozenset({Reason.PEER_REJECTED_US, Reason.HANDSHAKE_PEER_CLOSED, Reason.HANDSHAKE_TIMEOUT})
"""Failures in which no alert of ours is on its way to a peer that still listens."""


async def perform(session: Session, sock: socket.socket, *, timeout: float) -> None:  # noqa: ASYNC109
    """Completes the handshake of `session` on its non-blocking socket within `timeout` seconds.

    Raises HandshakeError: that of `Session.handshake`, or HANDSHAKE_TIMEOUT. When we refused the peer, the alert has
    gone out, writing is shut down, and the peer's bytes were thrown away until its end or for one second, all before
    the error is raised. The socket stays open in every case: the caller closes it and releases the session. Cancelled,
    it takes its reader, writer and timer off the loop.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    try:
        while (want := session.handshake()) is not None:
            if not await _ready(loop, sock, want, deadline):
                raise HandshakeError(
                    f"the handshake was not done after {timeout:g} s; the peer is slow, stuck, or no TLS peer at all",
                    Reason.HANDSHAKE_TIMEOUT,
                )
    except HandshakeError as error:
        if error.reason not in _NOTHING_TO_TELL:
            await _linger(loop, sock)
        raise


async def _linger(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Ends our side and throws away what still comes, until the peer's end or the linger time."""
    deadline = loop.time() + _LINGER
    try:
        sock.shutdown(socket.SHUT_WR)
        while await _ready(loop, sock, Want.READ, deadline):
            if not sock.recv(_DRAIN_SIZE) or loop.time() >= deadline:
                return
    except OSError:
        return  # the peer reset the connection: there is nobody left to tell


async def _ready(loop: asyncio.AbstractEventLoop, sock: socket.socket, want: Want, deadline: float) -> bool:
    """Waits until the socket can be read or written: True, or False at the deadline (in the loop's seconds)."""
    ready: asyncio.Future[bool] = loop.create_future()
    descriptor = sock.fileno()
    if want is Want.READ:
        loop.add_reader(descriptor, _settle, ready, True)
    else:
        loop.add_writer(descriptor, _settle, ready, True)
    timer = loop.call_at(deadline, _settle, ready, False)
    try:
        return await ready
    finally:
        timer.cancel()
        if want is Want.READ:
            loop.remove_reader(descriptor)
        else:
            loop.remove_writer(descriptor)


def _settle(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
