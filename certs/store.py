"""Judges a workload's own files as a whole, before anything of them is used.

A sidecar lives from three files, and each can be fine while the set is broken: a key of yesterday beside a
certificate of today, a chain whose root is not the one that everybody else holds. A set that is only half right makes
a sidecar that refuses all of its peers. So the set is taken whole or not at all, and who replaced it learns every
fault at once, each with its mend; what was in use before stays in use.

    tls.crt   the chain, leaf first, then the intermediates          tls.key   the leaf's private key
    ca.crt    the roots of our own trust domain                      bundles/  those of others, one file each

`judge_set` is pure: the files are bytes in memory and the clock is an argument. `publish` and `read_files` (from
certs.files) put a set on disk and take it from there in one piece.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import crypto

from certs.bundle import BundleError, TrustBundle, bundles_in, parse_pem
from certs.der import is_whole
from certs.files import StoreError, digest, key_file_warnings, publish, read_files
from certs.keys import KeyFileError, PrivateKey, PublicKey, public_key_bytes, read_key
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import SvidError, leaf_violations, signing_violations, spiffe_id_of

__all__ = [
    "CERTIFICATE_FILE",
    "KEY_FILE",
    "ROOTS_FILE",
    "IdentitySet",
    "SetError",
    "StoreError",
    "chain_fault",
    "digest",
    "judge_set",
    "key_file_warnings",
    "publish",
    "read_chain",
    "read_files",
]

CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE = "tls.crt", "tls.key", "ca.crt"

_PEM_MARK = b"-----BEGIN CERTIFICATE-----"

# Codes of OpenSSL's path validation (x509_vfy.h).
_SIGNATURE_WRONG = 7
_NOT_YET_VALID, _EXPIRED = 9, 10
_NO_ISSUER = (2, 18, 19, 20, 21)
_NAME_CONSTRAINT = (47, 48, 51)


class SetError(ValueError):
    """A set of files that cannot be taken. `faults` holds a sentence for each thing that is wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySet:
    """A workload's identity and whom it trusts, judged and ready to use.

    `chain` is leaf first, without the root. `bundles` holds our own trust domain's roots and those of every other
    domain that is trusted. `not_after` is the first end of validity in the chain, in seconds since the epoch;
    `serial` is the leaf's, in hexadecimal; `source_digest` names the content of the files.
    """

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKey = field(repr=False)
    bundles: Mapping[TrustDomain, TrustBundle]
    not_after: float
    serial: str
    source_digest: str


def judge_set(
    files: Mapping[str, bytes],
    trust_domain: TrustDomain,
    now: datetime.datetime,
    expected: SpiffeId | None = None,
) -> IdentitySet:
    """Judges tls.crt, tls.key, ca.crt and bundles/ together and returns the identity that they make.

    The key must fit the leaf; the leaf must keep every rule of X509-SVID and name a workload of `trust_domain`
    (`expected`, if given); the chain must lead to a root in ca.crt and be valid at `now` (aware of its time zone).
    Raises SetError with all faults at once.

    >>> from certs.testing import MemoryAuthority, set_files
    >>> memory = MemoryAuthority("cluster.local")
    >>> files = set_files(memory.svid("demo", "orders"), memory.bundles)
    >>> str(judge_set(files, memory.trust_domain, memory.now).spiffe_id)
    'spiffe://cluster.local/ns/demo/sa/orders'
    >>> judge_set({**files, "ca.crt": b""}, memory.trust_domain, memory.now)
    Traceback (most recent call last):
    certs.store.SetError: ca.crt: it holds no certificate; write the root certificates of cluster.local as PEM
    """
    faults: list[str] = []
    chain = _chain(files, faults)
    key = _key(files, faults)
    bundles = _bundles(files, trust_domain, faults)
    spiffe_id = _judge_leaf(chain[0], trust_domain, expected, faults) if chain else None
    if chain and key is not None:
        _judge_pair(chain[0], key, faults)
    _judge_signers_and_times(chain, trust_domain, now, faults)
    own = bundles.get(trust_domain)
    if chain and own is not None:
        # A rule that was named above would be told again by strict validation, in OpenSSL's words.
        fault = chain_fault(chain, own, now, strict=not faults)
        if fault is not None:
            faults.append(f"{CERTIFICATE_FILE}: {fault}")
    if faults or spiffe_id is None or key is None:
        raise SetError(faults)
    return IdentitySet(
        spiffe_id=spiffe_id,
        chain=chain,
        key=key,
        bundles=bundles,
        not_after=min(certificate.not_valid_after_utc for certificate in chain).timestamp(),
        serial=f"{chain[0].serial_number:x}",
        source_digest=digest(files),
    )


def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """Reads all certificates of a PEM file, in their order; raises ValueError with a sentence for a person.

    One certificate that cannot be decoded spoils the file: a chain with a hole is none.
    """
    if _PEM_MARK not in pem:
        raise ValueError("it holds no certificate; write the chain as PEM, leaf first")
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        chain = ()
    if len(chain) != pem.count(_PEM_MARK) or not all(is_whole(certificate) for certificate in chain):
        raise ValueError("a certificate in it cannot be decoded; copy the whole PEM file again")
    return chain


