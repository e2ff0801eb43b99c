"""The two wires: a plain socket and TLS on a socket, with buffered writing and back-pressure.

Purpose: everything above sees bytes, a clean end, or a break, and never a socket, a loop or a TLS library.

Facts true between events:

1. The loop watches the descriptor for reading unless the wire is paused, ended or closed. Polling is level-triggered:
   one read per event (a second that finds nothing costs 2 to 5 µs). A TLS read takes whole records, so nothing
   decrypted is left behind unseen; an end that it met behind them is read at once, or when the wire goes on.
2. Bytes are held only when the peer does not take them. `congested` turns true above the high-water mark and back to
   false at the low one; whoever feeds the wire stops in between.
3. Our side ends (`close_write`) after everything held has gone out, never before.
4. A clean end and a break are never confused: `end_received` only for FIN on a plain socket and close_notify on TLS.
5. After `close` or `abort` no callback comes and the descriptor is closed.
6. A wire that has read asks the loop once more, a clock tick later, to be watched. libuv drops a descriptor that has an
   error pending (a reset) after one more call of the reader; bytes that came before the reset make that call succeed,
   and without the second request the reset behind them would never be read.
7. A wire whose write failed takes no more bytes and is never `flushed`: what was lost is not followed by a clean end.
8. An exception of whoever receives ends this connection, with its traceback in the log, and no other.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.errors import BufferOverrun, InternalFault
from proxy.interfaces import ByteEnd, Clock, Receiver, Want

READ_SIZE: Final = 65_536
"""Bytes asked of a plain socket at first. With `BULK_SIZE` each small message would cost 13 µs more: the allocator asks
the kernel for so much memory each time, and gives it back."""
BULK_SIZE: Final = 262_144
"""Bytes asked of a plain socket whose last read was full. Two hops of bulk cost 17 to 22 % less CPU than with reads of
64 KiB and single records; 512 KiB gained 4 % more and would hold as much again for a peer that is slow."""
_NEVER: Final = math.inf
_LAST_READS: Final = 16
"""Reads from a connection whose writing failed: an answer and its first 4 MiB; more would go around back-pressure."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_log = logging.getLogger("remora.runtime")


