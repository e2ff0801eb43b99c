"""What is mounted, and what happens when it changes: certificates and trust, policies, the configuration file.

    certificates   new TLS contexts in one assignment; open connections are judged again by the new trust
    policy         new snapshot in one assignment; open connections are judged again by it
    config         ports, services, endpoints and policy settings follow; what cannot is named in the log

A set is taken whole or not at all. A broken one keeps what is in force, and says so in the log, in a gauge and in the
readiness detail, until what is mounted is whole again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from certs.store import key_file_warnings
from proxy.admin.pages import Readiness
from proxy.config import Config, load_config
from proxy.errors import ConfigError, Fault
from proxy.handshake.contexts import TlsGeneration
from proxy.material import compile_policy, judge_identity, read_identity, read_policy
from proxy.policy import PolicySnapshot
from proxy.sidecar import Sidecar
from proxy.traffic import Traffic
from proxy.types import Generation
from proxy.watch import Source, Watcher

_RESTART: Final = (
    "workload",
    "trust_domain",
    "trust_domain_aliases",
    "identity",
    "admin",
    "health",
    "telemetry",
    "limits",
    "runtime",
)
"""Sections of the configuration that a running process cannot follow: who it is, and what it was built with."""

_log = logging.getLogger("remora")

_NewConfig = tuple[Config, PolicySnapshot | None]


class Mounts:
    """Loads what is mounted and follows its changes. `look_now` at the start, then `follow` until cancelled."""

    def __init__(
        self,
        sidecar: Sidecar,
        traffic: Traffic,
        readiness: Readiness,
        *,
        file: str,
        when_ready: Callable[[], None],
    ) -> None:
        """`file` is the configuration file, "" when there is none to follow."""
        self._sidecar = sidecar
        self._traffic = traffic
        self._readiness = readiness
        self._file = file
        self._when_ready: Callable[[], None] | None = when_ready
        self._restart_named: tuple[str, ...] = ()
        sources: list[Source[_NewConfig] | Source[TlsGeneration] | Source[PolicySnapshot]] = []
        if file:
            sources.append(
                Source(
                    "config",
                    read=self._read_config,
                    judge=self._judge_config,
                    take=self._take_config,
                    reject=self._rejecter("config", lambda: True),
                )
            )
        sources.append(
            Source(
                "certificates",
                read=lambda: read_identity(sidecar.config),
                judge=self._judge_certificates,
                take=self._take_certificates,
                reject=self._rejecter("certificates", lambda: sidecar.tls is not None),
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
        await self._watcher.run()

    def close(self) -> None:
        """End the watcher's thread."""
        self._watcher.close()

    # --- certificates and trust ---

    def _judge_certificates(self, files: Mapping[str, bytes]) -> TlsGeneration:
        sidecar = self._sidecar
        return judge_identity(sidecar.config, files, Generation(sidecar.tls_generation + 1), time.time())

    def _take_certificates(self, tls: TlsGeneration) -> None:
        sidecar = self._sidecar
        sidecar.tls = tls
        for warning in key_file_warnings(Path(sidecar.config.identity.directory)):
            _log.warning("certificates: %s", warning)
        hours = (tls.identity_set.not_after - time.time()) / 3600
        self._taken("certificates", f"serial {tls.identity_set.serial}, {hours:.1f} h left", tls.generation)

    # --- policy ---

    def _judge_policy(self, files: Mapping[str, bytes]) -> PolicySnapshot:
        sidecar = self._sidecar
        return compile_policy(sidecar.config, files, Generation(sidecar.policy_generation + 1))

    def _take_policy(self, policy: PolicySnapshot) -> None:
        self._sidecar.policy = policy
        authentication = policy.authentication
        self._sidecar.key_store.follow(authentication.uris if authentication is not None else {})
        for warning in policy.warnings:
            _log.warning("policy: %s", warning)
        self._taken("policy", f"digest {policy.source_digest[:12]}", policy.generation)

    # --- the configuration file ---

    def _read_config(self) -> Mapping[str, bytes]:
        try:
            return {self._file: Path(self._file).read_bytes()}
        except OSError as failure:
            message = f"the configuration file cannot be read: {failure.strerror}"
            raise ConfigError([Fault(file=self._file, message=message)]) from failure

    def _judge_config(self, files: Mapping[str, bytes]) -> _NewConfig:
        """Judge the file with what depends on it: policies are compiled for its ports and settings."""
        config = self._as_far_as_possible(load_config(files[self._file], self._file))
        old = self._sidecar.config
        if config.policy == old.policy and config.inbound == old.inbound:
            return config, None
        generation = Generation(self._sidecar.policy_generation + 1)
        return config, compile_policy(config, read_policy(config), generation)

    def _as_far_as_possible(self, config: Config) -> Config:
        """Keep of the running configuration what only a restart can change, and note what that is."""
        old = self._sidecar.config
        changed = tuple(name for name in _RESTART if getattr(config, name) != getattr(old, name))
        if changed != self._restart_named:
            self._restart_named = changed
            if changed:
                _log.warning("config: changes of %s take effect after a restart", ", ".join(changed))
        return dataclasses.replace(config, **{name: getattr(old, name) for name in changed})

    def _take_config(self, new: _NewConfig) -> None:
        config, policy = new
        sidecar = self._sidecar
        if sidecar.draining:
            return  # what ends opens no port
        self._traffic.apply(config, self._file)
        if config == sidecar.config and policy is None:
            return
        sidecar.take_config(config)
        if policy is not None:
            self._take_policy(policy)
        self._taken("config", "ports, services and policy settings follow it", None)

    # --- what follows from either ---

    def _taken(self, kind: str, what: str, generation: Generation | None) -> None:
        sidecar, readiness = self._sidecar, self._readiness
        sidecar.metrics.config_rejected[kind] = False
        readiness.rejected.pop(kind, None)
        readiness.missing.pop(kind, None)
        number = f" generation {generation}" if generation is not None else ""
        _log.info("%s%s in force: %s", kind, number, what)
        ended = sidecar.registry.judge_again()
        self._traffic.judge_again()
        if ended:
            _log.info("%d connections ended that it no longer allows", ended)
        if sidecar.ready and self._when_ready is not None:
            when_ready, self._when_ready = self._when_ready, None
            when_ready()

    def _rejecter(self, kind: str, in_force: Callable[[], bool]) -> Callable[[Sequence[Fault]], None]:
        def reject(faults: Sequence[Fault]) -> None:
            sentences = [str(fault) for fault in faults]
            readiness = self._readiness
            self._sidecar.metrics.config_rejected[kind] = bool(faults)
            if not faults:
                readiness.rejected.pop(kind, None)
                _log.info("%s: what is mounted is again what is in force", kind)
            elif in_force():
                readiness.rejected[kind] = sentences
                for sentence in sentences:
                    _log.warning("%s rejected, the last valid ones stay in force: %s", kind, sentence)
            else:
                readiness.missing[kind] = sentences
                for sentence in sentences:
                    _log.warning("not ready: %s: %s", kind, sentence)

        return reject
