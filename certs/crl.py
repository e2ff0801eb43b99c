"""Writes and reads the signed form of the revocation list: an X.509 CRL, which every TLS library understands.

One document carries everything, so that there is one signature, one sequence and one freshness:

    CRLNumber               the sequence of the list (certs.revocations)
    thisUpdate, nextUpdate  back-dated as certificates are; after nextUpdate the list is stale
    entries                 revoked serials, leaves and intermediates, each with its reason unless that is unspecified
    2.25.<UUID>             revoked identities and keys, JSON in a UTF8String, not critical: others pass over it

LOOSER than RFC 5280 section 5.2.3: a list that is signed again without a change keeps its CRLNumber and has a later
thisUpdate. LOOSER than section 5.3: serials of other issuers of the same trust domain (the intermediate before this
one) stand in it without a certificateIssuer; serials are 159 random bits and do not meet.

A CRL is believed when a certificate that may sign CRLs made it, and that certificate leads to the bundle of the trust
domain. Two attacks remain, and `CrlSnapshot.newer_than` ends both: serving an older list, and signing a new one with
the key of an intermediate that the list held so far revokes.

Source: RFC 5280 sections 5 and 6.3. Everything here is pure: the clock is an argument, aware of its time zone.
"""

from __future__ import annotations

import datetime
import enum
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519

from certs.bundle import TrustBundle
from certs.crl_extension import NAMES_AND_KEYS, CrlError, read_table, write_names_and_keys
from certs.keys import PrivateKey, PublicKey, key_fault, public_key_bytes, signing_hash
from certs.profile import BACK_DATE
from certs.revocations import MAX_ENTRIES, Kind, Reason, Revocations, RevokedTable, sorted_entries, whole_seconds
from certs.spiffe import TrustDomain
from certs.store import chain_fault
from certs.svid import signing_violations

CRL_LIFETIME: Final = datetime.timedelta(hours=24)
"""From signing to nextUpdate. A sidecar polls each few minutes; this is how long it may go without an authority
before its policy for stale lists holds. Shorter, and an outage of the authority becomes one of the mesh."""

CLOCK_SKEW: Final = datetime.timedelta(seconds=60)
"""How far thisUpdate may lie ahead of us, on top of the back-dating of the issuer."""

MAX_CRL_BYTES: Final = 4 * 1024 * 1024

_PEM_MARK: Final = b"-----BEGIN X509 CRL-----"
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    UnsupportedAlgorithm,
)
_FETCH: Final = "fetch it again, and see what stands between here and the authority"


