"""Reads our own certificate, and whom we trust, from where they are mounted, and judges what any source gave.

Sources differ in where the files come from, and in little else: each gives tls.crt, tls.key, ca.crt and bundles/ as
bytes in memory, and `judge_files` makes of them what a generation of contexts needs.

    identity.files              a directory with these names             FilesSource
    identity.credential_bundle  key and chain in one file, roots apart   proxy.identity.delivered
    identity.authority          given by our authority, with its list    EnrolledSource judges, proxy.enrolment asks
    command, Workload API       kept in memory by who fetches them       proxy.enrolment

The set is taken whole or not at all: what is wrong is said of all files at once, and the caller keeps what it had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from certs.bundle import BundleError, TrustBundle, parse_jwks
from certs.crl import CrlPolicy
from certs.crl_extension import CrlError
from certs.spiffe import SpiffeId, TrustDomain
from certs.store import IdentitySet, SetError, StoreError, judge_set, read_files
from proxy.errors import ConfigError, Fault
from proxy.identity.revocation import RevocationCheck, read_revocations
from proxy.identity.verify import Trust

NEWEST_BUNDLE_FILE: Final = "bundle.json"
"""Beside ca.crt, which our own chain leads to: whom we trust now, where an authority has given a newer bundle."""
CRL_BUNDLE_FILE: Final = "crl-bundle.json"
"""The bundle of the day on which the revocation list was taken: the end of a root brings nobody back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What one generation of contexts is made of."""

    identity_set: IdentitySet
    trust: Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """The directory of `identity.files`, with what the configuration says of its content.

    `expected` is the identity of this workload, when the configuration names it: a directory with somebody else's
    certificate is then a fault. `aliases` are the `trust_domain_aliases`; `crl` says what holds while there is no
    revocation list.
    """

    directory: Path
    trust_domain: TrustDomain
    aliases: Sequence[TrustDomain] = ()
    expected: SpiffeId | None = None
    crl: CrlPolicy = CrlPolicy.WARN

    def read(self) -> Mapping[str, bytes]:
        """Reads the files, all of one publication. Raises ConfigError."""
        try:
            return read_files(self.directory)
        except StoreError as error:
            raise ConfigError([Fault(file=str(self.directory), message=str(error))]) from error

    def judge(self, files: Mapping[str, bytes], now: float) -> Material:
        """Judges what `read` gave at `now` (seconds since the epoch). Raises ConfigError with every fault."""
        return judge_files(
            files,
            now,
            trust_domain=self.trust_domain,
            aliases=self.aliases,
            expected=self.expected,
            crl=self.crl,
            place=lambda sentence: _fault_in(self.directory, sentence),
        )

    def load(self, now: float) -> Material:
        """Reads and judges. Raises ConfigError with every fault."""
        return self.judge(self.read(), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledSource:
    """What the authority at `url` gave, as `Enrolled.files` lays it out; the other fields are those of FilesSource."""

    url: str
    trust_domain: TrustDomain
    aliases: Sequence[TrustDomain] = ()
    expected: SpiffeId | None = None
    crl: CrlPolicy = CrlPolicy.WARN

    def judge(self, files: Mapping[str, bytes], now: float) -> Material:
        """Judges at `now` (seconds since the epoch). Raises ConfigError with every fault.

        Our chain is judged by the roots that it came with, peers are by the newest bundle, the list by the one of its
        day.
        """
        try:
            newest = self._bundle(files, NEWEST_BUNDLE_FILE)
            return judge_files(
                files,
                now,
                trust_domain=self.trust_domain,
                aliases=self.aliases,
                expected=self.expected,
                crl=self.crl,
                place=self._place,
                newest=newest,
                list_bundle=self._bundle(files, CRL_BUNDLE_FILE),
            )
        except BundleError as error:
            raise ConfigError([self._place(sentence) for sentence in error.faults]) from error

    def _bundle(self, files: Mapping[str, bytes], name: str) -> TrustBundle | None:
        return parse_jwks(self.trust_domain, files[name], name) if name in files else None

    def _place(self, sentence: str) -> Fault:
        return Fault(file=self.url, message=sentence)


def judge_files(
    files: Mapping[str, bytes],
    now: float,
    *,
    trust_domain: TrustDomain,
    aliases: Sequence[TrustDomain] = (),
    expected: SpiffeId | None = None,
    crl: CrlPolicy = CrlPolicy.WARN,
    place: Callable[[str], Fault],
    newest: TrustBundle | None = None,
    list_bundle: TrustBundle | None = None,
) -> Material:
    """Judges the files of an identity, whatever source gave them, at `now` (seconds since the epoch).

    `crl` says what holds while there is no revocation list. `place` makes a fault of a sentence that begins with the
    name of the file. `newest` are the roots of our own domain for peers, and `list_bundle` those that
    vouch for the list, where they are others than those in ca.crt. Raises ConfigError with every fault.
    """
    try:
        identity_set = judge_set(files, trust_domain, datetime.fromtimestamp(now, UTC), expected)
        own = identity_set.bundles[trust_domain]
        revocations = read_revocations(files, identity_set, list_bundle or own, crl, now)
    except SetError as error:
        raise ConfigError([place(sentence) for sentence in error.faults]) from error
    except CrlError as error:
        if newest is None:
            raise ConfigError([place(str(error))]) from error
        # An authority gave certificate and bundle, which are orders: a list that has aged does not hold them up.
        revocations = RevocationCheck(policy=crl, fault=str(error))
    if newest is not None:
        bundles = MappingProxyType({**identity_set.bundles, trust_domain: newest})
        identity_set = dataclasses.replace(identity_set, bundles=bundles)
    trust = Trust.of(trust_domain, identity_set.bundles, aliases, revocations)
    return Material(identity_set=identity_set, trust=trust)


def _fault_in(directory: Path, sentence: str) -> Fault:
    """Places a sentence that begins with the name of a file at that file of a directory."""
    name, separator, rest = sentence.partition(": ")
    if separator and "/" not in name.rstrip("/") and " " not in name:
        return Fault(file=str(directory / name), message=rest)
    return Fault(file=str(directory), message=sentence)
