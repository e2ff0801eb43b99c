"""Takes an identity that came in one piece apart into the files that a set is judged by.

Three shapes come in, one goes out (tls.crt, tls.key, ca.crt, bundles/<trust domain>.json or .pem):

    credential bundle   one PEM file: the key first, then the chain, leaf first, as the kubelet writes pod
                        certificates. Roots come from another file, a projected ClusterTrustBundle
    printed PEM         what a command prints: a key, the chain, and roots, told by being issued to themselves
    printed JSON        what a command prints: {"tls.crt": PEM, "tls.key": PEM, "ca.crt": PEM, "bundles": {name: ...}}

Only the form is looked at here. Whether key, chain and roots fit is for `certs.store.judge_set`, which says every
fault at once. Errors never quote what they were given: it holds a private key. Everything is pure.
"""

from __future__ import annotations

import json
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certs.bundle import BUNDLE_DIRECTORY
from certs.spiffe import SpiffeIdError, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE
from certs.strict_json import parse_json

MAX_CREDENTIAL_BYTES: Final = 4 * 1024 * 1024
"""A key and a chain have kilobytes, and bundles of other domains some hundred; more is a mistake."""

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----(?:[^-]|-(?!----))*-----END \1-----[^\S\n]*\n?")
_BEGIN: Final = b"-----BEGIN "
_CERTIFICATE: Final = b"CERTIFICATE"
_MEMBERS: Final = (CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, BUNDLE_DIRECTORY)


class CredentialError(ValueError):
    """What cannot be taken apart; the message says why and what to write instead, and holds nothing of it."""


def split_credential_bundle(data: bytes) -> dict[str, bytes]:
    """Takes a credential bundle apart into tls.key and tls.crt. Raises CredentialError.

    >>> from certs.testing import MemoryAuthority
    >>> svid = MemoryAuthority("cluster.local").svid("demo", "orders")
    >>> split_credential_bundle(svid.key_pem() + svid.chain_pem()) == {
    ...     "tls.key": svid.key_pem(), "tls.crt": svid.chain_pem()
    ... }
    True
    """
    keys, certificates = _blocks(data)
    if not certificates:
        raise CredentialError("it holds no certificate; a credential bundle is the key and then the chain, as PEM")
    return {KEY_FILE: _only_key(keys), CERTIFICATE_FILE: b"".join(certificates)}


def read_printed(data: bytes) -> dict[str, bytes]:
    """Takes apart what a command printed, JSON or PEM. Raises CredentialError.

    >>> sorted(read_printed(b'{"tls.crt": "a", "tls.key": "b", "bundles": {"other.example": {"keys": []}}}'))
    ['bundles/other.example.json', 'tls.crt', 'tls.key']
    """
    _require_bounded(data)
    return _read_json(data) if data.lstrip()[:1] in (b"{", b"[") else _read_pem(data)


def _read_pem(data: bytes) -> dict[str, bytes]:
    keys, certificates = _blocks(data)
    chain: list[bytes] = []
    roots: list[bytes] = []
    for number, block in enumerate(certificates, start=1):
        try:
            certificate = x509.load_pem_x509_certificate(block)
            is_root = certificate.subject == certificate.issuer and bool(list(certificate.subject))
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
            raise CredentialError(f"certificate {number} in it cannot be decoded; print the whole PEM") from None
        (roots if is_root else chain).append(block)
    files = {KEY_FILE: _only_key(keys)}
    if chain:
        files[CERTIFICATE_FILE] = b"".join(chain)
    if roots:
        files[ROOTS_FILE] = b"".join(roots)
    return files


def _read_json(data: bytes) -> dict[str, bytes]:
    try:
        document = parse_json(data)
    except ValueError:
        raise CredentialError("it begins like JSON and is none; print one object, UTF-8, each member once") from None
    if not isinstance(document, dict):
        raise CredentialError('it is no JSON object; print {"tls.crt": ..., "tls.key": ..., "ca.crt": ...}')
    for member in document:
        if member not in _MEMBERS:
            raise CredentialError(f"the member {member[:64]!r} means nothing; known are {', '.join(_MEMBERS)}")
    files: dict[str, bytes] = {}
    for name in (CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE):
        if name in document:
            files[name] = _text(document[name], name)
    bundles = document.get(BUNDLE_DIRECTORY, {})
    if not isinstance(bundles, dict):
        raise CredentialError('"bundles" is no object; print {"<trust domain>": <SPIFFE JWKS or PEM text>}')
    for name, bundle in bundles.items():
        try:
            domain = parse_trust_domain(name)
        except SpiffeIdError as error:
            raise CredentialError(f'"bundles": {error}') from None
        if isinstance(bundle, dict):
            files[f"{BUNDLE_DIRECTORY}/{domain}.json"] = json.dumps(bundle, sort_keys=True).encode("utf-8")
        else:
            files[f"{BUNDLE_DIRECTORY}/{domain}.pem"] = _text(bundle, f"bundles: {domain}")
    return files


def _text(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise CredentialError(f'"{name}" is no text; print PEM with its line ends as \\n')
    return value.encode("utf-8", "surrogatepass")


def _blocks(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The private keys and the certificates, each in its order."""
    _require_bounded(data)
    keys: list[bytes] = []
    certificates: list[bytes] = []
    found = 0
    for match in _BLOCK.finditer(data):
        found += 1
        block = match.group().rstrip() + b"\n"
        if match[1] == _CERTIFICATE:
            certificates.append(block)
        elif match[1].endswith(b"PRIVATE KEY"):
            keys.append(block)
    if found != data.count(_BEGIN):
        raise CredentialError("a PEM block in it does not end; write the whole file at once and rename it into place")
    return keys, certificates


def _only_key(keys: list[bytes]) -> bytes:
    if len(keys) == 1:
        return keys[0]
    if not keys:
        raise CredentialError("it holds no private key; write the key of the chain as PEM, not encrypted")
    raise CredentialError(f"it holds {len(keys)} private keys; write the one of the chain alone")


def _require_bounded(data: bytes) -> None:
    if len(data) > MAX_CREDENTIAL_BYTES:
        raise CredentialError(f"it is larger than {MAX_CREDENTIAL_BYTES} bytes; nothing of an identity is")
