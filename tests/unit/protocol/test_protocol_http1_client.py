"""The client codec: requests out, answers in, and when a connection may serve again."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head
from proxy.protocol.http1 import ClientCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import Data, End, Field, Kind, RequestHead, ResponseHead, Trailers
from tests.codec_feeding import LIMITS, answer, comparable, drain, one_by_one

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def request_head(raw: bytes) -> RequestHead:
    return parse_request_head(raw, limits=LIMITS, normalization=PathNormalization.BASE)


def client(*received: bytes, method: bytes = b"GET", upgrade: bytes = b"") -> ClientCodec:
    codec = ClientCodec(LIMITS)
    codec.start_request(method, upgrade)
    for data in received:
        codec.receive(data)
    return codec


ANSWERS = {
    "length": (OK, False, [ResponseHead, Data, End]),
    "no_body": (b"HTTP/1.1 204 No Content\r\n\r\n", False, [ResponseHead, End]),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        False,
        [ResponseHead, Data, End],
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
        False,
        [ResponseHead, Data, Trailers, End],
    ),
    "until_close": (b"HTTP/1.1 200 OK\r\n\r\nok until the end", True, [ResponseHead, Data, End]),
    "until_close_empty": (b"HTTP/1.0 200 OK\r\n\r\n", True, [ResponseHead, End]),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK,
        False,
        [ResponseHead, ResponseHead, ResponseHead, Data, End],
    ),
}


@pytest.mark.parametrize("reader", [None, HeadReader()], ids=["gate", "fast"])
@pytest.mark.parametrize(("raw", "half_close", "kinds"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answers_whole_and_byte_by_byte(
    raw: bytes, half_close: bool, kinds: list[type], reader: HeadReader | None
) -> None:
    whole = answer([raw], half_close=half_close, reader=reader)
    assert [type(outcome) for outcome in whole] == kinds
    assert answer(one_by_one(raw), half_close=half_close, reader=reader) == whole


FAULTS = {
    "closed_before_a_byte": (b"", Reason.UPSTREAM_CLOSED),
    "closed_within_the_head": (b"HTTP/1.1 200 OK\r\nA: ", Reason.UPSTREAM_RESPONSE_INCOMPLETE),
    "closed_within_the_body": (OK[:-1], Reason.UPSTREAM_RESPONSE_INCOMPLETE),
    "closed_within_a_chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        Reason.UPSTREAM_RESPONSE_INCOMPLETE,
    ),
    "closed_between_chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        Reason.UPSTREAM_RESPONSE_INCOMPLETE,
    ),
    "closed_after_an_interim_answer": (b"HTTP/1.1 100 Continue\r\n\r\n", Reason.UPSTREAM_CLOSED),
    "not_http": (b"SSH-2.0-x\r\n\r\n", Reason.UPSTREAM_RESPONSE_INVALID),
    "broken_chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        Reason.UPSTREAM_RESPONSE_INVALID,
    ),
    "broken_trailer": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        Reason.UPSTREAM_RESPONSE_INVALID,
    ),
    "bare_lf": (b"HTTP/1.1 200 OK\n\n", Reason.UPSTREAM_RESPONSE_INVALID),
    "endless_head": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 62_464, Reason.UPSTREAM_RESPONSE_INVALID),
    "a_switch_nobody_asked_for": (SWITCH, Reason.UPSTREAM_RESPONSE_INVALID),
}


@pytest.mark.parametrize(("raw", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_are_the_upstreams(raw: bytes, reason: Reason) -> None:
    for pieces in ([raw] if raw else [], one_by_one(raw)):
        assert comparable(answer(pieces, half_close=True))[-1] == (reason, "upstream")


def test_the_answer_to_head_has_no_body() -> None:
    codec = client(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", method=b"HEAD")
    assert [type(event) for event in drain(codec)] == [ResponseHead, End]
    assert codec.reusable


def test_reusable_after_a_complete_answer_only() -> None:
    codec = ClientCodec(LIMITS)
    states = [codec.reusable]
    codec.start_request(b"GET")
    states.append(codec.reusable)
    for piece in (OK[:-1], OK[-1:]):
        codec.receive(piece)
        list(drain(codec))
        states.append(codec.reusable)
    assert states == [True, False, False, True]
    codec.start_request(b"GET")
    codec.receive(OK)
    head = codec.next_event()
    assert isinstance(head, ResponseHead)
    assert head.stream == 2


NOT_REUSABLE = {
    "close": OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "http10": OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "extra_bytes": OK + b"\r\n",
    "second_answer": OK + OK,
    "no_content_with_length": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
    "body_after_no_content": b"HTTP/1.1 204 No Content\r\n\r\nok",
    "body_after_not_modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("raw", NOT_REUSABLE.values(), ids=NOT_REUSABLE.keys())
def test_not_reusable(raw: bytes) -> None:
    codec = client(raw)
    events = list(drain(codec))
    assert events[-1] == End(1)
    assert not codec.reusable
    with pytest.raises(ProtocolError) as refusal:
        codec.start_request(b"GET")
    assert refusal.value.side == "upstream"


def test_bytes_and_ends_between_answers_end_the_reuse() -> None:
    for late in (b"HTTP/1.1 408 Request Timeout\r\n\r\n", b""):
        codec = client(OK)
        list(drain(codec))
        assert codec.reusable
        codec.receive(late)
        assert codec.next_event() is None
        assert not codec.reusable


def test_not_reusable_while_the_request_goes_out() -> None:
    codec = ClientCodec(LIMITS)
    codec.encode_request(request_head(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"), strip_reserved=True)
    codec.receive(OK)
    list(drain(codec))
    assert not codec.reusable
    codec.encode_data(b"hello")
    codec.encode_end()
    assert codec.reusable


def test_a_body_goes_out_in_the_framing_of_its_head() -> None:
    codec = ClientCodec(LIMITS)
    chunked = request_head(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert codec.encode_request(chunked, extra=b"a: b\r\n", strip_reserved=True) == (
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\na: b\r\n\r\n"
    )
    assert codec.encode_data(b"hello") == b"5\r\nhello\r\n"
    assert codec.encode_data(b"") == b""
    assert codec.encode_end([Field(b"x", b"y", b"x: y\r\n", Kind.FORWARD)]) == b"0\r\nx: y\r\n\r\n"


def test_a_body_with_length_goes_out_as_it_is() -> None:
    codec = ClientCodec(LIMITS)
    codec.encode_request(request_head(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"), strip_reserved=True)
    assert codec.encode_data(b"hello") + codec.encode_end() == b"hello"


def test_a_switch_that_was_asked_for_opens_a_tunnel() -> None:
    codec = client(SWITCH + b"\x81\x00", upgrade=b"websocket")
    events = list(drain(codec))
    assert [type(event) for event in events] == [ResponseHead]
    assert not codec.reusable
    assert codec.take_rest() == b"\x81\x00"


def test_a_switch_to_something_else_is_refused() -> None:
    codec = client(SWITCH, upgrade=b"other")
    with pytest.raises(ProtocolError) as refusal:
        codec.next_event()
    assert refusal.value.reason is Reason.UPSTREAM_RESPONSE_INVALID


def test_an_upgrade_may_be_declined() -> None:
    codec = client(OK, upgrade=b"websocket")
    assert [type(event) for event in drain(codec)] == [ResponseHead, Data, End]
    assert codec.reusable


def test_a_clean_end_between_answers_is_seen() -> None:
    codec = client(OK, b"")
    list(drain(codec))
    assert codec.at_end
