"""A recording backend: the application behind a sidecar, which stores what it received and answers by a script."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from mesh_streams import Message, Stream

Script = Callable[[Stream, "Backend"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def keep_answering(stream: Stream, backend: Backend) -> None:
    """The script of a plain application: take whole requests and answer each, until the client ends."""
    while True:
        try:
            request = await backend.take(stream)
        except EOFError:
            return
        await stream.send(backend.answer(request))


def answering(*answers: bytes, then: Script = keep_answering) -> Script:
    """A script that takes one whole request for each of `answers`, then goes on as `then`."""

    async def script(stream: Stream, backend: Backend) -> None:
        for answer in answers:
            await backend.take(stream)
            await stream.send(answer)
        await then(stream, backend)

    return script


class Backend:
    """A TCP server that stores what it receives and answers by a script, once per connection.

    `streams` are its connections in order, `requests` what its scripts took with `take`, whole. When a script returns,
    its connection is closed; `failures` are the exceptions that scripts ended with, breaks excepted.
    """

    def __init__(self, script: Script = keep_answering, *, receive_buffer: int = 0, send_buffer: int = 0) -> None:
        self.script = script
        self.answer: Callable[[Message], bytes] = lambda request: OK
        self.streams: list[Stream] = []
        self.requests: list[Message] = []
        self.failures: list[BaseException] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for option, size in ((socket.SO_RCVBUF, receive_buffer), (socket.SO_SNDBUF, send_buffer)):
            if size:
                self._listener.setsockopt(socket.SOL_SOCKET, option, size)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), self._accept)

    @property
    def received(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(bytes(stream.received) for stream in self.streams)

    async def take(self, stream: Stream) -> Message:
        """Take a whole request and note it. Raises EOFError when the client has ended."""
        request = await stream.message()
        self.requests.append(request)
        return request

    async def close(self) -> None:
        """Stop, close everything, and fail with what went wrong in a script."""
        self.stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self.streams:
            stream.close()
        if self.failures:
            raise self.failures[0]

    def stop_listening(self) -> None:
        """Refuse new connections from now on."""
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = Stream(sock)
        self.streams.append(stream)
        task = self._loop.create_task(self._run(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, stream: Stream) -> None:
        try:
            await self.script(stream, self)
        except (ConnectionError, TimeoutError, EOFError):
            stream.broken = True
        except Exception as failure:
            self.failures.append(failure)
        finally:
            stream.close()
