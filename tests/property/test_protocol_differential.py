"""Differential tests: the fast path accepts only what the gate accepts, with an equal head; and what is written from
a head is read again with the same meaning.
"""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolError
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.headers import write_request_head, write_response_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, Kind, RequestHead, ResponseHead

LIMITS = HeadLimits()
SOME_LIMITS = [LIMITS, HeadLimits(fields=2), HeadLimits(head_bytes=60)]
MODE = PathNormalization.BASE
MODES = st.sampled_from(PathNormalization)
WAYS = st.lists(st.tuples(MODES, st.sampled_from(SOME_LIMITS)), min_size=1, max_size=3).map(
    lambda ways: [*ways, (MODE, LIMITS)]
)
"""In which modes and within which limits a head is read, one after the other; several ports share one reader."""

# Two heads of three are canonical; the third may hold any mixture of faults, so that the two parsers could differ.
METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH"])
ODD_METHODS = st.sampled_from([b"M-SEARCH", b"get", b"TRACE", b"CONNECT", b"", b"G T"])
TARGETS = st.one_of(
    st.sampled_from([b"/", b"/a/b?c=d", b"/a/../b", b"//a", b"/%2e%2e/x", b"/a%2Fb", b"/.well-known/x?", b"/%41\\b"]),
    st.text("abz019-_~/.%?=&;:@", max_size=12).map(lambda tail: b"/" + tail.encode()),
)
ODD_TARGETS = st.one_of(
    st.sampled_from([b"/..;/x", b"/%00", b"*", b"/a#b", b"http://h/", b"h:80", b"/%%32e"]),
    st.binary(max_size=12).map(lambda tail: b"/" + tail),
)
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"])
ODD_VERSIONS = st.sampled_from([b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b""])
PARENT = b"00-%032x-%016x-01" % (1, 2)
LINES = st.one_of(
    st.sampled_from(
        [
            b"Accept: */*",
            b"User-Agent: curl/8.5.0",
            b"X-Request-Id: 1",
            b"traceparent: 00-1-2-01",
            b"x-request-id: 2\r\ntraceparent: " + PARENT,
            b"Traceparent: " + PARENT + b"\r\nX-Request-ID: 3",
            b"X-Request-Id: 4\r\nTraceparent: " + PARENT,
            b"x-request-id: " + b"5" * 130,
            b"X-Forwarded-For: 10.0.0.9",
            b"traceparent: " + PARENT,
            b"X-Envoy-Foo: a",
            b"Cookie: a=b; c=d",
            b"TE: trailers",
            b"Connection: keep-alive",
            b"Connection: Close",
        ]
    ),
    st.tuples(st.text("abX-", min_size=1, max_size=4), st.binary(max_size=6)).map(
        lambda pair: (
            pair[0].encode() + b": x" + pair[1].translate(None, bytes(range(9)) + bytes(range(10, 33)) + b"\x7f")
        )
    ),
)
FRAMING = st.sampled_from(
    [
        (),
        (),
        (b"Content-Length: 5",),
        (b"content-length: 007",),
        (b"Content-Length: 0",),
        (b"Transfer-Encoding: Chunked",),
    ]
)
ODD_LINES = st.one_of(
    st.sampled_from(
        [
            b"Host: other",
            b"Content-Length: 5",
            b"Content-Length: +5",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Connection: x-hop, close",
            b"Connection: upgrade",
            b"Upgrade: websocket",
            b"Expect: 100-continue",
            b"X-Hop: a",
            b"X:",
            b"X:  padded \t",
            b"x_y: z",
            b" folded",
            b"no colon",
            b"",
            b"\0",
            b"x-request-id: a b",
            b"x-request-id: \0",
            b"x-request-id: 2\r\n\0",
            b"\0\r\ntraceparent: " + PARENT,
            b"traceparent: " + PARENT[:-1],
            b"traceparent: " + PARENT + b" ",
            b"Connection: close, keep-alive",
        ]
    ),
    st.tuples(st.text("abX-_ :", min_size=1, max_size=4), st.binary(max_size=8)).map(
        lambda pair: pair[0].encode() + b": " + pair[1]
    ),
)
HOSTS = st.sampled_from([b"Host: h", b"host: orders.demo:8080", b"Host: [::1]:80", b"HOST: 10.0.0.1"])
ODD_HOSTS = st.sampled_from([b"Host: h", b"Host: a,b", b"X: y", b"Host:", b"Host: [::1"])
STATUS_LINES = st.sampled_from([b"200 OK", b"404 Not Found", b"304 ", b"500 Internal Server Error", b"204 No Content"])
ODD_STATUS_LINES = st.sampled_from([b"101 X", b"100 C", b"20 x", b"200", b"200 \x7f", b"2000 OK"])


