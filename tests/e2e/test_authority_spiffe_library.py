"""Another reading of the standard: PyPI's `spiffe` takes what the authority issues, and what it publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import DOMAIN, AuthorityProcess, eventually, identity
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import SpiffeId, TrustDomain, X509Bundle, X509Svid

from certs.authority import Svid

HOME = TrustDomain(DOMAIN)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    made.init("--refresh-hint", "1s", "--hints", "1")
    made.start("--identity-rate", "50:50")
    try:
        yield made
    finally:
        made.stop()


def read(svid: Svid) -> X509Svid:
    """An identity as the library reads it: from PEM, and from DER as a Workload API carries it."""
    chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in svid.chain)
    key = svid.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    raw_chain = b"".join(certificate.public_bytes(Encoding.DER) for certificate in svid.chain)
    raw_key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    by_pem, by_der = X509Svid.parse(chain, key), X509Svid.parse_raw(raw_chain, raw_key)
    assert by_pem.spiffe_id == by_der.spiffe_id
    assert by_pem.cert_chain == by_der.cert_chain == list(svid.chain)
    return by_pem


def roots(authority: AuthorityProcess) -> set[bytes]:
    """The roots that the authority publishes, as the library reads them."""
    bundle = X509Bundle.parse(HOME, authority.order("export bundle", "--form", "pem").encode())
    assert bundle.trust_domain == HOME
    return {root.public_bytes(Encoding.DER) for root in bundle.x509_authorities}


def test_it_takes_identities_and_bundles_before_and_after_a_root_is_replaced(authority: AuthorityProcess) -> None:
    first = authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")
    assert read(first).spiffe_id == SpiffeId(identity("orders"))
    before = roots(authority)
    assert len(before) == 1

    authority.order("rotate root")
    both = roots(authority)
    assert before < both
    assert len(both) == 2
    authority.ask("GET", "/v1/bundle?confirms=2&instance=orders-0", svid=first)
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used", 30.0)
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    second = authority.enrol(first, bundle_sequence=2, instance="orders-0")
    assert read(second).spiffe_id == SpiffeId(identity("orders"))
    assert second.chain[1] != first.chain[1]
    new = [x509.load_der_x509_certificate(der) for der in both - before]
    assert [_issued(second.chain[1], root) for root in new] == [True]


def _issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, InvalidSignature):
        return False
    return True
