"""Opens a TCP connection to the application or to an endpoint, within a deadline, off the byte path."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from proxy.errors import Reason, UpstreamError

_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Of linux/in.h, for IPv6 too; Python 3.11 has no name for it."""


async def dial(host: str, port: int, *, seconds: float, source: str = "") -> socket.socket:
    """Connect to `host`:`port` and give the non-blocking socket, TCP_NODELAY set. A name is resolved here.

    `source` is the address to come from, "" for the one that the kernel chooses.
    Raises UpstreamError: UPSTREAM_NAME_UNRESOLVED, UPSTREAM_CONNECT_FAILED (all addresses were tried) or
    UPSTREAM_CONNECT_TIMEOUT. Cancelled, it closes what it opened.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            try:
                found = _literal(host, port) or await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as failure:
                raise UpstreamError(
                    f"the name {host} does not resolve: {failure.strerror or failure}", Reason.UPSTREAM_NAME_UNRESOLVED
                ) from failure
            problem: OSError | None = None
            for family, kind, protocol, _, address in found:
                try:
                    return await _connect(loop, family, kind, protocol, address, source)
                except OSError as failure:
                    problem = failure
            why = (problem.strerror or str(problem)) if problem is not None else "the name has no address"
            raise UpstreamError(
                f"cannot connect to {host}:{port}: {why}; is it running and listening there?",
                Reason.UPSTREAM_CONNECT_FAILED,
            )
    except TimeoutError:
        raise UpstreamError(
            f"no connection to {host}:{port} within {seconds:g} s; is the address right and the way open?",
            Reason.UPSTREAM_CONNECT_TIMEOUT,
        ) from None


def _literal(host: str, port: int) -> list[tuple[Any, ...]]:
    """Give the row of an address in numbers, and none for a name: one that resolves slowly must not hold this one up.

    The loop looks everything up in a few threads, addresses too.
    """
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except socket.gaierror:
        return []


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, kind: int, protocol: int, address: tuple[object, ...], source: str
) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            # The port is chosen when it connects: bound to it alone, all connections from here would share 28,000.
            sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
