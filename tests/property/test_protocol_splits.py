"""However the network cuts the bytes, the same events come out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolError
from proxy.protocol.chunked import ChunkedDecoder
from proxy.protocol.fast import HeadReader
from proxy.protocol.http1 import ClientCodec
from proxy.protocol.stream import CHUNKED, End, HeadLimits, RequestHead
from tests.codec_feeding import Outcome, answer, comparable, serve
from tests.gate_corpus import GateCase, load_gate_corpus

CASES = [case for case in load_gate_corpus() if len(case.raw) < 2_000]
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@st.composite
def cut(draw: st.DrawFn, raw: bytes) -> list[bytes]:
    """Cut `raw` at up to six places."""
    places = sorted(draw(st.sets(st.integers(0, len(raw)), max_size=6)))
    return [piece for piece in map(raw.__getitem__, map(slice, [0, *places], [*places, len(raw)])) if piece]


@settings(derandomize=True, deadline=None, max_examples=600)
@given(st.data(), st.sampled_from(CASES), st.booleans())
def test_every_case_of_the_gates_table(data: st.DataObject, case: GateCase, fast: bool) -> None:
    pieces = data.draw(cut(case.raw))
    reader = HeadReader() if fast else None
    cut_up = comparable(up_to_end(serve(pieces, half_close=case.half_close, reader=reader)))
    assert cut_up == comparable(up_to_end(serve([case.raw], half_close=case.half_close)))


def up_to_end(outcomes: list[Outcome]) -> list[Outcome]:
    """Leave out a body that turns out faulty: how much of it came before the fault depends on the cuts."""
    if any(isinstance(outcome, End) for outcome in outcomes) or not isinstance(outcomes[-1], ProtocolError):
        return outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, (RequestHead, ProtocolError))]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), CHUNKS, st.binary(max_size=10))
def test_a_chunked_body_and_what_follows_it(data: st.DataObject, chunks: list[bytes], behind: bytes) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + behind
    decoder = ChunkedDecoder(HeadLimits())
    body, rest = b"", b""
    for piece in data.draw(cut(raw)):
        if decoder.complete:
            rest += piece
        else:
            body += decoder.feed(piece)
            rest += decoder.rest
    assert (body, rest, decoder.complete) == (b"".join(chunks), behind, True)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), CHUNKS, st.booleans())
def test_an_answer_written_by_the_server_codec_framing(data: st.DataObject, chunks: list[bytes], chunked: bool) -> None:
    body = b"".join(chunks)
    if chunked:
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    else:
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert answer(data.draw(cut(raw))) == answer([raw])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data(), CHUNKS, st.booleans())
def test_a_request_written_by_the_client_codec_is_read_back(
    data: st.DataObject, chunks: list[bytes], chunked: bool
) -> None:
    length = sum(map(len, chunks))
    head = RequestHead(
        stream=1,
        method=b"POST",
        target=b"/a",
        path=b"/a",
        query=b"",
        authority=b"h",
        version=b"1.1",
        fields=[],
        content_length=CHUNKED if chunked else length,
        has_length=not chunked,
        keep_alive=True,
        expects_continue=False,
        upgrade=b"",
    )
    codec = ClientCodec(HeadLimits())
    raw = codec.encode_request(head, strip_reserved=True)
    raw += b"".join(map(codec.encode_data, chunks)) + codec.encode_end()
    first, *rest = serve(data.draw(cut(raw)))
    assert isinstance(first, RequestHead)
    assert (first.content_length, first.has_length) == (head.content_length, head.has_length)
    assert b"".join(getattr(outcome, "data", b"") for outcome in rest) == b"".join(chunks)
    assert rest[-1] == End(1)
