"""Begins what an identity source needs to have running, and lays the polled bundles beside what it gives.

own files      read at each look (files, credential bundle), or held by a thread (command, Workload API) or by the
               enrolment with an authority, which runs on the loop (`proxy.enrolment.begin`)
foreign files  bundles/<trust domain>.json of every domain that is federated with
merged         what `judge_identity` takes, here and in every worker
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from certs.store import IdentitySet
from proxy.config import Config
from proxy.config_values import IdentityCommand, IdentityWorkloadApi
from proxy.errors import ConfigError, Fault
from proxy.material import identity_of, judge_material, read_identity

if TYPE_CHECKING:
    from proxy.enrolment.federation import Federation

Files = Mapping[str, bytes]


class HeldSource(Protocol):
    """A source that is kept running: `read` gives the files of an identity, or raises ConfigError."""

    def read(self) -> Files: ...
    def close(self) -> None: ...


class Sources:
    """Where the identity and the foreign bundles of one process come from. Begins threads; `close` ends them."""

    def __init__(self, config: Config, held: HeldSource | None = None) -> None:
        """The source of the identity is that of `config` for good, or `held`; whom to federate with may change."""
        self._held = _begin(config) if held is None else held
        self._federation: Federation | None = None
        self._cache_directory = config.federation_cache

    def own(self, config: Config) -> Files:
        """Give the files of our identity. Raises ConfigError with every fault."""
        return self._held.read() if self._held is not None else read_identity(config)

    def foreign(self, config: Config) -> Files:
        """Follow the domains that `config` names now, and give their bundles that are in force."""
        if self._federation is None:
            if not config.federation:
                return {}
            from proxy.enrolment.federation import Federation  # HTTP's client is memory that most sidecars never need

            self._federation = Federation(cache_directory=self._cache_directory)
        self._federation.follow(config.federation)
        return self._federation.files()

    @property
    def is_held(self) -> bool:
        """Tell whether our own files are kept in memory, and so never seen half written."""
        return self._held is not None

    def federation_standing(self) -> str:
        """Say for a person how every domain stands that is polled."""
        return self._federation.words() if self._federation is not None else "no endpoint was polled yet"

    @property
    def federation(self) -> Federation | None:
        """What is polled; None until the configuration names a domain."""
        return self._federation

    def close(self) -> None:
        """End every thread."""
        if self._held is not None:
            self._held.close()
        if self._federation is not None:
            self._federation.close()


def merged(own: Files, foreign: Files) -> Files:
    """Lay the polled bundles beside our own files. Raises ConfigError where a domain has a mounted bundle as well.

    >>> sorted(merged({"tls.crt": b""}, {"bundles/other.example.json": b""}))
    ['bundles/other.example.json', 'tls.crt']
    """
    faults = []
    for name in foreign:
        stem = name.removesuffix(".json")
        for mounted in (name, f"{stem}.pem"):
            if mounted in own:
                domain = stem.rpartition("/")[2]
                message = f"{domain} has a bundle here and is polled by `federation`: two sources for one trust"
                faults.append(Fault(file=mounted, message=message, hint="remove one of the two"))
    if faults:
        raise ConfigError(faults)
    return {**own, **foreign}


def _begin(config: Config) -> HeldSource | None:
    def judge(files: Files, now: float) -> IdentitySet:
        return judge_material(config, files, now).identity_set

    # Imported when they are asked for: a sidecar that reads files has neither programs to run nor gRPC to speak here.
    match config.identity:
        case IdentityCommand():
            from proxy.enrolment.command import CommandSource

            return CommandSource(config.identity, judge)
        case IdentityWorkloadApi():
            from proxy.enrolment.workload_api import WorkloadApiSource

            return WorkloadApiSource(config.identity, identity_of(config), judge)
        case _:
            return None
