"""What the first bytes of a connection are taken for, whole and at every prefix length."""

from __future__ import annotations

import pytest

from proxy.detect import Detected, detect
from proxy.detect.first_bytes import HTTP2_PREFACE, LONGEST_PREFIX

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32))

RECOGNISED = [
    pytest.param(CLIENT_HELLO, 6, Detected.TLS, id="client_hello"),
    pytest.param(b"\x16\x03\x03\x40\x00\x01", 6, Detected.TLS, id="largest_record"),
    pytest.param(b"\x16\x03\x04\x00\x01\x01", 6, Detected.TLS, id="hello_fragmented_into_one_byte_records"),
    pytest.param(b"GET / HTTP/1.1\r\n", 4, Detected.HTTP1, id="get"),
    pytest.param(b"OPTIONS * HTTP/1.1\r\n", 8, Detected.HTTP1, id="options"),
    pytest.param(b"M-SEARCH * HTTP/1.1\r\n", 9, Detected.HTTP1, id="method_with_hyphen"),
    pytest.param(b"UPDATEREDIRECTREF /x HTTP/1.1\r\n", 18, Detected.HTTP1, id="longest_registered_method"),
    pytest.param(b"A" * 20 + b" /", 21, Detected.HTTP1, id="longest_method"),
    pytest.param(b"PRI * HTTP/1.1\r\n\r\n", 12, Detected.HTTP1, id="leaves_the_preface_late"),
    pytest.param(b"PRINT / HTTP/1.1\r\n", 6, Detected.HTTP1, id="leaves_the_preface_early"),
    pytest.param(b"P / HTTP/1.1\r\n", 2, Detected.HTTP1, id="one_letter_method"),
    pytest.param(HTTP2_PREFACE + b"\x00\x00\x00\x04", 24, Detected.HTTP2, id="http2_preface"),
    pytest.param(b"\x16\x03\x00\x00\xc8\x01", 3, Detected.OPAQUE, id="ssl3"),
    pytest.param(b"\x16\x03\x05\x00\xc8\x01", 3, Detected.OPAQUE, id="unknown_version"),
    pytest.param(b"\x16\x03\x01\x00\x00\x01", 5, Detected.OPAQUE, id="empty_record"),
    pytest.param(b"\x16\x03\x01\x40\x01\x01", 5, Detected.OPAQUE, id="record_too_long"),
    pytest.param(b"\x16\x03\x01\x41\x00\x01", 4, Detected.OPAQUE, id="record_far_too_long"),
    pytest.param(b"\x16\x03\x01\x00\xc8\x02", 6, Detected.OPAQUE, id="server_hello"),
    pytest.param(b"\x16GET / HTTP/1.1", 2, Detected.OPAQUE, id="handshake_type_then_text"),
    pytest.param(b"\x15\x03\x01\x00\x02\x02", 1, Detected.OPAQUE, id="tls_alert"),
    pytest.param(b"\x80\x2e\x01\x03\x01", 1, Detected.OPAQUE, id="ssl2_hello"),
    pytest.param(b"get / HTTP/1.1\r\n", 1, Detected.OPAQUE, id="lower_case"),
    pytest.param(b" GET / HTTP/1.1\r\n", 1, Detected.OPAQUE, id="leading_space"),
    pytest.param(b"\r\nGET / HTTP/1.1\r\n", 1, Detected.OPAQUE, id="leading_empty_line"),
    pytest.param(b"A" * 21 + b" /", 21, Detected.OPAQUE, id="method_too_long"),
    pytest.param(b"GET\t/ HTTP/1.1", 4, Detected.OPAQUE, id="tab_after_method"),
    pytest.param(b"PING\r\n", 5, Detected.OPAQUE, id="redis_inline"),
    pytest.param(b"*1\r\n$4\r\nPING\r\n", 1, Detected.OPAQUE, id="redis"),
    pytest.param(b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1, Detected.OPAQUE, id="postgresql_ssl_request"),
    pytest.param(b"SSH-2.0-OpenSSH_9\r\n", 10, Detected.OPAQUE, id="ssh"),
    pytest.param(b"PROXY\r\n", 6, Detected.OPAQUE, id="word_then_line_end"),
]


@pytest.mark.parametrize(("first", "needed", "expected"), RECOGNISED)
def test_needs_more_until_the_deciding_byte_and_never_changes_its_mind(
    first: bytes, needed: int, expected: Detected
) -> None:
    for length in range(len(first) + 1):
        verdict = detect(first[:length])
        assert verdict is (expected if length >= needed else Detected.NEED_MORE), first[:length]


@pytest.mark.parametrize("first_byte", range(256))
def test_asks_for_a_bounded_number_of_bytes(first_byte: int) -> None:
    for filler in (b"A", b"\x03", b"\x01", b" "):
        assert detect(bytes((first_byte,)) + filler * (LONGEST_PREFIX - 1)) is not Detected.NEED_MORE
