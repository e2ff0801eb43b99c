"""Addresses, durations and sizes as people write them."""

from __future__ import annotations

import pytest

from proxy.config import Address, UnixSocket
from proxy.config_text import (
    TextError,
    Use,
    parse_address,
    parse_duration,
    parse_host,
    parse_listen,
    parse_name,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("[::]:15443", "::", 15443),
        ("[::1]:0", "::1", 0),
        ("[2001:DB8:0:0:0:0:0:1]:65535", "2001:db8::1", 65535),
        ("0.0.0.0:80", "0.0.0.0", 80),
    ],
)
def test_addresses_to_listen_on(text: str, host: str, port: int) -> None:
    assert parse_address(text, Use.LISTEN) == Address(host=host, port=port)


@pytest.mark.parametrize(
    ("text", "host", "is_name"),
    [
        ("10.0.0.7:80", "10.0.0.7", False),
        ("[::1]:80", "::1", False),
        ("localhost:80", "localhost", True),
        ("Orders.Demo.svc:80", "orders.demo.svc", True),
        ("orders.demo.:80", "orders.demo.", True),
        ("my_db:80", "my_db", True),
        ("1.2.3.a4:80", "1.2.3.a4", True),
    ],
)
def test_addresses_to_dial(text: str, host: str, is_name: bool) -> None:
    address = parse_address(text, Use.DIAL)
    assert (address.host, address.port, address.is_name) == (host, 80, is_name)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "'' is no address", "127.0.0.1:8080"),
        ("8080", "'8080' has no host", "127.0.0.1:8080"),
        (":8080", "':8080' has no host", "127.0.0.1:8080"),
        ("::1:8080", "brackets", "[::1]:8080"),
        ("[::1]", "no address", "[::1]:8080"),
        ("[::1]8080", "no address", "[::1]:8080"),
        ("[127.0.0.1]:80", "IPv4 address in brackets", "127.0.0.1:80"),
        ("[orders]:80", "'orders' is no IPv6 address", "[::1]:8080"),
        ("orders", "no address", "NAME:PORT"),
        ("orders:http", "'http' is no port", "1 to 65535"),
        ("orders:65536", "'65536' is no port", "1 to 65535"),
        ("orders:-1", "'-1' is no port", "1 to 65535"),
        ("orders:٣", "no port", "1 to 65535"),
        ("orders:0", "port 0", "1 to 65535"),
        ("010.0.0.1:80", "neither an IP address nor a DNS name", "127.0.0.1:8080"),
        ("1.2.3.256:80", "neither an IP address nor a DNS name", "127.0.0.1:8080"),
        ("-a:80", "neither an IP address nor a DNS name", "NAME:PORT"),
        ("a..b:80", "neither an IP address nor a DNS name", "NAME:PORT"),
        ("a b:80", "neither an IP address nor a DNS name", "NAME:PORT"),
        ("a\n:80", "neither an IP address nor a DNS name", "NAME:PORT"),
        ("http://a:80", "ambiguous", "[::1]"),
        ("x" * 64 + ":80", "neither an IP address nor a DNS name", "NAME:PORT"),
        (".".join(["x" * 60] * 5) + ":80", "neither an IP address nor a DNS name", "NAME:PORT"),
        ("0.0.0.0:80", "means every address", "127.0.0.1:80"),
        ("[::]:80", "means every address", "[::1]:80"),
    ],
)
def test_what_is_no_address_to_dial(text: str, message: str, hint: str) -> None:
    with pytest.raises(TextError) as caught:
        parse_address(text, Use.DIAL)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_a_name_is_not_listened_on() -> None:
    with pytest.raises(TextError, match="listening needs an IP address") as caught:
        parse_address("localhost:80", Use.LISTEN)
    assert "127.0.0.1" in caught.value.hint
    with pytest.raises(TextError) as caught:
        parse_address(":80", Use.LISTEN)
    assert '"[::]:80" for every interface' in caught.value.hint


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False), ("localhost", False)],
)
def test_loopback_is_told_by_number_alone(host: str, loopback: bool) -> None:
    assert Address(host=host, port=1).is_loopback is loopback


def test_unix_sockets() -> None:
    assert parse_listen("unix:/run/a.sock") == parse_listen("/run/a.sock") == UnixSocket(path="/run/a.sock")
    assert str(UnixSocket(path="/run/a.sock")) == "unix:/run/a.sock"
    assert parse_listen("/" + "x" * 106) == UnixSocket(path="/" + "x" * 106)
    for text in ("unix:run/a.sock", "unix:", "/a\0b", "/" + "x" * 107, "/" + "é" * 54):
        with pytest.raises(TextError):
            parse_listen(text)


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, 0), (15, 15), (0.5, 0.5), ("500ms", 0.5), ("15s", 15), ("1.5m", 90), ("2h", 7200)]
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", [-1, True, None, "15", "15 s", "s", "-1s", "1d", "1s\n", float("nan"), float("inf"), []]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(TextError):
        parse_duration(value)


@pytest.mark.parametrize(("value", "size"), [(0, 0), (1500, 1500), ("60KiB", 61440), ("1MiB", 1048576)])
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [-1, 1.5, True, None, "60", "60KB", "1 MiB", "KiB", "1MiB\n"])
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(TextError):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "host"), [("Orders", "orders"), ("a.b.svc", "a.b.svc"), ("[::1]", "::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_hosts(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", ["", "a:80", "https://a", "a/b", "a b", "*.a", "1.2.3"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(TextError):
        parse_host(text)


@pytest.mark.parametrize("text", ["orders", "Orders.demo", "a_b-c", "0"])
def test_names(text: str) -> None:
    assert parse_name(text) == text


@pytest.mark.parametrize("text", ["", "a b", "-a", "a/b", "a\n", "é", "x" * 254])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(TextError):
        parse_name(text)
