"""Reads our own certificate, and whom we trust, from where they are mounted.

One source so far, `identity.files`: a directory with tls.crt, tls.key, ca.crt and bundles/, read and judged by
`certs.store`. The set is taken whole or not at all: what is wrong is said of all files at once, and the caller keeps
what it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from certs.spiffe import SpiffeId, TrustDomain
from certs.store import IdentitySet, SetError, StoreError, judge_set, read_files
from proxy.errors import ConfigError, Fault
from proxy.identity.verify import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What one generation of contexts is made of."""

    identity_set: IdentitySet
    trust: Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """The directory of `identity.files`, with what the configuration says of its content.

    `expected` is the identity of this workload, when the configuration names it: a directory with somebody else's
    certificate is then a fault. `aliases` are the `trust_domain_aliases`.
    """

    directory: Path
    trust_domain: TrustDomain
    aliases: Sequence[TrustDomain] = ()
    expected: SpiffeId | None = None

    def read(self) -> Mapping[str, bytes]:
        """Reads the files, all of one publication. Raises ConfigError."""
        try:
            return read_files(self.directory)
        except StoreError as error:
            raise ConfigError([Fault(file=str(self.directory), message=str(error))]) from error

    def judge(self, files: Mapping[str, bytes], now: float) -> Material:
        """Judges what `read` gave at `now` (seconds since the epoch). Raises ConfigError with every fault."""
        try:
            identity_set = judge_set(files, self.trust_domain, datetime.fromtimestamp(now, UTC), self.expected)
        except SetError as error:
            faults = [_fault_in(self.directory, fault) for fault in error.faults]
            raise ConfigError(faults) from error
        return Material(
            identity_set=identity_set,
            trust=Trust.of(self.trust_domain, identity_set.bundles, self.aliases),
        )

    def load(self, now: float) -> Material:
        """Reads and judges. Raises ConfigError with every fault."""
        return self.judge(self.read(), now)


def _fault_in(directory: Path, sentence: str) -> Fault:
    name, separator, rest = sentence.partition(": ")
    if separator and "/" not in name.rstrip("/") and " " not in name:
        return Fault(file=str(directory / name), message=rest)
    return Fault(file=str(directory), message=sentence)
