"""Values of annotations as people write them: what each reader takes, and what it says of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal

import pytest

from injector import readers
from injector.ports import ALL, NONE, Ports

Reader = Callable[[str], object]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (readers.boolean, "false", False),
        (readers.word("a", "b"), "b", "b"),
        (readers.integer(1, 64), "64", 64),
        (readers.integer(1, 64), "1", 1),
        (readers.duration(0, 60), "1m", 60.0),
        (readers.duration(0, 60), "0s", 0.0),
        (readers.duration(0.5, 60), "500ms", 0.5),
        (readers.duration(60, 120, or_none=True), "0s", 0.0),
        (readers.quantity, "", ""),
        (readers.quantity, "0.5", "0.5"),
        (readers.quantity, "64Mi", "64Mi"),
        (readers.ports, "", NONE),
        (readers.ports, "*", ALL),
        (readers.ports, "80, 8000-8010", Ports(((80, 80), (8000, 8010)))),
        (readers.port_protocols, "80=http, 9=tcp,7=auto", {80: "http", 9: "tcp", 7: "auto"}),
        (readers.port_protocols, "", {}),
        (readers.port_protocols, "1=tcp,65535=tcp", {1: "tcp", 65535: "tcp"}),
        (readers.image, "a/" * 255 + "bb", "a/" * 255 + "bb"),
        (readers.boolean, "true", True),
        (readers.quantity, "1Ei", "1Ei"),
        (readers.integer(1, 10**9), "999999999", 999999999),
        (readers.listeners, "orders=9001,orders.shop:9090=9002", {"orders": 9001, "orders.shop:9090": 9002}),
        (readers.ip_ranges, "*", ("0.0.0.0/0", "::/0")),
        (readers.ip_ranges, "10.0.0.0/8, fd00::/8,10.0.0.0/8", ("10.0.0.0/8", "fd00::/8")),
        (readers.ip_ranges, "10.1.2.3", ("10.1.2.3/32",)),
        (readers.ip_ranges, "", ()),
        (readers.interfaces, "eth1,net0,eth1", ("eth1", "net0")),
        (readers.image, "remora", "remora"),
        (readers.image, "registry.example:5000/a/b__c-d:v1", "registry.example:5000/a/b__c-d:v1"),
        (readers.image, "r/x@sha256:" + "a" * 64, "r/x@sha256:" + "a" * 64),
        (readers.image, "[::1]:5000/x", "[::1]:5000/x"),
        (readers.object_name, "a.b-c", "a.b-c"),
        (readers.object_name, "a" * 253, "a" * 253),
        (readers.namespace, "a" * 63, "a" * 63),
        (readers.trust_domain, "example.org", "example.org"),
        (readers.spiffe_id, "", ""),
        (readers.spiffe_id, "spiffe://a.b/ns/x/sa/y", "spiffe://a.b/ns/x/sa/y"),
        (readers.authority_url, "https://a.b:8443/", "https://a.b:8443"),
        (readers.authority_url, "https://[::1]:1", "https://[::1]:1"),
        (readers.audience, "https://x/y", "https://x/y"),
    ],
)
def test_a_value_is_read(read: Reader, text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "allowed"),
    [
        (readers.boolean, "True", "write true or false"),
        (readers.boolean, "", "write true or false"),
        (readers.word("debug", "info"), "inof", "write one of debug, info; did you mean info?"),
        (readers.integer(1, 64), "0", "from 1 to 64"),
        (readers.integer(1, 64), "65", "from 1 to 64"),
        (readers.integer(1, 64), "+3", "from 1 to 64"),
        (readers.integer(1, 64), "٣", "from 1 to 64"),
        (readers.integer(1, 64), "9" * 5000, "from 1 to 64"),
        (readers.duration(1, 60), "20", "a number and a unit"),
        (readers.duration(1, 60), "-5s", "a number and a unit"),
        (readers.duration(1, 60), "61s", "from 1s to 1m"),
        (readers.duration(1, 60), "999ms", "from 1s to 1m"),
        (readers.duration(60, 120, or_none=True), "59s", "write 0s, or a duration from 1m to 2m"),
        (readers.quantity, "0", "above zero"),
        (readers.quantity, "0Mi", "above zero"),
        (readers.quantity, "-1", "above zero"),
        (readers.quantity, "64MB", "above zero"),
        (readers.quantity, "1 Gi", "above zero"),
        (readers.ports, "http", "port"),
        (readers.ports, "0", "from 1 to 65535"),
        (readers.ports, "65536", "from 1 to 65535"),
        (readers.ports, "90-80", "ends before it begins"),
        (readers.port_protocols, "80", "PORT=PROTOCOL"),
        (readers.port_protocols, "80=htp", "http"),
        (readers.port_protocols, "70000=http", "from 1 to 65535"),
        (readers.port_protocols, "80=http,80=tcp", "twice"),
        (readers.port_protocols, "0=http", "from 1 to 65535"),
        (readers.port_protocols, "65536=http", "from 1 to 65535"),
        (readers.port_protocols, "x=http", "'x' is no port from 1 to 65535"),
        (readers.port_protocols, "²=http", "is no port from 1 to 65535"),
        (readers.port_protocols, "٣=http", "is no port from 1 to 65535"),
        (readers.port_protocols, "0080=http,000080=tcp", "'000080' is no port from 1 to 65535"),
        (readers.image, "a/" * 255 + "bbb", "write a reference"),
        (readers.listeners, "orders", "write SERVICE=PORT"),
        (readers.listeners, "=9001", "write SERVICE=PORT"),
        (readers.listeners, "Orders=9001", "write SERVICE=PORT"),
        (readers.listeners, "orders=0", "from 1 to 65535"),
        (readers.listeners, "a=9001,a=9002", "stands twice"),
        (readers.listeners, "a=9001,b=9001", "stands twice"),
        (readers.ip_ranges, "10.0.0.1/8", "write networks by commas"),
        (readers.ip_ranges, "10.0.0.0/8,*", "write networks by commas"),
        (readers.ip_ranges, "orders", "write networks by commas"),
        (readers.interfaces, "eth 1", "write names of interfaces"),
        (readers.interfaces, "abcdefghijklmnop", "write names of interfaces"),
        (readers.interfaces, "eth1;reboot", "write names of interfaces"),
        (readers.image, "", "write a reference"),
        (readers.image, "Remora", "write a reference"),
        (readers.image, "remora:", "write a reference"),
        (readers.image, "remora\n", "write a reference"),
        (readers.image, "x@sha256:abc", "write a reference"),
        (readers.image, "a/" * 300 + "b", "write a reference"),
        (readers.object_name, "A", "write the name of an object"),
        (readers.object_name, "a..b", "write the name of an object"),
        (readers.object_name, "a" * 254, "write the name of an object"),
        (readers.object_name, "a-", "write the name of an object"),
        (readers.namespace, "a.b", "write the name of a namespace"),
        (readers.namespace, "a" * 64, "write the name of a namespace"),
        (readers.trust_domain, "Example_Org!", "write a name such as cluster.local"),
        (readers.trust_domain, "", "write a name such as cluster.local"),
        (readers.spiffe_id, "spiffe://a.b/x/../y", "write an ID such as"),
        (readers.spiffe_id, "https://a.b", "write an ID such as"),
        (readers.authority_url, "http://a", "write https://HOST:PORT"),
        (readers.authority_url, "https://", "write https://HOST:PORT"),
        (readers.authority_url, "https://a:0", "write https://HOST:PORT"),
        (readers.authority_url, "https://a:99999", "write https://HOST:PORT"),
        (readers.authority_url, "https://u@a", "write https://HOST:PORT"),
        (readers.authority_url, "https://a/x", "write https://HOST:PORT"),
        (readers.authority_url, "https://a?x", "write https://HOST:PORT"),
        (readers.authority_url, "https://a#", "write https://HOST:PORT"),
        (readers.authority_url, "https://a b", "write https://HOST:PORT"),
        (readers.authority_url, "https://a\u200b", "write https://HOST:PORT"),
        (readers.authority_url, "https://[::1", "write https://HOST:PORT"),
        (readers.audience, "two words", "write a word without spaces"),
        (readers.audience, "", "write a word without spaces"),
    ],
)
def test_what_is_no_value_is_refused_with_what_is_allowed(read: Reader, text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(allowed)) as caught:
        read(text)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("2k", "2000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("5n", "5e-9"),
        ("3u", "3e-6"),
        ("1E", "1e18"),
        ("1Ei", "1152921504606846976"),
    ],
)
def test_quantities_are_compared_by_what_they_are(text: str, number: str) -> None:
    assert readers.amount(text) == Decimal(number)


@pytest.mark.parametrize("text", ["0s", "1ms", "999ms", "1s", "90s", "1m", "3h", "86401s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert readers.duration_text(readers.duration(0, 1e6)(text)) == text
