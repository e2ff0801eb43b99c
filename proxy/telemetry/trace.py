"""Request and trace identifiers: passed on when a request has them, created when it has none.

`x-request-id` is a random UUID (RFC 9562 version 4). When neither `traceparent` (W3C Trace Context) nor b3 headers
came, a `traceparent` is created, not sampled: a proxy cannot know whether somebody records. The identifiers only
correlate; nothing is authorised by them, so a fast generator is enough.
"""

from __future__ import annotations

from random import getrandbits as _bits
from typing import Final

from proxy.protocol.stream import Kind, RequestHead

_MAX_REQUEST_ID: Final = 128
"""Bytes of a request id that is passed on; an empty or longer one is replaced, since it stands in every record."""


_NEVER_ZERO: Final = 1 | 1 << 64
"""A trace id and a span id of nothing but zeros are not valid."""


def new_request_id() -> str:
    """Make a random UUID, version 4."""
    return _uuid(f"{_bits(128):032x}")


def new_traceparent() -> bytes:
    """Make a W3C traceparent (version 00) that is not sampled."""
    digits = f"{_bits(192) | _NEVER_ZERO:048x}"
    return f"00-{digits[:32]}-{digits[32:]}-00".encode()


def new_identifiers() -> tuple[str, bytes]:
    """Make both at once: the request id, and the header lines with it and a traceparent."""
    digits = f"{_bits(320) | _NEVER_ZERO:080x}"
    made = _uuid(digits[:32])
    return made, f"x-request-id: {made}\r\ntraceparent: 00-{digits[32:64]}-{digits[64:]}-00\r\n".encode()


def identifiers(head: RequestHead) -> tuple[str, bytes]:
    """Give the request id, and the header lines to add to the request: those that it lacks.

    A request id that is empty, too long or there twice is taken out of `head`, so that one remains.
    """
    request_id = b""
    traced = usable = False
    for field in head.fields:
        if field[3] is Kind.TRACE:
            if field.name == b"x-request-id":
                usable = not request_id and 0 < len(field.value) <= _MAX_REQUEST_ID
                request_id = field.value or b"-"
            else:
                traced = True
    if request_id and not usable:
        head.replace_fields([field for field in head.fields if field.name != b"x-request-id"])
        request_id = b""
    return completed(request_id, traced)


def completed(request_id: bytes, traced: bool) -> tuple[str, bytes]:
    """Give the request id, and the lines to add to a request with this usable id (b"": none) and a trace or none."""
    if request_id:
        return request_id.decode("latin-1"), b"" if traced else b"traceparent: %b\r\n" % new_traceparent()
    if traced:
        made = new_request_id()
        return made, b"x-request-id: %b\r\n" % made.encode()
    return new_identifiers()


def _uuid(digits: str) -> str:
    """Write 32 random digits as RFC 9562 wants them: 4 is the version, the variant is one of 8, 9, a and b."""
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"
