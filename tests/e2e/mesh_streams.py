"""The ends of connections that tests hold, byte by byte, without any HTTP library.

A `Stream` is a plain socket, or TLS on it by pyOpenSSL, and tells a clean end (b"") from a break (ConnectionError): on
TLS only close_notify is clean. HTTP is read by a small parser of its own that raises on everything odd.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from handshake_peers import TIMEOUT, authority, believes
from OpenSSL import SSL

from certs.authority import Svid

_Result = TypeVar("_Result")

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SIZE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request or answer: `line` is its first line, header names are lower case, `body` is without framing."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]]
    chunks: int = 0
    head: bytes = b""

    @property
    def status(self) -> int:
        return int(self.line.split(b" ", 2)[1])

    @property
    def method(self) -> bytes:
        return self.line.split(b" ", 1)[0]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def get(self, name: str) -> bytes | None:
        """The value of the one header of this name, None when there is none; more than one is a failure."""
        values = self.all(name)
        if len(values) > 1:
            raise AssertionError(f"{name} is there {len(values)} times: {values}")
        return values[0] if values else None

    def all(self, name: str) -> list[bytes]:
        """The values of every header of this name, in order."""
        return [value for found, value in self.headers if found == name.encode()]


class Stream:
    """One end of a connection. `received` is every byte that came, in the clear."""

    def __init__(self, sock: socket.socket, tls: SSL.Connection | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.tls = tls
        self.received = bytearray()
        self.ended = False
        self.broken = False
        self._at = 0

    # --- bytes ---

    async def receive(self) -> bytes:
        """Wait for bytes; b"" is a clean end. Raises ConnectionError for a reset or a TLS stream cut short."""
        try:
            data = await self._do(self._receive_now)
        except ConnectionError:
            self.broken = True
            raise
        self.received += data
        self.ended = not data
        return data

    async def send(self, data: bytes) -> None:
        """Send everything, waiting as long as it takes. Raises ConnectionError when the other end has reset."""
        view = memoryview(data)
        while view:
            view = view[await self._do(partial(self._send_now, view), writing=True) :]

    def send_now(self, data: bytes) -> int:
        """Send what the kernel takes without waiting and say how much that was."""
        try:
            return self._send_now(memoryview(data))
        except (BlockingIOError, SSL.WantReadError, SSL.WantWriteError):
            return 0

    async def end(self) -> None:
        """End our side cleanly (close_notify on TLS, then FIN); the other side may go on."""
        if self.tls is not None:
            with contextlib.suppress(SSL.Error):
                self.tls.shutdown()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a reset."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.sock.close()

    def close(self) -> None:
        """Close the socket, without a close_notify on TLS."""
        self.sock.close()

    @property
    def unread(self) -> bytes:
        """What came and no message has taken."""
        return bytes(self.received[self._at :])

    def forget(self) -> None:
        """Drop what has been taken, so that a long test does not keep it."""
        del self.received[: self._at]
        self._at = 0

    # --- parts of a message ---

    async def until(self, mark: bytes) -> bytes:
        """Take everything up to and with `mark`. Raises EOFError on a clean end before it."""
        while (end := self.received.find(mark, self._at)) < 0:
            if not await self.receive():
                raise EOFError(f"the stream ended before {mark!r}: {self.unread[:200]!r}")
        start, self._at = self._at, end + len(mark)
        return bytes(self.received[start : self._at])

    async def exactly(self, count: int) -> bytes:
        """Take so many bytes. Raises EOFError on a clean end before."""
        while len(self.received) - self._at < count:
            if not await self.receive():
                raise EOFError(f"the stream ended {count - len(self.unread)} bytes early")
        start, self._at = self._at, self._at + count
        return bytes(self.received[start : self._at])

    async def rest(self) -> bytes:
        """Take everything until a clean end."""
        while not self.ended:
            await self.receive()
        start, self._at = self._at, len(self.received)
        return bytes(self.received[start:])

    async def closed(self) -> str:
        """Wait for the end of the other side and say what it was: "clean" or "broken". What came stays unread."""
        try:
            while not self.ended:
                await self.receive()
        except ConnectionError:
            return "broken"
        return "clean"

    # --- messages ---

    async def head(self) -> Message:
        """Take the head of the next message."""
        head = await self.until(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        return Message(line=line, headers=_fields(fields), trailers=[], head=head)

    async def message(self, *, to: bytes = b"GET") -> Message:
        """Take a whole request, or the next answer (interim ones too) to a request with the method `to`."""
        return await self.body_of(await self.head(), to=to)

    async def final(self, *, to: bytes = b"GET") -> Message:
        """Take the next answer that is not interim."""
        while (answer := await self.message(to=to)).status < 200:
            continue
        return answer

    async def body_of(self, head: Message, *, to: bytes = b"GET") -> Message:
        """Take the body that belongs to `head`."""
        answer = head.line.startswith(b"HTTP/")
        framing, length = head.get("transfer-encoding"), head.get("content-length")
        if framing is not None and length is not None:
            raise AssertionError(f"two framings in {head.head!r}")
        body, chunks = b"", 0
        trailers: list[tuple[bytes, bytes]] = []
        if answer and (to == b"HEAD" or head.status < 200 or head.status in (204, 304)):
            pass
        elif framing is not None:
            body, trailers, chunks = await self._chunks()
        elif length is not None:
            body = await self.exactly(int(length))
        elif answer:
            body = await self.rest()
        return Message(
            line=head.line, headers=head.headers, body=body, trailers=trailers, chunks=chunks, head=head.head
        )

    async def _chunks(self) -> tuple[bytes, list[tuple[bytes, bytes]], int]:
        parts: list[bytes] = []
        while size := int((await self.until(b"\r\n"))[:-2], 16):
            parts.append(await self.exactly(size))
            if await self.exactly(2) != b"\r\n":
                raise AssertionError("a chunk does not end in CRLF")
        lines = []
        while line := (await self.until(b"\r\n"))[:-2]:
            lines.append(line)
        return b"".join(parts), _fields(lines), len(parts)

    # --- the socket ---

    def _receive_now(self) -> bytes:
        if self.tls is None:
            return self.sock.recv(_SIZE)
        try:
            return self.tls.recv(_SIZE)
        except SSL.ZeroReturnError:
            return b""

    def _send_now(self, data: memoryview) -> int:
        return self.sock.send(data) if self.tls is None else self.tls.send(data[:16_384])

    async def _do(self, call: Callable[[], _Result], *, writing: bool = False) -> _Result:
        """Repeat a call on the socket until it does not block. What breaks the connection is a ConnectionError."""
        while True:
            try:
                return call()
            except (BlockingIOError, SSL.WantReadError):
                await _ready(self.sock, writing=writing and self.tls is None)
            except SSL.WantWriteError:
                await _ready(self.sock, writing=True)
            except SSL.Error as failure:
                raise ConnectionResetError(f"TLS broke: {failure}") from None


async def _ready(sock: socket.socket, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    number = sock.fileno()
    add(number, _settle, ready)
    try:
        async with asyncio.timeout(TIMEOUT):
            await ready
    finally:
        remove(number)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _fields(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    pairs = [line.partition(b":") for line in lines]
    if not all(colon for _, colon, _ in pairs):
        raise AssertionError(f"a header line without a colon in {lines}")
    return [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]


# --- a client of a sidecar -------------------------------------------------------------------------------------------


def dial(port: int, *, host: str = "127.0.0.1", receive_buffer: int = 0, send_buffer: int = 0) -> socket.socket:
    """Connect to a port on loopback; buffers in bytes bound what the kernel holds (0: as it likes)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    try:
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def tls_on(sock: socket.socket, svid: Svid | None, *, alpn: Sequence[bytes] = (), server_name: str = "") -> Stream:
    """Begin TLS as a client that presents `svid` and verifies the server against our authority."""
    context = SSL.Context(SSL.TLS_METHOD)
    believes(context, authority().bundle)
    if svid is not None:
        context.use_certificate(svid.chain[0])
        for certificate in svid.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(svid.key)
    if alpn:
        context.set_alpn_protos(list(alpn))
    connection = SSL.Connection(context, sock)
    if server_name:
        connection.set_tlsext_host_name(server_name.encode())
    connection.set_connect_state()
    return Stream(sock, connection)
