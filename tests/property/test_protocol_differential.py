"""Differential tests: the fast path accepts only what the gate accepts, with an equal head; and what is written from
a head is read again with the same meaning.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolError
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.headers import write_request_head
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, Kind, RequestHead

LIMITS = HeadLimits()
MODES = st.sampled_from(PathNormalization)

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
    reader = HeadReader()
    taken: list[bool] = []
    remembered: list[bool] = []

    @settings(derandomize=True, deadline=None, max_examples=800)
    @given(request_heads(), MODES)
    def compare(head: bytes, mode: PathNormalization) -> None:
        slow = try_parse(head, mode)
        for _ in range(3):  # the third time from memory
            fast = reader.try_request_head(head, LIMITS, mode, 1)
            if fast is not None:
                assert slow == fast
                for strip in (False, True):
                    written = write_request_head(fast, extra=b"a: b\r\n", strip_reserved=strip)
                    assert written == write_request_head(slow, extra=b"a: b\r\n", strip_reserved=strip)
        taken.append(fast is not None)
        remembered.append(fast is not None and fast.remembered is not None)

    compare()
    assert sum(taken) / len(taken) >= 0.3
    assert sum(remembered) / len(remembered) >= 0.3


def test_what_the_fast_path_accepts_of_answers_the_gate_accepts_alike() -> None:
    reader = HeadReader()
    taken: list[bool] = []

    @settings(derandomize=True, deadline=None, max_examples=800)
    @given(response_heads(), st.sampled_from([b"GET", b"HEAD"]))
    def compare(head: bytes, method: bytes) -> None:
        fast = reader.try_response_head(head, method, LIMITS, 1)
        taken.append(fast is not None)
        if fast is not None:
            assert parse_response_head(head, request_method=method, limits=LIMITS) == fast

    compare()
    assert sum(taken) / len(taken) >= 0.3


@settings(derandomize=True, deadline=None, max_examples=800)
@given(st.one_of(request_heads(), st.binary(max_size=60).map(lambda head: head + b"\r\n\r\n")), MODES)
def test_the_gate_answers_every_input_and_nothing_else_escapes(head: bytes, mode: PathNormalization) -> None:
    accepted = try_parse(head, mode)
    assert accepted is None or accepted.method.isupper()


@settings(derandomize=True, deadline=None, max_examples=600)
@given(request_heads(), MODES)
def test_what_is_written_means_what_was_judged(head: bytes, mode: PathNormalization) -> None:
    judged = try_parse(head, mode)
    if judged is None:
        return
    judged.authority = judged.authority or b"h"
    again = parse_request_head(write_request_head(judged, strip_reserved=True), limits=LIMITS, normalization=mode)
    for name in ("method", "path", "query", "authority", "content_length", "has_length", "expects_continue", "upgrade"):
        assert getattr(again, name) == getattr(judged, name), name
    passed_on = [field for field in judged.fields if field.kind in (Kind.FORWARD, Kind.TRACE)]
    written_anew = (Kind.FRAMING, Kind.HOP)
    assert [field for field in again.fields if field.kind not in written_anew] == passed_on


def try_parse(head: bytes, mode: PathNormalization) -> RequestHead | None:
    try:
        return parse_request_head(head, limits=LIMITS, normalization=mode)
    except ProtocolError:
        return None
