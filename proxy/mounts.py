"""What is mounted, and what happens when it changes: certificates and trust, policies, the configuration file.

    certificates   new TLS contexts in one assignment; open connections are judged again by the new trust
    federation     the same, with the bundles of other trust domains that were polled
    policy         new snapshot in one assignment; open connections are judged again by it
    config         ports, services, endpoints and policy settings follow; what cannot is named in the log

A set is taken whole or not at all. A broken one keeps what is in force, and says so in the log, in a gauge and in the
readiness detail, until what is mounted is whole again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from certs.crl_extension import CrlError
from proxy.admin.pages import Readiness
from proxy.config import Config, load_config
from proxy.config_read import ConfigReader
from proxy.config_values import IdentityAuthority
from proxy.enrolment.sources import Sources, merged
from proxy.errors import ConfigError, Fault
from proxy.handshake.contexts import TlsGeneration
from proxy.inforce import RESTART, Doors, InForce, as_far_as_possible, fixed
from proxy.material import compile_policy, judge_identity, name_of_source, read_policy
from proxy.policy import PolicySnapshot
from proxy.sidecar import Sidecar
from proxy.types import Generation
from proxy.watch import Files, Source, Watcher

if TYPE_CHECKING:
    from proxy.enrolment.authority import Enrolment

_log = logging.getLogger("remora")

_NewConfig = tuple[Config, bytes, PolicySnapshot | None, Files]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The files of what was put in force just now, where it has changed: for whoever judges the same bytes again."""

    config: bytes | None = None
    certificates: Files | None = None
    policy: Files | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _NewTrust:
    """Contexts of our own files with the foreign bundles beside them; `files` is both."""

    tls: TlsGeneration
    own: Files
    foreign: Files
    files: Files