def chain_fault(
    chain: tuple[x509.Certificate, ...], bundle: TrustBundle, now: datetime.datetime, *, strict: bool = True
) -> str | None:
    """Says why a chain does not lead to a root of `bundle`, None when it does (RFC 5280 section 6).

    OpenSSL judges, as it will for the peers: signatures, path lengths, name constraints, critical extensions and,
    with `strict`, the form of each certificate. Ends of validity within the chain itself are not told here.
    """
    store = crypto.X509Store()
    for root in bundle.certificates:
        store.add_cert(crypto.X509.from_cryptography(root))
    if strict:
        store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    store.set_time(now)
    leaf, *others = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        verified = crypto.X509StoreContext(store, leaf, others).get_verified_chain()
    except crypto.X509StoreContextError as error:
        code, depth, words = error.errors
        if code in (_EXPIRED, _NOT_YET_VALID):
            culprit = error.certificate.to_cryptography()
            place = f"the root of {bundle.trust_domain} that it leads to"
            return None if culprit in chain else _time_fault(place, culprit, now)
        return _chain_words(int(code), int(depth), str(words), bundle.trust_domain)
    root = verified[-1].to_cryptography()
    for finding in signing_violations(root, bundle.trust_domain):
        return f"the root that it leads to cannot be used: {finding}"
    return None


def _chain(files: Mapping[str, bytes], faults: list[str]) -> tuple[x509.Certificate, ...]:
    if CERTIFICATE_FILE not in files:
        faults.append(f"{CERTIFICATE_FILE}: it is missing; put the certificate chain there, leaf first")
        return ()
    try:
        return read_chain(files[CERTIFICATE_FILE])
    except ValueError as error:
        faults.append(f"{CERTIFICATE_FILE}: {error}")
        return ()


def _key(files: Mapping[str, bytes], faults: list[str]) -> PrivateKey | None:
    if KEY_FILE not in files:
        faults.append(f"{KEY_FILE}: it is missing; put the private key of {CERTIFICATE_FILE} there")
        return None
    try:
        return read_key(files[KEY_FILE])
    except KeyFileError as error:
        faults.append(f"{KEY_FILE}: {error}")
        return None


def _bundles(
    files: Mapping[str, bytes], trust_domain: TrustDomain, faults: list[str]
) -> Mapping[TrustDomain, TrustBundle]:
    bundles: dict[TrustDomain, TrustBundle] = {}
    try:
        bundles.update(bundles_in(files))
    except BundleError as error:
        faults += error.faults
    if bundles.pop(trust_domain, None) is not None:
        faults.append(f"bundles/: {trust_domain} is our own trust domain; its roots stand in {ROOTS_FILE} alone")
    if ROOTS_FILE not in files:
        faults.append(f"{ROOTS_FILE}: it is missing; put the root certificates of {trust_domain} there")
        return MappingProxyType(bundles)
    try:
        bundles[trust_domain] = parse_pem(trust_domain, files[ROOTS_FILE], ROOTS_FILE)
    except BundleError as error:
        faults += error.faults
    return MappingProxyType(bundles)


def _judge_leaf(
    leaf: x509.Certificate, trust_domain: TrustDomain, expected: SpiffeId | None, faults: list[str]
) -> SpiffeId | None:
    faults += [f"{CERTIFICATE_FILE}: {finding}" for finding in leaf_violations(leaf)]
    try:
        spiffe_id = spiffe_id_of(leaf)
    except SvidError:
        return None
    if spiffe_id.trust_domain != trust_domain:
        faults.append(
            f"{CERTIFICATE_FILE}: {spiffe_id} is not of our trust domain {trust_domain}; "
            "issue it there, or mend trust_domain in the configuration"
        )
    elif expected is not None and spiffe_id != expected:
        faults.append(
            f"{CERTIFICATE_FILE}: it names {spiffe_id}, and this workload is {expected}; "
            "mount the workload's own identity, or mend namespace and service account in the configuration"
        )
    return spiffe_id


def _judge_pair(leaf: x509.Certificate, key: PrivateKey, faults: list[str]) -> None:
    try:
        certified = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return  # told already, as a fault of the leaf
    if not isinstance(certified, PublicKey) or public_key_bytes(certified) != public_key_bytes(key.public_key()):
        faults.append(f"{KEY_FILE}: it does not fit the first certificate of {CERTIFICATE_FILE}; put the pair there")


def _judge_signers_and_times(
    chain: tuple[x509.Certificate, ...], trust_domain: TrustDomain, now: datetime.datetime, faults: list[str]
) -> None:
    for number, certificate in enumerate(chain, start=1):
        place = f"{CERTIFICATE_FILE}: certificate {number}"
        if number > 1:
            faults += [f"{place}: {finding}" for finding in signing_violations(certificate, trust_domain)]
        fault = _time_fault(place, certificate, now)
        if fault is not None:
            faults.append(fault)


def _time_fault(place: str, certificate: x509.Certificate, now: datetime.datetime) -> str | None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        return f"{place} expired at {end:%Y-%m-%d %H:%M:%S} UTC; issue a new one, and see why it was not renewed"
    if now < begin:
        return f"{place} is not valid before {begin:%Y-%m-%d %H:%M:%S} UTC; check this machine's clock and the issuer's"
    return None


def _chain_words(code: int, depth: int, words: str, trust_domain: TrustDomain) -> str:
    if code in _NO_ISSUER:
        return (
            f"no root of {trust_domain} vouches for certificate {depth + 1} of the chain; put the missing intermediate "
            f"into the chain, or the root that issued it into the bundle ({ROOTS_FILE})"
        )
    if code == _SIGNATURE_WRONG:
        return f"the signature of certificate {depth + 1} is wrong: its issuer did not sign it; issue it again"
    if code in _NAME_CONSTRAINT:
        return f"certificate {depth + 1} has a name that its issuer may not give ({words}); ask the right authority"
    return f"the chain does not verify at certificate {depth + 1} ({words}); issue it again"
