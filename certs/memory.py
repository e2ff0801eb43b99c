"""An authority that lives in memory and shapes any certificate, right or wrong, for tests.

`certs.authority` cannot make a broken certificate, and should not be able to. This one can: a `Shape` says what a
certificate looks like, its default is a correct leaf, and every field may be changed. Names are raw bytes, because
the interesting ones are those that no builder accepts.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from certs.authority import Authority, Svid
from certs.bundle import BUNDLE_DIRECTORY, BundleError, TrustBundle
from certs.files import publish
from certs.keys import PrivateKey, generate_key, signing_hash
from certs.profile import BACK_DATE, both_ends_of_tls, key_usage, with_key_identifiers
from certs.spiffe import SpiffeId, TrustDomain, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE

_Made = TypeVar("_Made")

_URI, _DNS = 0x86, 0x82


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one certificate looks like; the default is a correct leaf, but for its name.

    `uris` and `dns_names` are raw bytes. None for `key_usage`, `extended_key_usage` or `ca` leaves the extension out.
    `key` is the name of a key of the authority (see `MemoryAuthority.key`). `issuer` and `issuer_key` default to the
    intermediate; `chain` is what is sent after the leaf, by default the intermediate.
    """

    uris: tuple[bytes, ...] = ()
    dns_names: tuple[bytes, ...] = ()
    san_critical: bool = True
    subject: x509.Name = dataclasses.field(default_factory=lambda: x509.Name([]))
    ca: bool | None = False
    path_length: int | None = None
    key_usage: x509.KeyUsage | None = dataclasses.field(default_factory=lambda: key_usage(digital_signature=True))
    key_usage_critical: bool = True
    extended_key_usage: x509.ExtendedKeyUsage | None = dataclasses.field(default_factory=both_ends_of_tls)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    lifetime: datetime.timedelta = datetime.timedelta(hours=24)
    key: str = "leaf"
    issuer: x509.Certificate | None = None
    issuer_key: PrivateKey | None = dataclasses.field(default=None, repr=False)
    chain: tuple[x509.Certificate, ...] | None = None


class MemoryAuthority:
    """A root and an intermediate of one trust domain, in memory, with a neighbour whom a verifier trusts as well.

    `now` is the moment around which everything is valid; it is the present unless given, so that what is made here
    works in real handshakes. Keys are made once and kept by name.

    >>> memory = MemoryAuthority("cluster.local")
    >>> str(memory.svid("demo", "orders").spiffe_id)
    'spiffe://cluster.local/ns/demo/sa/orders'
    >>> sorted(memory.bundles)
    ['cluster.local', 'neighbour.example']
    """

    NEIGHBOUR = "neighbour.example"
    STRANGER = "stranger.example"

    def __init__(self, trust_domain: str = "cluster.local", now: datetime.datetime | None = None) -> None:
        self.trust_domain: TrustDomain = parse_trust_domain(trust_domain)
        self.now = (now or datetime.datetime.now(datetime.UTC)).replace(microsecond=0)
        self.authority = Authority.create(self.trust_domain, self.now)
        self._kept: dict[str, object] = {}

    @property
    def root(self) -> x509.Certificate:
        return self.authority.root

    @property
    def root_key(self) -> PrivateKey:
        if self.authority.root_key is None:
            raise ValueError("an authority in memory keeps its root key")
        return self.authority.root_key

    @property
    def intermediate(self) -> x509.Certificate:
        return self.authority.intermediate

    @property
    def intermediate_key(self) -> PrivateKey:
        return self.authority.intermediate_key

    @property
    def bundle(self) -> TrustBundle:
        """Our own roots, as they are read from ca.crt: without a sequence number."""
        return TrustBundle(trust_domain=self.trust_domain, certificates=(self.root,))

    @property
    def bundles(self) -> Mapping[TrustDomain, TrustBundle]:
        """What a verifier of the tests trusts: us for our trust domain, the neighbour for its own."""
        return {self.trust_domain: self.bundle, self.neighbour.trust_domain: self.neighbour.bundle}

    @property
    def neighbour(self) -> MemoryAuthority:
        """The authority of another trust domain, federated with ours: its bundle is in `bundles`."""
        return self._keep("neighbour", lambda: MemoryAuthority(self.NEIGHBOUR, self.now))

    @property
    def stranger(self) -> MemoryAuthority:
        """The authority of a trust domain that nobody here knows."""
        return self._keep("stranger", lambda: MemoryAuthority(self.STRANGER, self.now))

    @property
    def impostor(self) -> MemoryAuthority:
        """An authority of the same name and trust domain as ours, with keys of its own."""
        return self._keep("impostor", lambda: MemoryAuthority(self.trust_domain, self.now))

    def key(self, name: str = "leaf") -> PrivateKey:
        """Returns the key of this name, made at first use: RSA of n bits for `rsa-<n>`, else P-256."""
        return self._keep(f"key {name}", lambda: _make_key(name))

    def svid(self, namespace: str, service_account: str, **overrides: object) -> Svid:
        """Issues the identity of a ServiceAccount; `overrides` are fields of `Shape`."""
        spiffe_id = SpiffeId.for_service_account(self.trust_domain, namespace, service_account)
        shape = Shape(uris=(str(spiffe_id).encode("ascii"),), key=f"{namespace}/{service_account}")
        return self.shaped(dataclasses.replace(shape, **overrides))  # type: ignore[arg-type]

    def shaped(self, shape: Shape) -> Svid:
        """Signs a certificate of exactly this shape."""
        key = self.key(shape.key)
        issuer, issuer_key = shape.issuer or self.intermediate, shape.issuer_key or self.intermediate_key
        chain = (issuer,) if shape.chain is None else shape.chain
        not_before = shape.not_before or self.now - BACK_DATE
        builder = (
            x509.CertificateBuilder()
            .subject_name(shape.subject)
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(shape.not_after or self.now + shape.lifetime)
        )
        for extension, critical in _extensions(shape):
            builder = builder.add_extension(extension, critical=critical)
        leaf = with_key_identifiers(builder, key.public_key(), issuer).sign(issuer_key, signing_hash(issuer_key))
        return Svid(chain=(leaf, *chain), key=key)

    def _keep(self, name: str, make: Callable[[], _Made]) -> _Made:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]  # type: ignore[return-value]


