"""Bytes, ends and breaks of a session that stands: the same with the direct calls and with the public ones."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import gc
import hashlib
import os
import socket
import termios
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from handshake_peers import TIMEOUT, Peer, authority, generation, read_some, readable, session, tcp_pair

from proxy.constants import READ_SIZE
from proxy.handshake import binding
from proxy.handshake.binding import Calls, DirectCalls, PublicCalls
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.handshake.engine import Session
from proxy.interfaces import Want
from proxy.types import Protocol

RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""struct linger: on, 0 seconds: `close` sends a reset."""


@pytest.fixture(scope="module", params=[DirectCalls, PublicCalls], ids=["direct", "public"])
def ours(request: pytest.FixtureRequest) -> TlsGeneration:
    make: Callable[[], Calls] = request.param
    return generation(calls=make())


@dataclass
class Pair:
    """Two sessions of ours after their handshake, with their sockets."""

    inbound: Session
    inbound_socket: socket.socket
    outbound: Session
    outbound_socket: socket.socket


@pytest_asyncio.fixture
async def pair(ours: TlsGeneration) -> AsyncIterator[Pair]:
    with (
        tcp_pair() as (accepted, dialled),
        session(ours, accepted, server_side=True) as inbound,
        session(ours, dialled, server_side=False) as outbound,
    ):
        await asyncio.gather(perform(inbound, accepted, timeout=TIMEOUT), perform(outbound, dialled, timeout=TIMEOUT))
        yield Pair(inbound, accepted, outbound, dialled)


# --- moving bytes ---


@pytest.mark.asyncio
async def test_small_messages_go_both_ways(pair: Pair) -> None:
    for number in range(50):
        message = b"message %d" % number
        assert pair.outbound.write(message) == len(message)
        assert await read_some(pair.inbound, pair.inbound_socket) == message
        assert pair.inbound.write(memoryview(message)[2:]) == len(message) - 2
        assert await read_some(pair.outbound, pair.outbound_socket) == message[2:]
    assert pair.inbound.read() is None
    assert pair.inbound.wants is Want.READ


@pytest.mark.asyncio
async def test_what_was_read_stays_when_another_session_reads(pair: Pair) -> None:
    pair.outbound.write(b"first")
    first = await read_some(pair.inbound, pair.inbound_socket)
    pair.inbound.write(b"other")
    assert await read_some(pair.outbound, pair.outbound_socket) == b"other"
    assert first == b"first"
    assert type(first) is bytes


@pytest.mark.asyncio
async def test_large_writes_are_taken_in_parts_and_arrive_whole(pair: Pair) -> None:
    pair.outbound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    data = os.urandom(3_000_000)
    received = hashlib.sha256()
    sent = count = blocked = 0
    while count < len(data):
        if sent < len(data):
            sent += pair.outbound.write(memoryview(data)[sent:])
            if sent < len(data):
                blocked += 1
                assert pair.outbound.wants is Want.WRITE
        while (part := pair.inbound.read()) is not None:
            assert 0 < len(part) <= binding.RECORDS * READ_SIZE
            assert pair.inbound.pending() == 0
            received.update(part)
            count += len(part)
        await asyncio.sleep(0)
    assert blocked > 0, "the socket was never full: nothing was tested"
    assert received.digest() == hashlib.sha256(data).digest()


@pytest.mark.asyncio
async def test_a_full_socket_takes_nothing_and_says_so(pair: Pair) -> None:
    block = b"z" * 65_536
    rest = memoryview(block)
    while taken := pair.outbound.write(rest):
        rest = rest[taken:] or memoryview(block)
    assert pair.outbound.wants is Want.WRITE
    assert pair.outbound.write(bytes(rest)) == 0  # the same bytes in another place


@pytest.mark.asyncio
async def test_full_records_that_stand_are_read_at_once(pair: Pair, ours: TlsGeneration) -> None:
    most = READ_SIZE * (1 + len(ours.calls.places))
    data = os.urandom(5 * READ_SIZE + 10)
    assert pair.outbound.write(data) == len(data)
    await all_there(pair.inbound_socket, len(data))
    parts = [await read_some(pair.inbound, pair.inbound_socket)]
    assert len(parts[0]) == min(len(data), most)
    while sum(map(len, parts)) < len(data):
        parts.append(await read_some(pair.inbound, pair.inbound_socket))
    assert b"".join(parts) == data
    assert pair.inbound.read() is None


