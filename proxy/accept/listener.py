"""A listening socket that admits connections and backs off when the process is out of descriptors.

Every accepted socket is non-blocking, has TCP_NODELAY (a first request came 45 ms late without) and is given to
`admit` at once; the connection limit is held by the caller, who knows the registry.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from proxy.constants import LISTEN_BACKLOG
from proxy.errors import LimitExceeded, Reason

_ACCEPTS_PER_EVENT: Final = 32
"""A burst is taken in groups so that connections that already stand are served in between."""
_BACK_OFF_GROWTH: Final = 16
"""A rest grows to this many times the first: longer, and a process that has recovered still refuses."""
_GONE: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)
"""Faults of the connection to be accepted, which Linux reports in its place (accept(2)); the next may stand."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def open_listener(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind and listen on `host`:`port` ("::" takes IPv4 as well). Raises OSError with a message that says where.

    Several `shared` sockets may listen on one port: the kernel gives each connection to one of them (SO_REUSEPORT).
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind((host, port))
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError as failure:
        sock.close()
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise OSError(failure.errno, f"cannot listen on {place}: {failure.strerror}") from failure
    return sock


def open_listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """Open `count` shared listeners on one port, for port 0 on one that the kernel chooses. Raises as `open_listener`.

    Sharing would admit a listener of another process of the same user unseen: a port that somebody has is refused.
    """
    if port:
        open_listener(host, port).close()
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(open_listener(host, port, shared=True))
            port = int(opened[0].getsockname()[1])
    except OSError:
        for sock in opened:
            sock.close()
        raise
    return opened


def open_unix_listener(path: str) -> socket.socket:
    """Listen on a unix socket at `path`, readable and writable by its owner only."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(sock.fileno(), 0o600)  # Linux gives the file this mode: it is never wider, not even at first
        sock.bind(path)
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError as failure:
        sock.close()
        raise OSError(failure.errno, f"cannot listen on {path}: {failure.strerror}") from failure
    return sock


class Listener:
    """Accepts on one socket and hands each connection to `admit`."""

    __slots__ = (
        "_admit",
        "_first_rest",
        "_handle",
        "_loop",
        "_on_exhausted",
        "_open",
        "_rest_for",
        "_socket",
        "name",
        "port",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        admit: Callable[[socket.socket], None],
        *,
        name: str,
        back_off: float,
        on_exhausted: Callable[[LimitExceeded], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._admit = admit
        self._on_exhausted = on_exhausted
        self._first_rest = self._rest_for = back_off
        self._handle: asyncio.TimerHandle | None = None
        self._open = True
        self.name = name
        address = sock.getsockname()
        self.port: Final[int] = int(address[1]) if isinstance(address, tuple) else 0
        """The port, also the one that the kernel chose for port 0; 0 for a unix socket."""
        loop.add_reader(sock.fileno(), self._ready)

    def close(self) -> None:
        """Stop accepting. Connections that still wait in the kernel are reset by it."""
        if not self._open:
            return
        self._open = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        else:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _ready(self) -> None:
        for _ in range(_ACCEPTS_PER_EVENT):
            try:
                sock, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as failure:
                if failure.errno in _GONE:
                    continue
                if failure.errno in _EXHAUSTED:
                    self._rest(failure)
                    return
                raise
            self._rest_for = self._first_rest
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._admit(sock)
            if not self._open:
                return

    def _rest(self, failure: OSError) -> None:
        """Stop polling for a while: the waiting connection would wake the loop again and again."""
        wait, self._rest_for = self._rest_for, min(self._rest_for * 2, self._first_rest * _BACK_OFF_GROWTH)
        self._loop.remove_reader(self._socket.fileno())
        self._handle = self._loop.call_later(wait, self._resume)
        self._on_exhausted(
            LimitExceeded(
                f"{self.name} cannot accept: {failure.strerror}; it tries again in {wait:g} s. "
                "Raise the limit of open files (ulimit -n) or lower limits.connections",
                Reason.FILE_DESCRIPTORS_EXHAUSTED,
            )
        )

    def _resume(self) -> None:
        self._handle = None
        if self._open:
            self._loop.add_reader(self._socket.fileno(), self._ready)
            self._ready()
