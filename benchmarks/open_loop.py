"""Sends HTTP/1.1 requests at a fixed rate and says how long each took from when it should have been sent.

    python -m benchmarks.open_loop PORT --path PATH --rate 2000 --connections 16 --seconds 5

A closed loop waits for an answer before it asks again, so a proxy that stalls is asked less, and its stall is one slow
request instead of the hundred that users would have seen ("coordinated omission"). Here the n-th request is due at
start + n / rate, whatever became of those before. If no connection is free then, it waits, and that wait is part of
its latency: the clock starts at the due time. Latencies go into an HdrHistogram of three digits, nanoseconds.

The generator's own cost is in every figure: its lateness, a call to send and one to receive, the loopback. So the same
load without any proxy is a scenario of its own, and what a proxy adds is the difference.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

PERCENTS: Final = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)
"""The points of the distribution that are kept: enough to draw it."""
WARM_UP_SECONDS: Final = 0.5
"""Requests that are due before are sent and not counted."""
PATIENCE_SECONDS: Final = 10.0
"""How long the last answers may take."""
_LONGEST_NS: Final = 60_000_000_000
_PR_SET_TIMERSLACK: Final = 29
"""prctl(2). The kernel may round a wait up by 50 us to save wake-ups; that would be lateness of ours."""


class OpenLoopError(Exception):
    """A load that cannot be held up: the answers are no successes, or connections fail."""


class Histogram:
    """Latencies in nanoseconds, in an HdrHistogram. Raises OpenLoopError when the library is not installed."""

    def __init__(self) -> None:
        try:
            library: Any = importlib.import_module("hdrh.histogram")
        except ModuleNotFoundError as failure:
            raise OpenLoopError("hdrhistogram is not installed; the extra `bench` brings it") from failure
        self._recorder = library.HdrHistogram(1_000, _LONGEST_NS, 3)

    def record(self, nanoseconds: int) -> None:
        """Count one latency; those beyond a minute count as a minute."""
        self._recorder.record_value(min(max(nanoseconds, 1_000), _LONGEST_NS))

    @property
    def count(self) -> int:
        """How many were counted."""
        return int(self._recorder.get_total_count())

    def percentile(self, percent: float) -> float:
        """Give the latency that `percent` of them do not exceed, in microseconds."""
        return float(self._recorder.get_value_at_percentile(percent)) / 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What to send: to which port, how often, on how many connections, for how long."""

    port: int
    path: str
    rate: int
    connections: int
    seconds: float


class Schedule:
    """Says when requests are due, in nanoseconds from the start, and hands each out once.

    >>> schedule = Schedule(rate=1000, count=3)
    >>> schedule.take(1_500_000), schedule.take(1_500_000), schedule.take(1_500_000), schedule.next_due
    (0, 1000000, None, 2000000)
    """

    def __init__(self, *, rate: int, count: int) -> None:
        self._rate = rate
        self._count = count
        self._taken = 0

    @property
    def next_due(self) -> int | None:
        """When the next one is due; None after the last."""
        return self._taken * 1_000_000_000 // self._rate if self._taken < self._count else None

    def take(self, now: int) -> int | None:
        """Give when the next one was due, if that is not later than `now`, else None."""
        due = self.next_due
        if due is None or due > now:
            return None
        self._taken += 1
        return due


class _Connection:
    """One connection: the due time of the request under way, and how much of its answer is missing."""

    __slots__ = ("due", "head", "missing", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0
        self.head = b""
        self.missing = -1

    def fileno(self) -> int:
        return self.socket.fileno()

    def receive(self) -> bool:
        """Read once; say whether the answer is complete. Raises OpenLoopError for anything but a 200."""
        data = self.socket.recv(65_536)
        if not data:
            raise OpenLoopError("a connection was closed under way")
        if self.missing < 0:
            self.head += data
            head, end, body = self.head.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise OpenLoopError(f"the answer was {head[:40]!r}")
            self.missing = content_length(head) - len(body)
            self.head = b""
        else:
            self.missing -= len(data)
        if self.missing > 0:
            return False
        self.missing = -1
        return True


def content_length(head: bytes) -> int:
    """Find how long the body is. Raises OpenLoopError for an answer that does not say.

    >>> content_length(b"HTTP/1.1 200 OK\\r\\nContent-Length: 7")
    7
    """
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise OpenLoopError("an answer does not say how long it is")


def requests(ask: Ask) -> int:
    """Tell how many requests are sent in all, those of the warm-up included."""
    return int(ask.rate * (WARM_UP_SECONDS + ask.seconds))


def run(ask: Ask) -> Histogram:
    """Send and measure. Raises OpenLoopError when an answer fails or does not come."""
    histogram = Histogram()
    request = f"GET {ask.path} HTTP/1.1\r\nhost: orders\r\nuser-agent: remora-bench\r\naccept: */*\r\n\r\n".encode()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    with contextlib.ExitStack() as held:
        connections = [_Connection(ask.port) for _ in range(ask.connections)]
        for connection in connections:
            held.enter_context(connection.socket)
        gc.disable()  # a collection in between would be a stall of ours
        _send(ask, connections, request, histogram)
    return histogram


def _send(ask: Ask, connections: Sequence[_Connection], request: bytes, histogram: Histogram) -> None:
    schedule = Schedule(rate=ask.rate, count=requests(ask))
    counted_from = int(WARM_UP_SECONDS * 1e9)
    free, busy, clock = deque(connections), set[_Connection](), time.perf_counter_ns
    start = clock()
    while True:
        now = clock() - start
        while free and (due := schedule.take(now)) is not None:
            connection = free.popleft()
            connection.due = due
            connection.socket.sendall(request)
            busy.add(connection)
        following = schedule.next_due
        if following is None and not busy:
            return
        wait = PATIENCE_SECONDS
        if following is not None and free:
            wait = max(0.0, (following - (clock() - start)) / 1e9)
        # select takes microseconds, epoll only milliseconds; there are few descriptors.
        ready, _, _ = select.select(busy, (), (), wait)
        if not ready and wait == PATIENCE_SECONDS:
            raise OpenLoopError(f"{len(busy)} answers did not come within {PATIENCE_SECONDS:g} s")
        for connection in ready:
            if connection.receive():
                if connection.due >= counted_from:
                    histogram.record(clock() - start - connection.due)
                busy.discard(connection)
                free.append(connection)


def main(argv: Sequence[str]) -> int:
    """Run it and write what was found as one line of JSON; exit code 1 with a sentence when it could not be done."""
    parser = argparse.ArgumentParser(prog="benchmarks.open_loop", description="HTTP/1.1 at a fixed rate.")
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/")
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    ask = Ask(**vars(parser.parse_args(argv)))
    try:
        histogram = run(ask)
    except (OpenLoopError, OSError) as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    percentiles = [[percent, histogram.percentile(percent)] for percent in PERCENTS]
    sys.stdout.write(json.dumps({"count": histogram.count, "total": requests(ask), "percentiles": percentiles}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
