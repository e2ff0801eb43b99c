"""The fast path: what it takes on itself, what it leaves to the gate, and that its memory is bounded."""

from __future__ import annotations

import dataclasses

import pytest

from proxy.errors import ProtocolError
from proxy.protocol import fast
from proxy.protocol.fast import LINE_BYTES, LINES, HeadReader
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.headers import write_request_head, write_response_head
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


PARENT = b"traceparent: 00-%032x-%016x-01\r\n" % (1, 2)
TRACED = {
    "none": b"",
    "id": b"x-request-id: an-id\r\n",
    "both": b"X-Request-Id: an-id\r\n" + PARENT,
    "third_spelling": b"X-Request-ID: an-id\r\n" + PARENT.replace(b"t", b"T", 1),
    "parent_first": PARENT + b"x-request-id: an-id\r\n",
    "parent_first_capital": PARENT.replace(b"t", b"T", 1) + b"X-Request-Id: an-id\r\n",
    "parent": PARENT,
}


def block(trace: bytes, *, after: bytes = b"Accept: */*\r\n") -> bytes:
    return b"GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: u\r\n%b%b\r\n" % (trace, after)


@pytest.mark.parametrize("trace", TRACED.values(), ids=TRACED.keys())
def test_a_block_is_remembered_whatever_its_trace_lines_say(trace: bytes) -> None:
    reader = HeadReader()
    for number in (b"1", b"2", b"3"):
        raw = block(trace.replace(b"an-id", number))
        head = reader.try_request_head(raw, LIMITS, BASE, 7)
        assert head == gate(raw)
    assert reader.remembered_blocks == 1
    assert head is not None
    assert head.remembered is not None
    line, kept, lines, request_id, traced = head.remembered
    assert (line.path_text, kept.user_agent, kept.authority_text) == ("/a", "u", "h")
    assert lines == trace.replace(b"an-id", b"3")
    assert request_id == (b"3" if b"an-id" in trace else b"")
    assert traced is (b"raceparent" in trace)


def known(*raws: bytes) -> HeadReader:
    reader = HeadReader()
    for raw in (*raws, *raws):
        assert reader.try_request_head(raw, LIMITS, BASE, 7) is not None
    return reader


@pytest.mark.parametrize(
    "raw",
    [
        block(b"\0"),
        block(b"\0\r\n"),
        block(b"x-request-id: \0\r\n"),
        block(b"\0x-request-id: 1\r\n"),
        block(b"x-request-id: 1\r\n\0"),
        block(b"x-request-id: 1\r\nx-request-id: \0\r\n"),
        block(b"x-request-id: 1\n" + PARENT),
    ],
)
def test_no_byte_passes_in_the_place_of_trace_lines_that_were_cut_out(raw: bytes) -> None:
    reader = known(block(TRACED["id"]), block(TRACED["none"]), block(TRACED["both"]))
    assert reader.try_request_head(raw, LIMITS, BASE, 7) is None
    with pytest.raises(ProtocolError):
        gate(raw)


def test_the_place_of_trace_lines_is_part_of_a_block() -> None:
    reader = known(block(b"", after=b"X: y\r\n" + TRACED["both"]), block(TRACED["both"], after=b"X: y\r\n"))
    for raw in (block(TRACED["both"], after=b"X: y\r\n"), block(b"", after=b"X: y\r\n" + TRACED["both"])):
        head = reader.try_request_head(raw, LIMITS, BASE, 7)
        assert head == gate(raw)
        assert head is not None
        assert head.remembered is not None


def unique(number: int) -> bytes:
    return block(b"", after=b"Cookie: %d\r\n" % number)


def test_where_blocks_never_come_again_it_seldom_looks_and_finds_out_when_they_do() -> None:
    reader = HeadReader()
    for number in range(2 * fast.CREDIT):
        assert reader.try_request_head(unique(number), LIMITS, BASE, 7) == gate(unique(number))
    found = []
    for _ in range(4 * (fast.REST + 1)):
        head = reader.try_request_head(block(b""), LIMITS, BASE, 7)
        assert head == gate(block(b""))
        found.append(head is not None and head.remembered is not None)
    assert not any(found[: fast.REST])
    assert all(found[-fast.HIT :])
    assert reader.remembered_blocks == 1


