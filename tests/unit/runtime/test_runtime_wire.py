"""A wire over an end that the test holds: held bytes, water marks, our side's end, failures, faults of receivers."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
from fake_clock import FakeClock
from hand_loop import HandLoop

from proxy.errors import Reason, reason_of
from proxy.interfaces import Want
from proxy.runtime.wire import BULK_SIZE, READ_SIZE, LoopWire, PlainEnd, WaterMarks

FD = 7


class HandSocket:
    """A socket as far as a wire touches it."""

    def __init__(self) -> None:
        self.closed = self.resets = False

    def fileno(self) -> int:
        return FD

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.resets = (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)

    def close(self) -> None:
        self.closed = True


class HandEnd:
    """A `ByteEnd` that takes `room` bytes and gives what lies in `inbox`."""

    def __init__(self) -> None:
        self.wants = Want.READ
        self.read_again = False
        self.read_limit = 0
        self.inbox: list[bytes | OSError | None] = []
        self.taken = b""
        self.room = 10**9
        self.piece = 10**9
        self.failure: OSError | None = None
        self.ends_at_once = True
        self.ended = self.released = False
        self.calls = 0

    def limit_reads(self, size: int) -> None:
        self.read_limit = size

    def read(self) -> bytes | None:
        self.read_again = False
        item = self.inbox.pop(0) if self.inbox else None
        if isinstance(item, OSError):
            raise item
        return item

    def write(self, data: bytes | memoryview) -> int:
        self.calls += 1
        assert len(data), "a TLS end must not be given an empty write"
        if self.failure is not None:
            raise self.failure
        count = min(self.room, self.piece, len(data))
        self.taken += bytes(data[:count])
        self.room -= count
        return count

    def close_write(self) -> bool:
        if self.failure is not None:
            raise self.failure
        self.ended = self.ends_at_once
        return self.ended

    def release(self) -> None:
        self.released = True


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = False
        self.then: Callable[[], None] | None = None

    def _tell(self, what: Any) -> None:
        self.told.append(what)
        if self.then is not None:
            self.then()
        if self.fails and not isinstance(what, OSError):
            raise ZeroDivisionError("a fault in the receiver")

    def data_received(self, data: bytes) -> None:
        self._tell(data)

    def end_received(self) -> None:
        self._tell("end")

    def wire_lost(self, reason: OSError) -> None:
        self._tell(reason)

    def write_ready(self) -> None:
        self._tell("room")


class Set:
    """A wire with everything that it stands on."""

    def __init__(self) -> None:
        self.loop, self.end, self.socket = HandLoop(), HandEnd(), HandSocket()
        self.listener = Listener()
        self.wire = LoopWire(
            self.loop.face,
            FakeClock(),
            cast(socket.socket, self.socket),
            self.end,
            WaterMarks(high=100, low=40, limit=1_000),
        )
        self.wire.receiver = self.listener
        self.wire.start()

    def readable(self) -> None:
        self.loop.readers[FD]()

    def writable(self) -> None:
        self.loop.writers[FD]()


@pytest.fixture
def given() -> Set:
    return Set()


def test_bytes_are_delivered_once_per_event(given: Set) -> None:
    given.end.inbox = [b"one", b"two"]
    given.readable()
    assert given.listener.told == [b"one"]
    given.readable()
    assert given.listener.told == [b"one", b"two"]
    assert given.wire.bytes_read == 6


def test_an_event_without_bytes_tells_nobody(given: Set) -> None:
    given.readable()
    assert given.listener.told == []


def test_what_the_end_knows_already_is_read_without_an_event(given: Set) -> None:
    given.end.inbox = [b"bulk", b""]
    given.end.read = behind(given.end)  # type: ignore[method-assign]
    wire = LoopWire(given.loop.face, FakeClock(), cast(socket.socket, given.socket), given.end)
    wire.receiver = given.listener
    wire.start()
    given.readable()
    assert given.listener.told == [b"bulk", "end"]


def test_who_paused_is_told_what_the_end_knows_when_the_wire_goes_on(given: Set) -> None:
    given.end.inbox = [b"bulk", b""]
    given.end.read = behind(given.end)  # type: ignore[method-assign]
    wire = LoopWire(given.loop.face, FakeClock(), cast(socket.socket, given.socket), given.end)
    wire.receiver = given.listener
    wire.start()
    given.listener.then = wire.pause
    given.readable()
    assert given.listener.told == [b"bulk"]
    given.listener.then = None
    wire.resume()
    assert given.listener.told == [b"bulk"], "whoever resumes is in the middle of its own step"
    given.loop.run_soon()
    assert given.listener.told == [b"bulk", "end"]


def behind(end: HandEnd) -> Callable[[], bytes | None]:
    """Read as an end does that meets what stands behind bytes while it reads them."""
    plain = end.read

    def read() -> bytes | None:
        data = plain()
        end.read_again = bool(data and end.inbox)
        return data

    return read


def test_one_read_fits_between_the_high_mark_and_the_limit(given: Set) -> None:
    assert given.end.read_limit == 900


def test_a_plain_socket_is_asked_for_more_once_a_read_was_full_and_for_less_again() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_048_576)
        end = PlainEnd(ours)
        theirs.sendall(bytes(READ_SIZE + BULK_SIZE - 100_000))
        assert [len(end.read() or b"") for _ in range(2)] == [READ_SIZE, BULK_SIZE - 100_000]
        theirs.sendall(b"small")
        assert end.read() == b"small"
        theirs.sendall(bytes(READ_SIZE + 1))
        assert [len(end.read() or b"") for _ in range(2)] == [READ_SIZE, 1]
        end.limit_reads(READ_SIZE + 1_000)
        theirs.sendall(bytes(BULK_SIZE))
        assert [len(end.read() or b"") for _ in range(2)] == [READ_SIZE, READ_SIZE + 1_000]

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        end = PlainEnd(ours)
        end.limit_reads(1_000)
        theirs.sendall(bytes(2 * READ_SIZE))
        assert [len(end.read() or b"") for _ in range(2)] == [READ_SIZE, READ_SIZE]
        assert end.read() is None


def test_a_paused_wire_is_not_watched_and_a_resumed_one_is(given: Set) -> None:
    given.wire.pause()
    given.wire.pause()
    assert not given.loop.readers
    given.wire.read_now()
    given.wire.resume()
    assert FD in given.loop.readers


def test_a_clean_end_is_told_once_and_is_no_longer_watched(given: Set) -> None:
    given.end.inbox = [b""]
    given.readable()
    assert given.listener.told == ["end"]
    given.wire.resume()
    assert not given.loop.readers
    given.wire.write(b"our side goes on")
    assert given.end.taken == b"our side goes on"


def test_a_break_closes_and_is_told(given: Set) -> None:
    failure = ConnectionResetError(errno.ECONNRESET, "reset")
    given.end.inbox = [failure]
    given.readable()
    assert given.listener.told == [failure]
    assert given.socket.closed
    assert given.end.released
    assert not given.loop.readers


def test_what_is_taken_at_once_is_not_held_and_asks_the_loop_nothing(given: Set) -> None:
    given.wire.write(b"x" * 500)
    assert given.end.taken == b"x" * 500
    assert given.wire.flushed
    assert not given.loop.writers
    assert given.end.calls == 1


def test_small_takes_are_repeated_until_the_end_would_block(given: Set) -> None:
    given.end.piece, given.end.room = 3, 10
    given.wire.write(b"0123456789abc")
    assert given.end.taken == b"0123456789"
    assert given.wire.bytes_written == 10
    given.end.room = 100
    given.writable()
    assert given.end.taken == b"0123456789abc"
    assert given.wire.bytes_written == 13
    assert not given.loop.writers, "a wire with nothing to write is not woken"


def test_order_is_kept_while_bytes_are_held(given: Set) -> None:
    given.end.room = 2
    for piece in (b"abc", b"def", b"ghi"):
        given.wire.write(piece)
    for room in (1, 4, 100):
        given.end.room = room
        given.writable()
    assert given.end.taken == b"abcdefghi"


def test_an_empty_write_is_nothing_even_while_bytes_are_held(given: Set) -> None:
    """Held, it could never be taken: the wire would be woken for it for ever and its end would never go out."""
    given.wire.write(b"")
    given.end.room = 0
    given.wire.write(b"abc")
    given.wire.write(b"")
    given.wire.close_write()
    given.end.room = 100
    given.writable()
    assert given.end.taken == b"abc"
    assert given.end.ended
    assert not given.loop.writers


def test_above_the_high_mark_a_wire_is_congested_until_the_low_one(given: Set) -> None:
    given.end.room = 0
    given.wire.write(b"x" * 100)
    assert not given.wire.congested
    given.wire.write(b"x")
    assert given.wire.congested
    given.end.room = 60
    given.writable()
    assert given.wire.congested
    assert given.listener.told == []
    given.end.room = 1
    given.writable()
    assert not given.wire.congested
    assert given.listener.told == ["room"]
    given.end.room = 100
    given.writable()
    assert given.listener.told == ["room"], "it is told once"


def test_a_wire_that_was_never_congested_tells_nobody_of_room(given: Set) -> None:
    given.end.room = 0
    given.wire.write(b"x" * 50)
    given.end.room = 100
    given.writable()
    assert given.listener.told == []


def test_our_side_ends_after_what_is_held(given: Set) -> None:
    given.end.room = 1
    given.wire.write(b"abc")
    given.wire.close_write()
    given.wire.close_write()
    assert not given.end.ended
    assert not given.wire.flushed
    given.end.room = 100
    given.writable()
    assert given.end.taken == b"abc"
    assert given.end.ended
    assert given.wire.flushed
    assert given.listener.told == ["room"]


def test_an_end_that_would_block_is_tried_again(given: Set) -> None:
    given.end.ends_at_once = False
    given.wire.close_write()
    given.writable()
    assert not given.wire.flushed
    given.end.ends_at_once = True
    given.writable()
    assert given.wire.flushed
    assert not given.loop.writers


def test_a_failed_write_is_told_after_the_caller_has_returned(given: Set) -> None:
    given.wire.pause()
    given.end.failure = BrokenPipeError(errno.EPIPE, "broken pipe")
    given.wire.write(b"abc")
    assert given.listener.told == []
    given.loop.run_soon()
    assert given.listener.told == [given.end.failure]
    assert given.socket.closed


def test_what_the_peer_said_before_it_broke_is_delivered_first(given: Set) -> None:
    given.end.failure = BrokenPipeError(errno.EPIPE, "broken pipe")
    given.end.inbox = [b"early ", b"answer", ConnectionResetError(errno.ECONNRESET, "reset")]
    given.wire.write(b"abc")
    given.loop.run_soon()
    assert given.listener.told[:2] == [b"early ", b"answer"]
    assert isinstance(given.listener.told[2], ConnectionResetError)


def test_between_a_failed_write_and_its_report_nothing_looks_whole(given: Set) -> None:
    given.end.room = 1
    given.wire.write(b"abc")
    given.end.failure = BrokenPipeError(errno.EPIPE, "broken pipe")
    given.wire.close_write()
    given.writable()
    assert not given.wire.flushed or given.socket.closed
    assert given.listener.told == [given.end.failure]
    other = Set()
    other.wire.pause()
    other.end.failure = given.end.failure
    other.wire.write(b"abc")
    assert not other.wire.flushed
    other.wire.write(b"more")
    other.wire.close_write()
    other.wire.resume()
    assert not other.loop.readers
    assert other.end.calls == 1
    other.loop.run_soon()
    assert other.listener.told == [given.end.failure]


def test_who_feeds_a_wire_that_takes_nothing_is_cut_with_a_reset_and_a_reason(given: Set) -> None:
    given.end.room = 0
    for _ in range(11):
        given.wire.write(b"x" * 100)
    assert not given.loop.writers
    given.loop.run_soon()
    (failure,) = given.listener.told
    assert reason_of(failure, Reason.DOWNSTREAM_RESET) is Reason.BUFFER_LIMIT
    assert given.socket.resets, "a clean close would end a stream that lacks bytes"


def test_after_the_close_nothing_happens(given: Set) -> None:
    given.end.room = 0
    given.wire.write(b"abc")
    given.wire.close()
    given.wire.close()
    given.wire.abort()
    given.wire.write(b"more")
    given.wire.close_write()
    given.wire.resume()
    given.wire.read_now()
    given.loop.run_soon()
    assert given.listener.told == []
    assert not given.loop.readers
    assert not given.loop.writers
    assert given.end.released
    assert not given.socket.resets


def test_an_abort_resets(given: Set) -> None:
    given.wire.abort()
    assert given.socket.resets
    assert given.socket.closed


def test_a_reader_that_waits_for_room_is_woken_by_it(given: Set) -> None:
    """TLS may have to write before it can read on."""
    given.end.wants = Want.WRITE
    given.readable()
    assert FD in given.loop.writers
    given.end.inbox = [b"now"]
    given.writable()
    assert given.listener.told == [b"now"]


@pytest.mark.parametrize("event", [b"data", b"", "room"])
def test_a_fault_of_the_receiver_ends_this_connection_with_a_traceback(
    given: Set, event: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    given.listener.fails = True
    with caplog.at_level(logging.ERROR):
        if isinstance(event, bytes):
            given.end.inbox = [event]
            given.readable()
        else:
            given.end.room = 0
            given.wire.write(b"x" * 101)
            given.end.room = 101
            given.writable()
    assert "ZeroDivisionError" in caplog.text
    failure = given.listener.told[-1]
    assert reason_of(failure, Reason.OK) is Reason.INTERNAL_ERROR
    assert given.socket.closed
    assert given.socket.resets
    assert not given.loop.readers
    assert not given.loop.writers


def test_a_fault_in_the_last_words_is_a_fault_too(given: Set, caplog: pytest.LogCaptureFixture) -> None:
    given.listener.fails = True
    given.end.failure = BrokenPipeError(errno.EPIPE, "broken pipe")
    given.end.inbox = [b"early", b"more"]
    given.wire.write(b"abc")
    given.loop.run_soon()
    assert "ZeroDivisionError" in caplog.text
    assert len(given.listener.told) == 2
    assert reason_of(given.listener.told[1], Reason.OK) is Reason.INTERNAL_ERROR


def test_a_fault_in_dealing_with_a_break_is_logged(given: Set, caplog: pytest.LogCaptureFixture) -> None:
    class Worse(Listener):
        def wire_lost(self, reason: OSError) -> None:
            raise ZeroDivisionError

    given.wire.receiver = Worse()
    given.end.inbox = [ConnectionResetError(errno.ECONNRESET, "reset")]
    given.readable()
    assert "could not be dealt with" in caplog.text
    assert given.socket.closed
