"""The bytes between supervisor and worker: whole messages in any pieces; what is none is refused."""

from __future__ import annotations

import json

import pytest

from proxy.policy.load import MAX_SET_BYTES
from proxy.workers.frames import MAX_MESSAGE, FrameError, Frames, Message, encode, files_from_json, files_to_json

MESSAGES: list[tuple[Message, list[int]]] = [
    ({"do": "begin", "file": "a\udcff.yaml"}, [7]),
    ({}, []),
    ({"do": "take", "sockets": [["inbound", "[::]:1", ""]]}, [8, 9]),
    ({"do": "end"}, []),
]
WIRE = b"".join(encode(message, len(fds)) for message, fds in MESSAGES)


def test_messages_come_whole_with_their_descriptors() -> None:
    assert list(Frames().feed(WIRE, [7, 8, 9])) == MESSAGES


def test_messages_come_byte_by_byte() -> None:
    frames = Frames()
    found: list[tuple[Message, list[int]]] = []
    for i in range(len(WIRE)):
        found += frames.feed(WIRE[i : i + 1], [7, 8, 9] if i == 0 else [])
    assert found == MESSAGES
    assert frames.left() == []


def test_the_largest_sets_fit_into_one_message() -> None:
    content = len(files_to_json({"a": bytes(30_000)})["a"]) / 30_000
    assert MAX_SET_BYTES * content * 2 < MAX_MESSAGE


def raw(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize(
    "data",
    [
        raw(b""),
        raw(b"{"),
        raw(b"[]"),
        raw(b"\xff"),
        raw(b"[" * 100_000),
        raw(b'{"fds": 1}'),
        raw(b'{"fds": -1}'),
        raw(b'{"fds": "1"}'),
        (MAX_MESSAGE + 1).to_bytes(4, "big"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        list(Frames().feed(data))


def test_descriptors_that_nobody_took_are_given_back() -> None:
    frames = Frames()
    with pytest.raises(FrameError):
        list(frames.feed(raw(b"{"), [5, 6]))
    assert frames.left() == [5, 6]
    assert frames.left() == []


@pytest.mark.parametrize("text", ["*", "YQ", "YQ==x", "ä", 1])
def test_files_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(FrameError):
        files_from_json({"a": text})


def test_files_keep_their_bytes() -> None:
    files = {"a\udcff": bytes(range(256)), "b": b""}
    assert files_from_json(json.loads(json.dumps(files_to_json(files)))) == files
