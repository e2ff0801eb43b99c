"""Reads and writes trust bundles: which root certificates may vouch for the names of one trust domain.

A bundle belongs to exactly one trust domain, and bundles are never merged: a store that holds the roots of two
domains lets each of them mint the other's names. That is why the type below carries the name, and why nothing here
returns a plain list of certificates.

Two forms are read and written:

    PEM           roots one after the other; at least one, and every one a CA
    SPIFFE JWKS   {"spiffe_sequence": 7, "spiffe_refresh_hint": 300, "keys": [{"use": "x509-svid", "x5c": [...]}]}

The JWKS form may be empty (`"keys": []`), and that is an order, not an accident: every identity of the domain is
revoked. An empty PEM file is an accident and refused. A JWKS bundle does not say whose it is, so files are named after
their trust domain (`bundles/<trust domain>.json`), or several stand in one bundle map with the names as keys.

Source: SPIFFE Trust Domain and Bundle, section 4 and 5; X509-SVID section 6.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.der import is_whole
from certs.spiffe import SpiffeIdError, TrustDomain, parse_trust_domain
from certs.strict_json import parse_json

BUNDLE_DIRECTORY = "bundles"
"""Where the bundles of other trust domains stand, beside tls.crt, tls.key and ca.crt."""

MAX_BUNDLE_BYTES = 4 * 1024 * 1024
"""More than a thousand roots; a larger file is a mistake, and reading it would cost the memory of a sidecar."""

_X509_USE = "x509-svid"
_KEY_TYPES = ("EC", "RSA", "OKP")
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_PEM_MARK = b"-----BEGIN CERTIFICATE-----"


class BundleError(ValueError):
    """A trust bundle that cannot be taken. The message names the source, the fault and the mend.

    `faults` holds one such sentence for each fault found.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """The roots of one trust domain.

    `certificates` may be empty: then nobody of the domain is trusted. `sequence` changes with the content,
    `refresh_hint` is the publisher's advice in seconds; both are None where the source does not say.
    """

    trust_domain: TrustDomain
    certificates: tuple[x509.Certificate, ...] = field(repr=False)
    sequence: int | None = None
    refresh_hint: int | None = None

    def to_pem(self) -> bytes:
        """Writes the roots as PEM, one after the other. An empty bundle has no PEM form: BundleError."""
        if not self.certificates:
            raise BundleError([f"the bundle of {self.trust_domain} is empty, which PEM cannot say; write it as JWKS"])
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.certificates)

    def to_jwks(self) -> bytes:
        """Writes the bundle as a SPIFFE JWKS document, UTF-8, keys sorted, with a final newline."""
        return _write_json(self._jwks())

    def _jwks(self) -> dict[str, object]:
        document: dict[str, object] = {"keys": [_write_entry(certificate) for certificate in self.certificates]}
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = self.refresh_hint
        return document


def parse_pem(trust_domain: TrustDomain, data: bytes, source: str = "bundle") -> TrustBundle:
    """Reads a bundle from PEM; `source` names it in errors.

    Raises BundleError when there is no certificate, one that is no CA, one that cannot be read, or a private key.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> parse_pem(memory.trust_domain, memory.bundle.to_pem()) == memory.bundle
    True
    """
    _require_bounded(data, source)
    if b"PRIVATE KEY-----" in data:
        raise BundleError([f"{source}: it holds a private key; remove the key, and make a new one: it was shared"])
    if _PEM_MARK not in data:
        raise BundleError([f"{source}: it holds no certificate; write the root certificates of {trust_domain} as PEM"])
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except _UNREADABLE:
        certificates = []
    if len(certificates) != data.count(_PEM_MARK):
        raise BundleError([f"{source}: a certificate in it cannot be decoded; copy the whole PEM file again"])
    _require_authorities(certificates, source)
    return TrustBundle(trust_domain=trust_domain, certificates=tuple(dict.fromkeys(certificates)))


