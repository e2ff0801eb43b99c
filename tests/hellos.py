"""ClientHellos for tests, written field by field, so that each test breaks exactly what it means to break."""

from __future__ import annotations

from collections.abc import Sequence

GREASE = 0x0A0A
"""RFC 8701: a value that everybody must pass over."""


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(content, 2)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(bytes([kind]) + vector(name, 2), 2))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(b"".join(vector(name, 1) for name in names), 2))


VERSIONS_13 = extension(43, vector(b"\x03\x04", 1))
KEY_SHARE = extension(51, vector(b"\x11\xec" + vector(bytes(1216), 2) + b"\x00\x1d" + vector(bytes(32), 2), 2))
"""X25519MLKEM768 and X25519: 1.3 KiB, so that a hello no longer fits one segment."""


def message(
    extensions: Sequence[bytes] | None, *, session_id: bytes = bytes(32), version: bytes = b"\x03\x03"
) -> bytes:
    """A ClientHello as a handshake message; `extensions` None leaves their list out, as old clients do."""
    body = version + bytes(range(32)) + vector(session_id, 1) + vector(b"\x0a\x0a\x13\x01\xc0\x2b", 2) + b"\x01\x00"
    if extensions is not None:
        body += vector(b"".join(extensions), 2)
    return b"\x01" + vector(body, 3)


def records(data: bytes, size: int = 16_384, version: bytes = b"\x03\x01") -> bytes:
    """Cut a handshake message into records of `size` bytes."""
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"\x16" + version + vector(part, 2) for part in parts)


def hello(name: bytes = b"orders.demo", *names: bytes, size: int = 16_384) -> bytes:
    """A whole TLS 1.3 ClientHello for `name` that offers the ALPN `names`."""
    extensions = [extension(GREASE, b""), server_name(name), VERSIONS_13, KEY_SHARE]
    return records(message([*extensions, alpn(*names)] if names else extensions), size)
