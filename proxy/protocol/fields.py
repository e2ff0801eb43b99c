"""One header line: what it may hold, what kind of field it is, what authority it may name (RFC 9110 section 5).

The rules here serve the gate, the fast path and trailers alike, so that a line means the same wherever it stands.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from proxy.errors import ProtocolError, Reason
from proxy.protocol.stream import Field, Kind

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
"""RFC 9110 section 5.6.2."""
FIELD_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
"""RFC 9110 section 5.5: visible characters, SP, HTAB and obs-text; obs-text is passed on and read as Latin-1."""

_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n").search
"""What no head may hold: control characters, CR without LF, LF without CR. Linear, no backtracking."""
_REGISTERED_NAME: Final = re.compile(rb"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?").fullmatch

_KINDS: Final[dict[bytes, Kind]] = {
    b"host": Kind.FRAMING,
    b"content-length": Kind.FRAMING,
    b"transfer-encoding": Kind.FRAMING,
    b"connection": Kind.HOP,
    b"keep-alive": Kind.HOP,
    b"proxy-connection": Kind.HOP,
    b"te": Kind.HOP,
    b"upgrade": Kind.HOP,
    b"http2-settings": Kind.HOP,
    b"expect": Kind.HOP,
    b"x-forwarded-client-cert": Kind.RESERVED,
    b"x-request-id": Kind.TRACE,
    b"traceparent": Kind.TRACE,
    b"tracestate": Kind.TRACE,
    b"b3": Kind.TRACE,
}
_RESERVED_PREFIXES: Final = (b"x-envoy-", b"x-istio-", b"l5d-", b"x-remora-")


def classify(name: bytes) -> Kind:
    """Say what becomes of a field with this lower-case name when a head is written anew.

    `Expect` counts as hop-by-hop although RFC 9110 calls it end-to-end: it is written anew from
    `RequestHead.expects_continue`. `Proxy-Authorization` and `Trailer` are passed on: the workload behind the sidecar
    is the recipient that the client speaks to.
    """
    kind = _KINDS.get(name)
    if kind is not None:
        return kind
    if name.startswith(_RESERVED_PREFIXES):
        return Kind.RESERVED
    if name.startswith(b"x-b3-"):
        return Kind.TRACE
    return Kind.FORWARD


def refuse_forbidden_bytes(head: bytes | bytearray, start: int = 0) -> None:
    """Raise ProtocolError at the first byte after `start` that no head may hold (RFC 9112 section 2.2).

    LF without CR is BARE_LINE_FEED; anything else is REQUEST_LINE_INVALID in the first line and HEADER_INVALID
    after it. `head` may be incomplete: a CR at its very end is not judged yet.
    """
    found = _FORBIDDEN(head, start)
    if found is None:
        return
    if found.group() == b"\n":
        raise ProtocolError("a line ends in LF without CR; end lines in CRLF", Reason.BARE_LINE_FEED)
    first_line_end = head.find(b"\r\n", 0, found.start())
    reason = Reason.REQUEST_LINE_INVALID if first_line_end < 0 else Reason.HEADER_INVALID
    raise ProtocolError(f"the head holds the control byte {found.group()[:1]!r}; remove it", reason)


def parse_field_line(line: bytes, *, underscores: bool) -> Field:
    """Parse one line without its CRLF into a Field whose `line` is `Name: value`, white space trimmed.

    Raises ProtocolError with HEADER_INVALID, or HEADER_NAME_UNDERSCORE unless `underscores` are allowed.

    RFC 9112 section 5.1: no white space before the colon. Section 5.2: STRICTER, a folded line is refused where a
    server may also unfold it. STRICTER, `_` in the name of a request field is refused: CGI and WSGI cannot tell
    `x_role` from `x-role`.
    """
    if line[:1] in (b" ", b"\t"):
        raise ProtocolError("a header line begins with white space (obsolete folding)", Reason.HEADER_INVALID)
    raw_name, colon, rest = line.partition(b":")
    if not colon or TOKEN(raw_name) is None:
        raise ProtocolError(f"{line[:64]!r} is no header line; write `Name: value`", Reason.HEADER_INVALID)
    if not underscores and b"_" in raw_name:
        raise ProtocolError(f"the header name {raw_name[:64]!r} holds `_`; use `-`", Reason.HEADER_NAME_UNDERSCORE)
    value = rest.strip(b" \t")
    if FIELD_VALUE(value) is None:
        raise ProtocolError(f"the value of {raw_name[:64]!r} holds a control byte", Reason.HEADER_INVALID)
    name = raw_name.lower()
    return Field(name, value, raw_name + b": " + value + b"\r\n", classify(name))


def is_authority(value: bytes) -> bool:
    """Say whether `value` is a host with an optional port that every parser reads alike (RFC 9110 section 4.2.1).

    STRICTER than RFC 3986 section 3.2: no user information, no escapes, no sub-delimiters (`a,b` is no host), no
    empty port, no port above 65535, no zone identifier in an IPv6 address.
    """
    parts = _REGISTERED_NAME(value)
    if parts is None:
        return False
    host, port = parts.groups()
    if port is not None and int(port) > 65_535:
        return False
    if host.startswith(b"["):
        try:
            ipaddress.IPv6Address(host[1:-1].decode("ascii"))
        except ValueError:
            return False
    return True