class PlainEnd:
    """A non-blocking socket with the face of a `ByteEnd`."""

    __slots__ = ("_most", "_recv", "_send", "_size", "_socket", "wants")

    read_again: Final = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._recv = sock.recv
        self._send = sock.send
        self._size = READ_SIZE
        self._most = BULK_SIZE
        self.wants = Want.READ

    def limit_reads(self, size: int) -> None:
        """Let one read give no more than `size` bytes, or 64 KiB."""
        self._most = max(READ_SIZE, min(BULK_SIZE, size))

    def read(self) -> bytes | None:
        try:
            data = self._recv(self._size)
        except (BlockingIOError, InterruptedError):
            return None
        self._size = self._most if len(data) >= READ_SIZE else READ_SIZE
        return data

    def write(self, data: bytes | memoryview) -> int:
        try:
            return self._send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    def close_write(self) -> bool:
        self._socket.shutdown(socket.SHUT_WR)
        return True

    def release(self) -> None:
        """Let go of the socket, which the wire closes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterMarks:
    """Bytes held: above `high` a wire is congested until it holds `low` or less; above `limit` it is given up."""

    high: int = 65_536
    low: int = 16_384
    limit: int = 1_048_576


class LoopWire:
    """A `Wire` on an event loop: `end` moves the bytes, the loop only says when."""

    __slots__ = (
        "_clock",
        "_end",
        "_end_sent",
        "_ending",
        "_failed",
        "_fd",
        "_held",
        "_held_bytes",
        "_loop",
        "_marks",
        "_read",
        "_reading",
        "_socket",
        "_started",
        "_write",
        "_writing",
        "bytes_read",
        "bytes_written",
        "closed",
        "congested",
        "deadline",
        "on_close",
        "read_ended",
        "receiver",
        "slot",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        sock: socket.socket,
        end: ByteEnd,
        marks: WaterMarks | None = None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self.deadline = self.slot = _NEVER
        self._socket = sock
        self._fd = sock.fileno()
        self._end = end
        self._read = end.read
        self._write = end.write
        self._held: deque[bytes | memoryview] | None = None  # an empty one keeps 1.1 KiB for each idle connection
        self._held_bytes = 0
        self._reading = False
        self.read_ended = False
        self._started = False
        self._writing = False
        self._ending = False
        self._end_sent = False
        self._failed = False
        self._marks = marks = marks if marks is not None else WaterMarks()
        # Who has the same marks may hold one such read more when it is told to stop.
        end.limit_reads(marks.limit - marks.high)
        self.receiver: Receiver = _NOBODY
        self.congested = False
        self.closed = False
        self.on_close: Callable[[], object] | None = None
        self.bytes_read = 0
        self.bytes_written = 0

    @property
    def socket(self) -> socket.socket:
        return self._socket

    @property
    def end(self) -> ByteEnd:
        return self._end

    # --- reading ---

    def start(self) -> None:
        """Begin to deliver. Over TLS follow with `read_now`: data may have come with the last flight."""
        self._started = True
        self.resume()

    def read_now(self) -> None:
        """Read once without waiting for the loop's word."""
        if self._reading:
            self._readable()

    def pause(self) -> None:
        """Stop delivering; the kernel holds what comes and the peer's window fills."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Deliver again."""
        if self._started and not (self._reading or self.closed or self.read_ended or self._failed):
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)
            if self._end.read_again:
                self._loop.call_soon(self.read_now)

    def _readable(self) -> None:
        try:
            data = self._read()
        except OSError as failure:
            self._lost(failure)
            return
        receiver = self.receiver
        try:
            if data:
                self.bytes_read += len(data)
                if self.slot == _NEVER:
                    self._clock.arm(self, 0.0)
                receiver.data_received(data)
                if self._end.read_again:
                    self.read_now()
            elif data is None:
                if self._end.wants is Want.WRITE and not self._writing:
                    self._watch_writing()
            else:
                self.read_ended = True
                self.pause()
                receiver.end_received()
        except Exception as fault:
            self._give_up(receiver, fault)

    def deadline_passed(self) -> None:
        """Ask the loop again to watch the descriptor (fact 6); where it still does, this costs half a microsecond."""
        if not self._reading:
            return
        try:
            self._loop.add_reader(self._fd, self._readable)
        except RuntimeError:  # libuv has dropped it, so the end is known: read up to it without waiting in between
            self._loop.remove_reader(self._fd)
            self._loop.add_reader(self._fd, self._readable)
            before = -1
            while self._reading and before < self.bytes_read:
                before = self.bytes_read
                self._readable()

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Send `data` now as far as the peer takes it and hold the rest."""
        if self.closed or self._failed or not data:
            return
        if self._held is not None:
            self._hold(data)
            return
        size = len(data)
        try:
            taken = self._write(data)
            if taken < size:
                view = memoryview(data)
                while 0 < taken < size:
                    view = view[taken:]
                    size -= taken
                    self.bytes_written += taken
                    taken = self._write(view)
                if taken < size:
                    self._hold(view)
                    return
        except OSError as failure:
            self._lost_later(failure)
            return
        self.bytes_written += taken

    def _hold(self, data: bytes | memoryview) -> None:
        if self._held is None:
            self._held = deque()
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._marks.high:
            self.congested = True
            if self._held_bytes > self._marks.limit:
                self._lost_later(
                    BufferOverrun(errno.ENOBUFS, "the peer takes no bytes and the buffer limit is reached")
                )
                return
        if not self._writing:
            self._watch_writing()

    def _watch_writing(self) -> None:
        self._writing = True
        self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        held = self._held
        try:
            while held:
                data = held[0]
                taken = self._write(data)
                if not taken:
                    break
                self._held_bytes -= taken
                self.bytes_written += taken
                if taken < len(data):
                    held[0] = memoryview(data)[taken:]
                else:
                    held.popleft()
            if not held:
                held = self._held = None
            if self._ending and held is None and not self._end_sent:
                if not self._end.close_write():
                    return
                self._end_sent = True
        except OSError as failure:
            self._lost(failure)
            return
        if held is not None:
            if self.congested and self._held_bytes <= self._marks.low:
                self._tell_room()
            return
        self._writing = False
        self._loop.remove_writer(self._fd)
        if self._end.wants is Want.WRITE and self._reading:
            self._readable()
            if self.closed:
                return
        if self.congested or self._ending:
            self._tell_room()

    def _tell_room(self) -> None:
        self.congested = False
        receiver = self.receiver
        try:
            receiver.write_ready()
        except Exception as fault:
            self._give_up(receiver, fault)

    def close_write(self) -> None:
        """End our side once all that is held has gone out; the peer's side goes on."""
        if self.closed or self._ending or self._failed:
            return
        self._ending = True
        if self._held is not None:
            return
        try:
            self._end_sent = self._end.close_write()
            if not self._end_sent and not self._writing:
                self._watch_writing()
        except OSError as failure:
            self._lost_later(failure)

    # --- the end ---

    @property
    def flushed(self) -> bool:
        """All that was written, the end of our side included, has been taken by the kernel."""
        return self._held is None and self._ending is self._end_sent and not self._failed

    def close(self) -> None:
        """Close both sides. What is still held is lost: call `close_write` and wait for the peer where it matters."""
        if self.closed:
            return
        self.closed = True
        self.pause()
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._held = None
        self.receiver = _NOBODY
        self._end.release()
        self._socket.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def abort(self) -> None:
        """Close with a reset, so that the peer cannot take what it got for complete."""
        if not self.closed:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError as failure:
                if failure.errno not in (errno.EINVAL, errno.ENOTCONN):
                    raise
            self.close()

    def _lost(self, failure: OSError) -> None:
        if not self.closed:
            receiver = self.receiver
            if isinstance(failure, BufferOverrun):
                self.abort()  # the connection itself is whole, and a close would end a stream that lacks bytes
            else:
                self.close()
            self._tell_break(receiver, failure)

    def _tell_break(self, receiver: Receiver, failure: OSError) -> None:
        try:
            receiver.wire_lost(failure)
        except Exception:
            _log.exception("a fault of the sidecar: the break of a connection could not be dealt with")

    def _give_up(self, receiver: Receiver, fault: Exception) -> None:
        """Break the connection of a receiver that raised: how far it came is unknown, so nothing may go on."""
        _log.error("a fault of the sidecar ended a connection: %r", fault, exc_info=fault)
        self.abort()
        self._tell_break(receiver, InternalFault(errno.EPROTO, "a fault of the sidecar; its log has the traceback"))

    def _lost_later(self, failure: OSError) -> None:
        """Report a failed write after the caller has returned: it is in the middle of its own step."""
        last_words = self._reading and not isinstance(failure, BufferOverrun)
        self.pause()
        self._failed = True
        self._held = None
        self._held_bytes = 0
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)
        self._loop.call_soon(self._lost_writing if last_words else self._lost, failure)

    def _lost_writing(self, failure: OSError) -> None:
        """Deliver what the peer said before it broke: an early answer, or the alert with which it refused us."""
        for _ in range(_LAST_READS):
            if self.closed:
                return
            try:
                data = self._read()
            except OSError as cause:
                failure = cause
                break
            if not data:
                break
            self.bytes_read += len(data)
            receiver = self.receiver
            try:
                receiver.data_received(data)
            except Exception as fault:
                self._give_up(receiver, fault)
        self._lost(failure)


class _Nobody:
    """Receives for a wire that has nobody above it."""

    def data_received(self, data: bytes) -> None:
        """Drop bytes."""

    def end_received(self) -> None:
        """Ignore the end."""

    def wire_lost(self, reason: OSError) -> None:
        """Ignore the break."""

    def write_ready(self) -> None:
        """Ignore the room."""


_NOBODY: Final = _Nobody()
