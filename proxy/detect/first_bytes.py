"""Tell a protocol by its first bytes, without taking them.

The answer is stable: once it is not NEED_MORE, more bytes never change it. And NEED_MORE is bounded: at most
`LONGEST_PREFIX` bytes are ever asked for, so a peer that drips bytes cannot hold detection longer than its deadline.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Detected(enum.Enum):
    """What a connection speaks, as far as its first bytes tell."""

    TLS = "tls"
    HTTP1 = "http1"
    HTTP2 = "http2"
    OPAQUE = "opaque"
    NEED_MORE = "need_more"


HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 section 3.4."""
METHOD_MAX: Final = 20
"""Characters of a method, as in the gate: the longest registered one has 17."""
LONGEST_PREFIX: Final = len(HTTP2_PREFACE)

_METHOD: Final = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]{0,19} ").match
_METHOD_BEGUN: Final = re.compile(rb"[A-Z][A-Z0-9!#$%&'*+\-.^_`|~]{0,19}").fullmatch


def detect(first: bytes) -> Detected:
    """Judge the bytes seen so far, from the first of the connection on.

    TLS is a record that begins a ClientHello; HTTP/1 an upper-case method and a space (RFC 9112 section 3), so that
    a malformed request is answered by the gate and not carried as opaque bytes; HTTP/2 its whole preface. NEED_MORE
    means that `first` is the beginning of one of them, OPAQUE that it cannot become any.
    """
    if fits_client_hello(first):
        return Detected.TLS if len(first) > 5 else Detected.NEED_MORE
    if first.startswith(HTTP2_PREFACE):
        return Detected.HTTP2
    if HTTP2_PREFACE.startswith(first):
        return Detected.NEED_MORE
    if _METHOD(first) is not None:
        return Detected.HTTP1
    if _METHOD_BEGUN(first) is not None:
        return Detected.NEED_MORE
    return Detected.OPAQUE


def fits_client_hello(first: bytes) -> bool:
    """Say whether the bytes seen begin a handshake record that begins with a ClientHello.

    RFC 8446 section 5.1: handshake (22), legacy version 3.1 to 3.4, a length of 1 to 2^14; section 4: client_hello (1).
    """
    if not first or not b"\x16\x03".startswith(first[:2]):
        return False
    if len(first) > 2 and not 1 <= first[2] <= 4:
        return False
    if len(first) == 4 and first[3] > 0x40:
        return False
    if len(first) > 4 and not 1 <= int.from_bytes(first[3:5], "big") <= 1 << 14:
        return False
    return len(first) < 6 or first[5] == 1
