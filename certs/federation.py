"""Decides how the bundles of other trust domains are followed: what stands for each, and what a poll changes.

Each foreign trust domain has one `Relationship`: the endpoint that the configuration names, the bundle that is in
force, and when to ask again. A poll is a step from one such value to the next, and nothing else changes it:

    begin --> answered --> answered ...        the bundle in force is the newest one that was taken
                 |  ^
                 v  |
               failed                          it stays in force, and the next interval is waited for

What holds:

1. Nobody of a foreign domain is trusted before its bundle was fetched: a bootstrap bundle proves the endpoint, and
   the endpoint alone says whose certificates count.
2. A poll that fails, whatever the cause, changes neither the bundle nor its age; it is never a reason to ask sooner.
3. A bundle without keys is an order by which the domain ends. It is kept and remembered as any other.
4. An endpoint that the configuration changes is asked at once, as for the first time; what is in force stays so long.
5. A domain that the configuration no longer names has no relationship, and so nothing of it stands.

Source: SPIFFE Federation, sections 4 and 5; SPIFFE Trust Domain and Bundle, section 4. Everything here is pure.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.bundle import BUNDLE_DIRECTORY, MAX_BUNDLE_BYTES, BundleError, TrustBundle, parse_jwks
from certs.bundle_feed import MAX_REDIRECTS, BundleEndpoint, FeedError, next_poll, take
from certs.svid import SvidError, leaf_violations, spiffe_id_of

FIRST_INTERVAL: Final = 30.0
"""Seconds between polls until there is a first bundle: a domain whose endpoint starts after us is not kept waiting
for five minutes, and an endpoint that does not exist costs two requests a minute."""

MAX_CACHE_BYTES: Final = 2 * MAX_BUNDLE_BYTES
"""A cached bundle is in base64, a third longer than it came."""

MAX_ETAG_CHARACTERS: Final = 256
"""More is no name of a content, and would be sent back with each poll."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """One foreign trust domain as it stands. Times are in seconds since the epoch.

    `bundle` is in force (None: nobody of the domain is trusted yet), and came from `source`, which is another endpoint
    than `endpoint` after a change of the configuration. `fault` says why the last poll failed, "" when it did not;
    `polls_failed` counts those since the last one that did not fail.
    """

    endpoint: BundleEndpoint
    bundle: TrustBundle | None = None
    source: BundleEndpoint | None = None
    etag: str = ""
    fetched_at: float | None = None
    fault: str = ""
    polls_failed: int = 0
    next_poll_at: float = 0.0

    @property
    def held(self) -> TrustBundle | None:
        """The newest bundle that this very endpoint served: what its next one is compared with."""
        return self.bundle if self.source == self.endpoint else None

    @property
    def verifying_bundle(self) -> TrustBundle | None:
        """The bundle that the endpoint's own certificate must lead to; None with https_web."""
        return self.endpoint.verifying_bundle(self.held)

    @property
    def known_etag(self) -> str:
        """The entity tag to ask with; "" when nothing is held that an unchanged answer could mean."""
        return self.etag if self.held is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a poll led to. `is_changed`: other roots are in force than before; `warning` is for the log, "" for none."""

    relationship: Relationship
    is_changed: bool = False
    warning: str = ""


def begin(endpoint: BundleEndpoint, cached: bytes | None = None) -> Step:
    """Begins a relationship, from what `write_cache` wrote if that was made for this endpoint. Polls are due at once.

    A cache that cannot be used is a warning and no error: the endpoint will be asked anyway.

    >>> from certs.spiffe import parse_trust_domain
    >>> from certs.bundle_feed import EndpointProfile
    >>> domain = parse_trust_domain("other.example")
    >>> web = BundleEndpoint(trust_domain=domain, url="https://other.example/", profile=EndpointProfile.HTTPS_WEB)
    >>> begin(web).relationship.bundle is None
    True
    >>> answered = answer(begin(web).relationship, b'{"keys": []}', etag="", now=1000.0, jitter=0.0)
    >>> answered.relationship.next_poll_at, answered.is_changed
    (1300.0, True)
    >>> begin(web, write_cache(answered.relationship)).relationship.bundle == answered.relationship.bundle
    True
    """
    fresh = Relationship(endpoint=endpoint)
    if cached is None:
        return Step(relationship=fresh)
    try:
        return Step(relationship=_read_cache(endpoint, cached), is_changed=True)
    except FeedError as error:
        return Step(relationship=fresh, warning=str(error))


def reconfigure(relationship: Relationship, endpoint: BundleEndpoint) -> Relationship:
    """Takes what the configuration says now; a changed endpoint is due at once, and is no longer proved by its past."""
    if endpoint == relationship.endpoint:
        return relationship
    return dataclasses.replace(relationship, endpoint=endpoint, next_poll_at=0.0, fault="", polls_failed=0)


def answer(relationship: Relationship, body: bytes, *, etag: str, now: float, jitter: float) -> Step:
    """Judges a document that the endpoint answered with; `jitter` is a random number in [0, 1). Never raises.

    Whatever is no bundle, or contradicts the one that is held, is a failed poll.
    """
    endpoint = relationship.endpoint
    try:
        taken = take(relationship.held, endpoint.trust_domain, body, endpoint.url)
        canonical_jwks(taken.bundle)
    except (BundleError, FeedError) as error:
        return fail(relationship, str(error), now=now, jitter=jitter)
    before = relationship.bundle
    is_changed = before is None or frozenset(before.certificates) != frozenset(taken.bundle.certificates)
    following = dataclasses.replace(
        relationship,
        bundle=taken.bundle,
        source=endpoint,
        # What was ignored as an old copy must not be called unchanged the next time.
        etag=etag if taken.warning is None and len(etag) <= MAX_ETAG_CHARACTERS and etag.isprintable() else "",
        fetched_at=now,
        fault="",
        polls_failed=0,
        next_poll_at=next_poll(taken.bundle.refresh_hint, now, jitter),
    )
    return Step(relationship=following, is_changed=is_changed, warning=taken.warning or "")


def unchanged(relationship: Relationship, *, now: float, jitter: float) -> Step:
    """Takes the answer that nothing has changed (304), which counts only where an entity tag was asked with."""
    bundle = relationship.held
    if bundle is None or not relationship.etag:
        return fail(relationship, "it answered 304 to a question that no entity tag was in", now=now, jitter=jitter)
    return Step(
        relationship=dataclasses.replace(
            relationship,
            fetched_at=now,
            fault="",
            polls_failed=0,
            next_poll_at=next_poll(bundle.refresh_hint, now, jitter),
        )
    )


def fail(relationship: Relationship, why: str, *, now: float, jitter: float) -> Step:
    """Notes a poll that failed: what is in force stays, and the next poll comes an interval later."""
    bundle = relationship.bundle
    hint = bundle.refresh_hint if bundle is not None else int(FIRST_INTERVAL)
    return Step(
        relationship=dataclasses.replace(
            relationship,
            fault=why,
            polls_failed=relationship.polls_failed + 1,
            next_poll_at=next_poll(hint, now, jitter),
        )
    )


def endpoint_fault(endpoint: BundleEndpoint, leaf: x509.Certificate) -> str | None:
    """Says why a server that showed `leaf` is not the endpoint of https_spiffe; None when it is, and with https_web.

    That the certificate leads to a root of `Relationship.verifying_bundle` is for the TLS library, which is given no
    other root.

    >>> from certs.bundle_feed import EndpointProfile
    >>> from certs.spiffe import SpiffeId
    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("other.example")
    >>> endpoint = BundleEndpoint(
    ...     trust_domain=memory.trust_domain,
    ...     url="https://other.example/",
    ...     profile=EndpointProfile.HTTPS_SPIFFE,
    ...     endpoint_id=SpiffeId.parse("spiffe://other.example/ns/mesh/sa/bundles"),
    ...     bootstrap=memory.bundle,
    ... )
    >>> endpoint_fault(endpoint, memory.svid("mesh", "bundles").leaf) is None
    True
    >>> endpoint_fault(endpoint, memory.svid("demo", "orders").leaf)[:60]
    'the server is spiffe://other.example/ns/demo/sa/orders and n'
    """
    if endpoint.endpoint_id is None:
        return None
    for finding in leaf_violations(leaf):
        return f"the server's certificate is no X.509-SVID: {finding}"
    try:
        shown = spiffe_id_of(leaf)
    except SvidError as error:
        return f"the server's certificate is no X.509-SVID: {error}"
    if shown == endpoint.endpoint_id:
        return None
    return (
        f"the server is {shown} and not {endpoint.endpoint_id}; mend the URL, or the identity if its owner has told "
        "you by a way that you trust"
    )


def redirected(endpoint: BundleEndpoint, at: str, location: str | None, hops: int) -> str:
    """Resolves the target of redirect number `hops`, seen at the URL `at`; raises FeedError when it is not followed.

    >>> from certs.spiffe import parse_trust_domain
    >>> from certs.bundle_feed import EndpointProfile
    >>> domain = parse_trust_domain("other.example")
    >>> web = BundleEndpoint(trust_domain=domain, url="https://other.example/", profile=EndpointProfile.HTTPS_WEB)
    >>> redirected(web, "https://cdn.example/a/b", "c", 2)
    'https://cdn.example/a/c'
    """
    if hops > MAX_REDIRECTS:
        raise FeedError(f"{endpoint.trust_domain}: more than {MAX_REDIRECTS} redirects one after the other; a circle?")
    if location is None:
        raise FeedError(f"{endpoint.trust_domain}: the endpoint redirects and does not say where; tell who runs it")
    return dataclasses.replace(endpoint, url=at).redirect(location)


def bundle_files(relationships: Iterable[Relationship]) -> Mapping[str, bytes]:
    """Writes the bundles in force as the files that a workload mounts: `bundles/<trust domain>.json`.

    The content depends on the roots alone: another sequence or refresh hint is no other trust.

    >>> bundle_files([])
    {}
    """
    return {
        f"{BUNDLE_DIRECTORY}/{relationship.endpoint.trust_domain}.json": canonical_jwks(relationship.bundle)
        for relationship in relationships
        if relationship.bundle is not None
    }


def canonical_jwks(bundle: TrustBundle) -> bytes:
    """Writes the roots of a bundle so that equal roots are equal bytes. Raises BundleError for keys without a JWK."""
    certificates = sorted(bundle.certificates, key=lambda certificate: certificate.public_bytes(Encoding.DER))
    return TrustBundle(trust_domain=bundle.trust_domain, certificates=tuple(certificates)).to_jwks()


def write_cache(relationship: Relationship) -> bytes:
    """Writes what is in force, for `begin` after a restart. Raises FeedError when the endpoint has served nothing."""
    bundle = relationship.held
    if bundle is None:
        raise FeedError(f"{relationship.endpoint.trust_domain}: there is no bundle of its endpoint yet to be kept")
    document = {
        "endpoint": _endpoint_digest(relationship.endpoint),
        "fetched_at": relationship.fetched_at,
        "bundle": base64.b64encode(bundle.to_jwks()).decode("ascii"),
    }
    return json.dumps(document, sort_keys=True).encode("ascii") + b"\n"


def _read_cache(endpoint: BundleEndpoint, data: bytes) -> Relationship:
    broken = FeedError(
        f"{endpoint.trust_domain}: the cached bundle cannot be read and is not used; remove the file, it is made again"
    )
    if len(data) > MAX_CACHE_BYTES:
        raise broken
    try:
        document = json.loads(data)
        written = base64.b64decode(document["bundle"], validate=True)
        bundle = parse_jwks(endpoint.trust_domain, written, "the cached bundle")
        made_for, fetched_at = document["endpoint"], float(document["fetched_at"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise broken from None
    if made_for != _endpoint_digest(endpoint):
        raise FeedError(
            f"{endpoint.trust_domain}: the cached bundle is of another endpoint or bootstrap; it is not used"
        )
    return Relationship(endpoint=endpoint, bundle=bundle, source=endpoint, fetched_at=fetched_at)


def _endpoint_digest(endpoint: BundleEndpoint) -> str:
    """Names all that makes an endpoint what it is: a cache of another one must not prove this one."""
    bootstrap = "" if endpoint.bootstrap is None else canonical_jwks(endpoint.bootstrap).decode("ascii")
    parts = (endpoint.trust_domain, endpoint.url, endpoint.profile.value, str(endpoint.endpoint_id or ""), bootstrap)
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()
