"""Makes what a root signs that is kept away from the authority: at the place where its key lies, by hand.

    with the root                                          with the authority
    root.crt root.key
      └─ intermediate.crt and its key    ──carried──▶      rotate import --from DIRECTORY

The key of the intermediate has to travel, unless it is made where it is used: a request is then carried to the root
instead, and the certificate back. Of the request only the key is taken, as of every request.

An intermediate that cannot be imported is not made: what `certs.signers` judges at the import is judged here, where it
can still be mended.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import (
    INTERMEDIATE_CERTIFICATE,
    INTERMEDIATE_KEY,
    INTERMEDIATE_LIFETIME,
    ROOT_CERTIFICATE,
    ROOT_KEY,
    ROOT_LIFETIME,
    Authority,
    AuthorityError,
    read_fitting_key,
    read_signer,
    write_signers,
)
from certs.keys import PrivateKey, PublicKey, generate_key, signing_hash, write_key
from certs.profile import SignerShape, sign_signer
from certs.signers import judge_intermediate, judge_pair, judge_root
from certs.spiffe import TrustDomain
from certs.svid import SvidError, spiffe_id_of

INTERMEDIATE_REQUEST: Final = "intermediate.csr"

MIN_LIFETIME: Final = datetime.timedelta(hours=1)
"""A signer that ends sooner cuts its leaves short before anybody has carried it to where it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineRoot:
    """A root and its key, for the names of one trust domain.

    >>> from certs.spiffe import parse_trust_domain
    >>> now = datetime.datetime(2030, 1, 1, tzinfo=datetime.timezone.utc)
    >>> root = OfflineRoot.create(parse_trust_domain("cluster.local"), now)
    >>> authority = root.sign(now, constrain_names=True)
    >>> authority.trust_domain, authority.root == root.certificate, authority.root_key
    ('cluster.local', True, None)
    """

    trust_domain: TrustDomain
    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @classmethod
    def create(
        cls, trust_domain: TrustDomain, now: datetime.datetime, lifetime: datetime.timedelta = ROOT_LIFETIME
    ) -> OfflineRoot:
        """Makes a root with a fresh P-256 key; raises AuthorityError for a lifetime below MIN_LIFETIME."""
        _check_lifetime(lifetime)
        key = generate_key()
        shape = SignerShape(trust_domain=trust_domain, name="root", lifetime=lifetime, path_length=1)
        return cls(trust_domain=trust_domain, certificate=sign_signer(shape, key.public_key(), None, key, now), key=key)

    @classmethod
    def load(cls, directory: Path, trust_domain: TrustDomain | None = None) -> OfflineRoot:
        """Reads root.crt and root.key; `trust_domain` is for a root that names none.

        Raises AuthorityError when one of them is missing, when they are no pair, when nobody says for whose names the
        root vouches, or when the two that say it differ.
        """
        certificate = read_signer(directory / ROOT_CERTIFICATE)
        key = read_fitting_key(directory / ROOT_KEY, certificate)
        named = trust_domain
        with contextlib.suppress(SvidError):
            named = spiffe_id_of(certificate).trust_domain
        if named is None:
            raise AuthorityError(
                f"{directory / ROOT_CERTIFICATE}: it does not say for which trust domain it vouches; name it with "
                "--trust-domain"
            )
        if trust_domain not in (None, named):
            raise AuthorityError(
                f"{directory / ROOT_CERTIFICATE}: it is a root of {named} and not of {trust_domain}; name the "
                "directory of the right one"
            )
        return cls(trust_domain=named, certificate=certificate, key=key)

    def save(self, directory: Path) -> None:
        """Writes root.crt and root.key into a private directory, the key unencrypted; raises AuthorityError."""
        write_signers(directory, {ROOT_CERTIFICATE: self._pem(), ROOT_KEY: write_key(self.key)})

    def sign(
        self,
        now: datetime.datetime,
        lifetime: datetime.timedelta = INTERMEDIATE_LIFETIME,
        *,
        constrain_names: bool = False,
    ) -> Authority:
        """Makes an intermediate with a fresh key; its end is the root's if that comes first.

        Raises SignerError when it could not be imported, AuthorityError for a lifetime below MIN_LIFETIME.
        """
        key = generate_key()
        authority = Authority(
            trust_domain=self.trust_domain,
            root=self.certificate,
            intermediate=self._signed(key.public_key(), now, lifetime, constrain_names),
            intermediate_key=key,
        )
        judge_pair(authority, self.trust_domain, now)
        return authority

    def sign_request(
        self,
        public_key: PublicKey,
        directory: Path,
        now: datetime.datetime,
        lifetime: datetime.timedelta = INTERMEDIATE_LIFETIME,
        *,
        constrain_names: bool = False,
    ) -> x509.Certificate:
        """Makes an intermediate of a key that lies elsewhere, and writes it beside the root's certificate.

        Raises SignerError and AuthorityError.
        """
        intermediate = self._signed(public_key, now, lifetime, constrain_names)
        judge_intermediate(intermediate, self.certificate, self.trust_domain, now)
        files = {
            ROOT_CERTIFICATE: self._pem(),
            INTERMEDIATE_CERTIFICATE: intermediate.public_bytes(Encoding.PEM),
        }
        write_signers(directory, files)
        return intermediate

    def _signed(
        self, public_key: PublicKey, now: datetime.datetime, lifetime: datetime.timedelta, constrain_names: bool
    ) -> x509.Certificate:
        _check_lifetime(lifetime)
        judge_root(self.certificate, self.trust_domain, now)
        shape = SignerShape(
            trust_domain=self.trust_domain,
            name="intermediate",
            lifetime=lifetime,
            path_length=0,
            constrain_names=constrain_names,
        )
        return sign_signer(shape, public_key, self.certificate, self.key, now)

    def _pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def make_request(directory: Path) -> None:
    """Makes a key for an intermediate and the request for its certificate, in a private directory.

    Raises AuthorityError when something of an authority stands there.
    """
    key = generate_key()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, signing_hash(key))
    files = {INTERMEDIATE_KEY: write_key(key), INTERMEDIATE_REQUEST: request.public_bytes(Encoding.PEM)}
    write_signers(directory, files)


def _check_lifetime(lifetime: datetime.timedelta) -> None:
    if lifetime < MIN_LIFETIME:
        raise AuthorityError("the lifetime of what signs for others is shorter than an hour; ask for days, such as 90d")
