"""Decides who a peer is: a chain that OpenSSL verified becomes a `PeerIdentity`, or a `Rejection` that says why not.

OpenSSL answers "does this chain end at a root that I was given, and is it inside its dates?". A mesh needs more, and
asks it here, before the handshake ends, so that the peer can still be told by a TLS alert:

    leaf --------> rules of X.509-SVID (`certs.svid`): one URI, a valid SPIFFE ID, no CA, the right key usages
    trust domain > is there a bundle for the domain that the leaf names? (an alias without a bundle uses ours)
    root --------> is the root that vouches in the bundle of *that* domain? Roots of all domains lie in one OpenSSL
                   store, so OpenSSL alone would let the authority of domain B mint the names of domain A
    signers -----> rules of signing certificates
    revoked? ----> does the revocation list of our trust domain name the peer, its key or a signer?
    expected ----> secure naming: is this the server that the service is known to have?

Sources: X509-SVID sections 4 and 5; SPIFFE Federation section 4.2 (bundles are never merged); RFC 5280 section 6.
Everything is pure: certificates and `now` come in, a value goes out.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from certs.bundle import TrustBundle
from certs.spiffe import SpiffeId, TrustDomain
from certs.svid import Finding, leaf_violations, presented_name, signing_violations, spiffe_id_of
from proxy.errors import Reason
from proxy.identity.revocation import RevocationCheck
from proxy.types import PeerIdentity

_NAMES_SHOWN = 3
_CHAINS_REMEMBERED: Final = 1_024
"""Chains of one generation and direction, 2 KiB each: more callers than a service has, and 2 MiB at most."""


class Usage(enum.Enum):
    """What the peer is in this connection."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A peer that was refused: what happened, which name it presented (escaped, "" if none) and what to change."""

    reason: Reason
    presented: str
    explanation: str
    mend: str

    @property
    def message(self) -> str:
        """One sentence for the log: what happened, who, what to do."""
        who = f"it presented {self.presented}" if self.presented else "it presented no name that can be read"
        return f"{self.explanation}; {who}; {self.mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whose roots may vouch for whom. Make it with `Trust.of`.

    `roots` has, for each trust domain that peers may name (aliases included), the SHA-256 of the DER of its roots; an
    empty set means that the domain was ended by an empty bundle. `anchors` are all roots, each once, for OpenSSL's
    store. `revocations` is the list of `trust_domain`: it is asked of chains that lead to a root of ours.
    """

    trust_domain: TrustDomain
    roots: Mapping[TrustDomain, frozenset[bytes]]
    anchors: tuple[x509.Certificate, ...] = field(repr=False)
    revocations: RevocationCheck = field(default=RevocationCheck(), repr=False)

    @classmethod
    def of(
        cls,
        trust_domain: TrustDomain,
        bundles: Mapping[TrustDomain, TrustBundle],
        aliases: Sequence[TrustDomain] = (),
        revocations: RevocationCheck | None = None,
    ) -> Trust:
        """Prepares bundles for verification; an alias without a bundle of its own uses the one of `trust_domain`."""
        roots = {
            domain: frozenset(root.fingerprint(SHA256()) for root in bundle.certificates)
            for domain, bundle in bundles.items()
        }
        for alias in aliases:
            if alias not in roots and trust_domain in roots:
                roots[alias] = roots[trust_domain]
        anchors = {root.fingerprint(SHA256()): root for bundle in bundles.values() for root in bundle.certificates}
        return cls(
            trust_domain=trust_domain,
            roots=MappingProxyType(roots),
            anchors=tuple(anchors.values()),
            revocations=RevocationCheck() if revocations is None else revocations,
        )

    def vouches_for(self, peer: PeerIdentity) -> bool:
        """Say whether a peer that was verified under an older trust would be trusted now.

        Its root still may vouch, and nobody has revoked it.
        """
        return self._root_vouches_for(peer) and not self._revokes(peer)

    def reason_against(self, peer: PeerIdentity) -> Reason:
        """Name the Reason for which a peer must go that is no longer vouched for."""
        return Reason.CERTIFICATE_REVOKED if self._root_vouches_for(peer) else Reason.TRUST_ENDED

    def _root_vouches_for(self, peer: PeerIdentity) -> bool:
        return peer.root in self.roots.get(peer.spiffe_id.trust_domain, frozenset())

    def _revokes(self, peer: PeerIdentity) -> bool:
        return self.is_ours(peer.root) and self.revocations.refuses(peer.chain) is not None

    def is_ours(self, root: bytes) -> bool:
        """Tells whether a root, given by the SHA-256 of its DER, is one of our own trust domain."""
        return root in self.roots.get(self.trust_domain, frozenset())

    def domains_of(self, root: bytes) -> list[TrustDomain]:
        """Tells which trust domains a root, given by the SHA-256 of its DER, may vouch for."""
        return sorted(domain for domain, roots in self.roots.items() if root in roots)


def judge_peer(
    chain: Sequence[x509.Certificate],
    *,
    trust: Trust,
    usage: Usage,
    now: float,
    expected: frozenset[SpiffeId] | None,
) -> PeerIdentity | Rejection:
    """Judges a chain that OpenSSL has verified: leaf first, the root that it ended at last. Never raises.

    `usage` is what the peer is, `now` is in seconds since the epoch, `expected` are the identities that may answer
    (None: anybody who is trusted; an empty set: nobody). The order of the rules is that of the module's drawing, and
    the first broken one is the answer.
    """
    if len(chain) < 2:
        return reject(
            Reason.ISSUER_UNKNOWN,
            chain[0] if chain else None,
            f"the {usage.value}'s certificate was vouched for by itself alone",
            MENDS[Reason.ISSUER_UNKNOWN],
        )
    leaf, root = chain[0], chain[-1]
    named = _named_by(leaf)
    if isinstance(named, Finding):
        return broken_rule(named, leaf, f"the {usage.value}'s certificate breaks a rule")
    spiffe_id = named.spiffe_id
    rejection = (
        _judge_root(spiffe_id, leaf, root, trust)
        or _judge_signers(spiffe_id, chain)
        or _judge_revocation(chain, trust, now)
        or _judge_dates(chain, now)
        or _judge_expected(spiffe_id, leaf, expected)
    )
    if rejection is not None:
        return rejection
    return dataclasses.replace(named, root=root.fingerprint(SHA256()))


class Judge:
    """Judges the peers of one trust, and remembers whom it took for what, bounded.

    Who a peer is follows from the bytes of its chain; only its dates and whom we expect change from one connection to
    the next. So a chain that stood before, byte for byte and in order, is neither decoded nor judged again (60 of the
    740 µs of a handshake), and its connections share one identity. OpenSSL has checked the signatures anew each time.
    Rejections are not remembered: nobody fills the memory who is not trusted.
    """

    __slots__ = ("_known", "_trust", "_usage")

    def __init__(self, trust: Trust, usage: Usage) -> None:
        self._trust = trust
        self._usage = usage
        self._known: dict[tuple[bytes, ...], tuple[PeerIdentity, float, float]] = {}

    def judge(
        self, chain: tuple[bytes, ...], *, now: float, expected: frozenset[SpiffeId] | None
    ) -> PeerIdentity | Rejection:
        """Judges a chain that OpenSSL has verified, as DER, leaf first: see `judge_peer`.

        Raises ValueError or `x509.InvalidVersion` for a certificate that only OpenSSL can read.
        """
        known = self._known.get(chain)
        if known is not None:
            identity, begins, ends = known
            is_expected = expected is None or identity.spiffe_id in expected
            if begins <= now <= ends and is_expected and self._trust.revocations.holds_at(now):
                return identity
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        outcome = judge_peer(certificates, trust=self._trust, usage=self._usage, now=now, expected=expected)
        if isinstance(outcome, PeerIdentity):
            outcome = dataclasses.replace(outcome, chain=chain)
        if isinstance(outcome, PeerIdentity) and known is None:
            if len(self._known) >= _CHAINS_REMEMBERED:
                del self._known[next(iter(self._known))]
            self._known[chain] = (
                outcome,
                max(certificate.not_valid_before_utc.timestamp() for certificate in certificates),
                min(certificate.not_valid_after_utc.timestamp() for certificate in certificates),
            )
        return outcome


# What follows from a certificate's bytes alone is remembered: decoding and judging a chain costs as much as a third of
# the handshake's cryptography, and the same intermediates and the same peers come again and again. Only chains that
# OpenSSL has verified come here, so nobody fills the memory who is not trusted. Dates are judged anew each time.
@functools.lru_cache(maxsize=1024)
def _named_by(leaf: x509.Certificate) -> PeerIdentity | Finding:
    findings = leaf_violations(leaf)
    if findings:
        return findings[0]
    return PeerIdentity(
        spiffe_id=spiffe_id_of(leaf),
        not_after=leaf.not_valid_after_utc.timestamp(),
        serial=format(leaf.serial_number, "x"),
        fingerprint=leaf.fingerprint(SHA256()).hex(),
    )


@functools.lru_cache(maxsize=256)
def _signer_fault(signer: x509.Certificate, trust_domain: TrustDomain) -> Finding | None:
    findings = signing_violations(signer, trust_domain)
    return findings[0] if findings else None


def _judge_root(spiffe_id: SpiffeId, leaf: x509.Certificate, root: x509.Certificate, trust: Trust) -> Rejection | None:
    roots = trust.roots.get(spiffe_id.trust_domain)
    if roots is None:
        return unknown_domain(spiffe_id.trust_domain, leaf, trust)
    fingerprint = root.fingerprint(SHA256())
    if fingerprint in roots:
        return None
    if not roots:
        return ended_domain(spiffe_id.trust_domain, leaf)
    others = ", ".join(trust.domains_of(fingerprint)) or "none"
    return reject(
        Reason.ROOT_OF_OTHER_TRUST_DOMAIN,
        leaf,
        f"the chain leads to a root that may not vouch for {spiffe_id.trust_domain} (that root is of: {others})",
        f"if it is right, add the root to the bundle of {spiffe_id.trust_domain}; if not, somebody mints its names",
    )


def _judge_signers(spiffe_id: SpiffeId, chain: Sequence[x509.Certificate]) -> Rejection | None:
    for depth, signer in enumerate(chain[1:], start=1):
        finding = _signer_fault(signer, spiffe_id.trust_domain)
        if finding is not None:
            return broken_rule(finding, chain[0], f"signing certificate {depth} of the chain breaks a rule")
    return None


def _judge_revocation(chain: Sequence[x509.Certificate], trust: Trust, now: float) -> Rejection | None:
    revocations = trust.revocations
    if not trust.is_ours(chain[-1].fingerprint(SHA256())):
        return None
    why = revocations.refuses(chain)
    if why is not None:
        return reject(Reason.CERTIFICATE_REVOKED, chain[0], why, MENDS[Reason.CERTIFICATE_REVOKED])
    if revocations.holds_at(now):
        return None
    reason = Reason.REVOCATIONS_UNKNOWN
    missing = revocations.missing_at(now)
    return reject(reason, chain[0], f"nobody is admitted without the list: {missing}", MENDS[reason])


def _judge_dates(chain: Sequence[x509.Certificate], now: float) -> Rejection | None:
    for depth, certificate in enumerate(chain):
        before, after = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
        if before <= now <= after:
            continue
        reason = Reason.CERTIFICATE_EXPIRED if now > after else Reason.CERTIFICATE_NOT_YET_VALID
        which = "the leaf" if depth == 0 else f"signing certificate {depth} of the chain"
        dates = f"{date_of(certificate, 'before')} to {date_of(certificate, 'after')}"
        now_text = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        return reject(reason, chain[0], f"{which} is valid from {dates}, and now is {now_text}", MENDS[reason])
    return None


def _judge_expected(
    spiffe_id: SpiffeId, leaf: x509.Certificate, expected: frozenset[SpiffeId] | None
) -> Rejection | None:
    if expected is None or spiffe_id in expected:
        return None
    names = sorted(str(name) for name in expected)
    shown = ", ".join(names[:_NAMES_SHOWN]) or "nobody"
    if len(names) > _NAMES_SHOWN:
        shown += f" and {len(names) - _NAMES_SHOWN} more"
    return reject(
        Reason.SERVER_IDENTITY_UNEXPECTED,
        leaf,
        f"the server is trusted, but it is not the one that this service has (expected: {shown})",
        "add the identity to `identities` of the service if it may answer; otherwise the endpoint is wrong",
    )


def unknown_domain(domain: TrustDomain, leaf: x509.Certificate, trust: Trust) -> Rejection:
    """Rejects a name of a trust domain that has no bundle here."""
    known = ", ".join(sorted(trust.roots)) or "none"
    return reject(
        Reason.TRUST_DOMAIN_UNKNOWN,
        leaf,
        f"there is no bundle for the trust domain {domain} (there is one for: {known})",
        f"if its workloads may come, put its bundle into bundles/{domain}.json or .pem",
    )


def ended_domain(domain: TrustDomain, leaf: x509.Certificate) -> Rejection:
    """Rejects a name of a trust domain whose bundle is empty: that is how a domain is ended."""
    return reject(
        Reason.ISSUER_UNKNOWN,
        leaf,
        f"the bundle of the trust domain {domain} is empty, so nobody of it is trusted",
        "publish a bundle with roots if the domain is to be trusted again",
    )


def broken_rule(finding: Finding, leaf: x509.Certificate, what: str) -> Rejection:
    """Rejects for a rule of X.509-SVID; the finding's word is the Reason's."""
    return reject(Reason(finding.violation.value), leaf, f"{what} ({finding.rule}): {finding.detail}", finding.mend)


def reject(reason: Reason, leaf: x509.Certificate | None, explanation: str, mend: str) -> Rejection:
    """Rejects with the name that the leaf presents."""
    presented = "" if leaf is None else presented_name(leaf)
    return Rejection(reason=reason, presented=presented, explanation=explanation, mend=mend)


def date_of(certificate: x509.Certificate, which: str) -> str:
    """Writes a certificate's begin (`before`) or end (`after`) of validity."""
    moment = certificate.not_valid_before_utc if which == "before" else certificate.not_valid_after_utc
    return moment.isoformat(timespec="seconds")


MENDS: Final[Mapping[Reason, str]] = {
    Reason.ISSUER_UNKNOWN: "have it issued by an authority whose root is in the bundle here, or add that root",
    Reason.CERTIFICATE_EXPIRED: "see why its rotation stopped, and compare the clocks of both hosts",
    Reason.CERTIFICATE_NOT_YET_VALID: "compare the clocks of both hosts; authorities should back-date by a minute",
    Reason.CHAIN_TOO_LONG: "present fewer intermediates",
    Reason.SIGNATURE_INVALID: "issue it again: the signature is not the issuer's, or its digest is too weak",
    Reason.NAME_CONSTRAINT_VIOLATED: "an authority above it may not issue this name; ask the authority that may",
    Reason.CERTIFICATE_MALFORMED: "issue it again with another tool",
    Reason.KEY_TOO_WEAK: "use P-256, P-384, Ed25519 or RSA of at least 2048 bits",
    Reason.CHAIN_INVALID: "look at the chain with `remora certs inspect`",
    Reason.CERTIFICATE_REVOKED: "ask who revoked it; a workload that may go on needs a new key and certificate",
    Reason.REVOCATIONS_UNKNOWN: "bring the list here, or write `crl: warn` to go on without one",
}
