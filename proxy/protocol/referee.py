"""The second opinion: h11 parses the bytes that the gate has accepted, and both must have read the same.

h11 is the more lenient of the two, so a disagreement means that the gate understood something in its own way; that is
answered like any malformed message. Only public events of h11 are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

import h11

from proxy.errors import ProtocolError, Reason
from proxy.protocol.stream import Field, RequestHead, ResponseHead


def agree_on_request(head: bytes, parsed: RequestHead) -> None:
    """Raise ProtocolError with HEADER_INVALID when h11 refuses `head` or reads it otherwise than `parsed`."""
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(head)
        event = connection.next_event()
        ends_here = isinstance(connection.next_event(), h11.EndOfMessage)
    except h11.RemoteProtocolError as refusal:
        raise ProtocolError(f"a second parser refuses the request: {refusal}", Reason.HEADER_INVALID) from refusal
    if not (
        isinstance(event, h11.Request)
        and event.method == parsed.method
        and event.target == parsed.target
        and event.http_version == parsed.version
        and _same_fields(event.headers, parsed.fields)
        and ends_here == (parsed.content_length == 0)
    ):
        raise ProtocolError("a second parser reads the request differently", Reason.HEADER_INVALID)


def agree_on_response(head: bytes, parsed: ResponseHead, request_method: bytes) -> None:
    """Raise ProtocolError with UPSTREAM_RESPONSE_INVALID when h11 refuses `head` or reads it otherwise."""
    connection = h11.Connection(h11.CLIENT)
    asked = [("Host", "referee")]
    if parsed.status == 101:
        asked += [("Connection", "upgrade"), ("Upgrade", "referee")]
    try:
        connection.send(h11.Request(method=request_method, target="/", headers=asked))
        connection.send(h11.EndOfMessage())
        connection.receive_data(head)
        event = connection.next_event()
        ends_here = parsed.status < 200 or isinstance(connection.next_event(), h11.EndOfMessage)
    except h11.ProtocolError as refusal:
        raise ProtocolError(
            f"a second parser refuses the answer: {refusal}", Reason.UPSTREAM_RESPONSE_INVALID, side="upstream"
        ) from refusal
    if not (
        isinstance(event, (h11.Response, h11.InformationalResponse))
        and event.status_code == parsed.status
        and event.reason == parsed.reason_phrase
        and event.http_version == parsed.version
        and _same_fields(event.headers, parsed.fields)
        and ends_here == (parsed.content_length == 0)
    ):
        raise ProtocolError(
            "a second parser reads the answer differently", Reason.UPSTREAM_RESPONSE_INVALID, side="upstream"
        )


def _same_fields(theirs: Iterable[tuple[bytes, bytes]], ours: list[Field]) -> bool:
    """Compare names and values in order; h11 lowers the case of Transfer-Encoding's value."""
    mine = [(field.name, field.value.lower() if field.name == b"transfer-encoding" else field.value) for field in ours]
    return list(theirs) == mine
