"""Identities that come in one piece: credential bundles and what commands print, taken apart or refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from certs.keys import write_key
from certs.testing import MemoryAuthority, set_files
from proxy.errors import ConfigError
from proxy.identity.credential import (
    MAX_CREDENTIAL_BYTES,
    CredentialError,
    read_printed,
    split_credential_bundle,
)
from proxy.identity.delivered import CredentialBundleSource


@functools.cache
def memory() -> MemoryAuthority:
    return MemoryAuthority("cluster.local")


def key() -> bytes:
    return memory().svid("demo", "orders").key_pem()


@functools.cache
def chain() -> bytes:
    return memory().svid("demo", "orders").chain_pem()


def roots() -> bytes:
    return memory().bundle.to_pem()


# --- a credential bundle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["key first", "key last", "key between"])
def test_key_and_chain_are_taken_apart_wherever_they_stand(order: str) -> None:
    leaf, end, rest = chain().partition(b"-----END CERTIFICATE-----\n")
    data = {"key first": key() + chain(), "key last": chain() + key(), "key between": leaf + end + key() + rest}[order]
    assert split_credential_bundle(data) == {"tls.key": key(), "tls.crt": chain()}


def test_comments_and_other_line_ends_are_no_matter() -> None:
    data = b"# for orders\r\n" + (key() + b"\n\nsubject: none\n" + chain()).replace(b"\n", b"\r\n")
    files = split_credential_bundle(data)
    assert files["tls.key"].replace(b"\r\n", b"\n") == key()
    assert files["tls.crt"].count(b"BEGIN CERTIFICATE") == 2


BAD_BUNDLES = {
    "empty": (lambda: b"", "no certificate"),
    "no key": (chain, "no private key"),
    "two keys": (lambda: key() + key() + chain(), "2 private keys"),
    "no chain": (key, "no certificate"),
    "cut in the chain": (lambda: key() + chain()[:-10], "does not end"),
    "cut in the key": (lambda: key()[:-10] + chain(), "does not end"),
    "too large": (lambda: b" " * (MAX_CREDENTIAL_BYTES + 1), "larger than"),
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_half_a_credential_bundle_is_none(case: str) -> None:
    make, words = BAD_BUNDLES[case]
    with pytest.raises(CredentialError, match=words) as caught:
        split_credential_bundle(make())
    assert key().splitlines()[1].decode() not in str(caught.value)


# --- what a command prints -------------------------------------------------------------------------------------------


def test_printed_pem_is_told_apart() -> None:
    assert read_printed(roots() + key() + chain()) == {"tls.key": key(), "tls.crt": chain(), "ca.crt": roots()}
    assert set(read_printed(key() + chain())) == {"tls.key", "tls.crt"}


def test_printed_json_has_the_names_of_the_files() -> None:
    neighbour = memory().neighbour
    printed = {
        "tls.crt": chain().decode(),
        "tls.key": key().decode(),
        "ca.crt": roots().decode(),
        "bundles": {
            "neighbour.example": json.loads(neighbour.bundle.to_jwks()),
            "third.example": memory().stranger.bundle.to_pem().decode(),
        },
    }
    files = read_printed(json.dumps(printed).encode())
    assert {name: files[name] for name in ("tls.crt", "tls.key", "ca.crt")} == {
        "tls.crt": chain(),
        "tls.key": key(),
        "ca.crt": roots(),
    }
    assert json.loads(files["bundles/neighbour.example.json"]) == json.loads(neighbour.bundle.to_jwks())
    assert files["bundles/third.example.pem"] == memory().stranger.bundle.to_pem()


BAD_PRINTS = {
    "nothing": (b"", "no private key"),
    "a list": (b"[]", "no JSON object"),
    "cut": (b'{"tls.crt": "', "begins like JSON"),
    "twice": (b'{"tls.crt": "a", "tls.crt": "b"}', "each member once"),
    "not UTF-8": (b'{"tls.crt": "\xff"}', "begins like JSON"),
    "deep": (b"[" * 100_000, "begins like JSON"),
    "unknown": (b'{"certificate": "a"}', "means nothing"),
    "a number": (b'{"tls.crt": 5}', "is no text"),
    "bundles as a list": (b'{"bundles": []}', "no object"),
    "a bundle of nobody": (b'{"bundles": {"A b": {}}}', "bundles"),
    "a bundle outside": (b'{"bundles": {"../../etc": {}}}', "bundles"),
    "a bundle as a number": (b'{"bundles": {"a.example": 5}}', "is no text"),
    "no certificate in it": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be decoded"),
}


@pytest.mark.parametrize("case", BAD_PRINTS)
def test_what_is_no_identity_is_refused(case: str) -> None:
    data, words = BAD_PRINTS[case]
    with pytest.raises(CredentialError, match=words):
        read_printed(data)


def test_no_refusal_shows_the_key() -> None:
    secret = write_key(memory().key("secret")).decode()
    for data in (json.dumps({"tls.key": secret, "x": 1}), json.dumps({"tls.key": [secret]}), '{"tls.key": "' + secret):
        with pytest.raises(CredentialError) as caught:
            read_printed(data.encode())
        assert secret.splitlines()[1] not in str(caught.value)
        assert caught.value.__cause__ is None


# --- the files of identity.credential_bundle -------------------------------------------------------------------------


def delivered(directory: Path) -> CredentialBundleSource:
    (directory / "credentialbundle.pem").write_bytes(key() + chain())
    (directory / "trust-bundle.pem").write_bytes(roots())
    return CredentialBundleSource(
        file=directory / "credentialbundle.pem",
        bundle_file=directory / "trust-bundle.pem",
        bundles=directory / "others",
    )


def test_the_files_of_a_pod_certificate_become_a_set(tmp_path: Path) -> None:
    source = delivered(tmp_path)
    (tmp_path / "others").mkdir()
    neighbour = memory().neighbour
    (tmp_path / "others" / f"{neighbour.trust_domain}.pem").write_bytes(neighbour.bundle.to_pem())
    assert source.read() == {
        **set_files(memory().svid("demo", "orders"), {memory().trust_domain: memory().bundle}),
        "tls.crt": chain(),
        f"bundles/{neighbour.trust_domain}.pem": neighbour.bundle.to_pem(),
    }


def test_every_file_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    source = delivered(tmp_path)
    source.file.unlink()
    source.bundle_file.unlink()
    with pytest.raises(ConfigError) as caught:
        source.read()
    assert [fault.file for fault in caught.value.faults] == [
        str(source.file),
        str(source.bundle_file),
        str(source.bundles),
    ]


def test_faults_of_the_set_are_placed_at_the_file_that_they_are_about(tmp_path: Path) -> None:
    source = delivered(tmp_path)
    assert source.place("tls.key: it does not fit").file == str(source.file)
    assert source.place("ca.crt: it is empty").file == str(source.bundle_file)
    assert source.place("bundles/a.example.pem: it is empty").file == str(source.bundles)
