"""The embedded authority: the profile of what it issues, what it refuses, what it writes."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import Authority, AuthorityError
from certs.keys import generate_key, public_key_bytes, write_key
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import chain_fault
from certs.svid import leaf_violations, signing_violations, spiffe_id_of

NOW = datetime.datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
LEDGER = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/ledger")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create(TrustDomain("cluster.local"), NOW)


def test_leaf_has_exactly_the_profile(authority: Authority) -> None:
    leaf, intermediate = authority.issue(ORDERS, generate_key().public_key(), NOW)
    assert intermediate == authority.intermediate
    assert list(leaf.subject) == []
    assert {extension.oid: extension.critical for extension in leaf.extensions} == {
        x509.SubjectAlternativeName.oid: True,
        x509.BasicConstraints.oid: True,
        x509.KeyUsage.oid: True,
        x509.ExtendedKeyUsage.oid: False,
        x509.SubjectKeyIdentifier.oid: False,
        x509.AuthorityKeyIdentifier.oid: False,
    }
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(str(ORDERS))]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.public_bytes() == bytes.fromhex("03020780")  # digitalSignature and no other bit
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    issuer_id = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer_id == intermediate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert leaf_violations(leaf) == []


def test_validity_begins_a_minute_ago_and_lasts_a_day(authority: Authority) -> None:
    leaf, _ = authority.issue(ORDERS, generate_key().public_key(), NOW)
    moment = NOW.replace(microsecond=0)
    assert leaf.not_valid_before_utc == moment - 60 * SECOND
    assert leaf.not_valid_after_utc == moment + datetime.timedelta(hours=24)


def test_validity_never_passes_the_issuers(authority: Authority) -> None:
    late = authority.intermediate.not_valid_after_utc - datetime.timedelta(hours=1)
    leaf, _ = authority.issue(ORDERS, generate_key().public_key(), late)
    assert leaf.not_valid_after_utc == authority.intermediate.not_valid_after_utc
    short = Authority.create(TrustDomain("td"), NOW, root_lifetime=datetime.timedelta(days=1))
    assert short.intermediate.not_valid_after_utc == short.root.not_valid_after_utc


def test_serial_numbers_are_random_and_long(authority: Authority) -> None:
    key = generate_key().public_key()
    serials = {authority.issue(ORDERS, key, NOW)[0].serial_number for _ in range(8)}
    assert len(serials) == 8
    assert min(serial.bit_length() for serial in serials) > 100


def test_signers_have_the_profile(authority: Authority) -> None:
    for signer, path_length in ((authority.root, 1), (authority.intermediate, 0)):
        assert signing_violations(signer, authority.trust_domain) == []
        constraints = signer.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.path_length) == (True, path_length)
        assert list(signer.subject) != []
        assert str(spiffe_id_of(signer)) == "spiffe://cluster.local"
        key = signer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key.curve.name == "secp256r1"
        signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        signer.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        with pytest.raises(x509.ExtensionNotFound):
            signer.extensions.get_extension_for_class(x509.NameConstraints)


def test_openssl_takes_the_chain_strictly(authority: Authority) -> None:
    assert chain_fault(authority.issue_svid(ORDERS, NOW).chain, authority.bundle, NOW) is None


def test_a_name_constraint_binds_the_intermediate_to_its_trust_domain() -> None:
    constrained = Authority.create(TrustDomain("cluster.local"), NOW, constrain_names=True)
    constraint = constrained.intermediate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraint.critical
    assert chain_fault(constrained.issue_svid(ORDERS, NOW).chain, constrained.bundle, NOW) is None


def test_a_longest_trust_domain_still_has_an_authority() -> None:
    domain = TrustDomain("a" * 255)
    authority = Authority.create(domain, NOW)
    svid = authority.issue_svid(SpiffeId.for_service_account(domain, "demo", "orders"), NOW)
    assert chain_fault(svid.chain, authority.bundle, NOW) is None


def test_request_decides_only_about_the_key(authority: Authority) -> None:
    key = generate_key()
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledger")]))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(LEDGER))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf, _ = authority.issue_for_request(request, ORDERS, NOW)
    assert spiffe_id_of(leaf) == ORDERS
    assert list(leaf.subject) == []
    assert leaf_violations(leaf) == []
    assert leaf.public_key() == key.public_key()


def test_request_must_be_signed_by_its_own_key(authority: Authority) -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(generate_key(), hashes.SHA256())
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(AuthorityError, match="not signed by the key"):
        authority.issue_for_request(x509.load_der_x509_csr(bytes(der)), ORDERS, NOW)


def test_request_with_a_weak_key_is_refused(authority: Authority) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())
    with pytest.raises(AuthorityError, match="too short"):
        authority.issue_for_request(request, ORDERS, NOW)


@pytest.mark.parametrize(
    ("spiffe_id", "lifetime", "moment", "message"),
    [
        ("spiffe://other.example/ns/demo/sa/orders", SECOND * 3600, NOW, "is not of cluster.local"),
        ("spiffe://cluster.local", SECOND * 3600, NOW, "names no workload"),
        (str(ORDERS), SECOND * 0, NOW, "lifetime"),
        (str(ORDERS), SECOND * -3600, NOW, "lifetime"),
        (str(ORDERS), SECOND * 3600, NOW + datetime.timedelta(days=400), "not now"),
        (str(ORDERS), SECOND * 3600, NOW - datetime.timedelta(days=1), "not now"),
    ],
)
def test_refused_requests(
    authority: Authority, spiffe_id: str, lifetime: datetime.timedelta, moment: datetime.datetime, message: str
) -> None:
    with pytest.raises(AuthorityError, match=message):
        authority.issue(SpiffeId.parse(spiffe_id), generate_key().public_key(), moment, lifetime)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_other_strong_keys_are_certified(
    authority: Authority, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    chain = authority.issue(ORDERS, key.public_key(), NOW)
    assert leaf_violations(chain[0]) == []
    assert chain_fault(chain, authority.bundle, NOW) is None


def test_saved_authority_is_loaded_back_and_private(authority: Authority, tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "ca"
    authority.save(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "root.crt": 0o600,
        "root.key": 0o600,
        "intermediate.crt": 0o600,
        "intermediate.key": 0o600,
    }
    loaded = Authority.load(directory)
    assert (loaded.trust_domain, loaded.root, loaded.intermediate) == (
        authority.trust_domain,
        authority.root,
        authority.intermediate,
    )
    assert chain_fault(loaded.issue_svid(ORDERS, NOW).chain, authority.bundle, NOW) is None


def test_an_authority_is_never_overwritten(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path / "ca")
    before = (tmp_path / "ca" / "root.key").read_bytes()
    with pytest.raises(AuthorityError, match="stands there already"):
        Authority.create(TrustDomain("cluster.local"), NOW).save(tmp_path / "ca")
    assert (tmp_path / "ca" / "root.key").read_bytes() == before


def test_a_directory_that_others_use_is_left_alone(authority: Authority, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    (shared / "file").touch()
    with pytest.raises(AuthorityError, match="others may read"):
        authority.save(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_the_roots_key_may_be_kept_elsewhere(authority: Authority, tmp_path: Path) -> None:
    authority.save(tmp_path / "ca")
    (tmp_path / "ca" / "root.key").unlink()
    loaded = Authority.load(tmp_path / "ca")
    assert loaded.root_key is None
    assert loaded.issue_svid(ORDERS, NOW).spiffe_id == ORDERS


def _other_key(directory: Path) -> None:
    (directory / "intermediate.key").write_bytes(write_key(generate_key()))


def _other_root(directory: Path) -> None:
    other = Authority.create(TrustDomain("cluster.local"), NOW)
    (directory / "root.crt").write_bytes(other.root.public_bytes(Encoding.PEM))
    (directory / "root.key").unlink()


def _leaf_for_intermediate(directory: Path) -> None:
    svid = Authority.load(directory).issue_svid(ORDERS, NOW)
    (directory / "intermediate.crt").write_bytes(svid.leaf.public_bytes(Encoding.PEM))
    (directory / "intermediate.key").write_bytes(svid.key_pem())


def _chain_for_intermediate(directory: Path) -> None:
    file = directory / "intermediate.crt"
    file.write_bytes(file.read_bytes() + (directory / "root.crt").read_bytes())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda directory: (directory / "root.crt").unlink(), "root.crt: it is missing"),
        (lambda directory: (directory / "intermediate.key").unlink(), "intermediate.key: it is missing"),
        (lambda directory: (directory / "intermediate.crt").write_bytes(b"no"), "no readable certificate"),
        (lambda directory: (directory / "intermediate.key").write_bytes(b"no"), "no PEM"),
        (_other_key, "does not belong to intermediate.crt"),
        (_other_root, "root.crt did not sign it"),
        (_chain_for_intermediate, "it holds 2 certificates; keep one"),
        (_leaf_for_intermediate, "signing_certificate_invalid"),
    ],
)
def test_a_spoiled_authority_is_not_loaded(
    authority: Authority, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    authority.save(tmp_path / "ca")
    spoil(tmp_path / "ca")
    with pytest.raises(AuthorityError, match=message):
        Authority.load(tmp_path / "ca")


def test_no_key_shows_in_a_repr(authority: Authority) -> None:
    svid = authority.issue_svid(ORDERS, NOW)
    for text in (repr(authority), repr(svid), str(authority), str(svid)):
        assert "PRIVATE" not in text
        assert "PrivateKey" not in text


def test_issued_key_fits_its_leaf(authority: Authority) -> None:
    svid = authority.issue_svid(ORDERS, NOW)
    assert svid.leaf.public_key() == svid.key.public_key()
    assert public_key_bytes(svid.key.public_key()) != public_key_bytes(
        authority.issue_svid(ORDERS, NOW).key.public_key()
    )
