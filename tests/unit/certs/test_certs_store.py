"""A workload's own files are judged as a whole."""

from __future__ import annotations

import datetime

import pytest
from cryptography.hazmat.primitives import serialization

from certs.files import digest
from certs.keys import KeyFileError, generate_key, read_key, write_key
from certs.profile import key_usage
from certs.spiffe import SpiffeId
from certs.store import IdentitySet, SetError, chain_fault, judge_set
from certs.testing import BROKEN, MemoryAuthority, Shape, half_readable, set_files, tampered

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")


@pytest.fixture
def files(memory: MemoryAuthority) -> dict[str, bytes]:
    return set_files(memory.svid("demo", "orders"), memory.bundles)


def judge(memory: MemoryAuthority, files: dict[str, bytes], expected: SpiffeId | None = None) -> IdentitySet:
    return judge_set(files, memory.trust_domain, memory.now, expected)


def faults_of(memory: MemoryAuthority, files: dict[str, bytes], expected: SpiffeId | None = None) -> list[str]:
    with pytest.raises(SetError) as caught:
        judge(memory, files, expected)
    assert str(caught.value) == "\n".join(caught.value.faults)
    assert all("PRIVATE" not in fault for fault in caught.value.faults)
    return caught.value.faults


def test_a_good_set_is_taken(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    identity = judge(memory, files, ORDERS)
    leaf = identity.chain[0]
    assert identity.spiffe_id == ORDERS
    assert identity.chain[1] == memory.intermediate
    assert identity.key.public_key() == leaf.public_key()
    assert dict(identity.bundles) == dict(memory.bundles)
    assert identity.not_after == leaf.not_valid_after_utc.timestamp()
    assert int(identity.serial, 16) == leaf.serial_number
    assert identity.source_digest == digest(files)


def test_the_key_does_not_show(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    assert "Private" not in repr(judge(memory, files))


@pytest.mark.parametrize("place", ["tls.crt", "ca.crt"])
def test_a_certificate_that_openssl_cannot_decode_is_a_fault_of_its_file(
    memory: MemoryAuthority, files: dict[str, bytes], place: str
) -> None:
    bad = half_readable(memory.intermediate if place == "tls.crt" else memory.root)
    added = bad.public_bytes(serialization.Encoding.PEM)
    [fault] = faults_of(memory, {**files, place: files[place] + added})
    assert fault.startswith(f"{place}: ")
    assert "cannot be decoded" in fault


def test_the_chain_ends_when_its_first_certificate_does(memory: MemoryAuthority) -> None:
    end = memory.now + datetime.timedelta(days=3000)
    svid = memory.svid("demo", "orders", not_after=end)
    identity = judge(memory, set_files(svid, memory.bundles))
    assert identity.not_after == memory.intermediate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("name", BROKEN)
def test_no_broken_certificate_makes_a_set(memory: MemoryAuthority, name: str) -> None:
    svid = BROKEN[name].make(memory)
    files = {"tls.crt": svid.chain_pem(), "tls.key": svid.key_pem(), "ca.crt": memory.bundle.to_pem()}
    faults = faults_of(memory, files)
    assert all(fault.startswith(("tls.crt: ", "tls.key: ")) for fault in faults)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expired", "certificate 1 expired at"),
        ("not_yet_valid", "check this machine's clock"),
        ("expired_intermediate", "certificate 2 expired at"),
        ("missing_intermediate", "no root of cluster.local vouches for certificate 1"),
        ("foreign_root", "no root of cluster.local vouches for certificate 2"),
        ("our_name_signed_by_neighbour", "no root of cluster.local vouches"),
        ("neighbours_name_signed_by_us", "is not of our trust domain"),
        ("wrong_signature", "signature of certificate 1 is wrong"),
        ("name_constraint_violated", "a name that its issuer may not give"),
        ("path_length_exceeded", "path length"),
        ("two_uris_distinct", "uri_san_not_alone"),
        ("trailing_newline", "spiffe_id_invalid"),
    ],
)
def test_one_broken_thing_gives_one_fault_with_its_mend(memory: MemoryAuthority, name: str, words: str) -> None:
    svid = BROKEN[name].make(memory)
    files = {"tls.crt": svid.chain_pem(), "tls.key": svid.key_pem(), "ca.crt": memory.bundle.to_pem()}
    (fault,) = faults_of(memory, files)
    assert words in fault
    assert ";" in fault


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_missing_or_empty_file_breaks_the_set(
    memory: MemoryAuthority, files: dict[str, bytes], name: str, content: bytes | None
) -> None:
    if content is None:
        del files[name]
    else:
        files[name] = content
    (fault,) = faults_of(memory, files)
    assert fault.startswith(f"{name}: ")