@st.composite
def request_heads(draw: st.DrawFn) -> bytes:
    odd = draw(st.integers(0, 2)) == 0
    methods = METHODS | ODD_METHODS if odd else METHODS
    targets = TARGETS | ODD_TARGETS if odd else TARGETS
    request_line = b" ".join((draw(methods), draw(targets), draw(VERSIONS | ODD_VERSIONS if odd else VERSIONS)))
    lines = [draw(ODD_HOSTS if odd else HOSTS), *draw(FRAMING)]
    lines += draw(st.lists(LINES | ODD_LINES if odd else LINES, max_size=4))
    return b"\r\n".join((request_line, *draw(st.permutations(lines)), b"", b""))


@st.composite
def response_heads(draw: st.DrawFn) -> bytes:
    odd = draw(st.integers(0, 2)) == 0
    version = draw(VERSIONS | ODD_VERSIONS if odd else VERSIONS)
    status = draw(STATUS_LINES | ODD_STATUS_LINES if odd else STATUS_LINES)
    lines = [*draw(FRAMING), *draw(st.lists(LINES | ODD_LINES if odd else LINES, max_size=4))]
    return b"\r\n".join((version + b" " + status, *draw(st.permutations(lines)), b"", b""))


def test_what_the_fast_path_accepts_the_gate_accepts_alike() -> None:
    """Each head is read for the first, second and third time, by a reader of its own and by one that all share, with
    limits and normalizations in turn, and each reading is the gate's."""
    shared = HeadReader()
    taken: list[bool] = []
    remembered: list[bool] = []

    @settings(derandomize=True, deadline=None, max_examples=800)
    @given(request_heads(), WAYS)
    def compare(head: bytes, ways: list[tuple[PathNormalization, HeadLimits]]) -> None:
        own = HeadReader()
        for mode, limits in [*ways, *ways, *ways]:
            slow = try_parse(head, mode, limits)
            for reader in (own, shared):
                fast = reader.try_request_head(head, limits, mode, 1)
                if fast is None:
                    continue
                assert slow is not None
                assert slow == fast
                for strip in (False, True):
                    written = write_request_head(fast, extra=b"a: b\r\n", strip_reserved=strip)
                    assert written == write_request_head(slow, extra=b"a: b\r\n", strip_reserved=strip)
                assert_on_record_alike(fast, slow)
        again = own.try_request_head(head, LIMITS, MODE, 1)
        taken.append(again is not None)
        remembered.append(again is not None and again.remembered is not None)

    compare()
    assert sum(taken) / len(taken) >= 0.3
    assert sum(remembered) / len(remembered) >= 0.3


@settings(derandomize=True, deadline=None, max_examples=600)
@given(st.lists(request_heads(), min_size=2, max_size=3), st.data())
def test_pieces_of_known_heads_are_no_way_past_the_gate(heads: list[bytes], data: st.DataObject) -> None:
    """What a reader knows of some heads never makes it accept another that is put together from their pieces."""
    reader = HeadReader()
    for head in heads * 3:
        reader.try_request_head(head, LIMITS, MODE, 1)
    pieces = [line for head in heads for line in head[:-4].split(b"\r\n")[1:]]
    lines = data.draw(st.lists(st.sampled_from([*pieces, b"\0", b""]), max_size=6))
    start = data.draw(st.sampled_from([head.partition(b"\r\n")[0] for head in heads]))
    mixed = b"\r\n".join((start, *lines, b"", b""))
    mixed = mixed[: mixed.find(b"\r\n\r\n") + 4]  # as a codec cuts it
    for _ in range(3):
        fast = reader.try_request_head(mixed, LIMITS, MODE, 1)
        assert fast is None or fast == try_parse(mixed, MODE, LIMITS)


