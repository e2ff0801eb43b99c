"""The channel between supervisor and worker: messages and descriptors over a real socket pair, and its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mesh import eventually

from proxy.workers.channel import Channel
from proxy.workers.frames import Message

MANY = 450
"""Descriptors of one message: more than the kernel takes beside one write (253)."""


class End:
    """One end, and what came out of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[Message] = []
        self.descriptors: list[int] = []
        self.lost = 0
        self.channel = Channel(asyncio.get_running_loop(), sock, receive=self._receive, lost=self._lost)

    def _receive(self, message: Message, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors += descriptors

    def _lost(self) -> None:
        self.lost += 1


@contextmanager
def pair() -> Iterator[tuple[End, End]]:
    one, other = (End(sock) for sock in socket.socketpair())
    try:
        yield one, other
    finally:
        for end in (one, other):
            end.channel.close()
            for fd in end.descriptors:
                os.close(fd)


@pytest.mark.asyncio
async def test_messages_and_descriptors_arrive_in_order() -> None:
    with pair() as (one, other):
        reading, writing = os.pipe()
        one.channel.send({"number": 1})
        one.channel.send({"number": 2}, [writing])
        one.channel.send({"number": 3})
        os.close(writing)  # what was sent is a copy
        await eventually(lambda: len(other.messages) == 3)
        assert [message["number"] for message in other.messages] == [1, 2, 3]
        [copy] = other.descriptors
        os.write(copy, b"here")
        assert os.read(reading, 9) == b"here"
        assert not os.get_inheritable(copy)
        os.close(reading)


@pytest.mark.asyncio
async def test_more_descriptors_than_one_write_takes() -> None:
    with pair() as (one, other):
        reading, writing = os.pipe()
        one.channel.send({"number": 1}, [reading, writing] * (MANY // 2))
        one.channel.send({"number": 2})
        await eventually(lambda: len(other.messages) == 2)
        assert len(other.descriptors) == MANY
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in other.descriptors]
        assert set(names) == {os.readlink(f"/proc/self/fd/{reading}")}
        os.close(reading)
        os.close(writing)


@pytest.mark.asyncio
async def test_a_message_that_the_kernel_does_not_take_at_once() -> None:
    with pair() as (one, other):
        text = "x" * 8_000_000
        one.channel.send({"text": text})
        one.channel.send({"text": "after"})
        await one.channel.flush()
        await eventually(lambda: len(other.messages) == 2)
        assert [len(message["text"]) for message in other.messages] == [len(text), 5]


@pytest.mark.asyncio
async def test_what_was_sent_before_the_end_is_read() -> None:
    with pair() as (one, other):
        one.channel.send({"told": "ended"})
        one.channel.close()
        await eventually(lambda: other.lost == 1)
        assert other.messages == [{"told": "ended"}]
        other.channel.send({"nobody": "hears"})
        one.channel.send({"nobody": "says"})
        assert (one.lost, other.lost) == (0, 1)


@pytest.mark.asyncio
async def test_the_end_can_be_read_to_before_the_loop_says_so() -> None:
    with pair() as (one, other):
        one.channel.send({"told": "ended"})
        one.channel.close()
        other.channel.read_to_end()
        assert (other.messages, other.lost) == ([{"told": "ended"}], 0)


@pytest.mark.asyncio
async def test_bytes_that_are_no_message_end_it() -> None:
    ours, theirs = socket.socketpair()
    end = End(ours)
    reading, writing = os.pipe()
    socket.send_fds(theirs, [b"\0\0\0\1{"], [writing])
    os.close(writing)
    await eventually(lambda: end.lost == 1)
    assert os.read(reading, 1) == b"", "a descriptor that nobody took is closed"
    assert theirs.recv(1) == b""
    os.close(reading)
    theirs.close()


@pytest.mark.asyncio
async def test_one_that_reads_nothing_is_lost_at_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.workers.channel._MOST_KEPT", 1_000_000)
    ours, theirs = socket.socketpair()
    end = End(ours)
    for _ in range(100):
        end.channel.send({"text": "x" * 100_000})
        if end.lost:
            break
    assert end.lost == 1
    theirs.close()
