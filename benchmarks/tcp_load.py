"""Loads for bytes that nobody reads as HTTP: small messages back and forth, and many bytes one way.

    python -m benchmarks.tcp_load serve PORT
    python -m benchmarks.tcp_load roundtrips PORT --connections 32 --size 64 --seconds 3
    python -m benchmarks.tcp_load bulk PORT --connections 1 --size 10000000 --seconds 3

A connection says with its first byte what it wants: `E` has everything that follows sent back, `D` has every further
byte answered with the size that eight bytes behind the letter name. Round trips are a closed loop, one message under
way on each connection. Bulk asks for a second piece before the first has come, so that the line never falls silent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WARM_UP_SECONDS: Final = 0.3
ECHO: Final = b"E"
DOWNLOAD: Final = b"D"
_SIZE: Final = struct.Struct("!Q")
_BLOCK: Final = 262_144
_ZEROS: Final = memoryview(bytes(_BLOCK))
_PATIENCE: Final = 10.0


class TcpLoadError(Exception):
    """A load whose answers do not come, or come wrong."""


# --- the application --------------------------------------------------------------------------------------------------


class Service:
    """What one connection is owed, as a machine without I/O: bytes in, bytes to echo out, a number of zeros owed.

    >>> service = Service()
    >>> service.receive(b"E"), service.receive(b"ping"), service.owed
    (b'', b'ping', 0)
    """

    __slots__ = ("_begun", "_piece", "owed")

    def __init__(self) -> None:
        self._begun = b""
        self._piece = 0
        self.owed = 0

    def receive(self, data: bytes) -> bytes:
        """Take bytes and give those that go back at once; zeros are counted in `owed`. Raises TcpLoadError."""
        if self._piece:
            self.owed += self._piece * len(data)
            return b""
        if self._begun[:1] == ECHO:
            return data
        self._begun += data
        kind = self._begun[:1]
        if kind == ECHO:
            echo, self._begun = self._begun[1:], ECHO
            return echo
        if kind != DOWNLOAD:
            raise TcpLoadError(f"a connection began with {kind!r}")
        if len(self._begun) > _SIZE.size:
            [self._piece] = _SIZE.unpack_from(self._begun, 1)
            self.owed += self._piece * (len(self._begun) - 1 - _SIZE.size)
        return b""


class _Served:
    __slots__ = ("pending", "service", "socket")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.service = Service()
        self.pending = b""

    def flush(self) -> bool:
        """Send what is owed as far as it goes; say whether something is left."""
        with contextlib.suppress(BlockingIOError):
            while self.pending:
                self.pending = self.pending[self.socket.send(self.pending) :]
            while self.service.owed:
                self.service.owed -= self.socket.send(_ZEROS[: min(_BLOCK, self.service.owed)])
        return bool(self.pending or self.service.owed)


def serve(port: int) -> None:
    """Serve connections until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.create_server(("127.0.0.1", port), backlog=4_096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_now: dict[int, _Served] = {}
    while True:
        for number, event in poll.poll():
            served = open_now.get(number)
            if served is None:
                with contextlib.suppress(OSError):
                    accepted = _Served(listener.accept()[0])
                    open_now[accepted.socket.fileno()] = accepted
                    poll.register(accepted.socket, select.EPOLLIN)
                continue
            try:
                if event & ~select.EPOLLOUT:
                    data = served.socket.recv(_BLOCK)
                    if not data:
                        raise ConnectionResetError
                    served.pending += served.service.receive(data)
                left = served.flush()
                if left or event & select.EPOLLOUT:
                    poll.modify(number, select.EPOLLIN | (select.EPOLLOUT if left else 0))
            except BlockingIOError:
                continue
            except (OSError, TcpLoadError):
                poll.unregister(number)
                open_now.pop(number).socket.close()


# --- the load ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was counted after the warm-up: round trips or pieces, bytes received, seconds; two latencies for trips.

    `total` is what was done in all, the warm-up included, for whoever asks what it cost: trips, or bytes for bulk.
    """

    requests: int
    received: int
    seconds: float
    total: int
    p50_us: float = 0.0
    p99_us: float = 0.0


def connect(port: int, beginning: bytes) -> socket.socket:
    """Open a connection and say what it wants."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(beginning)
    return sock


def roundtrips(port: int, *, connections: int, size: int, seconds: float) -> Done:
    """Send messages back and forth. Raises TcpLoadError when one does not come back."""
    message = bytes(range(256)) * (size // 256 + 1)
    message = message[:size]
    took: list[int] = []
    total = 0
    with contextlib.ExitStack() as held:
        poll = held.enter_context(select.epoll())
        socks: dict[int, socket.socket] = {}
        missing: dict[int, int] = {}
        sent: dict[int, int] = {}
        for _ in range(connections):
            sock = held.enter_context(connect(port, ECHO))
            socks[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        clock = time.perf_counter_ns
        for number, sock in socks.items():
            missing[number], sent[number] = size, clock()
            sock.sendall(message)
        counted_from, until = _window(clock(), seconds)
        silent = set(socks)
        while (now := clock()) < until:
            events = poll.poll(_PATIENCE)
            if not events:
                raise TcpLoadError("no message came back in time")
            for number, _ in events:
                data = socks[number].recv(65_536)
                if not data:
                    raise TcpLoadError("a connection was closed under way")
                missing[number] -= len(data)
                if not missing[number]:
                    now = clock()
                    total += 1
                    if silent:
                        # A connection is open, through all hops, when it has answered: handshakes are not counted.
                        silent.discard(number)
                        counted_from, until = _window(now, seconds)
                    if sent[number] >= counted_from:
                        took.append(now - sent[number])
                    missing[number], sent[number] = size, now
                    socks[number].sendall(message)
    if len(took) < 2:
        raise TcpLoadError(f"{len(took)} messages came back in {seconds:g} s")
    took.sort()
    return Done(
        requests=len(took),
        received=len(took) * size,
        seconds=(now - counted_from) / 1e9,
        total=total,
        p50_us=took[len(took) // 2] / 1_000,
        p99_us=took[len(took) * 99 // 100] / 1_000,
    )


def _window(now: int, seconds: float) -> tuple[int, int]:
    """Tell from when until when trips are counted, if the load stands at `now`, all in nanoseconds."""
    counted_from = now + int(WARM_UP_SECONDS * 1e9)
    return counted_from, counted_from + int(seconds * 1e9)


def bulk(port: int, *, connections: int, size: int, seconds: float) -> Done:
    """Receive pieces of `size` bytes one behind the other. Raises TcpLoadError when nothing comes."""
    buffer = bytearray(_BLOCK)
    with contextlib.ExitStack() as held:
        socks = [held.enter_context(connect(port, DOWNLOAD + _SIZE.pack(size) + b"..")) for _ in range(connections)]
        missing = {sock.fileno(): size for sock in socks}
        clock = time.monotonic
        counted_from, pieces, received, total = clock() + WARM_UP_SECONDS, 0, 0, 0
        until = counted_from + seconds
        while (now := clock()) < until:
            ready, _, _ = select.select(socks, (), (), _PATIENCE)
            if not ready:
                raise TcpLoadError("nothing came in time")
            for sock in ready:
                count = sock.recv_into(buffer)
                if not count:
                    raise TcpLoadError("a connection was closed under way")
                total += count
                if now >= counted_from:
                    received += count
                missing[sock.fileno()] -= count
                if missing[sock.fileno()] <= 0:
                    missing[sock.fileno()] += size
                    pieces += now >= counted_from
                    sock.sendall(b".")
    return Done(requests=pieces, received=received, seconds=now - counted_from, total=total)


def main(argv: Sequence[str]) -> int:
    """Serve, or load and write what was found as one line of JSON; exit code 1 when it could not be done."""
    parser = argparse.ArgumentParser(prog="benchmarks.tcp_load", description="Loads of plain bytes.")
    parser.add_argument("what", choices=("serve", "roundtrips", "bulk"))
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args(argv)
    if options.what == "serve":
        serve(options.port)
    load = roundtrips if options.what == "roundtrips" else bulk
    try:
        done = load(options.port, connections=options.connections, size=options.size, seconds=options.seconds)
    except (OSError, TcpLoadError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    sys.stdout.write(json.dumps({name: getattr(done, name) for name in Done.__slots__}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
