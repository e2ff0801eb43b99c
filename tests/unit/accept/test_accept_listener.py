"""Accepting: in groups, and resting when the process is out of descriptors instead of spinning."""

from __future__ import annotations

import errno
import socket
from typing import cast

import pytest
from hand_loop import HandLoop

from proxy.accept.listener import Listener
from proxy.errors import LimitExceeded, Reason

FD = 9


class Accepted:
    """A connection as a listener touches it."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.options: list[tuple[int, int, int]] = []
        self.blocking = True

    def setblocking(self, blocking: bool) -> None:
        self.blocking = blocking

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))


class Waiting:
    """A listening socket with connections, or faults, that wait to be accepted."""

    def __init__(self) -> None:
        self.queue: list[Accepted | OSError] = []
        self.accepts = 0
        self.closed = False

    def fileno(self) -> int:
        return FD

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 15443)

    def accept(self) -> tuple[Accepted, object]:
        self.accepts += 1
        if not self.queue:
            raise BlockingIOError
        if isinstance(self.queue[0], OSError) and self.queue[0].errno in (errno.EMFILE, errno.ENFILE):
            raise self.queue[0]
        item = self.queue.pop(0)
        if isinstance(item, OSError):
            raise item
        return item, None

    def close(self) -> None:
        self.closed = True


class Gate:
    """A listener with everything around it."""

    def __init__(self) -> None:
        self.loop, self.socket = HandLoop(), Waiting()
        self.admitted: list[socket.socket] = []
        self.exhausted: list[LimitExceeded] = []
        self.listener = Listener(
            self.loop.face,
            cast(socket.socket, self.socket),
            self.admitted.append,
            name="inbound port 8080",
            back_off=0.1,
            on_exhausted=self.exhausted.append,
        )

    def ready(self) -> None:
        self.loop.readers[FD]()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_each_connection_is_made_ready_and_admitted(gate: Gate) -> None:
    gate.socket.queue = [Accepted(), Accepted()]
    gate.ready()
    assert len(gate.admitted) == 2
    first = cast(Accepted, gate.admitted[0])
    assert not first.blocking
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in first.options
    assert gate.listener.port == 15443


def test_a_burst_is_taken_in_groups(gate: Gate) -> None:
    gate.socket.queue = [Accepted() for _ in range(100)]
    gate.ready()
    taken = len(gate.admitted)
    assert 1 < taken < 100
    gate.ready()
    assert len(gate.admitted) == 2 * taken


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EPERM])
def test_a_connection_that_died_in_the_queue_does_not_stop_the_next(gate: Gate, number: int) -> None:
    gate.socket.queue = [OSError(number, "gone"), Accepted()]
    gate.ready()
    assert len(gate.admitted) == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_it_rests_and_comes_back(gate: Gate, number: int) -> None:
    gate.socket.queue = [OSError(number, "too many open files"), Accepted()]
    gate.ready()
    assert gate.loop.readers == {}, "it must not be woken by the connection that it cannot take"
    (failure,) = gate.exhausted
    assert failure.reason is Reason.FILE_DESCRIPTORS_EXHAUSTED
    assert "inbound port 8080" in str(failure)
    assert "ulimit" in str(failure)
    accepts = gate.socket.accepts
    gate.loop.advance(0.09)
    assert gate.socket.accepts == accepts
    gate.socket.queue.pop(0)
    gate.loop.advance(0.02)
    assert len(gate.admitted) == 1
    assert FD in gate.loop.readers


def test_the_rest_grows_up_to_a_bound_and_begins_anew_after_a_success(gate: Gate) -> None:
    gate.socket.queue = [OSError(errno.EMFILE, "too many open files")]
    gate.ready()
    for _ in range(8):
        gate.loop.advance(gate.loop.timers[-1].at - gate.loop.now)
    rests = [float(str(failure).split("again in ")[1].split(" s")[0]) for failure in gate.exhausted]
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.6, 1.6, 1.6, 1.6, 1.6]
    gate.socket.queue = [Accepted()]
    gate.loop.advance(2.0)
    gate.socket.queue = [OSError(errno.EMFILE, "too many open files")]
    gate.ready()
    assert "again in 0.1 s" in str(gate.exhausted[-1])


def test_a_closed_listener_is_closed_while_it_rests_and_while_it_does_not(gate: Gate) -> None:
    gate.listener.close()
    gate.listener.close()
    assert gate.socket.closed
    assert not gate.loop.readers
    resting = Gate()
    resting.socket.queue = [OSError(errno.EMFILE, "too many open files")]
    resting.ready()
    resting.listener.close()
    resting.loop.advance(10.0)
    assert resting.socket.closed
    assert not resting.loop.readers


def test_a_listener_that_is_closed_by_what_it_admits_accepts_no_more(gate: Gate) -> None:
    gate.socket.queue = [Accepted(), Accepted()]
    gate.admitted = cast("list[socket.socket]", None)
    seen: list[socket.socket] = []

    def admit(sock: socket.socket) -> None:
        seen.append(sock)
        gate.listener.close()

    gate.listener._admit = admit
    gate.ready()
    assert len(seen) == 1


def test_a_fault_that_nobody_expects_is_not_swallowed(gate: Gate) -> None:
    gate.socket.queue = [OSError(errno.EBADF, "bad file descriptor")]
    with pytest.raises(OSError, match="bad file descriptor"):
        gate.ready()