def test_what_the_fast_path_accepts_of_answers_the_gate_accepts_alike() -> None:
    shared = HeadReader()
    taken: list[bool] = []
    prepared: list[bool] = []

    @settings(derandomize=True, deadline=None, max_examples=800)
    @given(response_heads(), st.permutations([b"GET", b"HEAD", b"GET"]), st.permutations(SOME_LIMITS))
    def compare(head: bytes, methods: list[bytes], several: list[HeadLimits]) -> None:
        own = HeadReader()
        for method in methods:
            for limits in several:
                slow = try_parse_answer(head, method, limits)
                for reader in (own, shared):
                    fast = reader.try_response_head(head, method, limits, 1)
                    assert fast is None or fast == slow
                    answer = reader.read_answer(head, limits) if method != b"HEAD" else None
                    if answer is None:
                        continue
                    assert slow is not None
                    assert answer.head == dataclasses.replace(slow, stream=0)
                    assert answer.length == slow.content_length
                    assert slow.keep_alive
                    assert slow.status >= 200
                    assert answer.written == write_response_head(slow, close=False, chunked=False)
        taken.append(own.try_response_head(head, b"GET", LIMITS, 1) is not None)
        prepared.append(own.read_answer(head, LIMITS) is not None)

    compare()
    assert sum(taken) / len(taken) >= 0.3
    assert sum(prepared) / len(prepared) >= 0.1


@settings(derandomize=True, deadline=None, max_examples=800)
@given(st.one_of(request_heads(), st.binary(max_size=60).map(lambda head: head + b"\r\n\r\n")), MODES)
def test_the_gate_answers_every_input_and_nothing_else_escapes(head: bytes, mode: PathNormalization) -> None:
    accepted = try_parse(head, mode, LIMITS)
    assert accepted is None or accepted.method.isupper()


@settings(derandomize=True, deadline=None, max_examples=600)
@given(request_heads(), MODES)
def test_what_is_written_means_what_was_judged(head: bytes, mode: PathNormalization) -> None:
    judged = try_parse(head, mode, LIMITS)
    if judged is None:
        return
    judged.authority = judged.authority or b"h"
    again = parse_request_head(write_request_head(judged, strip_reserved=True), limits=LIMITS, normalization=mode)
    for name in ("method", "path", "query", "authority", "content_length", "has_length", "expects_continue", "upgrade"):
        assert getattr(again, name) == getattr(judged, name), name
    passed_on = [field for field in judged.fields if field.kind in (Kind.FORWARD, Kind.TRACE)]
    written_anew = (Kind.FRAMING, Kind.HOP)
    assert [field for field in again.fields if field.kind not in written_anew] == passed_on


def assert_on_record_alike(fast: RequestHead, slow: RequestHead) -> None:
    """What a record takes from memory is what it would find in the fields."""
    if fast.remembered is None:
        return
    line, block, _, request_id, traced = fast.remembered
    last = {field.name: field.value.decode("latin-1") for field in slow.fields}
    assert (line.method_text, line.path_text) == (slow.method.decode(), (slow.path + slow.query).decode("latin-1"))
    assert block.authority_text == slow.authority.decode()
    assert block.user_agent == last.get(b"user-agent", "")
    assert block.forwarded_for == last.get(b"x-forwarded-for", "")
    trace = [field for field in slow.fields if field.kind is Kind.TRACE]
    assert [request_id] * bool(request_id) == [field.value for field in trace if field.name == b"x-request-id"]
    assert traced is any(field.name != b"x-request-id" for field in trace)


def try_parse(head: bytes, mode: PathNormalization, limits: HeadLimits) -> RequestHead | None:
    try:
        return parse_request_head(head, limits=limits, normalization=mode)
    except ProtocolError:
        return None


def try_parse_answer(head: bytes, method: bytes, limits: HeadLimits) -> ResponseHead | None:
    try:
        return parse_response_head(head, request_method=method, limits=limits)
    except ProtocolError:
        return None
