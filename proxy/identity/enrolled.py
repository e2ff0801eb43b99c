"""Holds what an authority has given to a workload, and takes what it gives next: certificate, bundle, revocation list.

    take_signed(held, ...)  --> Enrolled: key and chain, the roots that it was judged by, the newest bundle
    take_bundle(held, ...)  --> the newest bundle; it ends trust at once, also where our own chain stands on it
    take_list(held, ...)    --> a list that is newer than the one held
    files(held)             --> the set of files that `EnrolledSource.judge` takes, here and in every worker

What holds:

1. Nothing is taken that contradicts what is held: an older bundle, an older list, another trust domain's.
2. A certificate is taken only when the whole set stands: `certs.store.judge_set`, as for mounted files.
3. A bundle is an order. It is taken though our own chain leads to none of its roots any more; then `needs_renewal` says
   so, and a new chain is asked for while the old one is still shown.
4. A list is judged by the bundle of its day, and stays until a newer one comes: the end of a root brings nobody back.

Pure: bytes and the clock are arguments. Errors are those of `certs`: FeedError, BundleError, SetError, CrlError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import TrustBundle
from certs.bundle_feed import FeedError, take
from certs.crl import CrlSnapshot, read_crl
from certs.keys import PrivateKey, write_key
from certs.spiffe import SpiffeId
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE, IdentitySet, chain_fault, judge_set
from proxy.identity.revocation import CRL_FILES, CRL_ISSUERS_FILE
from proxy.identity.source import CRL_BUNDLE_FILE, NEWEST_BUNDLE_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldList:
    """A revocation list: what it says, its DER, the certificates that lead to its signer, and who vouched for it."""

    snapshot: CrlSnapshot
    der: bytes = field(repr=False)
    issuers: tuple[x509.Certificate, ...] = field(repr=False)
    bundle: TrustBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What the authority has given. `roots` is the bundle that our chain leads to, `bundle` whom we trust now."""

    identity_set: IdentitySet
    chain: bytes = field(repr=False)
    roots: TrustBundle
    bundle: TrustBundle
    listed: HeldList | None = None

    def needs_renewal(self, now: float) -> str:
        """Say why our certificate is worth nothing to others though it has not ended; "" when it is worth something.

        `now` is in seconds since the epoch.
        """
        chain, moment = self.identity_set.chain, datetime.fromtimestamp(now, UTC)
        if self.listed is not None and (why := self.listed.snapshot.refuses(chain)) is not None:
            return why
        if self.bundle.certificates and self.bundle != self.roots:
            return chain_fault(chain, self.bundle, moment) or ""
        return ""

    def files(self) -> Mapping[str, bytes]:
        """Lay it out as files in memory. They hold the private key."""
        files = {
            CERTIFICATE_FILE: self.chain,
            KEY_FILE: write_key(self.identity_set.key),
            ROOTS_FILE: self.roots.to_pem(),
            NEWEST_BUNDLE_FILE: self.bundle.to_jwks(),
        }
        if self.listed is not None:
            files[CRL_FILES[0]] = self.listed.der
            files[CRL_BUNDLE_FILE] = self.listed.bundle.to_jwks()
            if self.listed.issuers:
                files[CRL_ISSUERS_FILE] = b"".join(one.public_bytes(Encoding.PEM) for one in self.listed.issuers)
        return MappingProxyType(files)


def take_signed(
    held: Enrolled | None, *, chain: bytes, key: PrivateKey, bundle: bytes, expected: SpiffeId, source: str, now: float
) -> tuple[Enrolled, str]:
    """Take a certificate that was issued for `key`, with the bundle (JWKS) that came along; give a warning or "".

    `expected` is who we are, `source` names the authority, `now` is in seconds since the epoch. Raises FeedError,
    BundleError or SetError; what is held stays then.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> svid, bundle = memory.svid("demo", "orders"), memory.authority.bundle
    >>> enrolled, warning = take_signed(
    ...     None, chain=svid.chain_pem(), key=svid.key, bundle=bundle.to_jwks(), expected=svid.spiffe_id,
    ...     source="the authority", now=memory.now.timestamp(),
    ... )
    >>> enrolled.bundle.sequence == bundle.sequence, warning, sorted(enrolled.files())
    (True, '', ['bundle.json', 'ca.crt', 'tls.crt', 'tls.key'])
    """
    trust_domain = expected.trust_domain
    taken = take(None if held is None else held.bundle, trust_domain, bundle, source)
    if not taken.bundle.certificates:
        raise FeedError(f"{source}: the bundle of {trust_domain} is empty: the trust domain was ended, ask who did so")
    files = {CERTIFICATE_FILE: chain, KEY_FILE: write_key(key), ROOTS_FILE: taken.bundle.to_pem()}
    identity_set = judge_set(files, trust_domain, datetime.fromtimestamp(now, UTC), expected)
    listed = None if held is None else held.listed
    enrolled = Enrolled(identity_set=identity_set, chain=chain, roots=taken.bundle, bundle=taken.bundle, listed=listed)
    return enrolled, taken.warning or ""


def take_bundle(held: Enrolled, document: bytes, source: str, now: float) -> tuple[Enrolled, str]:
    """Take a bundle that was polled; give a warning or "". Raises FeedError or BundleError; what is held stays then."""
    taken = take(held.bundle, held.bundle.trust_domain, document, source)
    enrolled = replace(held, bundle=taken.bundle)
    if taken.bundle.certificates and not enrolled.needs_renewal(now):
        enrolled = replace(enrolled, roots=taken.bundle)
    return enrolled, taken.warning or ""


def take_list(held: Enrolled, der: bytes, issuers: Sequence[x509.Certificate], now: float) -> Enrolled:
    """Take a revocation list, DER; `issuers` may lead to its signer, beside our own chain. Raises CrlError.

    The same list, or one signed before it, changes nothing.
    """
    if held.listed is not None and held.listed.der == der:
        return held
    known = dict.fromkeys([*held.identity_set.chain[1:], *issuers])
    snapshot = read_crl(der, list(known), held.bundle, datetime.fromtimestamp(now, UTC))
    if not snapshot.newer_than(None if held.listed is None else held.listed.snapshot):
        return held
    return replace(held, listed=HeldList(snapshot=snapshot, der=der, issuers=tuple(known), bundle=held.bundle))


def is_news(published: Enrolled | None, held: Enrolled, now: float) -> bool:
    """Say whether what is held should take the place of what was published: each time costs contexts and connections.

    A list that says the same as before, signed anew, is news when the published one has passed half of its time.
    """
    if published is None:
        return True
    if replace(published, listed=None) != replace(held, listed=None):
        return True
    before, after = published.listed, held.listed
    if before is None or after is None:
        return before is not after
    if before.snapshot.sequence != after.snapshot.sequence:
        return True
    begin, end = before.snapshot.this_update.timestamp(), before.snapshot.next_update.timestamp()
    return after.der != before.der and now >= (begin + end) / 2
