"""Where a jwksUri may lead: which URIs are read, which addresses are refused and by what name."""

from __future__ import annotations

import pytest

from proxy.errors import Reason
from proxy.jwks.target import FetchError, Target, is_literal, read_target, refuse_address


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        (
            "https://issuer.example",
            Target(secure=True, host="issuer.example", port=443, authority="issuer.example", resource="/"),
        ),
        (
            "https://issuer.example:8443/keys?set=1",
            Target(
                secure=True, host="issuer.example", port=8443, authority="issuer.example:8443", resource="/keys?set=1"
            ),
        ),
        (
            "https://[2001:db8::1]/keys",
            Target(secure=True, host="2001:db8::1", port=443, authority="[2001:db8::1]", resource="/keys"),
        ),
    ],
)
def test_a_uri_is_read(uri: str, target: Target) -> None:
    assert read_target(uri, allow_loopback=False) == target


def test_http_is_read_where_loopback_is_allowed() -> None:
    assert read_target("http://127.0.0.1/keys", allow_loopback=True).port == 80
    with pytest.raises(FetchError, match="loopback"):
        read_target("http://127.0.0.1/keys", allow_loopback=False)


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://issuer.example/keys",
        "file:///etc/passwd",
        "//issuer.example/keys",
        "issuer.example/keys",
        "https:///keys",
        "https://user@issuer.example/keys",
        "https://issuer.example@10.0.0.1/keys",
        "https://issuer.example:0/keys",
        "https://issuer.example:99999/keys",
        "https://issuer.example:port/keys",
        "https://[fe80::1%25eth0]/keys",
        "https://[::1/keys",
        "https://issuer.example/a b",
        "https://issuer.example/a\r\nHost: other",
        "https://issuer.example/ä",
        "https://issuer\t.example/keys",
    ],
)
def test_what_is_no_such_uri_is_refused(uri: str) -> None:
    with pytest.raises(FetchError) as failure:
        read_target(uri, allow_loopback=True)
    assert failure.value.reason is Reason.TOKEN_KEYS_UNAVAILABLE


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("fe80::1%eth0", "zone"),
        ("fd00:ec2::254", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("224.0.0.1", "one host"),
    ],
)
def test_an_address_is_refused(address: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        refuse_address(address, secure=True, allow_loopback=False)
    if why != "loopback":
        with pytest.raises(FetchError, match=why):
            refuse_address(address, secure=True, allow_loopback=True)


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "93.184.216.34", "2606:4700::1", "fd12::7"])
def test_an_issuer_may_be_inside_and_outside_by_https(address: str) -> None:
    refuse_address(address, secure=True, allow_loopback=False)
    with pytest.raises(FetchError, match="https"):
        refuse_address(address, secure=False, allow_loopback=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("secure", [True, False])
def test_loopback_by_leave(address: str, secure: bool) -> None:
    refuse_address(address, secure=secure, allow_loopback=True)


def test_what_is_an_address() -> None:
    assert is_literal("127.0.0.1")
    assert is_literal("::1")
    assert not is_literal("localhost")
