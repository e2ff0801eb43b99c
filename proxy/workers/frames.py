"""The bytes between supervisor and worker: JSON messages, each after its length, some with descriptors.

    | length: 4 bytes, big-endian | JSON object in UTF-8 |      descriptors travel beside the first bytes (SCM_RIGHTS)

The member `fds` of a message says how many descriptors are its own; they arrive in order, before its last byte.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Message = dict[str, Any]

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes of one message: a policy set of 16 MiB in base64, with certificates and a configuration, is half of it."""
_LENGTH: Final = 4


class FrameError(Exception):
    """What came is no message; nothing after it can be read."""


def encode(message: Message, descriptors: int = 0) -> bytes:
    """Write one message that `descriptors` travel with."""
    body = json.dumps(message | {"fds": descriptors} if descriptors else message).encode()
    return len(body).to_bytes(_LENGTH, "big") + body


class Frames:
    """Reads messages from bytes and descriptors as they come, in pieces of any size."""

    __slots__ = ("_buffer", "_descriptors")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> Iterator[tuple[Message, list[int]]]:
        """Take what came; yield each whole message with its descriptors, which are the caller's now.

        Raises FrameError: then `left` has the descriptors that nobody took.
        """
        self._buffer += data
        self._descriptors += descriptors
        while len(self._buffer) >= _LENGTH:
            length = int.from_bytes(self._buffer[:_LENGTH], "big")
            if length > MAX_MESSAGE:
                raise FrameError(f"a message of {length} bytes")
            if len(self._buffer) < _LENGTH + length:
                return
            body = bytes(self._buffer[_LENGTH : _LENGTH + length])
            del self._buffer[: _LENGTH + length]
            message = _message(body)
            count = message.pop("fds", 0)
            if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
                raise FrameError(f"a message with {count!r} descriptors, of which {len(self._descriptors)} came")
            yield message, [self._descriptors.popleft() for _ in range(count)]

    def left(self) -> list[int]:
        """Give the descriptors that no message has taken, for their end."""
        left = list(self._descriptors)
        self._descriptors.clear()
        return left


def _message(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as failure:
        raise FrameError(f"a message that is no JSON: {failure}") from failure
    if not isinstance(message, dict):
        raise FrameError("a message that is no object")
    return message


def files_to_json(files: Mapping[str, bytes]) -> dict[str, str]:
    """Write the contents of files so that JSON can hold them."""
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def files_from_json(files: Mapping[str, str]) -> dict[str, bytes]:
    """Read what `files_to_json` wrote. Raises FrameError.

    >>> files_from_json(files_to_json({"a.yaml": b"spec: {}"}))
    {'a.yaml': b'spec: {}'}
    """
    try:
        return {name: base64.b64decode(content, validate=True) for name, content in files.items()}
    except (binascii.Error, ValueError, TypeError, AttributeError) as failure:
        raise FrameError(f"files that cannot be read: {failure}") from failure
