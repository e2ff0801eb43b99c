"""ClientHellos: both versions, cut into records anywhere, and everything that is none."""

from __future__ import annotations

import pytest
from hellos import GREASE, KEY_SHARE, VERSIONS_13, alpn, extension, hello, message, records, server_name, vector
from OpenSSL import SSL

from proxy.detect.client_hello import MAX_HELLO, ClientHello, read_client_hello

WANTED = ClientHello(server_name="orders.demo", alpn=(b"istio-http/1.1", b"h2"))
NAMES = (b"istio-http/1.1", b"h2")
PLAIN = [server_name(b"orders.demo"), alpn(*NAMES)]
NOTHING = ClientHello(server_name="", alpn=())

READ = [
    pytest.param(hello(b"orders.demo", *NAMES), WANTED, id="tls_1_3"),
    pytest.param(records(message([*PLAIN, VERSIONS_13])), WANTED, id="tls_1_3_only"),
    pytest.param(records(message(PLAIN)), WANTED, id="tls_1_2"),
    pytest.param(records(message(PLAIN), version=b"\x03\x03"), WANTED, id="record_version_1_2"),
    pytest.param(records(message(PLAIN, session_id=b"")), WANTED, id="without_session_id"),
    pytest.param(records(message(PLAIN[::-1])), WANTED, id="any_order"),
    pytest.param(records(message(None)), NOTHING, id="without_a_list_of_extensions"),
    pytest.param(records(message([])), NOTHING, id="without_extensions"),
    pytest.param(records(message([server_name(b"ORDERS.Demo"), alpn(*NAMES)])), WANTED, id="names_have_no_case"),
    pytest.param(
        records(message([extension(GREASE, b""), *PLAIN, extension(0x1A1A, b"\x00")])), WANTED, id="grease_extensions"
    ),
    pytest.param(
        records(message([alpn(b"\x0a\x0a", *NAMES)])),
        ClientHello(server_name="", alpn=(b"\x0a\x0a", *NAMES)),
        id="grease_among_alpn",
    ),
    pytest.param(hello(b"orders.demo", *NAMES) + b"\x17\x03\x03\x00\x05early", WANTED, id="early_data_behind_it"),
    pytest.param(records(message(PLAIN)) + b"\xff" * 9, WANTED, id="whatever_comes_behind_it"),
]


@pytest.mark.parametrize(("first", "wanted"), READ)
def test_read_once_whole_and_never_before(first: bytes, wanted: ClientHello) -> None:
    end = next(length for length in range(len(first) + 1) if read_client_hello(first[:length]) is not None)
    assert read_client_hello(first[: end - 1]) is None
    assert {read_client_hello(first[:length]) for length in range(end, len(first) + 1)} == {wanted}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100, 1_459])
def test_cut_into_records_anywhere(size: int) -> None:
    """CVE-2020-8660: a hello that is cut up must not be taken for something else."""
    first = hello(b"orders.demo", *NAMES, size=size)
    assert read_client_hello(first) == WANTED
    assert read_client_hello(first[:-1]) is None


def test_what_openssl_sends() -> None:
    for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_alpn_protos([*NAMES])
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        client = SSL.Connection(context, None)
        client.set_connect_state()
        client.set_tlsext_host_name(b"orders.demo")
        with pytest.raises(SSL.WantReadError):
            client.do_handshake()
        assert read_client_hello(client.bio_read(65_536)) == WANTED


def extensions(content: bytes) -> bytes:
    return records(message([content]))


MALFORMED = [
    pytest.param(b"\x15\x03\x01\x00\x02\x02\x28", id="an_alert"),
    pytest.param(b"\x16\x02", id="record_version"),
    pytest.param(b"\x16\x03\x01\x00\x00", id="empty_record"),
    pytest.param(b"\x16\x03\x01\x40\x01", id="record_too_long"),
    pytest.param(records(b"\x02\x00\x00\x01\x00"), id="server_hello"),
    pytest.param(records(b"\x01\x00\x40\x01" + bytes(60)), id="announced_too_long"),
    pytest.param(records(message(PLAIN), 50)[:55] + b"\x14\x03\x01\x00\x01\x01", id="interrupted_by_another_type"),
    pytest.param(records(b"\x01" + vector(b"\x03\x03" + bytes(31), 3)), id="random_cut_off"),
    pytest.param(records(b"\x01" + vector(b"\x03\x03" + bytes(32) + b"\x20" + bytes(31), 3)), id="session_id_cut_off"),
    pytest.param(records(b"\x01" + vector(message(PLAIN)[4:] + b"\x00", 3)), id="bytes_behind_the_extensions"),
    pytest.param(records(b"\x01" + vector(message(PLAIN)[4:-1], 3)), id="extensions_cut_off"),
    pytest.param(extensions(server_name(b"a") + server_name(b"b")), id="two_server_name_extensions"),
    pytest.param(extensions(alpn(b"istio") + alpn(b"h2")), id="two_alpn_extensions"),
    pytest.param(extensions(extension(GREASE, b"") * 2), id="any_extension_twice"),
    pytest.param(
        extensions(extension(0, vector(b"\x00" + vector(b"a", 2) + b"\x00" + vector(b"b", 2), 2))), id="two_names"
    ),
    pytest.param(extensions(server_name(b"")), id="empty_server_name"),
    pytest.param(extensions(server_name(b"a", kind=1)), id="another_type_of_name"),
    pytest.param(extensions(server_name(b"a\x00b")), id="nul_in_the_name"),
    pytest.param(extensions(server_name(b"a\nb")), id="line_end_in_the_name"),
    pytest.param(extensions(server_name("ä".encode())), id="name_beyond_ascii"),
    pytest.param(extensions(extension(0, vector(b"\x00\x00\x09a", 2))), id="name_cut_off"),
    pytest.param(extensions(extension(16, vector(b"\x06istio", 2))), id="alpn_cut_off"),
    pytest.param(extensions(extension(16, vector(b"\x05istio\x00", 2))), id="empty_alpn_name"),
    pytest.param(extensions(extension(16, vector(b"\x05istio", 2) + b"\x00")), id="bytes_behind_the_alpn_list"),
]


@pytest.mark.parametrize("first", MALFORMED)
def test_malformed_and_never_mended(first: bytes) -> None:
    for more in (b"", b"\x00", bytes(MAX_HELLO)):
        with pytest.raises(ValueError):  # noqa: PT011 - the sentence is for nobody but a debugger
            read_client_hello(first + more)


def test_a_hello_of_the_greatest_length_is_read() -> None:
    room = MAX_HELLO - len(hello(b"orders.demo", *NAMES))
    longest = records(message([*PLAIN, VERSIONS_13, KEY_SHARE, extension(21, bytes(room))]))
    assert MAX_HELLO - 10 <= len(longest) <= MAX_HELLO
    assert read_client_hello(longest) == WANTED


def test_a_longer_one_is_not_waited_for() -> None:
    first = records(message([*PLAIN, extension(21, bytes(16_100))]), 100)
    assert len(first) > MAX_HELLO
    assert read_client_hello(first[: MAX_HELLO - 1]) is None
    with pytest.raises(ValueError, match="does not end within"):
        read_client_hello(first[:MAX_HELLO])
