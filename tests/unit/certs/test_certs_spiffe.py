"""Every rule of the SPIFFE ID, by its number (see certs/spiffe.py)."""

from __future__ import annotations

import pytest

from certs.spiffe import (
    MAX_ID_BYTES,
    MAX_TRUST_DOMAIN_BYTES,
    SpiffeId,
    SpiffeIdError,
    TrustDomain,
    parse_trust_domain,
)
from certs.testing import INVALID_IDS

HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789.-_")
PATH_BYTES = HOST_BYTES | frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("ID1", b""),
        ("ID1", b"https://td/a"),
        ("ID1", b"spiffe:/a"),
        ("ID1", b"spiffe:td/a"),
        ("ID1", b"SPIFFE://td/a"),
        ("ID1", b"Spiffe://td/a"),
        ("ID1", b" spiffe://td/a"),
        ("ID1", b"td/a"),
        ("ID2", b"spiffe://"),
        ("ID2", b"spiffe:///x"),
        ("ID3", b"spiffe://user@td/x"),
        ("ID3", b"spiffe://user:password@td/x"),
        ("ID3", b"spiffe://td:80/x"),
        ("ID3", b"spiffe://td:/x"),
        ("ID4", b"spiffe://TD/x"),
        ("ID4", b"spiffe://t%64/x"),
        ("ID4", "spiffe://té/x".encode()),
        ("ID4", b"spiffe://t\xe9/x"),
        ("ID4", b"spiffe://td\n"),
        ("ID4", b"spiffe://td\x00"),
        ("ID4", b"spiffe://t d/x"),
        ("ID4", b"spiffe://td\\x/x"),
        ("ID6", b"spiffe://td/x?q"),
        ("ID6", b"spiffe://td/x?"),
        ("ID6", b"spiffe://td?"),
        ("ID6", b"spiffe://td/x#f"),
        ("ID6", b"spiffe://td/x#"),
        ("ID7", b"spiffe://td/a%2fb"),
        ("ID7", b"spiffe://td/a b"),
        ("ID7", "spiffe://td/é".encode()),
        ("ID7", b"spiffe://td/a:b"),
        ("ID7", b"spiffe://td/a~b"),
        ("ID7", b"spiffe://td/a@b"),
        ("ID7", b"spiffe://td/a\n"),
        ("ID7", b"spiffe://td/a\r\n"),
        ("ID7", b"spiffe://td/a\x00"),
        ("ID7", b"spiffe://td/a\x00b"),
        ("ID7", b"spiffe://td/a\xff"),
        ("ID8", b"spiffe://td/"),
        ("ID8", b"spiffe://td//"),
        ("ID8", b"spiffe://td//a"),
        ("ID8", b"spiffe://td/a//b"),
        ("ID8", b"spiffe://td/a/"),
        ("ID9", b"spiffe://td/."),
        ("ID9", b"spiffe://td/.."),
        ("ID9", b"spiffe://td/a/../b"),
        ("ID9", b"spiffe://td/./a"),
        ("ID9", b"spiffe://td/a/.."),
        ("ID10", b"spiffe://td/" + b"a" * (MAX_ID_BYTES + 1 - 12)),
        ("ID11", b"spiffe://" + b"a" * (MAX_TRUST_DOMAIN_BYTES + 1) + b"/x"),
    ],
)
def test_each_rule_refuses_with_its_number(rule: str, value: bytes) -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId.parse(value)
    assert caught.value.rule == rule


