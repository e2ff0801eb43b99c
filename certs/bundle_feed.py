"""Decides how a trust bundle is served and taken: by `GET /v1/bundle`, and by the endpoints of a federation.

A bundle is polled. The publisher numbers each content (`spiffe_sequence`) and says how often to ask
(`spiffe_refresh_hint`); the poller keeps what it has until something better arrives:

    higher sequence                 taken
    same sequence, same roots       nothing changed (another refresh hint is taken)
    same sequence, other roots      a fault: FeedError, and the held bundle stays
    lower sequence                  ignored with a warning: an old copy from a cache or a replica that lags
    no sequence                     compared by content; with a warning if the held bundle had one
    no keys                         an order, by the same rules: everybody of that trust domain is revoked

A federation is told in three explicit parameters, none of which is inferred from another: the trust domain, the URL of
its endpoint, and the profile by which the endpoint itself is believed (SPIFFE Federation, section 5):

    https_web     a certificate of the public web PKI for the host of the URL
    https_spiffe  an SVID of the endpoint's SPIFFE ID, verified by a bundle that was brought here by hand once

Source: SPIFFE Trust Domain and Bundle section 4, SPIFFE Federation sections 4 and 5. Everything here is pure.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin, urlsplit

from certs.bundle import TrustBundle, parse_jwks
from certs.spiffe import SpiffeId, TrustDomain

DEFAULT_INTERVAL: Final = 300.0
"""Seconds between polls when the publisher gives no hint: the five minutes that the standard recommends."""

MIN_INTERVAL: Final = 5.0
"""No hint makes us poll more often: a hint of 0 or 1 would make each sidecar a load of its own."""

MAX_INTERVAL: Final = 24 * 3600.0
"""No hint makes us poll less often: an order to trust nobody must arrive within a day, whatever was hinted before."""

JITTER: Final = 0.1
"""The part of an interval by which polls are spread, always earlier and never later than the hint."""

CONTENT_TYPE: Final = "application/json"
MAX_URL_CHARACTERS: Final = 2048
MAX_REDIRECTS: Final = 5

_URL_CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~%]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class FeedError(ValueError):
    """A bundle that is not taken, or an endpoint that cannot be polled; the message names the cause and the mend."""


class EndpointProfile(enum.Enum):
    """How the server of a bundle endpoint is authenticated; the value is the word of the standard."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleAnswer:
    """What an endpoint answers: the JWKS document, its media type, and an entity tag that names the content."""

    body: bytes = field(repr=False)
    etag: str
    content_type: str = CONTENT_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a poll led to: the bundle to hold from now on, whether its roots changed, a warning for the log or None."""

    bundle: TrustBundle
    is_changed: bool
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleEndpoint:
    """Where and how the bundle of another trust domain is polled. Raises FeedError when the parameters do not fit.

    `endpoint_id` and `bootstrap` are for https_spiffe, which needs both; `bootstrap` is the bundle of the trust
    domain that the endpoint's SPIFFE ID is of.

    >>> from certs.spiffe import parse_trust_domain
    >>> endpoint = BundleEndpoint(
    ...     trust_domain=parse_trust_domain("other.example"),
    ...     url="https://bundles.other.example/v1",
    ...     profile=EndpointProfile.HTTPS_WEB,
    ... )
    >>> endpoint.redirect("/v2")
    'https://bundles.other.example/v2'
    """

    trust_domain: TrustDomain
    url: str
    profile: EndpointProfile
    endpoint_id: SpiffeId | None = None
    bootstrap: TrustBundle | None = None

    def __post_init__(self) -> None:
        fault = endpoint_url_fault(self.url)
        if fault is not None:
            raise FeedError(f"{self.trust_domain}: {fault}")
        if self.profile is EndpointProfile.HTTPS_WEB:
            if self.endpoint_id is not None or self.bootstrap is not None:
                raise FeedError(
                    f"{self.trust_domain}: https_web is verified by the name in the URL; leave the endpoint's SPIFFE "
                    "ID and bootstrap bundle out, or use https_spiffe"
                )
            return
        if self.endpoint_id is None or self.bootstrap is None:
            raise FeedError(
                f"{self.trust_domain}: https_spiffe needs the endpoint's SPIFFE ID and a bootstrap bundle; "
                "ask who runs it for both, by a way that you trust"
            )
        if not self.endpoint_id.path:
            raise FeedError(f"{self.trust_domain}: {self.endpoint_id} names no workload; give the endpoint's whole ID")
        if self.bootstrap.trust_domain != self.endpoint_id.trust_domain:
            raise FeedError(
                f"{self.trust_domain}: the bootstrap bundle is of {self.bootstrap.trust_domain}, and the endpoint's ID "
                f"of {self.endpoint_id.trust_domain}; bring the bundle of the latter"
            )

    @property
    def is_self_serving(self) -> bool:
        """Tells whether the endpoint proves itself by the very bundle that it serves."""
        return self.endpoint_id is not None and self.endpoint_id.trust_domain == self.trust_domain

    def verifying_bundle(self, held: TrustBundle | None) -> TrustBundle | None:
        """Chooses the bundle that the endpoint's SVID must lead to; None with https_web, where the web PKI decides.

        A self-serving endpoint is verified by the newest bundle that it served, and by the bootstrap bundle before
        the first. If that one is empty, nothing verifies any more, and a person has to bring another.
        """
        if self.is_self_serving and held is not None:
            return held
        return self.bootstrap

    def redirect(self, location: str) -> str:
        """Resolves the target of a redirect; raises FeedError unless it is itself a URL that may be polled.

        With https_spiffe the target must show the same SPIFFE ID. The next poll begins at `url` again.
        """
        # Judged before it is joined, because joining drops line ends and hides other strays.
        if not _URL_CHARACTERS.fullmatch(location) or len(location) > MAX_URL_CHARACTERS:
            raise FeedError(f"{self.trust_domain}: the endpoint redirects to no URL; tell who runs it")
        try:
            target = urljoin(self.url, location)
        except ValueError:
            target = ""
        fault = endpoint_url_fault(target)
        if fault is not None:
            raise FeedError(f"{self.trust_domain}: the endpoint redirects to a place that is not followed: {fault}")
        return target


def endpoint_url_fault(url: str) -> str | None:
    """Says why a URL is none of a bundle endpoint, None when it is (SPIFFE Federation section 5.2).

    It must be https, name a host, and hold no userinfo. STRICTER: no fragment either, and only characters that a URI
    may have (RFC 3986 section 2). A password in it is not shown.

    >>> endpoint_url_fault("http://other.example/")
    'the URL begins with http and not https; a bundle decides whom to trust and never travels in the clear'
    """
    if not url or len(url) > MAX_URL_CHARACTERS:
        return f"the URL must have 1 to {MAX_URL_CHARACTERS} characters"
    if not _URL_CHARACTERS.fullmatch(url):
        return "the URL holds a character that no URL may have; write it percent-encoded"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL cannot be read; write https://<host>[:<port>]/<path>"
    if parts.scheme != "https":
        begin = parts.scheme or "no scheme"
        return (
            f"the URL begins with {begin} and not https; a bundle decides whom to trust and never travels in the clear"
        )
    if "@" in parts.netloc:
        return "the URL holds a user name or password; take it out, an endpoint asks for none"
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    if not _HOST.fullmatch(host) or port == 0:
        return "the URL names no host, or no port that exists; write https://<host>[:<port>]/<path>"
    if "#" in url:
        return "the URL has a fragment, which is never sent; take it out"
    return None


def answer(bundle: TrustBundle, refresh_hint: int = int(DEFAULT_INTERVAL)) -> BundleAnswer:
    """Writes what an endpoint answers; the bundle's own refresh hint goes before `refresh_hint` (seconds).

    Raises FeedError without a sequence: whoever polls could not tell an old copy from a new one.

    >>> from certs.testing import MemoryAuthority
    >>> b'"spiffe_refresh_hint": 300' in answer(MemoryAuthority("cluster.local").authority.bundle).body
    True
    """
    if bundle.sequence is None:
        raise FeedError(f"the bundle of {bundle.trust_domain} has no sequence; number it before it is published")
    hint = refresh_hint if bundle.refresh_hint is None else bundle.refresh_hint
    body = dataclasses.replace(bundle, refresh_hint=hint).to_jwks()
    return BundleAnswer(body=body, etag=entity_tag(body))


def entity_tag(content: bytes) -> str:
    """Names a content as an ETag does (RFC 9110 section 8.8.3).

    >>> entity_tag(b"")
    '"e3b0c44298fc1c149afbf4c8996fb924"'
    """
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Tells whether the header If-None-Match, as it was sent, says that the content of this tag is held already.

    >>> is_known('"1"', 'W/"1", "2"'), is_known('"1"', "*"), is_known('"1"', '"2"'), is_known('"1"', None)
    (True, True, False, False)
    """
    etags = [] if if_none_match is None else [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in etags or "*" in etags


def take(held: TrustBundle | None, trust_domain: TrustDomain, data: bytes, source: str) -> Taken:
    """Judges a document that was fetched against the bundle that is held; `source` (the URL) names it in messages.

    Raises BundleError when the document is no bundle, FeedError when it contradicts the held one; the held bundle
    stays in either case.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> held = memory.authority.bundle
    >>> take(held, memory.trust_domain, b'{"keys": [], "spiffe_sequence": 2}', "bundle").bundle.certificates
    ()
    """
    if held is not None and held.trust_domain != trust_domain:
        raise FeedError(f"{source}: {held.trust_domain} is held and {trust_domain} fetched; bundles are never mixed")
    fetched = parse_jwks(trust_domain, data, source)
    if held is None:
        return Taken(bundle=fetched, is_changed=True)
    is_changed = frozenset(fetched.certificates) != frozenset(held.certificates)
    if held.sequence is None or fetched.sequence is None:
        warning = None
        if held.sequence is not None:
            warning = f"{source}: it has no sequence any more, and had {held.sequence}; an old copy cannot be told now"
        return Taken(bundle=fetched, is_changed=is_changed, warning=warning)
    if fetched.sequence < held.sequence:
        return Taken(
            bundle=held,
            is_changed=False,
            warning=(
                f"{source}: it has sequence {fetched.sequence} and {held.sequence} is held; the older one is ignored, "
                "see whether a cache or a replica lags behind"
            ),
        )
    if fetched.sequence == held.sequence and is_changed:
        raise FeedError(
            f"{source}: its roots are others than before and its sequence is {held.sequence} still; "
            "the publisher must count each change, the bundle that is held stays"
        )
    return Taken(bundle=fetched, is_changed=is_changed)


def next_poll(refresh_hint: int | None, now: float, jitter: float) -> float:
    """Computes when to poll next, in seconds since the epoch as `now` is; `jitter` is a random number in [0, 1).

    A poll that failed changes nothing: the next one comes an interval later, with the hint that is held (SPIFFE
    Federation section 5). A hint beyond what a clock can count is a day.

    >>> next_poll(None, 1000.0, 0.0), next_poll(60, 1000.0, 0.5), next_poll(0, 1000.0, 0.0)
    (1300.0, 1057.0, 1005.0)
    """
    # Compared as it came: a whole number of JSON may be larger than a float can be.
    hinted = DEFAULT_INTERVAL if refresh_hint is None else min(max(refresh_hint, MIN_INTERVAL), MAX_INTERVAL)
    return now + hinted * (1 - JITTER * min(max(jitter, 0.0), 1.0))
