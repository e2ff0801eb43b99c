"""One end of the socket pair between supervisor and worker, on the loop: messages out and in, and its end.

Nothing here waits. What the other end does not take is kept, up to `_MOST_KEPT`: a worker that reads nothing for so
long is lost to the supervisor, as if it had closed.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from proxy.workers.frames import MAX_MESSAGE, FrameError, Frames, Message, encode

_READ: Final = 262_144
_MOST_BESIDE: Final = 253
"""Descriptors that Linux takes beside one write (SCM_MAX_FD in unix(7))."""
_AT_ONCE: Final = 200
_INT: Final = array.array("i").itemsize
_MOST_KEPT: Final = 2 * MAX_MESSAGE

_log = logging.getLogger("remora.workers")


class Channel:
    """Sends and receives messages. `receive` gets each with its descriptors, `lost` is called once, at the end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        receive: Callable[[Message, list[int]], None],
        lost: Callable[[], None],
    ) -> None:
        """Own `sock`, one end of a stream pair, from now on."""
        sock.setblocking(False)
        self._loop = loop
        self._socket = sock
        self._receive = receive
        self._lost = lost
        self._frames = Frames()
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()
        self._kept = 0
        self._open = True
        self._writing = False
        self._sent: asyncio.Event | None = None
        loop.add_reader(sock.fileno(), self._ready)

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message with copies of descriptors, which the caller may close at once."""
        if not self._open:
            return
        frame = memoryview(encode(message, len(descriptors)))
        if self._kept + len(frame) > _MOST_KEPT:
            _log.warning("the other end has read nothing for %d bytes", self._kept)
            self._end()
            return
        copies = [os.dup(fd) for fd in descriptors]
        self._kept += len(frame)
        at = 0
        for i in range(0, len(copies), _AT_ONCE):
            self._waiting.append((frame[at : at + 1], copies[i : i + _AT_ONCE]))
            at += 1
        self._waiting.append((frame[at:], []))
        self._write()

    async def flush(self) -> None:
        """Wait until everything is sent, or the other end is gone."""
        if self._open and self._waiting:
            self._sent = asyncio.Event()
            await self._sent.wait()

    def close(self) -> None:
        """Close without a call to `lost`."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        if self._writing:
            self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, copies in self._waiting:
            _close_all(copies)
        self._waiting.clear()
        self._tell_sent()
        _close_all(self._frames.left())

    def _end(self) -> None:
        if self._open:
            self.close()
            self._lost()

    def read_to_end(self) -> None:
        """Take what the other end, which is gone, has sent before; then close."""
        self._lost = _nothing
        while self._open:
            if not self._ready():
                self.close()

    def _ready(self) -> bool:
        """Take what has come; False when there was nothing."""
        try:
            data, descriptors, flags = _received(self._socket)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._end()
            return True
        if flags & socket.MSG_CTRUNC:
            _log.error("descriptors were lost on their way: this process has too many open files")
            _close_all(descriptors)
            self._end()
            return True
        if not data:
            _close_all(descriptors)
            self._end()
            return True
        try:
            for message, own in self._frames.feed(data, descriptors):
                if not self._open:
                    _close_all(own)
                    continue
                self._receive(message, own)
        except FrameError as failure:
            _log.error("what came from the other end cannot be read: %s", failure)
            self._end()
        return True

    def _write(self) -> None:
        while self._waiting:
            data, copies = self._waiting[0]
            try:
                sent = socket.send_fds(self._socket, [data], copies) if copies else self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._end()
                return
            _close_all(copies)
            self._kept -= sent
            if sent < len(data):
                self._waiting[0] = data[sent:], []
            else:
                self._waiting.popleft()
        if not self._waiting:
            self._tell_sent()
        if bool(self._waiting) is not self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._socket.fileno(), self._write)
            else:
                self._loop.remove_writer(self._socket.fileno())

    def _tell_sent(self) -> None:
        if self._sent is not None:
            self._sent.set()


def _nothing() -> None:
    """Nobody waits for the end."""


def _received(sock: socket.socket) -> tuple[bytes, list[int], int]:
    """Read as `socket.recv_fds` does, which leaves its flags out (3.11): children would inherit the descriptors."""
    data, parts, flags, _ = sock.recvmsg(_READ, socket.CMSG_SPACE(_MOST_BESIDE * _INT), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _INT])
    return data, list(descriptors), flags


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