def test_ca_crt_with_a_leaf_breaks_the_set(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    files["ca.crt"] += memory.svid("demo", "other").leaf.public_bytes(serialization.Encoding.PEM)
    (fault,) = faults_of(memory, files)
    assert fault.startswith("ca.crt: certificate 2 is no CA")


def test_a_key_of_another_certificate_breaks_the_set(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    files["tls.key"] = write_key(generate_key())
    (fault,) = faults_of(memory, files)
    assert fault.startswith("tls.key: it does not fit")


def test_the_identity_of_another_workload_is_not_ours(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    (fault,) = faults_of(memory, files, SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/ledger"))
    assert "it names spiffe://cluster.local/ns/demo/sa/orders" in fault
    assert "spiffe://cluster.local/ns/demo/sa/ledger" in fault


def test_the_clock_is_an_argument(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    for moment in (memory.now - datetime.timedelta(days=1), memory.now + datetime.timedelta(days=2)):
        with pytest.raises(SetError, match=r"tls\.crt: certificate 1"):
            judge_set(files, memory.trust_domain, moment)


def test_a_root_that_expired_is_named(memory: MemoryAuthority) -> None:
    late = memory.root.not_valid_after_utc + datetime.timedelta(days=1)
    svid = memory.svid("demo", "orders", issuer=memory.root, issuer_key=memory.root_key, chain=(), not_after=late)
    with pytest.raises(SetError, match=r"the root of cluster\.local that it leads to expired"):
        judge_set(set_files(svid, memory.bundles), memory.trust_domain, late)


def test_all_faults_come_at_once(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    svid = memory.svid("demo", "orders", uris=(b"spiffe://td/a\n",), key_usage=None)
    files |= {
        "tls.crt": tampered(svid.leaf).public_bytes(serialization.Encoding.PEM),
        "tls.key": b"",
        "ca.crt": b"",
        "bundles/x.txt": b"",
        "bundles/other.example.json": b"{",
    }
    faults = faults_of(memory, files)
    assert sorted(fault.split(":")[0] for fault in faults) == [
        "bundles/other.example.json",
        "bundles/x.txt",
        "ca.crt",
        "tls.crt",
        "tls.crt",
        "tls.key",
    ]


def test_the_chain_is_validated_strictly(memory: MemoryAuthority) -> None:
    usage = key_usage(key_cert_sign=True)
    signer = memory.shaped(
        Shape(ca=True, key_usage=usage, issuer=memory.root, issuer_key=memory.root_key, chain=(), key="nameless")
    )
    nameless = {"issuer": signer.leaf, "issuer_key": signer.key, "chain": (signer.leaf,)}
    svid = memory.svid("demo", "orders", **nameless)
    assert chain_fault(svid.chain, memory.bundle, memory.now, strict=False) is None
    (fault,) = faults_of(memory, set_files(svid, memory.bundles))
    assert "does not verify" in fault


def test_our_own_bundle_stands_in_ca_crt_alone(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    files["bundles/cluster.local.json"] = b'{"keys": []}'
    (fault,) = faults_of(memory, files)
    assert "our own trust domain" in fault


def test_a_neighbour_whose_bundle_is_empty_stays_in_the_set(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    files["bundles/neighbour.example.json"] = b'{"keys": []}'
    assert judge(memory, files).bundles[memory.neighbour.trust_domain].certificates == ()


def test_new_and_old_root_side_by_side_are_taken(memory: MemoryAuthority, files: dict[str, bytes]) -> None:
    files["ca.crt"] = memory.impostor.bundle.to_pem() + files["ca.crt"]
    assert len(judge(memory, files).bundles[memory.trust_domain].certificates) == 2


def test_key_files_that_cannot_be_used_are_described_without_their_content() -> None:
    encrypted = generate_key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    public = generate_key().public_key()
    public_pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    whole = write_key(generate_key())
    for pem, words in ((encrypted, "encrypted"), (public_pem, "no readable"), (whole[:80], "no readable")):
        with pytest.raises(KeyFileError, match=words) as caught:
            read_key(pem)
        assert caught.value.__cause__ is None
        assert all(line not in str(caught.value) for line in pem.decode().splitlines())
