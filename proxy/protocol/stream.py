"""The interface of a codec, per stream: what HTTP/1 and HTTP/2 look like to the rest of the proxy.

A codec is one side of one connection and does no I/O. Bytes go in with `receive`, events come out of `next_event`
until it returns None (more bytes are needed, or the codec waits for `start_next_stream`), and what must be written
comes back as bytes from the `encode_*` methods. HTTP/1 is one stream at a time: after `End` no further request is
parsed, however many are buffered, until `start_next_stream` says that the answer is complete; so pipelined requests
are answered in order and Permit, record and re-judging hang on a stream as they will for HTTP/2.

    server codec:  receive(bytes) -> RequestHead, Data*, Trailers?, End      encode_response, encode_data, encode_end
    client codec:  receive(bytes) -> ResponseHead*, Data*, Trailers?, End    encode_request,  encode_data, encode_end

A client codec may yield several ResponseHead: interim answers (1xx, `interim` is true) come before the final one.
What is malformed raises `ProtocolError` with its Reason; the codec is dead after that.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.protocol.remembered import Remembered

CHUNKED: Final = -1
"""`content_length` of a message whose body is chunked."""
UNTIL_CLOSE: Final = -2
"""`content_length` of an answer whose body ends with the connection (RFC 9112 section 6.3, rule 8)."""


class Kind(enum.IntEnum):
    """What becomes of a header line when a head is written anew."""

    FORWARD = 0
    """End-to-end: goes out as it came, after validation."""
    HOP = 1
    """Hop-by-hop (RFC 9110 section 7.6.1) or named by Connection: dropped, ours is written where needed."""
    FRAMING = 2
    """Host, Content-Length, Transfer-Encoding: written anew from what the gate understood."""
    RESERVED = 3
    """A mesh's own (x-forwarded-client-cert, l5d-*, x-envoy-*, x-istio-*): dropped when a peer sent it."""
    TRACE = 4
    """x-request-id, traceparent, tracestate, x-b3-*, b3: passed on, noticed so that a missing one is created."""


class Field(NamedTuple):
    """One validated header line. `name` is lower case, `value` without outer white space, `line` ends in CRLF."""

    name: bytes
    value: bytes
    line: bytes
    kind: Kind


@dataclass(slots=True)
class RequestHead:
    """A request that passed the gate.

    `target` is as received (for the record), `path` the normalised path that policy judges and that is forwarded,
    `query` the untouched query with its `?` or b"". `authority` is the Host value, or that of an absolute-form
    target. `content_length` is the number of body bytes, 0 when there is no body, or CHUNKED; `has_length` tells a
    `Content-Length: 0` from none. `upgrade` is the lower-case protocol asked for or b"".
    """

    stream: int
    method: bytes
    target: bytes
    path: bytes
    query: bytes
    authority: bytes
    version: bytes
    fields: list[Field]
    content_length: int
    has_length: bool
    keep_alive: bool
    expects_continue: bool
    upgrade: bytes
    remembered: Remembered | None = field(init=False, default=None, compare=False, repr=False)
    """A short cut past the fields, None where there is none: a head that is changed is changed by `dataclasses.replace`
    or by `replace_fields`, and both lose it."""

    def replace_fields(self, fields: list[Field]) -> None:
        """Change what the head says; `fields` itself is never changed in place."""
        self.fields = fields
        self.remembered = None


@dataclass(slots=True)
class ResponseHead:
    """An answer's head. `content_length` as in RequestHead, or UNTIL_CLOSE; 0 where RFC 9110 allows no body.

    `declared_length` is the Content-Length to pass on (an answer to HEAD has one and no body), or None.
    """

    stream: int
    status: int
    reason_phrase: bytes
    version: bytes
    fields: list[Field]
    content_length: int
    declared_length: int | None
    keep_alive: bool
    upgrade: bytes

    @property
    def interim(self) -> bool:
        """1xx other than 101: another head follows."""
        return self.status < 200 and self.status != 101


class Data(NamedTuple):
    """Body bytes, as they came off the wire, without their framing."""

    stream: int
    data: bytes


class Trailers(NamedTuple):
    """Trailer fields of a chunked body, validated, none that could change framing or routing."""

    stream: int
    fields: list[Field]


class End(NamedTuple):
    """The message is complete."""

    stream: int


Event = RequestHead | ResponseHead | Data | Trailers | End


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large a head may be: `head_bytes` for start line and fields together, `fields` for their number."""

    head_bytes: int = 61_440
    fields: int = 100
