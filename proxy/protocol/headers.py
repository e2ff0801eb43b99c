"""Writers: a head goes out as it was understood, line by line, framing and hop-by-hop fields made anew.

Only validated `Field.line`s and values made here are written; nothing is copied from received bytes that the gate
did not look at. `extra` is for lines of our own, preformatted, each ending in CRLF.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from proxy.protocol.fields import classify
from proxy.protocol.stream import CHUNKED, UNTIL_CLOSE, Kind, RequestHead, ResponseHead

__all__ = [
    "classify",
    "header_attributes",
    "local_response",
    "write_request_head",
    "write_response_head",
    "xfcc_value",
]

_NEEDS_QUOTES: Final = re.compile(r'[,;="\\ ]').search
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*").fullmatch
_REASON_PHRASES: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def write_request_head(head: RequestHead, *, extra: bytes = b"", strip_reserved: bool) -> bytes:
    """Write the request line and fields for the next hop, always as HTTP/1.1, ending in the empty line.

    Host is the authority that policy judged (empty for an HTTP/1.0 request that named none, RFC 9112 section 3.2).
    `strip_reserved` leaves out what belongs to a mesh: set it for requests of a peer.
    """
    if (remembered := head.remembered) is not None:
        line, block, trace, _, _ = remembered
        if strip_reserved or not block.reserved:
            return b"%b%b%b%b%b\r\n" % (line.opening, block.opening, trace, block.rest, extra)
    # FORWARD is 0; RESERVED and TRACE are the last of Kind. By index and without names, as it is done for each line.
    from_kind = Kind.TRACE if strip_reserved else Kind.RESERVED
    parts = [b"%b %b%b HTTP/1.1\r\nhost: %b\r\n" % (head.method, head.path, head.query, head.authority)]
    parts += [field[2] for field in head.fields if not field[3] or field[3] >= from_kind]
    if head.content_length == CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    elif head.has_length:
        parts.append(b"content-length: %d\r\n" % head.content_length)
    if head.expects_continue:
        parts.append(b"expect: 100-continue\r\n")
    if head.upgrade:
        parts.append(b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade)
    parts.append(extra)
    parts.append(b"\r\n")
    return b"".join(parts)


def write_response_head(
    head: ResponseHead,
    *,
    extra: bytes = b"",
    close: bool,
    to_version: bytes = b"1.1",
    chunked: bool,
) -> bytes:
    """Write an answer's status line and fields for a client of `to_version`, ending in the empty line.

    `chunked` frames the body that follows in chunks, which only a 1.1 client can read; without it, a body of unknown
    length ends with the connection, and `close` must be set. Fields of a mesh are passed on: in an answer they
    decide nothing. The version written is ours, 1.1, whatever the client's (RFC 9110 section 6.2).
    """
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason_phrase)]
    parts += [field[2] for field in head.fields if not field[3] or field[3] >= Kind.RESERVED]
    if head.upgrade:
        parts.append(b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade)
    elif head.status >= 200:
        if chunked:
            parts.append(b"transfer-encoding: chunked\r\n")
        elif head.declared_length is not None:
            parts.append(b"content-length: %d\r\n" % head.declared_length)
        if close:
            parts.append(b"connection: close\r\n")
        elif to_version == b"1.0":
            parts.append(b"connection: keep-alive\r\n")
    parts.append(extra)
    parts.append(b"\r\n")
    return b"".join(parts)


def frames_in_chunks(head: ResponseHead, to_version: bytes) -> bool:
    """Say whether the body of `head` goes to a client of `to_version` in chunks.

    A body that ended with the upstream's connection becomes chunked too: so the client's connection lives on, and a
    body cut short is seen as such.
    """
    return head.content_length in (CHUNKED, UNTIL_CLOSE) and to_version == b"1.1"


def local_response(
    status: int,
    body: bytes,
    *,
    content_type: bytes = b"text/plain",
    extra: bytes = b"",
    close: bool,
    head_request: bool = False,
) -> bytes:
    """Write a whole answer of our own; for a HEAD request the head that GET would have got."""
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b" % (
        status,
        _REASON_PHRASES.get(status, b""),
        content_type,
        len(body),
        b"connection: close\r\n" if close else b"",
        extra,
        b"" if head_request else body,
    )


def xfcc_value(by: str, fingerprint: str, uri: str) -> bytes:
    """Write our element of x-forwarded-client-cert, `By=…;Hash=…;URI=…`, from the two identities.

    A value that holds a delimiter is quoted, quotes and backslashes inside escaped. Raises ValueError for anything
    but printable ASCII: it could end the header line.
    """
    return f"By={_quoted(by)};Hash={_quoted(fingerprint)};URI={_quoted(uri)}".encode("ascii")


def _quoted(value: str) -> str:
    if _PRINTABLE(value) is None:
        raise ValueError("a value of x-forwarded-client-cert holds bytes that no header may hold")
    if _NEEDS_QUOTES(value) is None:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def header_attributes(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """List every line as policy sees it: (lower-case name, value), in order, repeats repeated.

    What the application will not see, policy does not see: a mesh's own fields, which only a sidecar may write, and
    fields that Connection names. Else a caller could satisfy a rule by a line that goes no further.
    """
    return [
        (name, value)
        for name, value, _, kind in head.fields
        if kind is not Kind.RESERVED and (kind is not Kind.HOP or classify(name) is Kind.HOP)
    ]
