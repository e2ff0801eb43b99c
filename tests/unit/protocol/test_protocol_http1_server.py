"""The server codec: requests in, answers out, one stream at a time."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_response_head
from proxy.protocol.http1 import ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import Data, End, Field, HeadLimits, Kind, RequestHead, ResponseHead, Trailers
from tests.codec_feeding import LIMITS, drain, serve

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"


def server(*received: bytes, reader: HeadReader | None = None) -> ServerCodec:
    codec = ServerCodec(LIMITS, PathNormalization.BASE, reader)
    for data in received:
        codec.receive(data)
    return codec


def answer_head(raw: bytes, method: bytes = b"GET") -> ResponseHead:
    return parse_response_head(raw, request_method=method, limits=LIMITS)


PLAIN_ANSWER = answer_head(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
CHUNKED_ANSWER = answer_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
ENDLESS_ANSWER = answer_head(b"HTTP/1.1 200 OK\r\n\r\n")


def after_request(raw: bytes) -> ServerCodec:
    codec = server(raw)
    list(drain(codec))
    return codec


def test_head_body_and_end_come_out_of_one_receive() -> None:
    head, *rest = drain(server(POST + b"hello"))
    assert isinstance(head, RequestHead)
    assert rest == [Data(1, b"hello"), End(1)]


def test_a_body_is_handed_on_as_it_comes_without_a_copy() -> None:
    codec = server(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n")
    assert isinstance(codec.next_event(), RequestHead)
    assert codec.next_event() is None
    piece = b"12345"
    codec.receive(piece)
    event = codec.next_event()
    assert isinstance(event, Data)
    assert event.data is piece
    assert codec.next_event() is None
    codec.receive(b"6789GET")
    assert list(drain(codec)) == [Data(1, b"6789"), End(1)]
    assert codec.buffered == 3


def test_pipelined_requests_wait_for_the_answer_before() -> None:
    codec = server(GET + GET.replace(b"/ ", b"/two "))
    assert [type(event) for event in drain(codec)] == [RequestHead, End]
    assert codec.next_event() is None
    assert codec.buffered == len(GET) + 3
    codec.start_next_stream()
    head, end = drain(codec)
    assert isinstance(head, RequestHead)
    assert (head.stream, head.path, end) == (2, b"/two", End(2))
    assert codec.buffered == 0


def test_a_next_stream_cannot_begin_within_a_request() -> None:
    codec = server(POST + b"he")
    list(drain(codec))
    with pytest.raises(ProtocolError) as misuse:
        codec.start_next_stream()
    assert misuse.value.reason is Reason.INTERNAL_ERROR


def test_chunks_and_trailers() -> None:
    raw = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX-T: v\r\n\r\n"
    _, *rest = drain(server(raw))
    trailer = Field(b"x-t", b"v", b"X-T: v\r\n", Kind.FORWARD)
    assert rest == [Data(1, b"abc"), Trailers(1, [trailer]), End(1)]


def test_one_empty_line_between_requests_is_skipped() -> None:
    outcomes = serve([POST + b"hello\r\n" + GET + b"\r\n" + GET])
    kinds = [RequestHead, Data, End, RequestHead, End, RequestHead, End]
    assert [type(outcome) for outcome in outcomes] == kinds


def test_an_empty_line_before_the_end_is_a_clean_end() -> None:
    codec = after_request(GET)
    codec.start_next_stream()
    codec.receive(b"\r\n")
    codec.receive(b"")
    assert codec.next_event() is None
    assert codec.at_end


@pytest.mark.parametrize("received", [(b"",), (GET, b"")])
def test_an_end_between_messages_is_clean(received: tuple[bytes, ...]) -> None:
    codec = server(*received)
    events = list(drain(codec))
    if events:
        codec.start_next_stream()
        assert codec.next_event() is None
    assert codec.at_end


def test_a_half_closed_client_still_gets_its_answer() -> None:
    codec = server(GET, b"")
    assert [type(event) for event in drain(codec)] == [RequestHead, End]
    assert codec.encode_response(PLAIN_ANSWER).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("raw", [b"G", GET[:-1], POST, POST + b"hell", b"\r"])
def test_an_end_within_a_message_is_a_fault(raw: bytes) -> None:
    codec = server(raw, b"")
    with pytest.raises(ProtocolError) as fault:
        list(drain(codec))
    assert fault.value.reason in (Reason.REQUEST_INCOMPLETE, Reason.REQUEST_LINE_INVALID)
    assert not codec.at_end


def test_a_head_that_drips_in_is_understood_and_counted() -> None:
    codec = server()
    for i, byte in enumerate(GET[:-1]):
        codec.receive(bytes((byte,)))
        assert codec.next_event() is None
        assert codec.buffered == i + 1
    codec.receive(GET[-1:])
    assert isinstance(codec.next_event(), RequestHead)
    assert codec.buffered == 0


def test_a_head_cut_within_its_empty_line_leaves_the_body_where_it_is() -> None:
    for cut in range(1, len(POST)):
        codec = server(POST[:cut])
        assert codec.next_event() is None
        codec.receive(POST[cut:] + b"hello" + GET)
        assert [type(event) for event in drain(codec)] == [RequestHead, Data, End]
        assert codec.buffered == len(GET)


@pytest.mark.parametrize(
    ("begun", "reason"),
    [
        (b"GET / HTTP/1.1\n", Reason.BARE_LINE_FEED),
        (b"GET / HTTP/1.1\r\nHost: h\n", Reason.BARE_LINE_FEED),
        (b"GET /\r\n", Reason.REQUEST_LINE_INVALID),
        (b"GET / HTTP/1.1\r\nHost: h\rX", Reason.HEADER_INVALID),
        (b"\x16\x03\x01", Reason.REQUEST_LINE_INVALID),
        (b"PRI * HTTP/2.0\r\n", Reason.HTTP2_NOT_SERVED),
        (b"GET /" + b"a" * LIMITS.head_bytes, Reason.HEAD_TOO_LARGE),
    ],
)
def test_a_fault_is_answered_before_the_head_is_complete(begun: bytes, reason: Reason) -> None:
    codec = server(begun)
    with pytest.raises(ProtocolError) as fault:
        codec.next_event()
    assert fault.value.reason is reason


def test_a_head_just_within_the_limit_passes_and_one_byte_more_does_not() -> None:
    limits = HeadLimits(head_bytes=len(GET))
    assert isinstance(feed_one(limits, GET), RequestHead)
    with pytest.raises(ProtocolError) as fault:
        feed_one(limits, GET.replace(b"Host: h", b"Host: hh"))
    assert fault.value.reason is Reason.HEAD_TOO_LARGE


def feed_one(limits: HeadLimits, raw: bytes) -> object:
    codec = ServerCodec(limits, PathNormalization.BASE, HeadReader())
    codec.receive(raw)
    return codec.next_event()


@pytest.mark.parametrize(
    ("raw", "closes"),
    [
        (GET, False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: h\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_the_clients_wish_to_close_is_kept(raw: bytes, closes: bool) -> None:
    codec = after_request(raw)
    assert codec.must_close is closes
    assert (b"connection: close\r\n" in codec.encode_response(PLAIN_ANSWER)) is closes


def test_an_answer_with_a_length_goes_out_as_it_is() -> None:
    codec = after_request(GET)
    assert codec.encode_response(PLAIN_ANSWER) == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    assert codec.encode_data(b"ok") + codec.encode_end() == b"ok"
    assert not codec.must_close


@pytest.mark.parametrize("head", [CHUNKED_ANSWER, ENDLESS_ANSWER], ids=["chunked", "until_close"])
def test_an_answer_without_length_goes_out_in_chunks(head: ResponseHead) -> None:
    codec = after_request(GET)
    assert codec.encode_response(head) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert codec.encode_data(b"0123456789ab") == b"c\r\n0123456789ab\r\n"
    assert codec.encode_data(b"") == b""
    assert codec.encode_end() == b"0\r\n\r\n"
    assert not codec.must_close


@pytest.mark.parametrize("head", [CHUNKED_ANSWER, ENDLESS_ANSWER], ids=["chunked", "until_close"])
def test_a_1_0_client_reads_until_the_connection_closes(head: ResponseHead) -> None:
    codec = after_request(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
    assert codec.encode_response(head) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    assert codec.encode_data(b"abc") + codec.encode_end() == b"abc"
    assert codec.must_close


def test_trailers_go_out_behind_the_last_chunk() -> None:
    codec = after_request(GET)
    codec.encode_response(CHUNKED_ANSWER)
    trailers = [Field(b"x", b"y", b"X: y\r\n", Kind.FORWARD), Field(b"te", b"z", b"TE: z\r\n", Kind.HOP)]
    assert codec.encode_end(trailers) == b"0\r\nX: y\r\n\r\n"


def test_an_answer_to_head_has_no_body_and_no_chunks() -> None:
    codec = after_request(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
    head = answer_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"HEAD")
    assert codec.encode_response(head) == b"HTTP/1.1 200 OK\r\n\r\n"
    assert codec.encode_data(b"never") + codec.encode_end() == b""


def test_interim_answers_do_not_end_anything() -> None:
    codec = after_request(GET)
    hints = answer_head(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert codec.encode_response(hints) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert codec.encode_response(CHUNKED_ANSWER).endswith(b"transfer-encoding: chunked\r\n\r\n")


def test_a_1_0_client_gets_no_interim_answer() -> None:
    codec = after_request(b"GET / HTTP/1.0\r\n\r\n")
    assert codec.encode_response(answer_head(b"HTTP/1.1 103 Early Hints\r\n\r\n")) == b""


def test_an_answer_before_the_end_of_the_request_closes() -> None:
    codec = server(POST + b"he")
    list(drain(codec))
    codec.encode_response(PLAIN_ANSWER)
    codec.encode_end()
    assert codec.must_close


def test_the_bytes_behind_an_upgrade_are_its_own() -> None:
    raw = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    codec = server(raw + b"\x81\x05hello")
    head, end = drain(codec)
    assert isinstance(head, RequestHead)
    assert (head.upgrade, end) == (b"websocket", End(1))
    assert codec.buffered == 7
    assert codec.take_rest() == b"\x81\x05hello"
    assert codec.buffered == 0


def test_continue_is_expected_only_where_a_body_follows() -> None:
    expecting = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    head = server(expecting).next_event()
    assert isinstance(head, RequestHead)
    assert head.expects_continue
