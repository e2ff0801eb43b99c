"""Turns a signer into what a store keeps of it, and back: its certificate as PEM, its key sealed."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certs.keys import PrivateKey, PublicKey, public_key_bytes
from certs.sealed import KeySource, SealError
from certs.signers import signer_name
from certs.state_store import StateError

RESTORE: Final = "restore it from a copy"
RESTORE_KEY: Final = "restore it from a copy, or import a new intermediate"


def parse_signer(data: bytes, name: str, source: str) -> x509.Certificate:
    """Reads the certificate of a signer that was stored as PEM; raises StateError naming `source`.

    >>> from certs.testing import MemoryAuthority
    >>> from cryptography.hazmat.primitives.serialization import Encoding
    >>> root = MemoryAuthority("cluster.local").root
    >>> parse_signer(root.public_bytes(Encoding.PEM), signer_name(root), "root.crt") == root
    True
    >>> parse_signer(b"", signer_name(root), "root.crt")
    Traceback (most recent call last):
    certs.state_store.StateError: root.crt: it holds no readable certificate; restore it from a copy
    """
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise StateError(f"{source}: it holds no readable certificate; {RESTORE}") from None
    if signer_name(certificate) != name:
        raise StateError(f"{source}: it holds another certificate than its name says; {RESTORE}")
    return certificate


def seal_key(source: KeySource, key: PrivateKey, certificate: x509.Certificate) -> bytes:
    """Seals the key of a signer; raises StateError when it is not the certificate's, or cannot be sealed."""
    name = signer_name(certificate)[:12]
    if not _fits(key, certificate):
        raise StateError(f"the key does not belong to the certificate {name}; bring the two that belong together")
    try:
        return source.seal(key)
    except SealError as error:
        raise StateError(f"the key of {name} cannot be sealed: {error}") from None


def unseal_key(source: KeySource, sealed: bytes, certificate: x509.Certificate, where: str) -> PrivateKey:
    """Unseals the key of a signer; raises StateError naming `where` when it does not open, or is another's."""
    try:
        key = source.unseal(sealed)
    except SealError as error:
        raise StateError(f"{where}: {error}") from None
    if not _fits(key, certificate):
        raise StateError(f"{where}: the key does not belong to the certificate; restore both from one copy")
    return key


def _fits(key: PrivateKey, certificate: x509.Certificate) -> bool:
    certified = certificate.public_key()
    return isinstance(certified, PublicKey) and public_key_bytes(certified) == public_key_bytes(key.public_key())
