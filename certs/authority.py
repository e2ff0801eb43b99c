"""The embedded authority: a root, an intermediate, and the one way in which a workload's certificate is made.

Issuing goes in one order, always: request, checks, shape, signature. What the request may decide is small on
purpose: a public key, and nothing else. The name comes from the caller that was authenticated (by its Kubernetes
token, or by the operator who runs the command), so a request that asks for somebody else's name gets a certificate
with its own. Extensions of a signing request are never read.

    root (10 years)             may be kept offline once the intermediate is signed
      └─ intermediate (1 year)  pathLen 0: signs leaves, never another CA; optionally bound to the trust domain by a
           │                    critical name constraint, so that a stolen key cannot mint other domains' names
           └─ leaf (24 hours)   empty subject, one URI, digitalSignature, both ends of TLS

Why these numbers: a leaf that lives a day needs no revocation list, because rotation is faster than most people
notice a theft; an intermediate that lives a year can be replaced without touching a single trust bundle; a root that
lives ten years outlives the cluster. `NotBefore` lies a minute in the past, because clocks of nodes differ by seconds
and a fresh certificate that is "not yet valid" is the most confusing failure of a mesh. `NotAfter` never passes the
issuer's: a chain ends when its first certificate does.

The profile of every certificate: X509-SVID sections 2 to 4 and RFC 5280 section 4.2. Key identifiers are always
there (strict path validation asks for them), serial numbers are random (RFC 5280 section 4.1.2.2, 159 bits). It is
written down in certs.profile.
"""

from __future__ import annotations

import datetime
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.files import write_private_file
from certs.keys import (
    KeyFileError,
    PrivateKey,
    PublicKey,
    generate_key,
    key_fault,
    public_key_bytes,
    read_key,
    write_key,
)
from certs.profile import SignerShape, sign_leaf, sign_signer
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import SvidError, signing_violations, spiffe_id_of

LEAF_LIFETIME = datetime.timedelta(hours=24)
INTERMEDIATE_LIFETIME = datetime.timedelta(days=365)
ROOT_LIFETIME = datetime.timedelta(days=3650)
SHORTEST_LIFETIME = datetime.timedelta(seconds=10)
"""Of a leaf: some attempts to renew it, on a machine that is busy. What shows a rotation to somebody who waits lives so
short; less, and an identity ends between two attempts."""

ROOT_CERTIFICATE, ROOT_KEY = "root.crt", "root.key"
INTERMEDIATE_CERTIFICATE, INTERMEDIATE_KEY = "intermediate.crt", "intermediate.key"


