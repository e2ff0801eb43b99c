"""What becomes of each field, and how heads are written anew."""

from __future__ import annotations

import pytest

from proxy.protocol.gate import parse_request_head, parse_response_head
from proxy.protocol.headers import (
    classify,
    header_attributes,
    local_response,
    write_request_head,
    write_response_head,
    xfcc_value,
)
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, Kind, RequestHead, ResponseHead

KINDS = {
    Kind.FORWARD: [b"accept", b"cookie", b"trailer", b"proxy-authorization", b"x-forwarded-for", b"x-b3x", b"x-envoy"],
    Kind.HOP: [b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"http2-settings", b"expect"],
    Kind.FRAMING: [b"host", b"content-length", b"transfer-encoding"],
    Kind.RESERVED: [
        b"x-forwarded-client-cert",
        b"l5d-client-id",
        b"x-envoy-original-path",
        b"x-istio-attributes",
        b"x-remora-peer",
    ],
    Kind.TRACE: [b"x-request-id", b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-sampled"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_classify(kind: Kind, name: bytes) -> None:
    assert classify(name) is kind


def request(raw: bytes) -> RequestHead:
    return parse_request_head(raw, limits=HeadLimits(), normalization=PathNormalization.BASE)


def response(raw: bytes, method: bytes = b"GET") -> ResponseHead:
    return parse_response_head(raw, request_method=method, limits=HeadLimits())


def test_a_request_is_written_from_what_was_understood() -> None:
    head = request(
        b"POST http://H:80/a/../b?c HTTP/1.1\r\nhOsT: h:80\r\nX-Kept:  a b \r\nConnection: x-hop\r\nX-Hop: 1\r\n"
        b"x-request-id: 7\r\nX-Envoy-Foo: spoofed\r\nExpect: 100-Continue\r\ncontent-LENGTH: 007\r\n\r\n"
    )
    assert write_request_head(head, extra=b"x-ours: 1\r\n", strip_reserved=True) == (
        b"POST /b?c HTTP/1.1\r\nhost: H:80\r\nX-Kept: a b\r\nx-request-id: 7\r\ncontent-length: 7\r\n"
        b"expect: 100-continue\r\nx-ours: 1\r\n\r\n"
    )


def test_reserved_fields_stay_when_they_are_not_a_peers() -> None:
    head = request(b"GET / HTTP/1.1\r\nHost: h\r\nX-Envoy-Foo: ours\r\n\r\n")
    written = write_request_head(head, strip_reserved=False)
    assert written == b"GET / HTTP/1.1\r\nhost: h\r\nX-Envoy-Foo: ours\r\n\r\n"


def test_an_upgrade_is_asked_for_anew() -> None:
    head = request(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, UPGRADE\r\nUpgrade: WebSocket\r\n\r\n")
    assert head.upgrade == b"websocket"
    assert write_request_head(head, strip_reserved=True) == (
        b"GET /ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )


def test_a_request_without_host_goes_out_with_an_empty_one() -> None:
    head = request(b"GET / HTTP/1.0\r\n\r\n")
    assert write_request_head(head, strip_reserved=True) == b"GET / HTTP/1.1\r\nhost: \r\n\r\n"


def test_what_is_written_passes_the_gate_again_with_the_same_meaning() -> None:
    head = request(b"PUT /a%2e/./b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\nA: b\r\n\r\n")
    again = request(write_request_head(head, strip_reserved=True))
    assert (again.method, again.path, again.authority) == (head.method, head.path, head.authority)
    assert again.content_length == head.content_length


@pytest.mark.parametrize(
    ("close", "version", "chunked", "lines"),
    [
        (False, b"1.1", True, b"transfer-encoding: chunked\r\n"),
        (True, b"1.1", True, b"transfer-encoding: chunked\r\nconnection: close\r\n"),
        (True, b"1.0", False, b"connection: close\r\n"),
    ],
)
def test_a_chunked_answer_is_framed_for_its_client(close: bool, version: bytes, chunked: bool, lines: bytes) -> None:
    head = response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\nA: b\r\n\r\n")
    written = write_response_head(head, close=close, to_version=version, chunked=chunked)
    assert written == b"HTTP/1.1 200 OK\r\nA: b\r\n" + lines + b"\r\n"


def test_a_1_0_client_is_told_that_its_connection_stays() -> None:
    head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    written = write_response_head(head, close=False, to_version=b"1.0", chunked=False)
    assert written == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n"


def test_the_length_that_head_would_have_is_passed_on() -> None:
    head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"HEAD")
    written = write_response_head(head, extra=b"x: y\r\n", close=False, chunked=False)
    assert written == b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\nx: y\r\n\r\n"


def test_set_cookie_lines_keep_their_order_and_stay_apart() -> None:
    raw = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: y\r\nSet-Cookie: b=2, c\r\nContent-Length: 0\r\n\r\n"
    written = write_response_head(response(raw), close=False, chunked=False)
    assert written == (b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: y\r\nSet-Cookie: b=2, c\r\ncontent-length: 0\r\n\r\n")


def test_a_switch_is_announced_anew() -> None:
    head = response(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nA: b\r\n\r\n")
    assert write_response_head(head, close=True, chunked=False) == (
        b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    )


def test_an_interim_answer_says_nothing_of_the_connection() -> None:
    head = response(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\n")
    assert write_response_head(head, close=True, chunked=False) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_policy_sees_every_line_with_repeats_in_order() -> None:
    head = request(
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Role: user\r\nX-ROLE: admin\r\nConnection: keep-alive\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert header_attributes(head) == [
        (b"host", b"h"),
        (b"x-role", b"user"),
        (b"x-role", b"admin"),
        (b"connection", b"keep-alive"),
        (b"content-length", b"0"),
    ]


def test_policy_does_not_see_what_the_application_will_not_see() -> None:
    head = request(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Envoy-Internal: true\r\n"
        b"X-Forwarded-Client-Cert: By=a\r\n\r\n"
    )
    assert header_attributes(head) == [(b"host", b"h"), (b"connection", b"x-hop")]


def test_xfcc_names_both_sides() -> None:
    value = xfcc_value("spiffe://a/ns/x/sa/server", "00ff", "spiffe://a/ns/x/sa/client")
    assert value == b"By=spiffe://a/ns/x/sa/server;Hash=00ff;URI=spiffe://a/ns/x/sa/client"


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("a,b", b'"a,b"'),
        ("a;By=c", b'"a;By=c"'),
        ("a=b", b'"a=b"'),
        ('a"b', b'"a\\"b"'),
        ("a\\b", b'"a\\\\b"'),
        ("a b", b'"a b"'),
    ],
)
def test_xfcc_quotes_what_could_end_a_value(uri: str, written: bytes) -> None:
    assert xfcc_value("s", "h", uri) == b"By=s;Hash=h;URI=" + written


@pytest.mark.parametrize("uri", ["a\r\nX: y", "a\n", "a\x00", "caf\u00e9", "a\x7f"])
def test_xfcc_refuses_what_no_header_may_hold(uri: str) -> None:
    with pytest.raises(ValueError, match="no header may hold"):
        xfcc_value("s", "h", uri)


def test_an_answer_of_our_own() -> None:
    assert local_response(403, b"RBAC: access denied", extra=b"x-request-id: 1\r\n", close=True) == (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 19\r\nconnection: close\r\n"
        b"x-request-id: 1\r\n\r\nRBAC: access denied"
    )


def test_an_answer_of_our_own_to_head_has_the_length_and_no_body() -> None:
    assert local_response(503, b"gone", close=False, head_request=True) == (
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\n"
    )
