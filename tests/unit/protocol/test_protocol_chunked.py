"""The chunked decoder: strict, incremental, in bounded memory."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError, Reason
from proxy.protocol.chunked import EXTENSION_MAX, OVERHEAD_MAX, ChunkedDecoder
from proxy.protocol.stream import HeadLimits

LIMITS = HeadLimits()


def decode(raw: bytes, size: int = 1 << 30, *, underscores: bool = False) -> tuple[bytes, ChunkedDecoder]:
    """Feed `raw` in pieces of `size`; once complete, the remaining pieces count as rest."""
    decoder = ChunkedDecoder(LIMITS, underscores=underscores)
    body = b""
    for at in range(0, len(raw), size):
        body += decoder.feed(raw[at : at + size])
        if decoder.complete:
            decoder.rest += raw[at + size :]
            break
    return body, decoder


BODIES = {
    "one_chunk": (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "two_chunks": (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
    "empty": (b"0\r\n\r\n", b""),
    "hexadecimal": (b"1A\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n", b"x" * 26),
    "sixteen_digits": (b"0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", b"x"),
    "crlf_in_data": (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    "extension": (b'1;a="b";c\r\nx\r\n0;last\r\n\r\n', b"x"),
    "longest_extension": (b"1;" + b"e" * EXTENSION_MAX + b"\r\nx\r\n0\r\n\r\n", b"x"),
    "trailers": (b"1\r\nx\r\n0\r\nA: b\r\nC:\td \r\n\r\n", b"x"),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 30])
@pytest.mark.parametrize(("raw", "body"), BODIES.values(), ids=BODIES.keys())
def test_decodes_whole_and_in_pieces_and_leaves_the_rest(raw: bytes, body: bytes, size: int) -> None:
    decoded, decoder = decode(raw + b"GET /next", size)
    assert decoded == body
    assert decoder.complete
    assert decoder.rest == b"GET /next"


@pytest.mark.parametrize("raw", [raw for raw, _ in BODIES.values()], ids=BODIES.keys())
def test_is_not_complete_before_the_last_byte(raw: bytes) -> None:
    _, decoder = decode(raw[:-1])
    assert not decoder.complete


FAULTS = {
    "no_digit": b"\r\n",
    "letter": b"g\r\n",
    "plus": b"+5\r\nhello\r\n",
    "minus": b"-1\r\n",
    "0x": b"0x5\r\nhello\r\n",
    "space_before": b" 5\r\nhello\r\n",
    "space_after": b"5 \r\nhello\r\n",
    "space_before_extension": b"5 ;a\r\nhello\r\n",
    "seventeen_digits": b"0" * 16 + b"5\r\nhello\r\n",
    "larger_than_2_53": b"20000000000001\r\n",
    "bare_lf": b"5\nhello\r\n",
    "bare_cr": b"5\rhello",
    "bare_lf_in_extension": b"5;a\nhello",
    "control_byte_in_extension": b"5;\x01\r\nhello\r\n",
    "extension_too_long": b"5;" + b"a" * (EXTENSION_MAX + 1),
    "data_too_long": b"4\r\nhello\r\n0\r\n\r\n",
    "data_ends_in_lf": b"5\r\nhello\n0\r\n\r\n",
    "data_ends_in_cr": b"5\r\nhello\r0\r\n\r\n",
}


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("raw", FAULTS.values(), ids=FAULTS.keys())
def test_refuses(raw: bytes, size: int) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decode(raw, size)
    assert refusal.value.reason is Reason.CHUNK_INVALID


@pytest.mark.parametrize(("raw", "at"), [(b"g", 1), (b"5\n", 2), (b"0000000000000000a", 17), (b"5;" + b"\x00", 3)])
def test_refuses_at_the_first_wrong_byte(raw: bytes, at: int) -> None:
    _, decoder = decode(raw[: at - 1], 1)
    with pytest.raises(ProtocolError):
        decoder.feed(raw[at - 1 : at])


def test_extensions_are_bounded_together() -> None:
    with pytest.raises(ProtocolError, match="extensions"):
        decode((b"1;" + b"e" * 255 + b"\r\nx\r\n") * (OVERHEAD_MAX // 256 + 1))


BAD_TRAILERS = {
    "content_length": b"Content-Length: 5\r\n\r\n",
    "transfer_encoding": b"transfer-encoding: chunked\r\n\r\n",
    "host": b"Host: evil\r\n\r\n",
    "folded": b"A: b\r\n c\r\n\r\n",
    "no_colon": b"nonsense\r\n\r\n",
    "space_before_colon": b"A : b\r\n\r\n",
    "nul": b"A: \x00\r\n\r\n",
    "bare_lf": b"A: b\n\r\n\r\n",
    "bare_cr": b"A: b\rc\r\n\r\n",
    "lf_for_the_last_line": b"\nX: y\r\n\r\n",
    "underscore": b"a_b: c\r\n\r\n",
    "too_many": b"A: b\r\n" * 101 + b"\r\n",
    "too_large_in_one": b"A: " + b"b" * 62_000,
    "too_large_in_many": (b"A: " + b"b" * 1_000 + b"\r\n") * 62,
}


@pytest.mark.parametrize("size", [1, 1 << 30])
@pytest.mark.parametrize("trailers", BAD_TRAILERS.values(), ids=BAD_TRAILERS.keys())
def test_refuses_trailers(trailers: bytes, size: int) -> None:
    if len(trailers) > 10_000:
        size = max(size, 1_000)
    with pytest.raises(ProtocolError) as refusal:
        decode(b"0\r\n" + trailers, size)
    assert refusal.value.reason is Reason.TRAILER_INVALID


def test_drops_what_may_not_be_a_trailer_and_keeps_the_rest_in_order() -> None:
    _, decoder = decode(
        b"0\r\nX-One: 1\r\nAuthorization: x\r\nSet-Cookie: a\r\nConnection: close\r\nX-Envoy-Foo: y\r\n"
        b"X-Forwarded-Client-Cert: z\r\nX-Request-Id: 9\r\nx-one: 2\r\ngrpc-status: 0\r\n\r\n"
    )
    assert [field.line for field in decoder.trailers] == [b"X-One: 1\r\n", b"x-one: 2\r\n", b"grpc-status: 0\r\n"]


def test_an_answers_trailers_may_hold_underscores() -> None:
    _, decoder = decode(b"0\r\na_b: c\r\n\r\n", underscores=True)
    assert [field.name for field in decoder.trailers] == [b"a_b"]


def test_one_byte_chunks_without_end_hold_no_memory() -> None:
    decoder = ChunkedDecoder(LIMITS)
    piece = b"1\r\nx\r\n" * 2_731
    received = 0
    for at in range(0, 500_000, 2_731):
        cut = at % len(piece)
        received += len(decoder.feed(piece[:cut])) + len(decoder.feed(piece[cut:]))
        assert decoder.held <= 2
    assert received >= 500_000


def test_one_piece_of_body_is_not_copied() -> None:
    decoder = ChunkedDecoder(LIMITS)
    decoder.feed(b"ffff\r\n")
    data = b"x" * 1_000
    assert decoder.feed(data) is data