def parse_jwks(trust_domain: TrustDomain, data: bytes, source: str = "bundle") -> TrustBundle:
    """Reads a bundle from a SPIFFE JWKS document; `source` names it in errors.

    Entries for another `use` or of an unknown `kty` are passed over, and so are entries without `x5c`; of several
    certificates in one `x5c` only the first counts. Raises BundleError for duplicate keys and for whatever cannot be
    read: half a bundle is never taken.

    >>> from certs.spiffe import parse_trust_domain
    >>> parse_jwks(parse_trust_domain("cluster.local"), b'{"keys": []}').certificates
    ()
    """
    document = _read_json(data, source)
    if isinstance(document, dict) and "trust_domains" in document:
        raise BundleError([f"{source}: this is a map of several bundles; write the bundle of {trust_domain} alone"])
    return _read_bundle(trust_domain, document, source)


def parse_bundle(trust_domain: TrustDomain, data: bytes, source: str = "bundle") -> TrustBundle:
    """Reads a bundle in either form: JSON begins with a brace, anything else must be PEM. Raises BundleError."""
    return (parse_jwks if data.lstrip().startswith(b"{") else parse_pem)(trust_domain, data, source)


def parse_bundle_map(data: bytes, source: str = "bundle map") -> Mapping[TrustDomain, TrustBundle]:
    """Reads a SPIFFE bundle map, all of it or nothing; raises BundleError with every fault.

    >>> dict(parse_bundle_map(b'{"trust_domains": {}}'))
    {}
    """
    document = _read_json(data, source)
    entries = document.get("trust_domains") if isinstance(document, dict) else None
    if not isinstance(entries, dict):
        raise BundleError([f'{source}: it has no object "trust_domains"; write {{"trust_domains": {{...}}}}'])
    bundles: dict[TrustDomain, TrustBundle] = {}
    faults: list[str] = []
    for name, entry in entries.items():
        try:
            trust_domain = parse_trust_domain(name)
            bundles[trust_domain] = _read_bundle(trust_domain, entry, f"{source}: {trust_domain}")
        except SpiffeIdError as error:
            faults.append(f"{source}: {error}")
        except BundleError as error:
            faults += error.faults
    if faults:
        raise BundleError(faults)
    return MappingProxyType(bundles)


def write_bundle_map(bundles: Mapping[TrustDomain, TrustBundle]) -> bytes:
    """Writes several bundles as one SPIFFE bundle map.

    >>> write_bundle_map({})
    b'{\\n  "trust_domains": {}\\n}\\n'
    """
    return _write_json({"trust_domains": {str(name): bundle._jwks() for name, bundle in bundles.items()}})


def bundles_in(files: Mapping[str, bytes], where: str = BUNDLE_DIRECTORY) -> Mapping[TrustDomain, TrustBundle]:
    """Reads the files `<where>/<trust domain>.json` and `.pem` out of a set of files already in memory.

    Raises BundleError with every fault: a name that is no trust domain, another suffix, two files for one domain.

    >>> list(bundles_in({"bundles/other.example.json": b'{"keys": []}', "tls.crt": b""}))
    ['other.example']
    """
    bundles: dict[TrustDomain, TrustBundle] = {}
    faults: list[str] = []
    parsers: dict[str, Callable[[TrustDomain, bytes, str], TrustBundle]] = {".json": parse_jwks, ".pem": parse_pem}
    for name in sorted(files):
        path = PurePosixPath(name)
        if str(path.parent) != where:
            continue
        parse = parsers.get(path.suffix)
        if parse is None:
            faults.append(f"{name}: a bundle is named <trust domain>.json or <trust domain>.pem; rename or remove it")
            continue
        try:
            trust_domain = parse_trust_domain(path.stem)
            if trust_domain in bundles:
                faults.append(f"{name}: {trust_domain} has a second bundle beside it; keep one of the two")
            bundles[trust_domain] = parse(trust_domain, files[name], name)
        except SpiffeIdError as error:
            faults.append(f"{name}: the file must be named after its trust domain: {error}")
        except BundleError as error:
            faults += error.faults
    if faults:
        raise BundleError(faults)
    return MappingProxyType(bundles)


def read_bundles(directory: Path) -> Mapping[TrustDomain, TrustBundle]:
    """Reads `<trust domain>.json` and `<trust domain>.pem` of a directory; a directory that is not there holds none.

    Raises BundleError with every fault.
    """
    files: dict[str, bytes] = {}
    try:
        for path in directory.iterdir():
            if not path.name.startswith("..") and path.is_file():
                with path.open("rb") as file:
                    files[f"{directory}/{path.name}"] = file.read(MAX_BUNDLE_BYTES + 1)
    except FileNotFoundError:
        return MappingProxyType({})
    except OSError as error:
        raise BundleError([f"{error.filename}: it cannot be read ({error.strerror}); check its permissions"]) from None
    return bundles_in(files, where=str(PurePosixPath(directory)))


