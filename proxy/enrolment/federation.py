"""Follows the bundle endpoints of the configuration: a thread for each foreign trust domain, and a cache if asked for.

    follow(what the configuration names) --> thread: wait --> ask --> step of certs.federation --> wait ...
    files()  <-- the bundles in force, as bundles/<trust domain>.json, beside the mounted files

Steps are decided in `certs.federation`; here are the waits, the files and the log. A thread for each domain, because
an endpoint that hangs must not make the bundle of another one old, and none of this is near the byte path.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certs.bundle import MAX_BUNDLE_BYTES, BundleError, parse_bundle
from certs.bundle_feed import BundleEndpoint, EndpointProfile, FeedError
from certs.federation import (
    MAX_CACHE_BYTES,
    Relationship,
    Step,
    answer,
    begin,
    bundle_files,
    fail,
    reconfigure,
    unchanged,
    write_cache,
)
from certs.files import replace_file
from certs.spiffe import TrustDomain
from proxy.config_values import FederatedDomain
from proxy.enrolment.federation_fetch import Poll

POLL_SECONDS: Final = 10.0
"""For one poll, redirects included. Longer, and a close waits; shorter, and an endpoint across an ocean that is busy
is called broken."""

_JOIN_SECONDS: Final = 2.0
"""A thread that hangs in a look-up of names longer than this is left behind; it is a daemon and ends with us."""

_log = logging.getLogger("remora.federation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one foreign domain stands. `relationship` is None until its bootstrap bundle could be read.

    `fault` says what is wrong, "" when nothing is; `polls` counts what was asked since it is followed.
    """

    trust_domain: TrustDomain
    relationship: Relationship | None
    fault: str
    polls: int


class Federation:
    """Every foreign trust domain that is polled. `follow` from one thread, `files` and `standing` from any."""

    def __init__(self, *, cache_directory: str = "", now: Callable[[], float] = time.time) -> None:
        """`cache_directory` keeps bundles over a restart, "" for none; `now` gives seconds since the epoch."""
        self._cache = Path(cache_directory) if cache_directory else None
        self._now = now
        self._domains: tuple[FederatedDomain, ...] = ()
        self._followers: dict[TrustDomain, _Follower] = {}
        self._ended: list[_Follower] = []

    def follow(self, domains: Sequence[FederatedDomain]) -> None:
        """Follow exactly these from now on. A domain that is left out ends at once, its cached bundle as well."""
        wanted = tuple(domains)
        if wanted == self._domains:
            return
        self._domains = wanted
        by_name = {domain.trust_domain: domain for domain in wanted}
        followers = dict(self._followers)
        for name in [name for name in followers if name not in by_name]:
            follower = followers.pop(name)
            follower.stop(forget=True)
            self._ended.append(follower)
            _log.info("the trust domain %s is federated with no more", name)
        for name, domain in by_name.items():
            if name in followers:
                followers[name].change(domain)
            else:
                followers[name] = _Follower(domain, self._cache, self._now)
        self._followers = followers
        self._ended = [follower for follower in self._ended if follower.is_running]

    def files(self) -> Mapping[str, bytes]:
        """Give the bundles in force as files: `bundles/<trust domain>.json`."""
        standing = [follower.relationship for follower in self._followers.values()]
        return bundle_files([relationship for relationship in standing if relationship is not None])

    def standing(self) -> tuple[Standing, ...]:
        """Say how each domain stands, in the order of their names."""
        return tuple(follower.standing() for _, follower in sorted(self._followers.items()))

    def words(self) -> str:
        """Say for a person how every domain stands."""
        return "; ".join(f"{standing.trust_domain}: {_words(standing, self._now())}" for standing in self.standing())

    def poll_now(self) -> None:
        """Ask every endpoint now and not when it is due."""
        for follower in self._followers.values():
            follower.wake()

    def close(self) -> None:
        """End every thread; what is in force stays in the cache."""
        followers = [*self._followers.values(), *self._ended]
        for follower in followers:
            follower.stop(forget=False)
        for follower in followers:
            follower.join(_JOIN_SECONDS)


