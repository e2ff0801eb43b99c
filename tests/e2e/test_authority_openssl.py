"""The `openssl` program, strictly: it takes whatever the authority issues, and shows that nothing else is in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import AuthorityProcess, eventually, identity, openssl_verify
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority
from certs.memory import Shape
from certs.testing import MemoryAuthority

pytestmark = pytest.mark.debian

PURPOSES = ("sslclient", "sslserver")


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def taken(authority: AuthorityProcess, *chains: tuple[x509.Certificate, ...]) -> None:
    """Each chain leads to what is published now, for a client and for a server, with every check that openssl has."""
    bundle = authority.order("export bundle", "--form", "pem")
    said = {
        (chain[0].serial_number, purpose): openssl_verify(
            authority.base, chain, bundle, "-check_ss_sig", "-policy_check", "-purpose", purpose
        )
        for chain in chains
        for purpose in PURPOSES
    }
    assert set(said.values()) == {"OK"}, said


def shown(base: Path, certificate: x509.Certificate) -> str:
    """What a person sees of a certificate."""
    file = base / "shown.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM))
    words = ["openssl", "x509", "-in", str(file), "-noout", "-text"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    return " ".join(done.stdout.split())


def own(authority: AuthorityProcess) -> tuple[x509.Certificate, ...]:
    """The certificate that the service shows, with the intermediate that it sends."""
    leaf = authority.ask("GET", "/v1/bundle").presented
    text = authority.order("export intermediate")
    return (leaf, *x509.load_pem_x509_certificates(text.encode()))


@pytest.mark.parametrize("constraint", [(), ("--constrain-names",)], ids=["", "names"])
def test_all_that_is_issued_before_and_after_each_rotation(
    authority: AuthorityProcess, constraint: tuple[str, ...]
) -> None:
    authority.init("--refresh-hint", "1s", "--hints", "1", *constraint)
    authority.start("--identity-rate", "50:50")
    first = authority.enrol(token=authority.token(), bundle_sequence=1, instance="orders-0")
    taken(authority, first.chain, authority.enrol(first, instance="orders-0").chain, own(authority))

    authority.order("rotate intermediate")
    second = authority.enrol(first, instance="orders-0")
    assert second.chain[1] != first.chain[1]
    taken(authority, first.chain, second.chain)

    authority.order("rotate root")
    authority.ask("GET", "/v1/bundle?confirms=2&instance=orders-0", svid=second)
    eventually(lambda: "no rotation is under way" in authority.order("status"), "the new root is used", 30.0)
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    third = authority.enrol(second, bundle_sequence=2, instance="orders-0")
    assert third.chain[1] != second.chain[1]
    taken(authority, first.chain, second.chain, third.chain)


def test_nothing_is_in_it_that_is_not_needed(authority: AuthorityProcess) -> None:
    authority.init()
    authority.start()
    svid = authority.enrol(token=authority.token())
    text = shown(authority.base, svid.leaf)
    for part in (
        f"X509v3 Subject Alternative Name: critical URI:{identity('orders')} ",
        "X509v3 Basic Constraints: critical CA:FALSE",
        "X509v3 Key Usage: critical Digital Signature X509v3",
        "X509v3 Extended Key Usage: TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Subject Key Identifier:",
        "X509v3 Authority Key Identifier:",
        "Subject: Subject Public Key Info:",
    ):
        assert part in text
    assert text.count("X509v3 ") == 1 + 6  # the heading, and each of these
    assert "DNS:" not in text


def test_a_signer_that_is_held_to_its_names_cannot_give_others(tmp_path: Path) -> None:
    """Somebody who stole the key of the intermediate signs for another trust domain: openssl obeys the constraint."""
    memory = MemoryAuthority("cluster.local")
    held = Authority.create(memory.trust_domain, memory.now, constrain_names=True)
    bundle = held.root.public_bytes(Encoding.PEM).decode()

    def forged(name: str) -> tuple[x509.Certificate, ...]:
        shape = Shape(uris=(name.encode(),), issuer=held.intermediate, issuer_key=held.intermediate_key)
        return memory.shaped(shape).chain

    assert openssl_verify(tmp_path, forged(identity("orders")), bundle) == "OK"
    said = openssl_verify(tmp_path, forged("spiffe://abroad.example/ns/demo/sa/orders"), bundle)
    assert "permitted subtree violation" in said


def pki(base: Path, *algorithm: str, names: str = "") -> Path:
    """An organisation's root and intermediate, made by openssl alone; the key is PKCS#8 as openssl writes it."""
    made = base / "pki"
    made.mkdir()
    (made / "extensions").write_text(
        "[root]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash\n"
        "[intermediate]\nbasicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectAltName=URI:spiffe://cluster.local\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n" + names
    )
    for name, issuer in (("root", ["-key", "root.key"]), ("intermediate", ["-CA", "root.crt", "-CAkey", "root.key"])):
        for words in (
            ["genpkey", *algorithm, "-out", f"{name}.key"],
            ["req", "-new", "-key", f"{name}.key", "-subj", f"/O=Example/CN={name}", "-out", f"{name}.csr"],
            ["x509", "-req", "-in", f"{name}.csr", *issuer, "-days", "90", "-extfile", "extensions",
             "-extensions", name, "-out", f"{name}.crt"],
        ):  # fmt: skip
            subprocess.run(["openssl", *words], cwd=made, capture_output=True, text=True, timeout=60, check=True)
    (made / "root.key").unlink()  # it stays where it was made
    return made


@pytest.mark.parametrize(
    "algorithm",
    [
        ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"),
    ],
    ids=["P-256", "RSA-3072"],
)
def test_leaves_of_an_intermediate_that_an_organisation_made(
    authority: AuthorityProcess, algorithm: tuple[str, ...]
) -> None:
    made = pki(authority.base, *algorithm)
    authority.order("init", "--import", str(made))
    authority.bundle_file.write_text(authority.order("export bundle", "--form", "pem"))
    authority.start()
    svid = authority.enrol(token=authority.token())
    assert svid.chain[1] == x509.load_pem_x509_certificate((made / "intermediate.crt").read_bytes())
    taken(authority, svid.chain, own(authority))


def test_an_intermediate_that_may_not_name_us_is_not_imported(authority: AuthorityProcess) -> None:
    other = "nameConstraints=critical,permitted;URI:other.example\n"
    made = pki(authority.base, "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", names=other)
    said = authority.refused("init", "--import", str(made))
    assert "cluster.local" in said
