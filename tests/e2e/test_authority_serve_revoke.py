"""Who is revoked gets nothing more, by a token, by a connection that stood before, or by the key that was lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import AuthorityProcess, exchange, identity, openssl_verify, sign_body
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Svid
from certs.keys import generate_key
from certs.requests import key_fingerprint


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        made.init()
        made.start("--identity-rate", "50:50")
        yield made
    finally:
        made.stop()


def crl_file(authority: AuthorityProcess) -> Path:
    crl = x509.load_der_x509_crl(authority.ask("GET", "/v1/crl").body)
    path = authority.base / "crl.pem"
    path.write_bytes(crl.public_bytes(Encoding.PEM))
    return path


def test_a_revoked_serial_is_in_the_list_and_its_key_is_not_certified_again(authority: AuthorityProcess) -> None:
    key = generate_key()
    answered = authority.sign(key, token=authority.token())
    chain = tuple(x509.load_pem_x509_certificates(answered.told["chain"].encode()))
    stolen, other = Svid(chain=chain, key=key), authority.enrol(token=authority.token())
    said = authority.order("revoke", "--serial", answered.told["serial"], "--reason", "key-compromise")
    assert "it stands in revocation list 1" in said
    assert "it stood already in revocation list 1" in authority.order("revoke", "--serial", answered.told["serial"])

    renewed = authority.sign(svid=stolen)
    assert (renewed.status, renewed.reason) == (403, "identity_revoked")
    again = authority.sign(key, token=authority.token())
    assert (again.status, again.reason) == (403, "key_revoked")
    assert authority.sign(svid=other).status == 200

    bundle = authority.order("export bundle", "--form", "pem")
    words = ("-crl_check", "-CRLfile", str(crl_file(authority)))
    assert "revoked" in openssl_verify(authority.base, chain, bundle, *words)
    assert openssl_verify(authority.base, other.chain, bundle, *words) == "OK"


def test_a_connection_that_stood_before_is_no_way_around(authority: AuthorityProcess) -> None:
    orders = authority.enrol(token=authority.token())
    with authority.connection(orders) as connection:
        assert exchange(connection, "POST", "/v1/sign", sign_body(generate_key())).status == 200
        authority.order("revoke", "--identity", identity("orders"))
        answered = exchange(connection, "POST", "/v1/sign", sign_body(generate_key()))
        assert (answered.status, answered.reason) == (403, "identity_revoked")
    blocked = authority.sign(token=authority.token())
    assert (blocked.status, blocked.reason) == (403, "identity_revoked")

    assert "certificates from before stay refused" in authority.order("lift", "--identity", identity("orders"))
    assert authority.sign(token=authority.token()).status == 200
    assert authority.sign(svid=orders).reason == "identity_revoked"


def test_a_key_is_revoked_by_its_fingerprint(authority: AuthorityProcess) -> None:
    key = generate_key()
    fingerprint = key_fingerprint(key.public_key())
    authority.order("revoke", "--key", fingerprint)
    assert authority.sign(key, token=authority.token()).reason == "key_revoked"
    assert fingerprint in authority.order("status")
    authority.order("lift", "--key", fingerprint)
    assert authority.sign(key, token=authority.token()).status == 200


def test_what_cannot_be_revoked_is_said_in_one_line(authority: AuthorityProcess) -> None:
    assert "its own authority" in authority.refused("revoke", "--identity", "spiffe://other.example/a")
    assert "no serial number" in authority.refused("revoke", "--serial", "xyz")
    assert "64 hexadecimal digits" in authority.refused("revoke", "--key", "ab")
    assert "is not revoked" in authority.refused("lift", "--serial", "2a")
