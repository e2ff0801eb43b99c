"""Keys are replaced while the service runs: nobody is refused, and an old root goes only when its time has come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import AuthorityProcess, eventually, identity, openssl_verify
from cryptography import x509

from certs.authority import Svid
from certs.keys import write_key


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def bundle_of(authority: AuthorityProcess) -> str:
    return authority.order("export bundle", "--form", "pem")


def serial_of_own(authority: AuthorityProcess) -> int:
    return authority.ask("GET", "/v1/bundle").presented.serial_number


def test_an_intermediate_rotates_under_the_same_root(authority: AuthorityProcess) -> None:
    authority.init()
    authority.start("--identity-rate", "50:50")
    before, own = authority.enrol(token=authority.token()), serial_of_own(authority)
    said = authority.order("rotate intermediate")
    assert re.search(r"^made an intermediate under root [0-9a-f]{12}$", said, re.MULTILINE) is not None
    assert "signing with the new intermediate" in said
    assert "no rotation is under way" in said
    after = authority.enrol(before)
    assert after.chain[1] != before.chain[1]
    bundle = bundle_of(authority)
    assert bundle.count("BEGIN CERTIFICATE") == 1
    for svid in (before, after):
        assert openssl_verify(authority.base, svid.chain, bundle) == "OK"
    # What the authority shows itself stands on the new one, and the list is signed by it.
    assert serial_of_own(authority) != own
    crl = x509.load_der_x509_crl(authority.ask("GET", "/v1/crl").body)
    assert crl.is_signature_valid(after.chain[1].public_key())  # type: ignore[arg-type]


def test_a_root_rotates_when_everybody_has_the_new_one(authority: AuthorityProcess) -> None:
    authority.init("--refresh-hint", "1s", "--hints", "1", "--margin", "1s")
    authority.start("--identity-rate", "50:50", "--lifetime", "1h", "--own-lifetime", "1h")
    first = authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")
    assert "published the bundle" in authority.order("rotate root")
    assert authority.ask("GET", "/v1/bundle").told["spiffe_sequence"] == 2
    waiting = authority.order("status")
    assert "have not confirmed sequence 2" in waiting
    assert f"{identity('orders')}#orders-0" in waiting
    # Until it has confirmed, certificates are of the old root.
    assert authority.enrol(first, bundle_sequence=1, instance="orders-0").chain[1] == first.chain[1]

    authority.ask("GET", "/v1/bundle?confirms=2&instance=orders-0", svid=first)
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used", 30.0)
    authority.bundle_file.write_text(bundle_of(authority))
    second = authority.enrol(first, bundle_sequence=2, instance="orders-0")
    assert second.chain[1] != first.chain[1]
    both = bundle_of(authority)
    assert both.count("BEGIN CERTIFICATE") == 2
    for svid in (first, second):
        assert openssl_verify(authority.base, svid.chain, both) == "OK"
    assert "leaves the bundle in" in authority.order("status")


def test_nobody_is_waited_for_who_is_named(authority: AuthorityProcess) -> None:
    authority.init("--refresh-hint", "1s", "--hints", "1")
    authority.start()
    authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")
    authority.order("rotate root")
    assert "orders-0" in authority.refused("rotate root", "--force", "somebody-else")
    authority.order("rotate root", "--force", f"{identity('orders')}#orders-0")
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used")


def test_an_offline_root_signs_elsewhere_and_is_imported(authority: AuthorityProcess) -> None:
    authority.init("--root-offline", str(authority.base / "root"))
    root = (authority.base / "root" / "root.crt").read_text()
    assert root == bundle_of(authority)
    assert (authority.base / "root" / "root.key").stat().st_mode & 0o777 == 0o600
    assert len(list((authority.directory / "keys").iterdir())) == 1
    authority.start()
    assert "import it with" in authority.order("rotate root")
    fresh = authority.base / "fresh"
    _plain_authority(fresh)
    assert "published the bundle" in authority.order("rotate import", "--from", str(fresh))
    assert authority.ask("GET", "/v1/bundle").told["spiffe_sequence"] == 2
    assert bundle_of(authority).count("BEGIN CERTIFICATE") == 2
    assert "known here already" in authority.refused("rotate import", "--from", str(fresh))


def _plain_authority(directory: Path) -> None:
    """What an organisation's own PKI would bring: root.crt, intermediate.crt, intermediate.key."""
    from certs.testing import MemoryAuthority

    memory = MemoryAuthority("cluster.local")
    directory.mkdir()
    svid = Svid(chain=(memory.intermediate,), key=memory.intermediate_key)
    (directory / "root.crt").write_bytes(memory.bundle.to_pem())
    (directory / "intermediate.crt").write_bytes(svid.chain_pem())
    (directory / "intermediate.key").write_bytes(write_key(memory.intermediate_key))
