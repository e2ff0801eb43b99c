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


def new_request_id() -> str:
    """Make a random UUID, version 4."""
    digits = f"{(_bits(128) & ~(0xF000 << 64) & ~(0xC000 << 48)) | (0x4000 << 64) | (0x8000 << 48):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_traceparent() -> bytes:
    """Make a W3C traceparent (version 00) that is not sampled."""
    return b"00-%032x-%016x-00" % (_bits(128) | 1, _bits(64) | 1)


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
    lines = b"" if traced else b"traceparent: %b\r\n" % new_traceparent()
    if usable:
        return request_id.decode("latin-1"), lines
    if request_id:
        head.fields = [field for field in head.fields if field.name != b"x-request-id"]
    made = new_request_id()
    return made, b"x-request-id: %b\r\n%b" % (made.encode(), lines)
