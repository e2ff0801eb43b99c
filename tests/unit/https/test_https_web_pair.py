"""A certificate of the web is taken with its key or not at all, and each fault names the file and the mend."""

from __future__ import annotations

import datetime
import doctest
import functools
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.authority import Svid
from certs.testing import MemoryAuthority, Shape
from proxy.errors import ConfigError
from proxy.https import web_pair
from proxy.https.web_pair import WebPair, judge_pair

DNS = (b"bundles.example", b"www.bundles.example")


@functools.cache
def webs() -> MemoryAuthority:
    return MemoryAuthority("web.example")


def issued(**shape: object) -> Svid:
    return webs().shaped(Shape(**{"dns_names": DNS, "key": "web"} | shape))  # type: ignore[arg-type]


def judged(certificate: bytes, key: bytes) -> WebPair:
    return judge_pair(certificate, key, "web/tls.crt", "web/tls.key")


def test_the_examples_hold() -> None:
    assert doctest.testmod(web_pair).failed == 0


def test_a_pair_is_read_with_its_intermediate() -> None:
    pair = judged(issued().chain_pem(), issued().key_pem())
    assert pair.names == ("bundles.example", "www.bundles.example")
    assert [one.subject for one in pair.chain] == [x509.Name([]), webs().intermediate.subject]
    assert pair.not_after == issued().leaf.not_valid_after_utc
    assert "PRIVATE" not in repr(pair)


def test_an_address_is_a_name_too() -> None:
    san = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))])
    shown = issued(dns_names=(), extensions=((san, True),))
    assert judged(shown.chain_pem(), shown.key_pem()).names == ("192.0.2.1",)


def test_dates_are_told_apart() -> None:
    pair, minute = judged(issued().chain_pem(), issued().key_pem()), datetime.timedelta(minutes=1)
    assert pair.date_fault(webs().now) is None
    assert "it ended at" in (pair.date_fault(pair.not_after + minute) or "")
    assert "not valid before" in (pair.date_fault(pair.not_before - minute) or "")


def test_the_shortest_dates_of_the_chain_count() -> None:
    late = issued(not_after=webs().intermediate.not_valid_after_utc + datetime.timedelta(days=1))
    assert judged(late.chain_pem(), late.key_pem()).not_after == webs().intermediate.not_valid_after_utc


def encrypted() -> bytes:
    return issued().key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def upside_down() -> bytes:
    leaf, intermediate = issued().chain
    root = webs().root
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (leaf, root, intermediate))


CLIENT_ALONE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])

BAD = {
    "empty": (lambda: b"", lambda: b"", ["web/tls.crt: it holds no certificate", "web/tls.key: it holds no PEM"]),
    "no certificate": (lambda: issued().key_pem(), lambda: issued().key_pem(), ["web/tls.crt: it holds no cert"]),
    "half of one": (
        lambda: issued().chain_pem()[:-60],
        lambda: issued().key_pem(),
        ["web/tls.crt: a certificate in it cannot be decoded"],
    ),
    "another key": (
        lambda: issued().chain_pem(),
        lambda: issued(key="other").key_pem(),
        ["web/tls.key: it is not the key of the first certificate in web/tls.crt"],
    ),
    "sealed": (lambda: issued().chain_pem(), encrypted, ["web/tls.key: the key is encrypted"]),
    "weak": (
        lambda: issued(key="rsa-1024").chain_pem(),
        lambda: issued(key="rsa-1024").key_pem(),
        ["web/tls.key: an RSA key of 1024 bits is too short"],
    ),
    "no name": (
        lambda: issued(dns_names=()).chain_pem(),
        lambda: issued().key_pem(),
        ["web/tls.crt: it names no host"],
    ),
    "a SPIFFE ID alone": (
        lambda: webs().svid("mesh", "bundles").chain_pem(),
        lambda: webs().svid("mesh", "bundles").key_pem(),
        ["web/tls.crt: it names no host"],
    ),
    "for clients": (
        lambda: issued(extended_key_usage=CLIENT_ALONE).chain_pem(),
        lambda: issued().key_pem(),
        ["web/tls.crt: its extended key usage lacks serverAuth"],
    ),
    "out of order": (
        upside_down,
        lambda: issued().key_pem(),
        [
            "web/tls.crt: certificate 2 did not issue certificate 1",
            "web/tls.crt: certificate 3 did not issue certificate 2",
        ],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_pair(case: str) -> None:
    certificate, key, wanted = BAD[case]
    with pytest.raises(ConfigError) as caught:
        judged(certificate(), key())
    told = str(caught.value).splitlines()
    assert len(told) == len(wanted), told
    for line, begin in zip(told, wanted, strict=True):
        assert line.startswith(begin)
        assert ";" in line, "it says what to do"
    assert "PRIVATE" not in str(caught.value)
