"""A wire on real sockets: partial writes, water marks, ends and breaks, and how often it wakes the loop."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from proxy.errors import Reason, reason_of
from proxy.interfaces import Want
from proxy.runtime.clock import CoarseClock
from proxy.runtime.wire import LoopWire, PlainEnd, WaterMarks

MARKS = WaterMarks(high=65_536, low=16_384, limit=1_048_576)
WAIT = 5.0


class Ear:
    """Writes down what a wire tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.data = b""
        self.told: list[Any] = []
        self._news = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._news.set()

    def end_received(self) -> None:
        self._tell("end")

    def wire_lost(self, reason: OSError) -> None:
        self._tell(reason)

    def write_ready(self) -> None:
        self._tell("room")

    def _tell(self, what: Any) -> None:
        self.told.append(what)
        self._news.set()

    async def until(self, size: int = 0, told: int = 0) -> None:
        """Wait until so many bytes and so many words have come."""
        async with asyncio.timeout(WAIT):
            while len(self.data) < size or len(self.told) < told:
                self._news.clear()
                await self._news.wait()


class CountingEnd:
    """A plain end behind a counter of how often it is asked; no subclass, which a compiled class cannot have."""

    def __init__(self, sock: socket.socket) -> None:
        self._end = PlainEnd(sock)
        self.read_again = self._end.read_again
        self.limit_reads = self._end.limit_reads
        self.close_write = self._end.close_write
        self.release = self._end.release
        self.reads = self.writes = 0

    @property
    def wants(self) -> Want:
        return self._end.wants

    def read(self) -> bytes | None:
        self.reads += 1
        return self._end.read()

    def write(self, data: bytes | memoryview) -> int:
        self.writes += 1
        return self._end.write(data)


class Line:
    """A wire on one side of a TCP connection over loopback, a plain socket on the other."""

    def __init__(self, clock: CoarseClock) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            self.peer, _ = server.accept()
        for sock in (ours, self.peer):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.sock = ours
        self.end = CountingEnd(ours)
        self.ear = Ear()
        self.wire = LoopWire(asyncio.get_running_loop(), clock, ours, self.end, MARKS)
        self.wire.receiver = self.ear
        self.wire.start()

    async def say(self, data: bytes) -> None:
        async with asyncio.timeout(WAIT):
            await asyncio.get_running_loop().sock_sendall(self.peer, data)

    async def hear(self, size: int) -> bytes:
        """Read exactly so many bytes, fewer only at the end."""
        found = b""
        async with asyncio.timeout(WAIT):
            while len(found) < size:
                data = await asyncio.get_running_loop().sock_recv(self.peer, min(65_536, size - len(found)))
                if not data:
                    break
                found += data
        return found

    def fill(self) -> int:
        """Write until the wire is congested; gives the number of bytes."""
        written = 0
        while not self.wire.congested:
            self.wire.write(b"%08d" % (written // 8))
            written += 8
        return written

    def close(self) -> None:
        self.wire.close()
        self.peer.close()


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Line]:
    clock = CoarseClock(asyncio.get_running_loop())
    made = Line(clock)
    yield made
    made.close()
    clock.stop()


@pytest.mark.asyncio
async def test_bytes_and_both_ends_go_both_ways(line: Line) -> None:
    await line.say(b"ping")
    await line.ear.until(size=4)
    line.wire.write(b"pong")
    assert await line.hear(4) == b"pong"
    line.peer.shutdown(socket.SHUT_WR)
    await line.ear.until(told=1)
    assert line.ear.told == ["end"]
    line.wire.write(b"our side goes on")
    line.wire.close_write()
    assert await line.hear(100) == b"our side goes on"
    assert line.wire.flushed


@pytest.mark.asyncio
async def test_a_slow_peer_gets_every_byte_in_order(line: Line) -> None:
    written = line.fill()
    line.wire.close_write()
    assert not line.wire.flushed
    heard = await line.hear(written + 1)
    assert heard == b"".join(b"%08d" % number for number in range(written // 8))
    await line.ear.until(told=1)
    assert line.wire.bytes_written == written
    assert line.wire.flushed
    assert set(line.ear.told) == {"room"}


@pytest.mark.asyncio
async def test_room_is_told_at_the_low_mark(line: Line) -> None:
    written = line.fill()
    assert line.ear.told == []
    await line.hear(written - 1_000)
    await line.ear.until(told=1)
    assert not line.wire.congested
    assert line.ear.told == ["room"]


@pytest.mark.asyncio
async def test_who_overfills_a_wire_breaks_it_and_the_peer_sees_a_break(line: Line) -> None:
    for _ in range(200):
        line.wire.write(b"x" * 16_384)
    await line.ear.until(told=1)
    (failure,) = line.ear.told
    assert reason_of(failure, Reason.OK) is Reason.BUFFER_LIMIT
    with pytest.raises(ConnectionResetError):
        await line.hear(10**8)


@pytest.mark.asyncio
async def test_a_close_is_a_clean_end(line: Line) -> None:
    line.wire.write(b"whole")
    line.wire.close()
    assert await line.hear(100) == b"whole"


@pytest.mark.asyncio
async def test_an_abort_is_a_reset(line: Line) -> None:
    line.wire.abort()
    with pytest.raises(ConnectionResetError):
        await line.hear(100)


@pytest.mark.asyncio
async def test_a_reset_is_told_as_a_break_and_not_as_an_end(line: Line) -> None:
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.peer.close()
    await line.ear.until(told=1)
    (failure,) = line.ear.told
    assert isinstance(failure, ConnectionResetError)
    assert line.wire.closed


@pytest.mark.asyncio
async def test_bytes_before_a_reset_do_not_hide_it(line: Line) -> None:
    await line.say(b"last words")
    line.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.peer.close()
    await line.ear.until(told=1)
    assert isinstance(line.ear.told[0], ConnectionResetError)


@pytest.mark.asyncio
async def test_a_write_to_who_has_gone_is_told_as_a_break(line: Line) -> None:
    line.wire.pause()
    line.peer.close()
    async with asyncio.timeout(WAIT):
        while not line.wire.closed:
            line.wire.write(b"x" * 1_000)
            await asyncio.sleep(0.01)
    assert isinstance(line.ear.told[-1], OSError)


@pytest.mark.asyncio
async def test_an_idle_wire_does_not_wake_the_loop(line: Line) -> None:
    await line.say(b"hello")
    await line.ear.until(size=5)
    before = line.end.reads
    await asyncio.sleep(0.4)
    assert line.end.reads == before


@pytest.mark.asyncio
async def test_a_paused_wire_with_bytes_waiting_does_not_wake_the_loop(line: Line) -> None:
    line.wire.pause()
    await line.say(b"x" * 1_000)
    await asyncio.sleep(0.3)
    assert line.end.reads == 0
    line.wire.resume()
    await line.ear.until(size=1_000)


@pytest.mark.asyncio
async def test_a_wire_whose_peer_takes_nothing_does_not_wake_the_loop(line: Line) -> None:
    line.fill()
    await asyncio.sleep(0.1)
    before = line.end.writes
    await asyncio.sleep(0.4)
    assert line.end.writes == before


@pytest.mark.asyncio
async def test_a_wire_whose_peer_has_ended_does_not_wake_the_loop(line: Line) -> None:
    line.peer.shutdown(socket.SHUT_WR)
    await line.ear.until(told=1)
    before = line.end.reads
    await asyncio.sleep(0.3)
    assert line.end.reads == before