@pytest.mark.asyncio
async def test_a_read_is_held_within_its_limit(pair: Pair) -> None:
    pair.inbound.limit_reads(2 * READ_SIZE + 5)
    data = os.urandom(5 * READ_SIZE)
    assert pair.outbound.write(data) == len(data)
    await all_there(pair.inbound_socket, len(data))
    parts: list[bytes] = []
    while sum(map(len, parts)) < len(data):
        parts.append(await read_some(pair.inbound, pair.inbound_socket))
        assert len(parts[-1]) <= 2 * READ_SIZE
    assert b"".join(parts) == data


async def all_there(sock: socket.socket, size: int) -> None:
    """Waits until the socket holds `size` bytes and the records around them."""
    count = array.array("i", [0])
    while count[0] < size:
        await asyncio.sleep(0)
        fcntl.ioctl(sock, termios.FIONREAD, count)


# --- ends ---


@pytest.mark.asyncio
async def test_an_end_met_behind_full_records_comes_with_the_next_read(pair: Pair, ours: TlsGeneration) -> None:
    data = os.urandom(2 * READ_SIZE)
    assert pair.outbound.write(data) == len(data)
    assert pair.outbound.close_write() is True
    await all_there(pair.inbound_socket, len(data) + 60)
    received = b""
    while len(received) < len(data):
        received += await read_some(pair.inbound, pair.inbound_socket)
    assert received == data
    assert pair.inbound.read_again is bool(ours.calls.places)
    assert await read_some(pair.inbound, pair.inbound_socket) == b""
    assert not pair.inbound.read_again
    assert pair.inbound.read() == b""
    assert pair.inbound.write(b"an answer after your end") == 24
    assert await read_some(pair.outbound, pair.outbound_socket) == b"an answer after your end"


@pytest.mark.asyncio
async def test_a_break_met_behind_full_records_is_told_after_them(pair: Pair, ours: TlsGeneration) -> None:
    data = os.urandom(2 * READ_SIZE)
    assert pair.outbound.write(data) == len(data)
    pair.outbound_socket.send(b"\x17\x03\x03\x00\x20" + b"f" * 32)
    await all_there(pair.inbound_socket, len(data) + 60)
    received = b""
    while len(received) < len(data):
        received += await read_some(pair.inbound, pair.inbound_socket)
    assert received == data
    assert pair.inbound.read_again is bool(ours.calls.places)
    with pytest.raises(ConnectionResetError, match="bad record mac"):
        await read_some(pair.inbound, pair.inbound_socket)
    assert not pair.inbound.read_again


@pytest.mark.asyncio
async def test_close_notify_is_an_end_and_the_other_side_goes_on(pair: Pair) -> None:
    pair.outbound.write(b"last words")
    assert pair.outbound.close_write() is True
    assert pair.outbound.close_write() is True
    assert await read_some(pair.inbound, pair.inbound_socket) == b"last words"
    assert await read_some(pair.inbound, pair.inbound_socket) == b""
    assert pair.inbound.read() == b""
    assert pair.inbound.write(b"an answer after your end") == 24
    assert await read_some(pair.outbound, pair.outbound_socket) == b"an answer after your end"
    assert pair.inbound.close_write() is True
    assert await read_some(pair.outbound, pair.outbound_socket) == b""


@pytest.mark.asyncio
async def test_close_write_on_a_full_socket_is_called_again(pair: Pair) -> None:
    fill(pair.outbound_socket)
    assert pair.outbound.close_write() is False
    assert pair.outbound.wants is Want.WRITE
    assert pair.outbound.close_write() is False
    empty(pair.inbound_socket)
    assert pair.outbound.close_write() is True
    await readable(pair.inbound_socket)
    record = pair.inbound_socket.recv(16_384)
    assert (record[:5], len(record)) == (b"\x17\x03\x03\x00\x13", 24), "one encrypted alert"
    assert pair.outbound.close_write() is True