class CrlPolicy(enum.Enum):
    """What holds when the list is missing or past its nextUpdate; the value is the word of the configuration."""

    FAIL_CLOSED = "fail-closed"
    WARN = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Whether connections may go on with the list that is held, and what is wrong with it (None: nothing)."""

    is_accepted: bool
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlSnapshot:
    """A verified list, ready to be asked in a handshake. It is the list of one trust domain: ask it of no other's.

    `signer_serial` and `signer_key` (a fingerprint) tell who signed it. `content` is the SHA-256 of what it revokes,
    whoever signed it and when.
    """

    trust_domain: TrustDomain
    sequence: int
    this_update: datetime.datetime
    next_update: datetime.datetime
    signer_serial: int
    signer_key: str
    content: str
    table: RevokedTable

    def is_stale(self, now: datetime.datetime) -> bool:
        """Tells whether nextUpdate has passed: there should be a newer list by now."""
        return now > self.next_update

    def refuses(self, chain: Sequence[x509.Certificate | bytes]) -> str | None:
        """Says why a chain, leaf first, is revoked; None when it is not. Certificates as such or as DER.

        Cheap enough for a verify callback: with certificates, a set look-up each; the key is hashed and the name read
        only when keys or names are revoked.
        """
        certificates = [
            x509.load_der_x509_certificate(certificate) if isinstance(certificate, bytes) else certificate
            for certificate in chain
        ]
        found = self.table.find(certificates)
        if found is None:
            return None
        kind, value = found
        return f"{kind.value} {value} is revoked by {self.trust_domain} (list {self.sequence})"

    def newer_than(self, held: CrlSnapshot | None) -> bool:
        """Tells whether this list should replace the one that is held; False when it is the same or signed earlier.

        Raises CrlError when it must not: an older sequence, the same one with other content, another trust domain's,
        or a signer whom the held list revokes.
        """
        if held is None:
            return True
        if held.trust_domain != self.trust_domain:
            raise CrlError(
                f"the list is of {self.trust_domain} and not of {held.trust_domain}; mend where it is fetched"
            )
        if self.sequence < held.sequence:
            raise CrlError(
                f"the list has sequence {self.sequence} and {held.sequence} is held: it would bring back what was "
                "revoked since; see who serves old lists, or restore the authority's state"
            )
        if self.signer_serial in held.table.serials or self.signer_key in held.table.keys:
            raise CrlError(
                f"the list is signed by certificate {self.signer_serial:x}, which list {held.sequence} revokes; "
                "sign it with the new intermediate"
            )
        if self.sequence > held.sequence:
            return True
        if self.content != held.content:
            raise CrlError(
                f"two different lists have sequence {self.sequence}: two authorities write without knowing of each "
                "other; let them share one state"
            )
        return self.this_update > held.this_update


def build_crl(
    revocations: Revocations,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta = CRL_LIFETIME,
) -> x509.CertificateRevocationList:
    """Signs a list. nextUpdate is `lifetime` from now, or the issuer's end if that comes first.

    Raises CrlError when the issuer is not valid now or the names and keys are more than the extension may hold.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> crl = build_crl(Revocations(sequence=7), memory.intermediate, memory.intermediate_key, memory.now)
    >>> crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    7
    """
    now = whole_seconds(now)
    if not issuer.not_valid_before_utc <= now < issuer.not_valid_after_utc:
        raise CrlError(
            f"the intermediate is valid from {issuer.not_valid_before_utc} to {issuer.not_valid_after_utc}, not now; "
            "rotate it or mend the clock"
        )
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - BACK_DATE)
        .next_update(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.CRLNumber(revocations.sequence), critical=False)
        .add_extension(_key_identifier(issuer), critical=False)
    )
    names_and_keys = write_names_and_keys(revocations.table)
    if names_and_keys is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(NAMES_AND_KEYS, names_and_keys), critical=False)
    for (kind, value), entry in sorted_entries(revocations.entries):
        if kind is Kind.SERIAL:
            revoked = x509.RevokedCertificateBuilder().serial_number(int(value, 16)).revocation_date(entry.when)
            if entry.reason is not Reason.UNSPECIFIED:
                # RFC 5280 section 5.3.1: "unspecified" is said by saying nothing.
                revoked = revoked.add_extension(x509.CRLReason(x509.ReasonFlags(entry.reason.value)), critical=False)
            builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(issuer_key, signing_hash(issuer_key))


def read_crl(
    data: bytes, issuers: Sequence[x509.Certificate], bundle: TrustBundle, now: datetime.datetime
) -> CrlSnapshot:
    """Reads a CRL, DER or PEM, and verifies it for the trust domain of `bundle`. Raises CrlError.

    `issuers` are the signing certificates that may be needed to reach the bundle: the intermediates of our own chain
    or of the authority's. A stale list is returned, since it is for the policy to judge (`judge_freshness`).

    >>> from certs.testing import MemoryAuthority
    >>> from cryptography.hazmat.primitives.serialization import Encoding
    >>> memory = MemoryAuthority("cluster.local")
    >>> crl = build_crl(Revocations(sequence=7), memory.intermediate, memory.intermediate_key, memory.now)
    >>> snapshot = read_crl(crl.public_bytes(Encoding.DER), [memory.intermediate], memory.bundle, memory.now)
    >>> snapshot.sequence, snapshot.refuses(memory.svid("demo", "orders").chain) is None
    (7, True)
    """
    crl = _load(data)
    try:
        signer = _signer(crl, issuers, bundle, now)
        number, names_and_keys = _read_extensions(crl)
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
        serials = _read_serials(crl)
        signer_key = signer.public_key()
    except _UNREADABLE as error:
        if isinstance(error, CrlError):
            raise
        raise CrlError(f"the revocation list cannot be decoded ({error}); {_FETCH}") from None
    if next_update is None or next_update <= this_update:
        raise CrlError("the revocation list has no nextUpdate after its thisUpdate; sign it with one")
    if this_update > now + CLOCK_SKEW:
        raise CrlError(
            f"the revocation list is of {this_update:%Y-%m-%d %H:%M:%S} UTC, which lies ahead; "
            "mend this machine's clock or the authority's"
        )
    table = read_table(serials, names_and_keys, bundle.trust_domain)
    return CrlSnapshot(
        trust_domain=bundle.trust_domain,
        sequence=number,
        this_update=this_update,
        next_update=next_update,
        signer_serial=signer.serial_number,
        signer_key=hashlib.sha256(public_key_bytes(signer_key)).hexdigest()
        if isinstance(signer_key, PublicKey)
        else "",
        content=_content(table),
        table=table,
    )


def judge_freshness(snapshot: CrlSnapshot | None, policy: CrlPolicy, now: datetime.datetime) -> Freshness:
    """Judges whether the list that is held, or its absence, lets connections go on.

    >>> judge_freshness(None, CrlPolicy.WARN, datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)).is_accepted
    True
    """
    if snapshot is not None and not snapshot.is_stale(now):
        return Freshness(is_accepted=True)
    if snapshot is None:
        fault = "there is no revocation list yet; see whether the authority can be reached"
    else:
        fault = (
            f"revocation list {snapshot.sequence} should have been replaced by "
            f"{snapshot.next_update:%Y-%m-%d %H:%M:%S} UTC; see why the authority's newer one does not arrive"
        )
    match policy:
        case CrlPolicy.FAIL_CLOSED:
            return Freshness(is_accepted=False, fault=fault)
        case CrlPolicy.WARN:
            return Freshness(is_accepted=True, fault=fault)
        case _:
            assert_never(policy)


def _key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier(
            x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest, None, None
        )
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _load(data: bytes) -> x509.CertificateRevocationList:
    if len(data) > MAX_CRL_BYTES:
        raise CrlError(f"the revocation list is larger than {MAX_CRL_BYTES} bytes; rotate the intermediate instead")
    marks = data.count(_PEM_MARK)
    if marks > 1:
        raise CrlError("several revocation lists stand there; a trust domain has one, keep the newest")
    try:
        return x509.load_pem_x509_crl(data) if marks else x509.load_der_x509_crl(data)
    except _UNREADABLE:
        raise CrlError(f"what stands there is no X.509 CRL, neither DER nor PEM; {_FETCH}") from None


def _signer(
    crl: x509.CertificateRevocationList,
    issuers: Sequence[x509.Certificate],
    bundle: TrustBundle,
    now: datetime.datetime,
) -> x509.Certificate:
    if not isinstance(crl.signature_hash_algorithm, _HASHES) and crl.signature_hash_algorithm is not None:
        raise CrlError("the revocation list is signed with an old hash; sign it with SHA-256 or better")
    known = list(dict.fromkeys([*issuers, *bundle.certificates]))
    # By signature and not by name: only then is the name worth decoding, which its author chose.
    signers = [certificate for certificate in known if _has_signed(certificate, crl)]
    if not signers:
        raise CrlError(
            "no certificate that is known here has signed the revocation list: its intermediate is not known, or it "
            f"was changed on its way; {_FETCH}, and send the authority's intermediate along"
        )
    # Ends of validity within the chain are not told by chain_fault, so what has ended never enters it.
    valid = [item for item in known if item.not_valid_before_utc <= now <= item.not_valid_after_utc]
    faults: list[str] = []
    for signer in signers:
        fault = _signer_fault(crl, signer, valid, bundle, now)
        if fault is None:
            return signer
        faults.append(fault)
    raise CrlError(f"the signer of the revocation list may not do so: {faults[0]}")


def _signer_fault(
    crl: x509.CertificateRevocationList,
    signer: x509.Certificate,
    valid: list[x509.Certificate],
    bundle: TrustBundle,
    now: datetime.datetime,
) -> str | None:
    if signer.subject != crl.issuer:
        return "the list names another issuer; sign it under the name of the certificate that signs"
    if signer not in valid:
        return "its certificate is not valid now; let the authority sign the list with its present intermediate"
    for finding in signing_violations(signer, bundle.trust_domain):
        return str(finding)
    try:
        may_sign = signer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        return "its keyUsage lacks cRLSign; issue the intermediate with it"
    return chain_fault((signer, *(item for item in valid if item != signer)), bundle, now)


def _has_signed(certificate: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        key = certificate.public_key()
        if key_fault(key) is not None or not isinstance(key, PublicKey):
            return False
        if crl.signature_hash_algorithm is None and not isinstance(key, ed25519.Ed25519PublicKey):
            return False
        return crl.is_signature_valid(key)
    except (*_UNREADABLE, InvalidSignature):
        return False


def _read_extensions(crl: x509.CertificateRevocationList) -> tuple[int, bytes | None]:
    number, names_and_keys = None, None
    for extension in crl.extensions:
        if extension.critical:
            # RFC 5280 section 5.2: such a list speaks of a part of the certificates, or of changes alone.
            raise CrlError(
                f"the revocation list has the critical extension {extension.oid.dotted_string}, which is not "
                "understood here; publish one whole list"
            )
        if isinstance(extension.value, x509.CRLNumber):
            number = extension.value.crl_number
        elif extension.oid == NAMES_AND_KEYS and isinstance(extension.value, x509.UnrecognizedExtension):
            names_and_keys = extension.value.value
    if number is None:
        raise CrlError("the revocation list has no CRLNumber, so that an old one could not be told; sign it with one")
    return number, names_and_keys


def _read_serials(crl: x509.CertificateRevocationList) -> frozenset[int]:
    if len(crl) > MAX_ENTRIES:
        raise CrlError(f"the revocation list has more than {MAX_ENTRIES} entries; rotate the intermediate instead")
    serials = set[int]()
    for entry in crl:
        if any(extension.critical for extension in entry.extensions):
            raise CrlError("an entry of the revocation list has a critical extension; publish a list of one issuer")
        serials.add(entry.serial_number)
    return frozenset(serials)


def _content(table: RevokedTable) -> str:
    names = sorted(
        (str(name), None if since is None else int(since.timestamp())) for name, since in table.identities.items()
    )
    whole = json.dumps([sorted(table.serials), names, sorted(table.keys)])
    return hashlib.sha256(whole.encode("ascii")).hexdigest()