class AuthorityError(ValueError):
    """The authority cannot do what was asked; the message says why and what to do. It holds no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """A workload's identity: the chain, leaf first and without the root, and the leaf's private key."""

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def spiffe_id(self) -> SpiffeId:
        """The identity that the leaf names; raises SvidError when it names none."""
        return spiffe_id_of(self.leaf)

    def chain_pem(self) -> bytes:
        """The content of tls.crt."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    def key_pem(self) -> bytes:
        """The content of tls.key: unencrypted, for a file that only the workload may read."""
        return write_key(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A root and an intermediate that issues the identities of one trust domain.

    `root_key` is None when the root's key is kept elsewhere; the intermediate alone signs leaves.

    >>> from certs.spiffe import parse_trust_domain
    >>> now = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
    >>> authority = Authority.create(parse_trust_domain("cluster.local"), now)
    >>> svid = authority.issue_svid(SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders"), now)
    >>> str(svid.spiffe_id), svid.leaf.not_valid_after_utc.isoformat()
    ('spiffe://cluster.local/ns/demo/sa/orders', '2030-01-02T00:00:00+00:00')
    """

    trust_domain: TrustDomain
    root: x509.Certificate
    intermediate: x509.Certificate
    intermediate_key: PrivateKey = field(repr=False)
    root_key: PrivateKey | None = field(default=None, repr=False)

    @classmethod
    def create(
        cls,
        trust_domain: TrustDomain,
        now: datetime.datetime,
        *,
        root_lifetime: datetime.timedelta = ROOT_LIFETIME,
        intermediate_lifetime: datetime.timedelta = INTERMEDIATE_LIFETIME,
        constrain_names: bool = False,
    ) -> Authority:
        """Makes a new root and intermediate, P-256 both.

        `constrain_names` adds a critical URI name constraint to the intermediate: OpenSSL honours it, but some
        libraries refuse such chains altogether, so it is off unless asked for.
        """
        root_key, intermediate_key = generate_key(), generate_key()
        root_shape = SignerShape(trust_domain=trust_domain, name="root", lifetime=root_lifetime, path_length=1)
        root = sign_signer(root_shape, root_key.public_key(), None, root_key, now)
        intermediate_shape = SignerShape(
            trust_domain=trust_domain,
            name="intermediate",
            lifetime=intermediate_lifetime,
            path_length=0,
            constrain_names=constrain_names,
        )
        intermediate = sign_signer(intermediate_shape, intermediate_key.public_key(), root, root_key, now)
        return cls(
            trust_domain=trust_domain,
            root=root,
            intermediate=intermediate,
            intermediate_key=intermediate_key,
            root_key=root_key,
        )

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Reads an authority that `save` wrote, or one whose intermediate an organisation's root has signed.

        `root.key` may be absent. Raises AuthorityError when a file is missing or cannot be read, when a key does not
        fit its certificate, or when the intermediate may not sign or was not signed by the root.
        """
        root = read_signer(directory / ROOT_CERTIFICATE)
        intermediate = read_signer(directory / INTERMEDIATE_CERTIFICATE)
        intermediate_key = read_fitting_key(directory / INTERMEDIATE_KEY, intermediate)
        has_root_key = (directory / ROOT_KEY).exists()
        root_key = read_fitting_key(directory / ROOT_KEY, root) if has_root_key else None
        try:
            trust_domain = spiffe_id_of(intermediate).trust_domain
        except SvidError as error:
            raise AuthorityError(
                f"{directory / INTERMEDIATE_CERTIFICATE}: it does not say which trust domain it signs for ({error}); "
                "issue it with the URI spiffe://<trust domain>"
            ) from None
        for name, certificate in ((ROOT_CERTIFICATE, root), (INTERMEDIATE_CERTIFICATE, intermediate)):
            for finding in signing_violations(certificate, trust_domain):
                raise AuthorityError(f"{directory / name}: {finding}")
        try:
            intermediate.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise AuthorityError(
                f"{directory / INTERMEDIATE_CERTIFICATE}: {ROOT_CERTIFICATE} did not sign it; "
                "put the root there that signed the intermediate"
            ) from None
        return cls(
            trust_domain=trust_domain,
            root=root,
            intermediate=intermediate,
            intermediate_key=intermediate_key,
            root_key=root_key,
        )

    def save(self, directory: Path) -> None:
        """Writes the authority into a directory of mode 0700, every file 0600.

        Raises AuthorityError when an authority stands there already (replacing it would orphan every identity that
        it issued), and when the directory is in use for something else that others may read.
        """
        files = {
            ROOT_CERTIFICATE: self.root.public_bytes(Encoding.PEM),
            INTERMEDIATE_CERTIFICATE: self.intermediate.public_bytes(Encoding.PEM),
            INTERMEDIATE_KEY: write_key(self.intermediate_key),
        }
        if self.root_key is not None:
            files[ROOT_KEY] = write_key(self.root_key)
        write_signers(directory, files)

    @property
    def bundle(self) -> TrustBundle:
        """What others must hold to believe this authority: its root."""
        return TrustBundle(trust_domain=self.trust_domain, certificates=(self.root,), sequence=1)

    def issue(
        self,
        spiffe_id: SpiffeId,
        public_key: object,
        now: datetime.datetime,
        lifetime: datetime.timedelta = LEAF_LIFETIME,
    ) -> tuple[x509.Certificate, ...]:
        """Issues a leaf for a caller that was authenticated as `spiffe_id`; returns the chain, leaf first.

        `now` must be aware of its time zone. Raises AuthorityError for an ID of another trust domain or without a
        path, a key that is too weak, a lifetime that is not positive, or an intermediate that is not valid now.
        """
        key = self._check(spiffe_id, public_key, now, lifetime)
        leaf = sign_leaf(spiffe_id, key, self.intermediate, self.intermediate_key, now, lifetime)
        return leaf, self.intermediate

    def issue_svid(
        self, spiffe_id: SpiffeId, now: datetime.datetime, lifetime: datetime.timedelta = LEAF_LIFETIME
    ) -> Svid:
        """Makes a fresh P-256 key and issues its certificate; raises AuthorityError as `issue` does."""
        key = generate_key()
        return Svid(chain=self.issue(spiffe_id, key.public_key(), now, lifetime), key=key)

    def issue_for_request(
        self,
        request: x509.CertificateSigningRequest,
        caller: SpiffeId,
        now: datetime.datetime,
        lifetime: datetime.timedelta = LEAF_LIFETIME,
    ) -> tuple[x509.Certificate, ...]:
        """Issues for a signing request, of which only the public key is taken, once its owner has proved to hold it.

        Subject, names and usages that the request asks for are not read: `caller` decides. Raises AuthorityError
        when the request is not signed by its own key, and as `issue` does.
        """
        try:
            holds_key = request.is_signature_valid
            public_key = request.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise AuthorityError("the signing request has a key that cannot be read; make it with P-256") from None
        if not holds_key:
            raise AuthorityError("the signing request is not signed by the key that it asks for; make it anew")
        return self.issue(caller, public_key, now, lifetime)

    def _check(
        self, spiffe_id: SpiffeId, public_key: object, now: datetime.datetime, lifetime: datetime.timedelta
    ) -> PublicKey:
        if spiffe_id.trust_domain != self.trust_domain:
            raise AuthorityError(f"{spiffe_id} is not of {self.trust_domain}; ask its own trust domain's authority")
        if not spiffe_id.path:
            raise AuthorityError(f"{spiffe_id} names no workload; give it a path such as /ns/demo/sa/orders")
        fault = key_fault(public_key)
        if fault is not None or not isinstance(public_key, PublicKey):
            raise AuthorityError(str(fault))
        if lifetime < SHORTEST_LIFETIME:
            raise AuthorityError(
                f"the lifetime is shorter than {SHORTEST_LIFETIME.total_seconds():.0f} seconds; "
                "an identity must outlive its first rotation"
            )
        if not self.intermediate.not_valid_before_utc <= now < self.intermediate.not_valid_after_utc:
            raise AuthorityError(
                f"the intermediate is valid from {self.intermediate.not_valid_before_utc} "
                f"to {self.intermediate.not_valid_after_utc}, not now; make a new one or mend the clock"
            )
        return public_key


def read_signer(path: Path) -> x509.Certificate:
    """Reads the one certificate of a file; raises AuthorityError, also when there are several."""
    pem = _read(path)
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise AuthorityError(f"{path}: it holds no readable certificate; copy the whole PEM file again") from None
    if len(certificates) > 1:
        # Between a root and the intermediate under it nothing stands: a chain that is longer has no place to be kept.
        raise AuthorityError(
            f"{path}: it holds {len(certificates)} certificates; keep one, and have the intermediate signed by "
            f"{ROOT_CERTIFICATE} itself, with no other between the two"
        )
    return certificates[0]


def read_fitting_key(path: Path, certificate: x509.Certificate) -> PrivateKey:
    """Reads the key of a certificate; raises AuthorityError when it cannot be read or is of another one."""
    try:
        key = read_key(_read(path))
    except KeyFileError as error:
        raise AuthorityError(f"{path}: {error}") from None
    try:
        certified = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        certified = None
    if not isinstance(certified, PublicKey) or public_key_bytes(certified) != public_key_bytes(key.public_key()):
        raise AuthorityError(f"{path}: the key does not belong to {path.with_suffix('.crt').name}; put the pair there")
    return key


def write_signers(directory: Path, files: Mapping[str, bytes]) -> None:
    """Writes certificates and keys into a directory of mode 0700, every file 0600; raises AuthorityError.

    Nothing is written when one of the files stands there, or a root's key, or when the directory is in use for
    something else that others may read.
    """
    try:
        _make_private(directory)
        present = [name for name in (*files, ROOT_KEY) if (directory / name).exists()]
        if present:
            raise AuthorityError(
                f"{directory}: {present[0]} stands there already; choose another directory, "
                "or remove the authority if nothing that it issued is in use"
            )
        for name, content in files.items():
            write_private_file(directory / name, content)
    except OSError as error:
        raise AuthorityError(f"{error.filename or directory}: it cannot be written ({error.strerror})") from None


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not directory.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    # Closing a directory that others use would break them: think of `--directory /tmp`.
    if any(directory.iterdir()):
        raise AuthorityError(f"{directory}: others may read this directory; name a new one for the authority's keys")
    directory.chmod(0o700)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AuthorityError(
            f"{path}: it is missing; name the directory that holds it, or make an authority with `remora certs init`"
        ) from None
    except OSError as error:
        raise AuthorityError(f"{path}: it cannot be read ({error.strerror}); check its owner and mode") from None