def fill(sock: socket.socket) -> None:
    """Sends until the kernel takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65_536)


def empty(sock: socket.socket) -> None:
    """Takes everything, past the TLS session."""
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1_000_000)


@pytest.mark.asyncio
async def test_tcp_end_without_close_notify_is_a_reset(pair: Pair) -> None:
    pair.outbound.write(b"not all")
    pair.outbound_socket.shutdown(socket.SHUT_WR)
    assert await read_some(pair.inbound, pair.inbound_socket) == b"not all"
    with pytest.raises(ConnectionResetError, match="close_notify"):
        await read_some(pair.inbound, pair.inbound_socket)


@pytest.mark.asyncio
async def test_a_record_cut_in_half_is_a_reset(pair: Pair) -> None:
    # The head of a record that says 64 bytes, and half of them.
    pair.outbound_socket.send(b"\x17\x03\x03\x00\x40" + b"\x00" * 32)
    pair.outbound_socket.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        await read_some(pair.inbound, pair.inbound_socket)


@pytest.mark.asyncio
async def test_a_forged_record_is_a_reset(pair: Pair) -> None:
    pair.outbound_socket.send(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
    with pytest.raises(ConnectionResetError, match="bad record mac"):
        await read_some(pair.inbound, pair.inbound_socket)
    with pytest.raises(ConnectionResetError, match="bad_record_mac"):
        await read_some(pair.outbound, pair.outbound_socket)


@pytest.mark.asyncio
async def test_a_plain_close_notify_cannot_be_forged(pair: Pair) -> None:
    pair.outbound_socket.send(b"\x15\x03\x03\x00\x02\x01\x00")
    with pytest.raises(ConnectionResetError):
        await read_some(pair.inbound, pair.inbound_socket)


@pytest.mark.asyncio
async def test_a_reset_is_a_reset_for_reading_and_writing(pair: Pair) -> None:
    pair.outbound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    pair.outbound.release()
    pair.outbound_socket.close()
    await readable(pair.inbound_socket)
    with pytest.raises(ConnectionResetError) as caught:
        pair.inbound.read()
    assert caught.value.errno == errno.ECONNRESET
    with pytest.raises(OSError, match=r".") as broken:
        pair.inbound.write(b"x")
    assert isinstance(broken.value, ConnectionError)
    with pytest.raises(ConnectionError):
        pair.inbound.close_write()


@pytest.mark.asyncio
async def test_a_broken_session_does_not_disturb_another(ours: TlsGeneration, pair: Pair) -> None:
    """What one connection leaves in OpenSSL's error queue must not be taken for a fault of the next."""
    with (
        tcp_pair() as (accepted, dialled),
        session(ours, accepted, server_side=True) as inbound,
        session(ours, dialled, server_side=False) as outbound,
    ):
        await asyncio.gather(perform(inbound, accepted, timeout=TIMEOUT), perform(outbound, dialled, timeout=TIMEOUT))
        dialled.send(b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        with pytest.raises(ConnectionResetError):
            await read_some(inbound, accepted)
        assert binding.lib.ERR_peek_error() == 0
        assert pair.inbound.read() is None
        pair.outbound.write(b"still here")
        assert await read_some(pair.inbound, pair.inbound_socket) == b"still here"


# --- life ---


@pytest.mark.asyncio
async def test_released_it_refuses_every_call_and_leaves_the_socket(pair: Pair) -> None:
    pair.outbound.release()
    pair.outbound.release()
    for call in (pair.outbound.read, lambda: pair.outbound.write(b"x"), pair.outbound.close_write):
        with pytest.raises((TypeError, AttributeError)):
            call()
    assert pair.outbound_socket.fileno() >= 0
    assert pair.outbound.generation == 1


@pytest.mark.asyncio
async def test_dropped_it_is_freed_at_once_and_its_socket_too(ours: TlsGeneration) -> None:
    gc.disable()
    try:
        with tcp_pair() as (accepted, dialled):
            inbound = Session(ours, accepted, server_side=True, protocol=Protocol.HTTP)
            outbound = Session(ours, dialled, server_side=False, protocol=Protocol.HTTP)
            verdicts = ours.server_context(Protocol.HTTP).verdicts
            assert len(verdicts) == 1
            await asyncio.gather(
                perform(inbound, accepted, timeout=TIMEOUT), perform(outbound, dialled, timeout=TIMEOUT)
            )
            assert len(verdicts) == 0
            freed = [weakref.ref(end._ssl) for end in (inbound, outbound)]
            del inbound, outbound
            assert [reference() for reference in freed] == [None, None]
            unfinished = Session(ours, accepted, server_side=True, protocol=Protocol.HTTP)
            assert len(verdicts) == 1
            del unfinished
            assert len(verdicts) == 0
    finally:
        gc.enable()


@pytest.mark.asyncio
async def test_bytes_that_came_with_the_last_flight_are_read_without_an_event(ours: TlsGeneration) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        peer = Peer(dialled, authority().svid("demo", "web"))

        async def eager() -> None:
            await peer.handshake()
            await peer.send(b"early")

        await asyncio.gather(perform(inbound, accepted, timeout=TIMEOUT), eager())
        assert await read_some(inbound, accepted) == b"early"
