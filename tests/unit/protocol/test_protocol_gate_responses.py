"""Answers of an upstream go through the same strict rules; every fault is one Reason with side "upstream"."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_response_head
from proxy.protocol.stream import CHUNKED, UNTIL_CLOSE, HeadLimits, Kind, ResponseHead

LIMITS = HeadLimits()


def parse(raw: bytes, method: bytes = b"GET") -> ResponseHead:
    """Parse by the gate, and hold the fast path to the same result."""
    head = parse_response_head(raw, request_method=method, limits=LIMITS)
    assert HeadReader().read_response_head(raw, request_method=method, limits=LIMITS) == head
    return head


REFUSED = {
    "no_status_line": b"hello\r\n\r\n",
    "version_1_2": b"HTTP/1.2 200 OK\r\n\r\n",
    "version_2": b"HTTP/2 200\r\n\r\n",
    "version_lower_case": b"http/1.1 200 OK\r\n\r\n",
    "two_spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "leading_space": b" HTTP/1.1 200 OK\r\n\r\n",
    "leading_empty_line": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "status_of_two_digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status_of_four_digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status_below_100": b"HTTP/1.1 099 OK\r\n\r\n",
    "status_no_number": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "control_byte_in_phrase": b"HTTP/1.1 200 O\x07K\r\n\r\n",
    "bare_lf": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare_cr": b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    "nul": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    "space_before_colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "no_colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "length_twice": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "length_list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
    "length_minus": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length_too_large": b"HTTP/1.1 200 OK\r\nContent-Length: 9007199254740993\r\n\r\n",
    "coding_unknown": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding_identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    "coding_twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked_by_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "interim_with_length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
    "interim_chunked": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n",
    "switch_without_protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
    "switch_without_connection": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "switch_to_two": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: a, b\r\n\r\n",
    "connection_names_length": b"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\n",
    "connection_names_set_cookie": b"HTTP/1.1 200 OK\r\nConnection: set-cookie\r\nContent-Length: 5\r\n\r\n",
    "too_many_fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    "too_large": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 62_464 + b"\r\n\r\n",
    "not_ended": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as refusal:
        parse_response_head(raw, request_method=b"GET", limits=LIMITS)
    assert (refusal.value.reason, refusal.value.side) == (Reason.UPSTREAM_RESPONSE_INVALID, "upstream")
    with pytest.raises(ProtocolError):
        HeadReader().read_response_head(raw, request_method=b"GET", limits=LIMITS)


@pytest.mark.parametrize(
    ("raw", "method", "content_length", "declared", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5, 5, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET", 0, 0, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", b"GET", CHUNKED, None, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE, None, False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n", b"GET", UNTIL_CLOSE, None, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", b"GET", 5, 5, False),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            b"GET",
            5,
            5,
            0,
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 5, 5, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", b"GET", 5, 5, True),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"GET", UNTIL_CLOSE, None, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 0, 5, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD", 0, None, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"HEAD", 0, None, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 0, 5, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 0, None, True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", b"GET", 0, None, True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"GET", 0, None, False),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", 0, None, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"POST", 0, None, True),
        (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n", b"GET", 0, None, True),
    ],
)
def test_framing(raw: bytes, method: bytes, content_length: int, declared: int | None, keep_alive: bool) -> None:
    head = parse(raw, method)
    assert (head.content_length, head.declared_length, head.keep_alive) == (content_length, declared, keep_alive)


@pytest.mark.parametrize(
    ("line", "status", "phrase"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 404 Not Found", 404, b"Not Found"),
        (b"HTTP/1.1 299 caf\xe9\tau lait", 299, b"caf\xe9\tau lait"),
        (b"HTTP/1.1 999 Odd", 999, b"Odd"),
    ],
)
def test_status_line(line: bytes, status: int, phrase: bytes) -> None:
    head = parse(line + b"\r\nContent-Length: 0\r\n\r\n")
    assert (head.status, head.reason_phrase) == (status, phrase)


def test_names_with_underscore_are_an_answers_own_affair() -> None:
    head = parse(b"HTTP/1.1 200 OK\r\nx_y: z\r\nContent-Length: 0\r\n\r\n")
    assert head.fields[0][:3] == (b"x_y", b"z", b"x_y: z\r\n")


def test_fields_named_by_connection_stay_on_their_hop() -> None:
    head = parse(b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n")
    kinds = {field.name: field.kind for field in head.fields}
    assert kinds[b"x-hop"] is Kind.HOP
    assert kinds[b"x-end"] is Kind.FORWARD


def test_an_offer_of_other_protocols_is_dropped() -> None:
    head = parse(b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n")
    assert head.upgrade == b""
    assert all(field.kind is not Kind.FORWARD for field in head.fields)


def test_a_switch_names_its_protocol() -> None:
    head = parse(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\r\n")
    assert head.upgrade == b"websocket"
    assert not head.interim
