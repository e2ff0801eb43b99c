"""The fast path: what it takes on itself, what it leaves to the gate, and that its memory is bounded."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError
from proxy.protocol import fast
from proxy.protocol.fast import LINE_BYTES, LINES, HeadReader
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, Kind, RequestHead, ResponseHead

LIMITS = HeadLimits()
BASE = PathNormalization.BASE

CANONICAL = {
    "curl": b"GET /a?b HTTP/1.1\r\nHost: h:80\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    "post": b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n",
    "chunked": b"PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n",
    "keep_alive": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    "close": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Close\r\n\r\n",
    "both": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
    "http10": b"GET / HTTP/1.0\r\nHost: h\r\n\r\n",
    "http10_keep_alive": b"GET / HTTP/1.0\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n",
    "path_to_normalise": b"GET /a/../%62//c?d#"[:-1] + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    "trace_fields": b"GET / HTTP/1.1\r\nHost: h\r\nx-request-id: 1\r\ntraceparent: 00-1-2-01\r\nb3: 0\r\n\r\n",
    "reserved": b"GET / HTTP/1.1\r\nHost: h\r\nX-Envoy-Foo: x\r\nTE: trailers\r\n\r\n",
    "obs_text": b"GET / HTTP/1.1\r\nHost: h\r\nX: caf\xe9 x\r\n\r\n",
    "head": b"HEAD / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
}

LEFT_TO_THE_GATE = {
    "absolute_form": b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "trace": b"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "connection_option": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n",
    "expect": b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    "outer_space": b"GET / HTTP/1.1\r\nHost:  h\r\n\r\n",
    "empty_value": b"GET / HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n",
    "no_host": b"GET / HTTP/1.0\r\n\r\n",
}

REFUSED = {
    "two_hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    "two_lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "length_then_coding": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding_then_length": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "two_codings": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding_by_1_0": b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    "encoded_nul": b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n",
    "connect": b"CONNECT /x HTTP/1.1\r\nHost: h\r\n\r\n",
    "too_many_fields": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 100 + b"\r\n",
    "too_large": b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 62_000 + b"\r\n\r\n",
    "second_head": b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "not_ended": b"GET / HTTP/1.1\r\nHost: h\r\n",
}


def gate(raw: bytes) -> RequestHead:
    return parse_request_head(raw, limits=LIMITS, normalization=BASE, stream=7)


@pytest.mark.parametrize("raw", CANONICAL.values(), ids=CANONICAL.keys())
def test_takes_canonical_heads_and_says_what_the_gate_says_also_from_memory(raw: bytes) -> None:
    reader = HeadReader()
    for _ in range(2):
        assert reader.try_request_head(raw, LIMITS, BASE, 7) == gate(raw)


@pytest.mark.parametrize("raw", LEFT_TO_THE_GATE.values(), ids=LEFT_TO_THE_GATE.keys())
def test_leaves_the_rest_to_the_gate(raw: bytes) -> None:
    reader = HeadReader()
    for _ in range(2):
        assert reader.try_request_head(raw, LIMITS, BASE, 7) is None
        assert reader.read_request_head(raw, limits=LIMITS, normalization=BASE, stream=7) == gate(raw)


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_never_takes_what_the_gate_refuses(raw: bytes) -> None:
    reader = HeadReader()
    for _ in range(2):
        assert reader.try_request_head(raw, LIMITS, BASE, 7) is None
        with pytest.raises(ProtocolError) as by_reader:
            reader.read_request_head(raw, limits=LIMITS, normalization=BASE)
    with pytest.raises(ProtocolError) as by_gate:
        gate(raw)
    assert by_reader.value.reason is by_gate.value.reason


def test_heads_do_not_share_their_fields() -> None:
    reader = HeadReader()
    raw = CANONICAL["curl"]
    first = reader.read_request_head(raw, limits=LIMITS, normalization=BASE)
    first.fields.clear()
    assert reader.read_request_head(raw, limits=LIMITS, normalization=BASE).fields


def test_another_normalization_forgets_the_paths_of_the_one_before() -> None:
    reader = HeadReader()
    raw = b"GET //a HTTP/1.1\r\nHost: h\r\n\r\n"
    paths = [
        reader.read_request_head(raw, limits=LIMITS, normalization=mode).path
        for mode in (BASE, PathNormalization.MERGE_SLASHES, BASE)
    ]
    assert paths == [b"//a", b"/a", b"//a"]


def test_memory_is_bounded_whatever_comes() -> None:
    reader = HeadReader()
    for i in range(2 * LINES + 10):
        raw = b"GET /%d HTTP/1.1\r\nHost: h\r\nX-%d: y\r\n\r\n" % (i, i)
        assert reader.try_request_head(raw, LIMITS, BASE, 1) is not None
        status = b"HTTP/1.1 200 %d\r\nContent-Length: 0\r\n\r\n" % i
        assert reader.try_response_head(status, b"GET", LIMITS, 1) is not None
    assert 0 < reader.remembered <= 3 * LINES


def test_long_lines_and_trace_fields_are_not_remembered() -> None:
    reader = HeadReader()
    long = b"x" * LINE_BYTES
    raw = b"GET /%b HTTP/1.1\r\nHost: h\r\nCookie: %b\r\nx-request-id: 1\r\n\r\n" % (long, long)
    assert reader.try_request_head(raw, LIMITS, BASE, 1) == parse_request_head(raw, limits=LIMITS, normalization=BASE)
    assert reader.remembered == 1


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
    "until_close": b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
    "close": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
    "http10": b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
    "no_content": b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
    "not_modified": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 4\r\n\r\n",
    "empty_phrase": b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("raw", ANSWERS.values(), ids=ANSWERS.keys())
def test_takes_canonical_answers(raw: bytes, method: bytes) -> None:
    reader = HeadReader()
    expected: ResponseHead = parse_response_head(raw, request_method=method, limits=LIMITS, stream=3)
    for _ in range(2):
        assert reader.try_response_head(raw, method, LIMITS, 3) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx_y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_leaves_other_answers_to_the_gate(raw: bytes) -> None:
    assert HeadReader().try_response_head(raw, b"GET", LIMITS, 1) is None


def test_the_kinds_are_the_numbers_that_the_fast_path_compares() -> None:
    assert (fast._HOP, fast._FRAMING, fast._TRACE) == (Kind.HOP, Kind.FRAMING, Kind.TRACE)
    assert int(Kind.FORWARD) == 0
