"""The faces that stages show each other, so that no shell needs to import another.

Everything here is called from the event loop's thread, never blocks and never awaits.

    socket --readable--> Wire --data_received--> Receiver (a forwarder, a tunnel, a detector)
    Receiver --write--> Wire --would block--> held bytes --writable--> Wire --write_ready--> Receiver

A Wire is either a plain socket or TLS on a socket; nobody above it can tell which.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable
from typing import Protocol

from proxy.errors import Reason
from proxy.types import Denial, Permit


class Want(enum.Enum):
    """What a byte end waits for before it can go on."""

    READ = "read"
    WRITE = "write"


class ByteEnd(Protocol):
    """One non-blocking end of a connection: a plain socket or a TLS session on one.

    `read` returns bytes, b"" when the peer ended its side cleanly, or None when nothing is there now. `write` returns
    the number of bytes taken, 0 when it would block. `close_write` ends our side (FIN, or close_notify) and is False
    while it would block. All raise `OSError` when the connection is broken; over TLS an end without close_notify is a
    break (`ConnectionResetError`), because only close_notify says that nothing is missing (RFC 8446 section 6.1).

    `read_again`: behind the bytes of the last read stood an end or a break, which the next read tells; no event will.
    `limit_reads` lets one read give no more than `size` bytes, or 64 KiB of a plain socket, or one TLS record, where
    that is more.
    """

    @property
    def wants(self) -> Want: ...
    @property
    def read_again(self) -> bool: ...
    def limit_reads(self, size: int) -> None: ...
    def read(self) -> bytes | None: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def close_write(self) -> bool: ...
    def release(self) -> None: ...


class Receiver(Protocol):
    """Who is told what happens on a wire."""

    def data_received(self, data: bytes) -> None:
        """Take bytes, never empty."""

    def end_received(self) -> None:
        """Learn that the peer ended its side cleanly; our side may go on."""

    def wire_lost(self, reason: OSError) -> None:
        """Learn that the connection broke. Nothing more will come and nothing can be written."""

    def write_ready(self) -> None:
        """Learn that what was held has been taken: a congested wire is free, or the end of our side has gone out."""


class Wire(Protocol):
    """A connection with buffered writing and explicit back-pressure."""

    receiver: Receiver
    congested: bool
    """More than the high-water mark is held: stop giving it data until `write_ready`."""
    bytes_read: int
    bytes_written: int
    read_ended: bool
    """The peer ended its side, and `end_received` was called for it."""
    closed: bool
    on_close: Callable[[], object] | None
    """Called once, when the wire is closed, whoever closes it."""

    @property
    def socket(self) -> socket.socket: ...
    @property
    def flushed(self) -> bool: ...
    def start(self) -> None: ...
    def read_now(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def close_write(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Deadline(Protocol):
    """Something that a coarse clock can end. `deadline` is in the loop's seconds; `slot` belongs to the clock."""

    deadline: float
    slot: float

    def deadline_passed(self) -> None: ...


class Clock(Protocol):
    """The coarse clock: one timer for all deadlines. `now` is at most one tick old."""

    now: float

    def arm(self, entry: Deadline, seconds: float) -> None: ...
    def disarm(self, entry: Deadline) -> None: ...


class RequestRecord(Protocol):
    """The result of one request or one connection, written exactly once by `finish`."""

    bytes_received: int
    bytes_sent: int
    response_code: int
    retries: int
    request_id: str
    trace_lines: bytes
    """Header lines with the identifiers that the request lacks."""

    def judged(self, verdict: Permit | Denial) -> None: ...
    def reached(self, host: str, local: str) -> None: ...
    def responded(self, status: int) -> None: ...
    def finish(self, reason: Reason, detail: str = "") -> None: ...