class _Follower:
    """One foreign domain and its thread. The relationship is replaced by one assignment, and only by that thread."""

    def __init__(self, domain: FederatedDomain, cache: Path | None, now: Callable[[], float]) -> None:
        self.relationship: Relationship | None = None
        self._domain = domain
        self._cache = cache / f"{domain.trust_domain}.json" if cache is not None else None
        self._now = now
        self._fault = ""
        self._polls = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._woken = False
        self._poll: Poll | None = None
        self._thread = threading.Thread(target=self._run, name=f"federation {domain.trust_domain}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def standing(self) -> Standing:
        return Standing(
            trust_domain=self._domain.trust_domain,
            relationship=self.relationship,
            fault=self._fault,
            polls=self._polls,
        )

    def change(self, domain: FederatedDomain) -> None:
        with self._changed:
            if domain != self._domain:
                self._domain = domain
                self._woken = True
                self._changed.notify()

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify()

    def stop(self, *, forget: bool) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
            if self._poll is not None:
                self._poll.abort()
            if forget and self._cache is not None:
                # Within the lock: a poll that ends now must not write the file again.
                with contextlib.suppress(OSError):
                    self._cache.unlink(missing_ok=True)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    # --- the thread ---

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                domain, self._woken = self._domain, False
            try:
                wait = self._poll_once(domain)
            except Exception:
                _log.exception("polling the bundle of %s failed; what is in force stays", domain.trust_domain)
                wait = POLL_SECONDS
            with self._changed:
                # Waited for by a clock that nobody sets: an hour's jump must not be an hour's wait.
                self._changed.wait_for(lambda: self._stopping or self._woken, wait)

    def _poll_once(self, domain: FederatedDomain) -> float:
        """Ask once; give the seconds to wait."""
        relationship = self._related(domain)
        if relationship is None:
            self._polls += 1
            return POLL_SECONDS
        poll = Poll(
            relationship.endpoint,
            relationship.verifying_bundle,
            etag=relationship.known_etag,
            seconds=POLL_SECONDS,
            ca_file=domain.ca_file,
        )
        with self._changed:
            self._poll = poll
            if self._stopping:
                return 0.0
        jitter = random.random()  # noqa: S311 - it spreads load and guards nothing
        try:
            answered = poll.run()
        except FeedError as failure:
            step = fail(relationship, str(failure), now=self._now(), jitter=jitter)
        else:
            if answered.body is None:
                step = unchanged(relationship, now=self._now(), jitter=jitter)
            else:
                step = answer(relationship, answered.body, etag=answered.etag, now=self._now(), jitter=jitter)
        self._take(step)
        return max(step.relationship.next_poll_at - self._now(), 0.0)

    def _related(self, domain: FederatedDomain) -> Relationship | None:
        """The relationship as the configuration and the bootstrap bundle are now; None when it cannot begin."""
        known = self.relationship
        try:
            endpoint = read_endpoint(domain)
        except FeedError as failure:
            if known is not None and _parameters(known.endpoint) == _parameters(domain):
                return known  # the bootstrap bundle has gone, and has done its work
            self._say(str(failure))
            return None
        if known is None:
            step = begin(endpoint, self._read_cache())
            if step.warning:
                _log.warning("%s", step.warning)
            if step.relationship.bundle is not None:
                _log.info("the bundle of %s is the cached one until its endpoint has answered", domain.trust_domain)
            known = step.relationship
        self.relationship = reconfigure(known, endpoint)
        return self.relationship

    def _take(self, step: Step) -> None:
        before, relationship = self.relationship, step.relationship
        name = relationship.endpoint.trust_domain
        with self._changed:
            self._poll = None
            if self._stopping:
                return
            self.relationship = relationship
            # Only a document that came is worth writing: 304 and failures leave the file as it is.
            if relationship.held is not None and _content(relationship) != _content(before):
                self._write_cache(relationship)
        if step.is_changed and relationship.bundle is not None:
            count = len(relationship.bundle.certificates)
            if count:
                _log.info("the bundle of %s has %d roots, sequence %s", name, count, relationship.bundle.sequence)
            else:
                _log.warning("the bundle of %s is empty: nobody of it is trusted any more", name)
        if step.warning:
            _log.warning("the bundle of %s: %s", name, step.warning)
        self._say(relationship.fault)
        self._polls += 1

    def _say(self, fault: str) -> None:
        if fault and fault != self._fault:
            has_bundle = self.relationship is not None and self.relationship.bundle is not None
            standing = "its last one stays in force" if has_bundle else "nobody of it is trusted yet"
            _log.warning("the bundle of %s cannot be fetched, %s: %s", self._domain.trust_domain, standing, fault)
        elif self._fault and not fault:
            _log.info("the bundle of %s can be fetched again", self._domain.trust_domain)
        self._fault = fault

    # --- the cache ---

    def _read_cache(self) -> bytes | None:
        if self._cache is None:
            return None
        try:
            with self._cache.open("rb") as file:
                return file.read(MAX_CACHE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as failure:
            _log.warning("%s: the cached bundle cannot be read: %s", self._cache, failure.strerror)
            return None

    def _write_cache(self, relationship: Relationship) -> None:
        if self._cache is None:
            return
        try:
            self._cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._cache, write_cache(relationship))
        except OSError as failure:
            _log.warning("%s: the bundle cannot be kept for a restart: %s", self._cache, failure.strerror)


def read_endpoint(domain: FederatedDomain) -> BundleEndpoint:
    """Make the endpoint that the configuration describes, its bootstrap bundle read. Raises FeedError."""
    bootstrap = None
    if domain.bundle_file and domain.identity is not None:
        try:
            with Path(domain.bundle_file).open("rb") as file:
                data = file.read(MAX_BUNDLE_BYTES + 1)
            bootstrap = parse_bundle(domain.identity.trust_domain, data, domain.bundle_file)
        except OSError as failure:
            raise FeedError(
                f"{domain.bundle_file}: the bootstrap bundle cannot be read ({failure.strerror}); bring the bundle of "
                f"{domain.identity.trust_domain} there"
            ) from failure
        except BundleError as failure:
            raise FeedError(str(failure)) from failure
    return BundleEndpoint(
        trust_domain=domain.trust_domain,
        url=domain.url,
        profile=EndpointProfile(domain.profile),
        endpoint_id=domain.identity,
        bootstrap=bootstrap,
    )


def _parameters(described: BundleEndpoint | FederatedDomain) -> tuple[object, ...]:
    if isinstance(described, BundleEndpoint):
        return described.trust_domain, described.url, described.profile.value, described.endpoint_id
    return described.trust_domain, described.url, described.profile, described.identity


def _words(standing: Standing, now: float) -> str:
    relationship = standing.relationship
    if relationship is None or relationship.bundle is None:
        words = "nobody is trusted yet"
    elif not relationship.bundle.certificates:
        words = "ended by its own bundle, nobody is trusted"
    else:
        age = now - (relationship.fetched_at or now)
        words = f"{len(relationship.bundle.certificates)} roots, fetched {age:.0f} s ago"
    return f"{words} ({standing.fault})" if standing.fault else words


def _content(relationship: Relationship | None) -> object:
    return None if relationship is None else (relationship.bundle, relationship.source)
