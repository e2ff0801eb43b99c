"""Which `jwksUri` may be fetched (CVE-2026-41413)."""

from __future__ import annotations

import pytest

from proxy.authn.uris import MAX_URI, address_problem, uri_problem

GOOD = [
    "https://issuer.example/.well-known/jwks.json",
    "https://issuer.example",
    "https://issuer.example:8443/keys?a=b&c=%20",
    "https://keycloak.auth.svc.cluster.local:8443/realms/a/protocol/openid-connect/certs",
    "https://10.0.0.7/keys",
    "https://192.168.1.1/keys",
    "https://[fd00::7]:8443/keys",
    "https://[2001:db8::1]/keys",
    "https://issuer.example./keys",
    "HTTPS://ISSUER.EXAMPLE/keys",
    "https://localhost.example.com/",
    "https://127.example.com/",
    "https://1issuer.example/",
]
LOOPBACK = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "ip6-localhost",
    "127.0.0.1",
    "127.255.0.9",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[::127.0.0.1]",
]
NEVER = [
    ("169.254.169.254", "link-local"),
    ("169.254.0.1", "link-local"),
    ("[fe80::1]", "link-local"),
    ("[::ffff:169.254.169.254]", "link-local"),
    ("[64:ff9b::a9fe:a9fe]", "link-local"),
    ("[2002:a9fe:a9fe::1]", "link-local"),
    ("[fd00:ec2::254]", "metadata"),
    ("[fd00:0ec2:0:0::254]", "metadata"),
    ("100.100.100.200", "metadata"),
    ("168.63.129.16", "metadata"),
    ("metadata.google.internal", "metadata"),
    ("metadata", "metadata"),
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "unspecified"),
    ("[::]", "unspecified"),
    ("[::ffff:0.0.0.0]", "unspecified"),
    ("224.0.0.1", "no address of one host"),
    ("[ff02::1]", "no address of one host"),
    ("255.255.255.255", "no address of one host"),
    ("[fe80::1%25eth0]", ""),
    ("[fe80::1%eth0]", ""),
    ("2130706433", "a number in another form"),
    ("0x7f000001", "a number in another form"),
    ("127.1", "a number in another form"),
    ("0177.0.0.1", "a number in another form"),
    ("127.0.0.0x1", "a number in another form"),
    ("169.254.43518", "a number in another form"),
    ("issuer.example.1", "a number in another form"),
    ("issuer_example", "no DNS name"),
    ("-a.example", "no DNS name"),
    ("a..example", "no DNS name"),
    ("%6cocalhost", "no DNS name"),
    (".", "no DNS name"),
    ("a" * 64 + ".example", "no DNS name"),
    ("a." * 130 + "example", "no DNS name"),
]


@pytest.mark.parametrize("uri", GOOD)
def test_good_uris(uri: str) -> None:
    assert uri_problem(uri, allow_loopback=False) == ""
    assert uri_problem(uri, allow_loopback=True) == ""


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_only_where_it_is_allowed_and_there_by_http_too(host: str) -> None:
    for scheme in ("http", "https"):
        assert "loopback" in uri_problem(f"{scheme}://{host}:8080/keys", allow_loopback=False)
        assert uri_problem(f"{scheme}://{host}:8080/keys", allow_loopback=True) == ""


@pytest.mark.parametrize(("host", "why"), NEVER)
def test_hosts_that_are_never_fetched_from(host: str, why: str) -> None:
    for allow_loopback in (True, False):
        for scheme in ("https", "http"):
            problem = uri_problem(f"{scheme}://{host}/latest", allow_loopback=allow_loopback)
            assert problem
            assert why in problem


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://issuer.example/keys", "must begin with https://"),
        ("http://10.0.0.7/keys", "must begin with https://"),
        ("ftp://issuer.example/keys", "does not begin with https://"),
        ("file:///etc/passwd", "does not begin with https://"),
        ("unix:/run/x", "does not begin with https://"),
        ("data:application/json,{}", ""),
        ("issuer.example/keys", "does not begin with https://"),
        ("//issuer.example/keys", "does not begin with https://"),
        ("https:///keys", "names no host"),
        ("https:issuer.example", "names no host"),
        ("https://:443/keys", "names no host"),
        ("https://user@issuer.example/", "user information"),
        ("https://user:pass@issuer.example/", "user information"),
        ("https://@issuer.example/", "user information"),
        ("https://good.example@169.254.169.254/", "user information"),
        ("https://issuer.example/#x", "fragment"),
        ("https://issuer.example/#", "fragment"),
        ("https://issuer.example:0/", "port"),
        ("https://issuer.example:65536/", "port"),
        ("https://issuer.example:x/", "port"),
        ("https://issuer.example:/", "port"),
        ("https://[::1/", "no URI"),
        ("https://[fe80]/", "no URI"),
        (" https://issuer.example/", "a character"),
        ("https://issuer.example/a b", "a character"),
        ("https://issuer.example\\@evil/", "a character"),
        ("https://issuer.example/\n", "a character"),
        ("https://ìssuer.example/", "a character"),
        ("https://issuer.example/\0", "a character"),
        ("https://issuer.example/" + "a" * MAX_URI, f"more than {MAX_URI} characters"),
        ("", "a character"),
    ],
)
def test_what_is_no_such_uri(uri: str, why: str) -> None:
    for allow_loopback in (True, False):
        problem = uri_problem(uri, allow_loopback=allow_loopback)
        assert problem
        assert why in problem


def test_addresses_that_a_name_resolved_to() -> None:
    assert address_problem("10.0.0.7", allow_loopback=False) == ""
    assert address_problem("127.0.0.1", allow_loopback=False) == "is loopback"
    assert address_problem("127.0.0.1", allow_loopback=True) == ""
    assert address_problem("169.254.169.254", allow_loopback=True).startswith("is link-local")
    assert address_problem("fe80::1%2", allow_loopback=True) == "has a zone"
