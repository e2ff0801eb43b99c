"""Read the ClientHello that a TLS stream begins with, for what a proxy looks at: server name and ALPN.

    TLS records (RFC 8446 section 5.1)        22 | 3.x | length | fragment ...     as many as the hello needs
    handshake message (section 4)             1 | length | body
    body (section 4.1.2)                      version, random, session id, ciphers, compressions, extensions

The bytes of one hello may be cut into records anywhere, after its first byte too (CVE-2020-8660: who looks at the first
record only takes such a peer for another). TLS 1.2 and 1.3 differ only in extensions that nobody here looks at, and
values that are not known (GREASE, RFC 8701) are passed over. What breaks the syntax is a ValueError: no name out of a
hello that OpenSSL might read differently counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_HELLO: Final = 16_384
"""Bytes of records that are looked at. A hello with a post-quantum key share has 1.8 KiB; one key share of every group
there is stays below 6 KiB. Without the bound a peer could have us hold what it likes; Envoy has the same."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_HEAD: Final = 5
_RECORD_MAX: Final = 1 << 14
_MESSAGE_HEAD: Final = 4
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_ALPN: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client asks for: `server_name` in lower case ("" when it names none), `alpn` in its order."""

    server_name: str
    alpn: tuple[bytes, ...]


def read_client_hello(first: bytes) -> ClientHello | None:
    """Read the hello that `first`, the bytes of the connection so far, begins with; None: more bytes are needed.

    Raises ValueError when it is malformed, or longer than MAX_HELLO; more bytes never mend that.
    """
    message = _message(first[:MAX_HELLO])
    if message is not None:
        return _hello(message)
    if len(first) >= MAX_HELLO:
        raise ValueError(f"the ClientHello does not end within {MAX_HELLO} bytes")
    return None


def _message(first: bytes) -> bytes | None:
    """Join the fragments of the first handshake message and give its body; None while it lacks bytes."""
    parts = bytearray()
    place = 0
    while True:
        message = _whole(parts)
        if message is not None:
            return message
        head = first[place : place + _RECORD_HEAD]
        if head and head[0] != _HANDSHAKE:
            raise ValueError(f"a record of type {head[0]} interrupts the ClientHello")
        if len(head) > 1 and head[1] != 3:
            raise ValueError(f"a record of version {head[1]}")
        if len(head) < _RECORD_HEAD:
            return None
        length = int.from_bytes(head[3:5], "big")
        if not 1 <= length <= _RECORD_MAX:
            raise ValueError(f"a record of {length} bytes")
        place += _RECORD_HEAD
        parts += first[place : place + length]
        place += length


def _whole(parts: bytearray) -> bytes | None:
    if parts and parts[0] != _CLIENT_HELLO:
        raise ValueError(f"a handshake message of type {parts[0]} where a ClientHello must be")
    if len(parts) < _MESSAGE_HEAD:
        return None
    end = _MESSAGE_HEAD + int.from_bytes(parts[1:4], "big")
    if end > MAX_HELLO:
        raise ValueError(f"a ClientHello of {end} bytes is too long")
    return bytes(parts[_MESSAGE_HEAD:end]) if len(parts) >= end else None


def _hello(message: bytes) -> ClientHello:
    body = _Reader(message)
    body.take(2 + 32)  # legacy_version, random
    body.vector(1)  # legacy_session_id
    body.vector(2)  # cipher_suites
    body.vector(1)  # legacy_compression_methods
    server_name = ""
    alpn: tuple[bytes, ...] = ()
    seen: set[int] = set()
    extensions = body.vector(2) if body.left else _Reader(b"")  # TLS 1.2 knows hellos without extensions
    body.ends()
    while extensions.left:
        kind = extensions.number(2)
        if kind in seen:
            raise ValueError(f"the extension {kind} is there twice")  # RFC 8446 section 4.2
        seen.add(kind)
        content = extensions.vector(2)
        if kind == _SERVER_NAME:
            server_name = _server_name(content)
        elif kind == _ALPN:
            alpn = _protocol_names(content)
    return ClientHello(server_name=server_name, alpn=alpn)


def _server_name(content: _Reader) -> str:
    """Read the host name of RFC 6066 section 3; other types of names do not exist."""
    names = content.vector(2)
    content.ends()
    found = ""
    while names.left:
        kind, name = names.number(1), names.vector(2).rest()
        if kind != _HOST_NAME or found or not name:
            raise ValueError("a list of server names that is not one host name")
        found = name.decode("ascii").lower()  # UnicodeDecodeError is a ValueError
        if not found.isprintable():
            raise ValueError("a server name with control characters")
    return found


def _protocol_names(content: _Reader) -> tuple[bytes, ...]:
    """Read the list of RFC 7301 section 3.1."""
    names = content.vector(2)
    content.ends()
    found = []
    while names.left:
        name = names.vector(1).rest()
        if not name:
            raise ValueError("an empty ALPN name")
        found.append(name)
    return tuple(found)


class _Reader:
    """Takes fields off bytes that must be all there."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._place

    def take(self, count: int) -> bytes:
        if self.left < count:
            raise ValueError("a field of the ClientHello is cut off")
        start, self._place = self._place, self._place + count
        return self._data[start : self._place]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Reader:
        """Take a vector whose length is written in `size` bytes before it (RFC 8446 section 3.4)."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        return self.take(self.left)

    def ends(self) -> None:
        if self.left:
            raise ValueError(f"{self.left} bytes too many in the ClientHello")
