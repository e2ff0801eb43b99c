"""Trust bundles: PEM, SPIFFE JWKS and bundle maps, read strictly and written back."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import (
    MAX_BUNDLE_BYTES,
    BundleError,
    TrustBundle,
    bundles_in,
    parse_bundle,
    parse_bundle_map,
    parse_jwks,
    parse_pem,
    read_bundles,
    write_bundle_map,
)
from certs.profile import key_usage
from certs.spiffe import TrustDomain
from certs.testing import MemoryAuthority, half_readable

TD = TrustDomain("cluster.local")


def entry_of(memory: MemoryAuthority, **members: object) -> dict[str, object]:
    document: dict[str, list[dict[str, object]]] = json.loads(memory.bundle.to_jwks())
    return {name: value for name, value in (document["keys"][0] | members).items() if value is not None}


def jwks(*entries: object, **members: object) -> bytes:
    return json.dumps({"keys": list(entries), **members}).encode()


def test_pem_is_read_back(memory: MemoryAuthority) -> None:
    both = TrustBundle(trust_domain=TD, certificates=(memory.root, memory.impostor.root))
    assert parse_pem(TD, both.to_pem()) == both


def test_pem_may_hold_comments_and_the_same_root_twice(memory: MemoryAuthority) -> None:
    pem = b"# our root\n" + memory.bundle.to_pem() + b"\nagain:\n" + memory.bundle.to_pem()
    assert parse_pem(TD, pem).certificates == (memory.root,)


def test_pem_faults_name_the_source_and_the_mend(memory: MemoryAuthority) -> None:
    svid = memory.svid("demo", "orders")
    cases: list[tuple[bytes, str]] = [
        (b"", "holds no certificate"),
        (b"   \n", "holds no certificate"),
        (b'{"keys": []}', "holds no certificate"),
        (svid.chain_pem(), "certificate 1 is no CA"),
        (memory.bundle.to_pem() + svid.leaf.public_bytes(Encoding.PEM), "certificate 2 is no CA"),
        (memory.bundle.to_pem() + svid.key_pem(), "private key"),
        (memory.bundle.to_pem()[:-60], "cannot be decoded"),
        (memory.bundle.to_pem() + memory.bundle.to_pem()[:200], "cannot be decoded"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be decoded"),
        (half_readable(memory.root).public_bytes(Encoding.PEM), "certificate 1 cannot be decoded by OpenSSL"),
        (b"#" * (MAX_BUNDLE_BYTES + 1), "larger than"),
    ]
    for pem, words in cases:
        with pytest.raises(BundleError, match=words) as caught:
            parse_pem(TD, pem, "ca.crt")
        assert str(caught.value).startswith("ca.crt: ")
        assert "PRIVATE" not in str(caught.value)


def test_an_empty_bundle_has_no_pem_form() -> None:
    with pytest.raises(BundleError, match="write it as JWKS"):
        TrustBundle(trust_domain=TD, certificates=()).to_pem()


def test_jwks_is_read_back(memory: MemoryAuthority) -> None:
    bundle = TrustBundle(trust_domain=TD, certificates=(memory.root,), sequence=2**63, refresh_hint=300)
    assert parse_jwks(TD, bundle.to_jwks()) == bundle
    assert parse_bundle(TD, b"\n " + bundle.to_jwks()) == bundle
    assert parse_bundle(TD, bundle.to_pem()).certificates == bundle.certificates


def test_jwks_entry_is_a_key_of_rfc_7517_with_one_certificate(memory: MemoryAuthority) -> None:
    entry = entry_of(memory)
    assert (entry["use"], entry["kty"], entry["crv"]) == ("x509-svid", "EC", "P-256")
    assert "kid" not in entry
    assert entry["x5c"] == [base64.b64encode(memory.root.public_bytes(Encoding.DER)).decode()]
    numbers = memory.root.public_key().public_numbers()  # type: ignore[union-attr]
    assert base64.urlsafe_b64decode(str(entry["x"]) + "=") == numbers.x.to_bytes(32, "big")  # type: ignore[union-attr]


def test_jwks_of_a_root_that_openssl_cannot_decode(memory: MemoryAuthority) -> None:
    der = half_readable(memory.root).public_bytes(Encoding.DER)
    document = jwks(entry_of(memory), entry_of(memory, x5c=[base64.b64encode(der).decode()]))
    with pytest.raises(BundleError, match=r"keys\[1\]: .*cannot be decoded by OpenSSL"):
        parse_jwks(TD, document)


def test_jwks_of_an_rsa_root(memory: MemoryAuthority) -> None:
    root = memory.svid("demo", "root", ca=True, key_usage=key_usage(key_cert_sign=True), key="rsa-2048").leaf
    bundle = TrustBundle(trust_domain=TD, certificates=(root,))
    assert json.loads(bundle.to_jwks())["keys"][0]["e"] == "AQAB"
    assert parse_jwks(TD, bundle.to_jwks()) == bundle


def test_no_keys_is_an_order_and_not_a_fault() -> None:
    assert parse_jwks(TD, b'{"keys": []}').certificates == ()


@pytest.mark.parametrize(
    "members",
    [
        {"use": "jwt-svid"},
        {"use": "X509-SVID"},
        {"use": "wit-svid"},
        {"use": None},
        {"kty": "XYZ"},
        {"kty": "ec"},
        {"kty": None},
        {"kty": ["EC"]},
        {"x5c": None},
        {"x5c": []},
    ],
)
def test_entries_that_are_not_for_us_are_passed_over(memory: MemoryAuthority, members: dict[str, object]) -> None:
    assert parse_jwks(TD, jwks(entry_of(memory, **members))).certificates == ()
    assert parse_jwks(TD, jwks(entry_of(memory, **members), entry_of(memory))).certificates == (memory.root,)


def test_only_the_first_of_several_certificates_counts(memory: MemoryAuthority) -> None:
    first, second = (base64.b64encode(a.root.public_bytes(Encoding.DER)).decode() for a in (memory, memory.neighbour))
    assert parse_jwks(TD, jwks(entry_of(memory, x5c=[first, second]))).certificates == (memory.root,)


def test_unknown_members_are_tolerated(memory: MemoryAuthority) -> None:
    document = jwks(entry_of(memory, kid="x", alg="ES256"), spiffe_sequence=1, extra={"a": [1]})
    assert parse_jwks(TD, document) == TrustBundle(trust_domain=TD, certificates=(memory.root,), sequence=1)


def test_jwks_faults(memory: MemoryAuthority) -> None:
    leaf = base64.b64encode(memory.svid("demo", "orders").leaf.public_bytes(Encoding.DER)).decode()
    cases: list[tuple[bytes, str]] = [
        (b"", "no JSON"),
        (b"\xff{}", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"[]", '"keys"'),
        (b"{}", '"keys"'),
        (b'{"keys": {}}', '"keys"'),
        (b'{"keys": null}', '"keys"'),
        (b'{"keys": [], "keys": []}', "'keys' stands there twice"),
        (b'{"keys": [{"use": "a", "use": "b"}]}', "'use' stands there twice"),
        (b'{"keys": [], "spiffe_sequence": NaN}', "NaN"),
        (b'{"keys": [], "spiffe_sequence": 1.5}', "spiffe_sequence"),
        (b'{"keys": [], "spiffe_sequence": true}', "spiffe_sequence"),
        (b'{"keys": [], "spiffe_sequence": "1"}', "spiffe_sequence"),
        (b'{"keys": [], "spiffe_sequence": -1}', "spiffe_sequence"),
        (b'{"keys": [], "spiffe_refresh_hint": []}', "spiffe_refresh_hint"),
        (b'{"keys": [], "spiffe_sequence": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"keys": [1]}', r"keys\[0\]"),
        (b'{"keys": ' + b"[" * 100_000 + b"}", "nested too deeply"),
        (b'{"trust_domains": {}}', "map of several bundles"),
        (jwks(entry_of(memory, x5c="text")), "x5c"),
        (jwks(entry_of(memory, x5c=[1])), "x5c"),
        (jwks(entry_of(memory, x5c=["AAAA"])), "x5c"),
        (jwks(entry_of(memory, x5c=["-_-_"])), "x5c"),
        (jwks(entry_of(memory, x5c=["ä"])), "x5c"),
        (jwks(entry_of(memory, x5c=[leaf])), "no CA"),
        (b" " * (MAX_BUNDLE_BYTES + 1), "larger than"),
    ]
    for document, words in cases:
        with pytest.raises(BundleError, match=words) as caught:
            parse_jwks(TD, document, "b.json")
        assert all(fault.startswith("b.json: ") for fault in caught.value.faults)


def test_all_faults_of_a_bundle_come_at_once(memory: MemoryAuthority) -> None:
    with pytest.raises(BundleError) as caught:
        parse_jwks(TD, jwks(1, entry_of(memory), entry_of(memory, x5c="text"), spiffe_sequence="x"))
    assert len(caught.value.faults) == 3


def test_bundle_map_is_read_back(memory: MemoryAuthority) -> None:
    assert dict(parse_bundle_map(write_bundle_map(memory.bundles))) == dict(memory.bundles)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{}", "trust_domains"),
        (b'{"trust_domains": []}', "trust_domains"),
        (b'{"trust_domains": {"TD": {"keys": []}}}', "capitals"),
        (b'{"trust_domains": {"td": {}}}', "td: it has no list"),
        (b'{"trust_domains": {"td": {"keys": []}, "td": {"keys": []}}}', "'td' stands there twice"),
    ],
)
def test_bundle_map_faults(document: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        parse_bundle_map(document)


def test_a_bundle_map_is_taken_whole_or_not_at_all() -> None:
    with pytest.raises(BundleError) as caught:
        parse_bundle_map(b'{"trust_domains": {"good": {"keys": []}, "TD": {"keys": []}, "td": {}}}')
    assert len(caught.value.faults) == 2


def test_bundle_files_are_named_after_their_trust_domain(memory: MemoryAuthority, tmp_path: Path) -> None:
    (tmp_path / "other.example.json").write_bytes(b'{"keys": []}')
    (tmp_path / "neighbour.example.pem").write_bytes(memory.neighbour.bundle.to_pem())
    (tmp_path / "..data").mkdir()
    bundles = read_bundles(tmp_path)
    assert sorted(bundles) == ["neighbour.example", "other.example"]
    assert bundles[TrustDomain("neighbour.example")] == memory.neighbour.bundle


def test_no_directory_holds_no_bundles(tmp_path: Path) -> None:
    assert dict(read_bundles(tmp_path / "bundles")) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bundles/other.example.txt", "rename or remove"),
        ("bundles/other.example", "rename or remove"),
        ("bundles/Other.json", "named after its trust domain"),
        ("bundles/a b.json", "named after its trust domain"),
        ("bundles/td.pem", "second bundle"),
    ],
)
def test_faults_of_bundle_file_names(memory: MemoryAuthority, name: str, words: str) -> None:
    files = {"bundles/td.json": b'{"keys": []}', name: memory.bundle.to_pem() if "pem" in name else b'{"keys": []}'}
    with pytest.raises(BundleError, match=words) as caught:
        bundles_in(files)
    assert name in str(caught.value)