@pytest.mark.parametrize("name", ["ipv6", *INVALID_IDS])
def test_every_invalid_vector_is_refused_as_bytes_and_as_text(name: str) -> None:
    raw = INVALID_IDS.get(name, b"spiffe://[::1]/x")
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(raw)
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(raw.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("host", ["1.2.3.4", "a..b", ".a", "a.", "-a", "a_b", "cluster.local", "a", "...", "0"])
def test_id5_names_that_are_no_dns_names_are_legal(host: str) -> None:
    assert SpiffeId.parse(f"spiffe://{host}/x").trust_domain == host


@pytest.mark.parametrize("path", ["/...", "/.a", "/..a", "/a..", "/a.", "/-", "/_", "/A/b/C", "/a/.../b", "/ns/demo"])
def test_id9_dots_are_legal_when_they_are_not_the_whole_segment(path: str) -> None:
    assert SpiffeId.parse(f"spiffe://td{path}").path == path


@pytest.mark.parametrize("byte", range(256))
def test_id4_and_id7_every_byte_is_judged(byte: int) -> None:
    in_host, in_path = b"spiffe://t" + bytes([byte]) + b"d", b"spiffe://td/a" + bytes([byte]) + b"b"
    # A slash ends the trust domain and parts a path, so it is legal in both places.
    assert _is_valid(in_host) == (byte in HOST_BYTES or byte == ord("/"))
    assert _is_valid(in_path) == (byte in PATH_BYTES or byte == ord("/"))


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_is_judged_at_the_end_too(byte: int) -> None:
    assert _is_valid(b"spiffe://td" + bytes([byte])) == (byte in HOST_BYTES)
    assert _is_valid(b"spiffe://td/a" + bytes([byte])) == (byte in PATH_BYTES)


def test_id10_the_longest_id_is_taken() -> None:
    longest = b"spiffe://td/" + b"a" * (MAX_ID_BYTES - 12)
    assert len(str(SpiffeId.parse(longest))) == MAX_ID_BYTES


def test_id10_counts_bytes_and_is_checked_when_an_id_is_put_together() -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId(TrustDomain("td"), "/" + "a" * MAX_ID_BYTES)
    assert caught.value.rule == "ID10"


def test_id11_the_longest_trust_domain_is_taken() -> None:
    host = "a" * MAX_TRUST_DOMAIN_BYTES
    assert SpiffeId.parse(f"spiffe://{host}/x").trust_domain == host
    assert parse_trust_domain(host) == host


def test_id12_ids_are_compared_byte_by_byte() -> None:
    assert SpiffeId.parse("spiffe://td/NS/a") != SpiffeId.parse("spiffe://td/ns/a")
    assert SpiffeId.parse("spiffe://td/ns/a") == SpiffeId.parse(b"spiffe://td/ns/a")
    assert len({SpiffeId.parse("spiffe://td/a"), SpiffeId.parse(b"spiffe://td/a")}) == 1


def test_id13_the_path_may_be_absent() -> None:
    assert SpiffeId.parse("spiffe://td").path == ""
    assert str(SpiffeId.parse("spiffe://td")) == "spiffe://td"


@pytest.mark.parametrize(
    ("trust_domain", "path", "rule"),
    [("", "/a", "ID2"), ("TD", "/a", "ID4"), ("td", "a", "ID7"), ("td", "/", "ID8"), ("td\n", "/a", "ID4")],
)
def test_an_invalid_id_cannot_be_constructed(trust_domain: str, path: str, rule: str) -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId(TrustDomain(trust_domain), path)
    assert caught.value.rule == rule


def test_service_account_is_mapped_and_read_back() -> None:
    spiffe_id = SpiffeId.for_service_account(TrustDomain("cluster.local"), "demo", "orders.v2")
    assert str(spiffe_id) == "spiffe://cluster.local/ns/demo/sa/orders.v2"
    assert (spiffe_id.namespace, spiffe_id.service_account) == ("demo", "orders.v2")


@pytest.mark.parametrize(
    "path", ["", "/ns/demo", "/ns/demo/sa", "/ns/demo/sa/a/b", "/sa/a/ns/b", "/NS/demo/sa/a", "/a/ns/demo/sa/b"]
)
def test_other_paths_name_no_service_account(path: str) -> None:
    spiffe_id = SpiffeId(TrustDomain("td"), path)
    assert (spiffe_id.namespace, spiffe_id.service_account) == (None, None)


@pytest.mark.parametrize("part", ["", "a/b", "a b", "a\n", "ä", "a/../b", ".."])
def test_a_service_account_is_exactly_one_segment(part: str) -> None:
    for namespace, service_account in ((part, "orders"), ("demo", part)):
        with pytest.raises(SpiffeIdError):
            SpiffeId.for_service_account(TrustDomain("td"), namespace, service_account)


@pytest.mark.parametrize("value", ["", "TD", "td/", "td:1", "u@td", "t d", "td\n", "a" * 256, "spiffe://td", "té"])
def test_trust_domain_alone_is_as_strict(value: str) -> None:
    with pytest.raises(SpiffeIdError):
        parse_trust_domain(value)


def test_messages_say_what_to_write() -> None:
    with pytest.raises(SpiffeIdError, match=r"write 'cluster\.local'"):
        parse_trust_domain("Cluster.Local")
    with pytest.raises(SpiffeIdError, match="write the trust domain alone: 'td'"):
        parse_trust_domain("spiffe://td/a")
    with pytest.raises(SpiffeIdError, match="byte 0x20 at offset 2"):
        SpiffeId.parse("spiffe://td/a b")


def test_messages_are_one_printable_bounded_line() -> None:
    with pytest.raises(SpiffeIdError) as caught:
        SpiffeId.parse(b"spiffe://td/" + b"\x1b[2J\n\x00\xff" * 200)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700


def _is_valid(value: bytes) -> bool:
    try:
        return str(SpiffeId.parse(value)).encode("ascii") == value
    except SpiffeIdError:
        return False