class Mounts:
    """Loads what is mounted and follows its changes. `look_now` at the start, then `follow` until cancelled."""

    def __init__(
        self,
        sidecar: Sidecar,
        doors: Doors,
        readiness: Readiness,
        *,
        file: str,
        when_ready: Callable[[], None],
        when_taken: Callable[[Taken], None] = lambda _: None,
    ) -> None:
        """`file` is the configuration file, "" when there is none to follow; `when_taken` hears of all that is new."""
        self._sidecar = sidecar
        self._in_force = InForce(sidecar, doors, readiness, file=file, when_ready=when_ready)
        self._readiness = readiness
        self._file = file
        self._config_reader = ConfigReader(file)
        self._when_taken = when_taken
        self._restart_named: tuple[str, ...] = ()
        self.enrolment = self._begin_enrolment()
        self.supply = Sources(sidecar.config, self.enrolment)
        self._own: Files | None = None
        self._foreign: Files = {}
        self._show_federation()
        sources: list[
            Source[_NewConfig] | Source[_NewTrust] | Source[_NewTrust | None] | Source[tuple[PolicySnapshot, Files]]
        ] = []
        if file:
            sources.append(
                Source(
                    "config",
                    read=self._read_config,
                    judge=self._judge_config,
                    take=self._take_config,
                    reject=self._rejecter("config", lambda: sidecar.config.outbound.is_whole),
                )
            )
        sources.append(
            Source(
                "certificates",
                read=self._read_certificates,
                judge=self._judge_certificates,
                take=self._take_certificates,
                reject=self._rejecter("certificates", self._has_identity),
                is_whole=self.supply.is_held,
            )
        )
        # A source of its own: a broken file of ours must not keep an order of another trust domain from counting.
        sources.append(
            Source(
                "federation",
                read=lambda: self.supply.foreign(sidecar.config),
                judge=self._judge_federation,
                take=self._take_federation,
                reject=self._rejecter("federation", lambda: sidecar.tls is not None),
                is_whole=True,
            )
        )
        sources.append(
            Source(
                "policy",
                read=lambda: read_policy(sidecar.config),
                judge=self._judge_policy,
                take=self._take_policy,
                reject=self._rejecter("policy", lambda: sidecar.policy is not None),
            )
        )
        for source in sources:
            sidecar.metrics.config_rejected[source.kind] = False
        self.sources = sources
        self._watcher = Watcher(sidecar.loop, sidecar.config.runtime.watch_interval, sources)

    def look_now(self) -> None:
        """Load what is there."""
        self._watcher.look_now()

    async def follow(self) -> None:
        """Follow every change until cancelled."""
        if self.enrolment is not None:
            self._sidecar.tasks.spawn(self.enrolment.run(), "enrol with the authority")
        await self._watcher.run()

    def close(self) -> None:
        """End the watcher and what the sources have running."""
        self._watcher.close()
        self.supply.close()

    def _begin_enrolment(self) -> Enrolment | None:
        asks = self._sidecar.config.identity
        if not isinstance(asks, IdentityAuthority):
            return None
        from proxy.enrolment.begin import begin_enrolment  # a sidecar that reads files never needs its memory

        return begin_enrolment(self._sidecar, asks, self._readiness, self._look_soon)

    def _look_soon(self) -> None:
        self._watcher.look_soon()  # which is made after the sources are

    # --- certificates and trust ---

    def _read_certificates(self) -> Files:
        own = self.supply.own(self._sidecar.config)
        if own == self._own and not self._has_identity():
            # Nothing that is judged has changed, and still it counts no more.
            message = "our certificate has ended, and what is there is the one that we have"
            raise ConfigError([Fault(file=name_of_source(self._sidecar.config), message=message, hint="issue another")])
        return own

    def _has_identity(self) -> bool:
        tls = self._sidecar.tls
        return tls is not None and time.time() < tls.identity_set.not_after

    def _judge_certificates(self, own: Files) -> _NewTrust:
        return self._judge_trust(own, self.supply.foreign(self._sidecar.config))

    def _take_certificates(self, new: _NewTrust) -> None:
        self._own, self._foreign = new.own, new.foreign
        self._in_force.take_certificates(new.tls)
        self._when_taken(Taken(certificates=new.files))

    def _judge_federation(self, foreign: Files) -> _NewTrust | None:
        """Judge with the files of ours that are in force; None when there is nothing to be put in force."""
        if self._own is None or foreign == self._foreign:
            return None
        return self._judge_trust(self._own, foreign)

    def _take_federation(self, new: _NewTrust | None) -> None:
        self._sidecar.metrics.config_rejected["federation"] = False
        for told in (self._readiness.rejected, self._readiness.missing):
            told.pop("federation", None)
        if new is not None:
            self._take_certificates(new)

    def _show_federation(self) -> None:
        if self._sidecar.config.federation:
            self._readiness.standing["federation"] = self.supply.federation_standing
        else:
            self._readiness.standing.pop("federation", None)

    def _judge_trust(self, own: Files, foreign: Files) -> _NewTrust:
        sidecar = self._sidecar
        files = merged(own, foreign)
        tls = judge_identity(sidecar.config, files, Generation(sidecar.tls_generation + 1), time.time())
        self._refuse_older_list(tls)
        return _NewTrust(tls=tls, own=own, foreign=foreign, files=files)

    def _refuse_older_list(self, tls: TlsGeneration) -> None:
        """Raise ConfigError when the revocation list would bring back what was revoked since."""
        held = self._sidecar.tls.trust.revocations.snapshot if self._sidecar.tls is not None else None
        snapshot = tls.trust.revocations.snapshot
        if snapshot is None or snapshot == held:
            return
        try:
            snapshot.newer_than(held)
        except CrlError as error:
            raise ConfigError([Fault(file=name_of_source(self._sidecar.config), message=str(error))]) from error

    # --- policy ---

    def _judge_policy(self, files: Files) -> tuple[PolicySnapshot, Files]:
        sidecar = self._sidecar
        return compile_policy(sidecar.config, files, Generation(sidecar.policy_generation + 1)), files

    def _take_policy(self, new: tuple[PolicySnapshot, Files]) -> None:
        policy, files = new
        self._in_force.take_policy(policy)
        self._when_taken(Taken(policy=files))

    # --- the configuration file ---

    def _read_config(self) -> Mapping[str, bytes]:
        return {self._file: self._config_reader.read().pack()}

    def _judge_config(self, files: Files) -> _NewConfig:
        """Judge the file with what depends on it: policies are compiled for its ports and settings."""
        data = files[self._file]
        config = self._as_far_as_possible(load_config(data, self._file))
        old = self._sidecar.config
        if (config.policy, config.inbound, config.workload) == (old.policy, old.inbound, old.workload):
            return config, data, None, {}
        policies = read_policy(config)
        generation = Generation(self._sidecar.policy_generation + 1)
        return config, data, compile_policy(config, policies, generation), policies

    def _as_far_as_possible(self, config: Config) -> Config:
        """Keep of the running configuration what only a restart can change, and note what that is."""
        old = self._sidecar.config
        changed = tuple(name for name in RESTART if fixed(config, name) != fixed(old, name))
        if changed != self._restart_named:
            self._restart_named = changed
            if changed:
                _log.warning("config: changes of %s take effect after a restart", ", ".join(changed))
        return as_far_as_possible(config, old)

    def _take_config(self, new: _NewConfig) -> None:
        config, data, policy, policies = new
        is_news = self._in_force.take_config(config, policy)
        self._show_federation()
        if is_news:
            self._when_taken(Taken(config=data, policy=policies if policy is not None else None))

    # --- what is broken ---

    def _rejecter(self, kind: str, in_force: Callable[[], bool]) -> Callable[[Sequence[Fault]], None]:
        def reject(faults: Sequence[Fault]) -> None:
            sentences = [str(fault) for fault in faults]
            readiness = self._readiness
            self._sidecar.metrics.config_rejected[kind] = bool(faults)
            if not faults:
                readiness.rejected.pop(kind, None)
                readiness.missing.pop(kind, None)
                _log.info("%s: what is mounted is again what is in force", kind)
            elif in_force():
                readiness.rejected[kind] = sentences
                for sentence in sentences:
                    _log.warning("%s rejected, the last valid ones stay in force: %s", kind, sentence)
            else:
                readiness.rejected.pop(kind, None)
                readiness.missing[kind] = sentences
                for sentence in sentences:
                    _log.warning("not ready: %s: %s", kind, sentence)

        return reject