@pytest.mark.parametrize("others", [0, 1, 2, 3])
def test_a_block_that_comes_in_one_head_of_four_is_always_looked_for(others: int) -> None:
    reader = HeadReader()
    numbers = iter(range(fast.CREDIT * 40))
    found = []
    for _ in range(4 * fast.CREDIT):
        for _ in range(others):
            reader.try_request_head(unique(next(numbers)), LIMITS, BASE, 7)
        head = reader.try_request_head(block(b""), LIMITS, BASE, 7)
        found.append(head is not None and head.remembered is not None)
    assert all(found[2:])


def test_a_second_request_id_is_seen_beside_a_remembered_block() -> None:
    raw = block(b"x-request-id: 1\r\n", after=b"Accept: */*\r\nx-request-id: 2\r\n")
    reader = known(block(TRACED["id"]), raw)
    head = reader.try_request_head(raw, LIMITS, BASE, 7)
    assert head == gate(raw)
    assert head is not None
    assert head.remembered is None


@pytest.mark.parametrize(
    ("limits", "raw"),
    [
        (HeadLimits(fields=3), block(TRACED["id"])),
        (HeadLimits(fields=2), block(b"")),
        (HeadLimits(head_bytes=40), block(b"")),
    ],
)
def test_the_limits_hold_for_what_is_remembered(limits: HeadLimits, raw: bytes) -> None:
    assert known(raw).try_request_head(raw, limits, BASE, 7) is None


def test_what_depends_on_the_version_is_not_taken_from_a_block() -> None:
    chunked = b"PUT /a HTTP/1.%d\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    assert known(chunked % 1).try_request_head(chunked % 0, LIMITS, BASE, 7) is None
    plain = b"GET /a HTTP/1.%d\r\nhost: h\r\n\r\n"
    old = known(plain % 1).try_request_head(plain % 0, LIMITS, BASE, 7)
    assert old is not None
    assert not old.keep_alive


def test_a_head_that_is_changed_is_written_as_it_is_now() -> None:
    reader = known(block(b""))
    for change in (
        lambda head: dataclasses.replace(head, fields=head.fields[:1]),
        lambda head: head.replace_fields(head.fields[:1]) or head,
    ):
        head = reader.try_request_head(block(b""), LIMITS, BASE, 7)
        assert head is not None
        assert b"User-Agent" in write_request_head(head, strip_reserved=True)
        assert b"User-Agent" not in write_request_head(change(head), strip_reserved=True)


def test_memory_of_blocks_and_answers_is_bounded() -> None:
    reader = HeadReader()
    for i in range(fast.BLOCKS + 10):
        for _ in range(2):
            for trace in (b"", b"x-request-id: 1\r\n"):
                assert reader.try_request_head(block(trace, after=b"X: %d\r\n" % i), LIMITS, BASE, 1) is not None
        assert reader.read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % i, LIMITS) is not None
    assert 0 < reader.remembered_blocks <= 3 * fast.BLOCKS


def test_what_comes_once_large_or_with_its_own_trace_is_not_remembered() -> None:
    reader = HeadReader()
    assert reader.try_request_head(block(b""), LIMITS, BASE, 1) is not None
    for raw in (
        block(PARENT + b"Accept: */*\r\nx-request-id: 1\r\n"),
        block(b"", after=b"Cookie: %b\r\n" % (b"x" * fast.BLOCK_BYTES)),
        block(b"", after=b"X: y\r\n" * (fast.BLOCK_LINES + 1)),
        block(b"", after=b"b3: 0\r\n"),
    ):
        for _ in range(3):
            assert reader.try_request_head(raw, LIMITS, BASE, 1) is not None
    assert reader.remembered_blocks == 0


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


@pytest.mark.parametrize(("name", "raw"), ANSWERS.items(), ids=ANSWERS.keys())
def test_a_whole_answer_is_prepared_as_it_would_be_written(name: str, raw: bytes) -> None:
    reader = HeadReader()
    for _ in range(2):
        answer = reader.read_answer(raw, LIMITS)
        if name in ("chunked", "until_close", "close", "http10"):
            assert answer is None
        else:
            head = parse_response_head(raw, request_method=b"GET", limits=LIMITS, stream=0)
            assert answer is not None
            assert answer.head == head
            assert answer.length == head.content_length
            assert answer.written == write_response_head(head, close=False, chunked=False)
            assert reader.read_answer(raw, HeadLimits(fields=0)) is None
            assert reader.read_answer(raw, HeadLimits(head_bytes=10)) is None


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