_UNREADABLE = (ValueError, x509.InvalidVersion, UnsupportedAlgorithm)


def _read_bundle(trust_domain: TrustDomain, document: object, source: str) -> TrustBundle:
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(keys, list):
        raise BundleError([f'{source}: it has no list "keys"; write {{"keys": []}} to trust nobody of {trust_domain}'])
    faults: list[str] = []
    certificates: list[x509.Certificate] = []
    for index, entry in enumerate(keys):
        try:
            certificate = _read_entry(entry, f"{source}: keys[{index}]")
        except BundleError as error:
            faults += error.faults
        else:
            if certificate is not None:
                certificates.append(certificate)
    numbers: dict[str, int | None] = {}
    for name in ("spiffe_sequence", "spiffe_refresh_hint"):
        value = document.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            faults.append(f"{source}: {name} must be a whole number, not negative")
        else:
            numbers[name] = value
    if faults:
        raise BundleError(faults)
    return TrustBundle(
        trust_domain=trust_domain,
        certificates=tuple(dict.fromkeys(certificates)),
        sequence=numbers["spiffe_sequence"],
        refresh_hint=numbers["spiffe_refresh_hint"],
    )


def _read_entry(entry: object, source: str) -> x509.Certificate | None:
    if not isinstance(entry, dict):
        raise BundleError([f"{source}: it is no object; remove it"])
    if entry.get("use") != _X509_USE or entry.get("kty") not in _KEY_TYPES:
        return None
    chain = entry.get("x5c")
    if chain is None or chain == []:
        return None
    if not isinstance(chain, list) or not isinstance(chain[0], str):
        raise BundleError([f'{source}: "x5c" must be a list of one base64 text'])
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0].encode("ascii"), validate=True))
    except (*_UNREADABLE, binascii.Error):
        raise BundleError([f'{source}: "x5c" is no certificate in base64 (the plain alphabet) of DER']) from None
    _require_authorities([certificate], source)
    return certificate


def _require_authorities(certificates: list[x509.Certificate], source: str) -> None:
    faults = []
    for number, certificate in enumerate(certificates, start=1):
        if not is_whole(certificate):
            faults.append(f"{source}: certificate {number} cannot be decoded by OpenSSL; copy the whole file again")
            continue
        try:
            is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (*_UNREADABLE, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
            is_authority = False
        if not is_authority:
            faults.append(
                f"{source}: certificate {number} is no CA (basicConstraints CA:TRUE is missing); "
                "a bundle holds root certificates, never a workload's"
            )
    if faults:
        raise BundleError(faults)


def _write_entry(certificate: x509.Certificate) -> dict[str, object]:
    der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")
    return {"use": _X509_USE, **_key_members(certificate), "x5c": [der]}


def _key_members(certificate: x509.Certificate) -> dict[str, object]:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        point, size = key.public_numbers(), (key.curve.key_size + 7) // 8
        curve = _CURVE_NAMES.get(key.curve.name, key.curve.name)
        return {"kty": "EC", "crv": curve, "x": _base64url(point.x, size), "y": _base64url(point.y, size)}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {
            "kty": "RSA",
            "n": _base64url(numbers.n, (numbers.n.bit_length() + 7) // 8),
            "e": _base64url(numbers.e, (numbers.e.bit_length() + 7) // 8),
        }
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(int.from_bytes(raw, "big"), len(raw))}
    raise BundleError(["a root has a key of a kind that JWKS cannot name; use P-256, P-384, RSA or Ed25519"])


def _base64url(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode("ascii")


def _write_json(document: dict[str, object]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _read_json(data: bytes, source: str) -> object:
    _require_bounded(data, source)
    try:
        return parse_json(data)
    except ValueError as error:
        raise BundleError([f"{source}: it is no JSON ({error}); write it again"]) from None


def _require_bounded(data: bytes, source: str) -> None:
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError([f"{source}: it is larger than {MAX_BUNDLE_BYTES} bytes; keep the roots that are in use"])
