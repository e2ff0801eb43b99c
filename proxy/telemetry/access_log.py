"""Where access records go: buffered on the loop, written by a thread, flushed at least every second and at exit.

A write to a full pipe or a slow disk blocks, and a sidecar that blocks stops all of its pod's traffic. So the loop
only appends to a list, and one thread writes. If it falls behind by more than `_BACKLOG` bytes, records are dropped
and counted: the log waits for nothing that the traffic would have to wait for.

A full disk costs records, which are counted, and nothing else; each block is tried anew, so the log goes on when there
is room. A record that was cut off there is ended with its line, and the next one begins on its own.

Several processes may write to one destination: a file takes each write whole (O_APPEND), but a pipe only up to 4 KiB
(PIPE_BUF), and a record may be longer, by what a caller sends. So they take turns, by a lock on a file that they share.
The kernel gives the turn on when its holder dies; what that one left half written is ended by the next.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final

FLUSH_INTERVAL: Final = 0.5
"""Seconds that a record waits at most; twice as often as promised, so that a busy loop keeps the promise."""
_FLUSH_BYTES: Final = 65_536
_BACKLOG: Final = 16 * 1024 * 1024

_LINE_FEED: Final = 10

_REOPEN: Final = b""
"""What asks the thread to open the file anew; no block is empty."""

_TORN: Final = b"t"
_WHOLE: Final = b"w"
"""What the shared file says of the destination: it ends within a record, or somebody died while writing; or neither."""

_LAST_WRITE: Final = 2.0
"""Seconds that the end of the process waits for a destination that does not take the last block."""

_log = logging.getLogger("remora.telemetry")


class AccessLog:
    """A sink for lines. `destination` is "stdout", "off" or a path, which is appended to."""

    __slots__ = (
        "_destination",
        "_fd",
        "_handle",
        "_lines",
        "_loop",
        "_lost",
        "_lost_since",
        "_queue",
        "_queued",
        "_size",
        "_skipped",
        "_thread",
        "_torn",
        "_turn",
        "_written",
        "enabled",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, destination: str, turn: int = -1) -> None:
        """Open the destination. Raises OSError when the file cannot be opened for appending.

        `turn` is a descriptor of the file by which processes take turns, -1 where there is one process.
        """
        self._turn = turn
        self._loop = loop
        self._destination = destination
        self.enabled: Final = destination != "off"
        # Each counter has one writer, since `+=` of two threads loses counts: the loop `_queued` and `_skipped`, the
        # thread `_written` and `_lost`.
        self._queued = self._written = 0
        self._skipped = self._lost = 0
        self._torn = False
        """The file ends within a record."""
        self._lost_since = 0
        """Records lost since the last one that was written."""
        self._lines: list[str] = []
        self._size = 0
        self._handle: asyncio.TimerHandle | None = None
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fd = -1
        if self.enabled:
            if destination == "stdout":
                self._fd = os.dup(sys.stdout.fileno())
            else:
                self._fd = _open(destination)
            self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
            self._thread.start()

    @property
    def dropped(self) -> int:
        """Records lost: the writer had fallen behind too far, or the destination did not take them."""
        return self._skipped + self._lost

    @property
    def sink(self) -> Callable[[str], None] | None:
        """What takes the lines; None when nobody wants them, so that none is written in vain."""
        return self.write if self.enabled else None

    def write(self, line: str) -> None:
        """Take one record, a line with its newline."""
        if not self.enabled:
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES:
            self.flush()
        elif self._handle is None:
            self._handle = self._loop.call_later(FLUSH_INTERVAL, self.flush)

    def flush(self) -> None:
        """Hand what is buffered to the thread."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if not self._lines:
            return
        if self._queued - self._written > _BACKLOG:
            self._skipped += len(self._lines)
        else:
            block = "".join(self._lines).encode("utf-8", "backslashreplace")
            self._queued += len(block)
            self._queue.put(block)
        self._lines.clear()
        self._size = 0

    def reopen(self) -> None:
        """Open the file by its name again, as it may have been moved away; what was written so far goes to the old one.

        A file that cannot be opened leaves the old one in use, with a warning. stdout stays as it is.
        """
        self.flush()
        if self._thread is not None and self._destination != "stdout":
            self._queue.put(_REOPEN)

    def close(self) -> None:
        """Write everything out and close; waits for the last block, `_LAST_WRITE` seconds at most."""
        self.flush()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout=_LAST_WRITE)
            self._thread = None

    # --- the thread ---

    def _write_all(self) -> None:
        while (block := self._queue.get()) is not None:
            if block is _REOPEN:
                self._open_again()
            else:
                self._write_block(block)
                self._written += len(block)
        os.close(self._fd)

    def _write_block(self, block: bytes) -> None:
        if self._turn < 0:
            self._write_alone(block)
            return
        fcntl.lockf(self._turn, fcntl.LOCK_EX)
        try:
            self._torn = os.pread(self._turn, 1, 0) == _TORN
            os.pwrite(self._turn, _TORN, 0)
            self._write_alone(block)
            os.pwrite(self._turn, _TORN if self._torn else _WHOLE, 0)
        finally:
            fcntl.lockf(self._turn, fcntl.LOCK_UN)

    def _write_alone(self, block: bytes) -> None:
        data = b"\n" + block if self._torn else block
        view = memoryview(data)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, view[written:])
        except OSError as failure:
            lost = data.count(b"\n", written) - (self._torn and not written)
            if written:
                self._torn = data[written - 1] != _LINE_FEED
            self._lost += lost
            if not self._lost_since:
                _log.warning("%d access records lost: cannot write the access log: %s", lost, failure.strerror)
            self._lost_since += lost
        else:
            self._torn = False
            if self._lost_since:
                _log.warning("the access log is written again; %d records were lost", self._lost_since)
                self._lost_since = 0

    def _open_again(self) -> None:
        try:
            fd = _open(self._destination)
        except OSError as failure:
            _log.warning("the access log stays where it was: cannot open %s: %s", self._destination, failure.strerror)
            return
        os.close(self._fd)
        self._fd = fd
        self._torn = self._torn and os.fstat(fd).st_size > 0
        _log.info("the access log is open anew: %s", self._destination)


def _open(destination: str) -> int:
    return os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
