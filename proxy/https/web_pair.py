"""Judges a certificate of the ordinary web for a listener, with its key: whole or not at all.

It is no SVID: callers know the listener by the host of its URL (of a federation endpoint: SPIFFE Federation section
5.2.1), so what counts is what their TLS libraries look at. Dates are told apart (`WebPair.date_fault`), since a pair
that has ended is still the best there is until another one comes. Pure: bytes and the clock are arguments.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.keys import KeyFileError, PrivateKey, PublicKey, public_key_bytes, read_key
from certs.store import read_chain
from proxy.errors import ConfigError, Fault

_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPair:
    """A chain, leaf first, and the key of its leaf. `names` are its hosts, between the dates all of it is valid."""

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKey = field(repr=False)
    names: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime

    def date_fault(self, now: datetime.datetime) -> str | None:
        """Say why callers would refuse the chain at `now` (aware of its zone); None when they would not."""
        if now > self.not_after:
            return f"it ended at {self.not_after:%Y-%m-%d %H:%M:%S} UTC"
        if now < self.not_before:
            return f"it is not valid before {self.not_before:%Y-%m-%d %H:%M:%S} UTC"
        return None


def judge_pair(certificate: bytes, key: bytes, certificate_file: str, key_file: str) -> WebPair:
    """Judge the content of two PEM files, which are named in faults. Raises ConfigError with every fault.

    >>> from certs.memory import MemoryAuthority, Shape
    >>> web = MemoryAuthority("web.example").shaped(Shape(dns_names=(b"bundles.example",)))
    >>> judge_pair(web.chain_pem(), web.key_pem(), "tls.crt", "tls.key").names
    ('bundles.example',)
    >>> judge_pair(web.chain_pem(), b"", "tls.crt", "tls.key")
    Traceback (most recent call last):
    proxy.errors.ConfigError: tls.key: it holds no PEM; write the private key as PKCS#8 PEM
    """
    faults: list[Fault] = []
    chain: tuple[x509.Certificate, ...] = ()
    names: tuple[str, ...] = ()
    private: PrivateKey | None = None
    try:
        chain = read_chain(certificate)
    except ValueError as error:
        faults.append(Fault(file=certificate_file, message=str(error)))
    try:
        private = read_key(key)
    except KeyFileError as error:
        faults.append(Fault(file=key_file, message=str(error)))
    if chain:
        names = _names(chain[0])
        faults += [Fault(file=certificate_file, message=words) for words in _chain_faults(chain, names)]
    if chain and private is not None and not _fits(chain[0], private):
        message = f"it is not the key of the first certificate in {certificate_file}; put the pair there"
        faults.append(Fault(file=key_file, message=message))
    if faults or private is None:
        raise ConfigError(faults)
    return WebPair(
        chain=chain,
        key=private,
        names=names,
        not_before=max(one.not_valid_before_utc for one in chain),
        not_after=min(one.not_valid_after_utc for one in chain),
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    return (*hosts, *(str(address) for address in names.get_values_for_type(x509.IPAddress)))


def _chain_faults(chain: Sequence[x509.Certificate], names: tuple[str, ...]) -> list[str]:
    faults: list[str] = []
    if not names:
        faults.append(
            "it names no host: callers compare the host of the URL with its subjectAltName alone (RFC 9525); issue one "
            "with the DNS name that other trust domains are told"
        )
    try:
        usages = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        usages = None
    if usages is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & {
        *usages
    }:
        faults.append("its extended key usage lacks serverAuth, so no server may show it; issue one for servers")
    for number, (one, issuer) in enumerate(itertools.pairwise(chain), start=1):
        try:
            one.verify_directly_issued_by(issuer)
        except (InvalidSignature, TypeError, *_UNREADABLE):
            faults.append(
                f"certificate {number + 1} did not issue certificate {number}; write the leaf first, then each issuer"
            )
    return faults


def _fits(leaf: x509.Certificate, key: PrivateKey) -> bool:
    try:
        certified = leaf.public_key()
    except _UNREADABLE:
        return False
    return isinstance(certified, PublicKey) and public_key_bytes(certified) == public_key_bytes(key.public_key())