def set_files(svid: Svid, bundles: Mapping[TrustDomain, TrustBundle]) -> dict[str, bytes]:
    """Lays out an identity as the files of a workload.

    The bundle of the domain that issued it becomes ca.crt (the leaf's domain, or the first bundle when it names
    none); the others go to bundles/.
    """
    try:
        own = svid.spiffe_id.trust_domain
    except ValueError:
        own = next(iter(bundles))
    if own not in bundles:
        raise BundleError([f"there is no bundle of {own}; pass the one that its peers hold"])
    files = {CERTIFICATE_FILE: svid.chain_pem(), KEY_FILE: svid.key_pem(), ROOTS_FILE: bundles[own].to_pem()}
    for name, bundle in bundles.items():
        if name != own:
            files[f"{BUNDLE_DIRECTORY}/{name}.json"] = bundle.to_jwks()
    return files


def write_set(svid: Svid, bundles: Mapping[TrustDomain, TrustBundle], directory: Path) -> None:
    """Publishes an identity to a directory, as a sidecar mounts it."""
    publish(directory, set_files(svid, bundles))


def tampered(certificate: x509.Certificate) -> x509.Certificate:
    """Returns the certificate with another signature: one bit of it is turned."""
    der = bytearray(certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))


def half_readable(certificate: x509.Certificate) -> x509.Certificate:
    """Returns the certificate with a name of no string type: `cryptography` loads it, OpenSSL does not."""
    der = certificate.public_bytes(Encoding.DER)
    attribute = bytes.fromhex("06035504")  # id-at (X.520), the first three arcs of every common attribute
    tag = der.index(attribute) + len(attribute) + 1
    return x509.load_der_x509_certificate(der[:tag] + b"\xaf" + der[tag + 1 :])


def _make_key(name: str) -> PrivateKey:
    kind, _, bits = name.partition("-")
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=int(bits))
    return generate_key()


def _extensions(shape: Shape) -> list[tuple[x509.ExtensionType, bool]]:
    extensions: list[tuple[x509.ExtensionType, bool]] = list(shape.extensions)
    names = [(_URI, name) for name in shape.uris] + [(_DNS, name) for name in shape.dns_names]
    if names:
        encoded = _der(0x30, b"".join(_der(tag, name) for tag, name in names))
        san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, encoded)
        extensions.append((san, shape.san_critical))
    if shape.ca is not None:
        extensions.append((x509.BasicConstraints(ca=shape.ca, path_length=shape.path_length), True))
    if shape.key_usage is not None:
        extensions.append((shape.key_usage, shape.key_usage_critical))
    if shape.extended_key_usage is not None:
        extensions.append((shape.extended_key_usage, False))
    return extensions


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
