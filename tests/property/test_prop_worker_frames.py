"""Any bytes, in any pieces: frames give messages or refuse them, never anything else, and lose no descriptor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from proxy.workers.frames import FrameError, Frames, Message, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
MESSAGES = st.dictionaries(st.text().filter(lambda key: key != "fds"), VALUES, max_size=4)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(st.lists(st.tuples(MESSAGES, st.integers(0, 3)), max_size=5), st.lists(st.integers(0, 10_000), max_size=6))
def test_what_was_sent_comes(sent: list[tuple[Message, int]], cuts: list[int]) -> None:
    numbers = iter(range(100))
    expected = [(message, [next(numbers) for _ in range(count)]) for message, count in sent]
    wire = b"".join(encode(message, len(own)) for message, own in expected)
    frames = Frames()
    found: list[tuple[Message, list[int]]] = []
    waiting = [fd for _, own in expected for fd in own]
    for piece in pieces(wire, cuts):
        found += frames.feed(piece, waiting)
        waiting = []
    assert found == expected


@given(st.binary(max_size=64), st.lists(st.integers(3, 9), max_size=4), st.lists(st.integers(0, 64), max_size=4))
def test_any_bytes_are_messages_or_refused(data: bytes, fds: list[int], cuts: list[int]) -> None:
    frames, given_away = Frames(), []
    waiting = fds
    try:
        for piece in pieces(data, cuts):
            feeding, waiting = waiting, []
            for message, own in frames.feed(piece, feeding):
                assert isinstance(message, dict)
                given_away += own
    except FrameError:
        pass
    assert given_away + frames.left() + waiting == fds


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_message_with_a_byte_changed_is_another_or_refused(junk: bytes, at: int) -> None:
    wire = bytearray(encode({"do": "look", "id": 1, "wanted": {"connections": True}}, 1))
    wire[at % len(wire) : at % len(wire) + len(junk)] = junk
    try:
        found = list(Frames().feed(bytes(wire), [7]))
    except FrameError:
        return
    assert all(isinstance(message, dict) for message, _ in found)
