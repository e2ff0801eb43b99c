"""What is put in force, and what follows from it: the same in a sidecar of one process, a supervisor and a worker.

Each `take_` puts a judged set in force by one assignment, has open connections judged again by it, and sets readiness.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from proxy.admin.pages import Readiness
from proxy.config import Config
from proxy.handshake.contexts import TlsGeneration
from proxy.material import key_warnings
from proxy.policy import PolicySnapshot
from proxy.sidecar import Sidecar
from proxy.types import Generation

RESTART: Final = (
    "workload",
    "trust_domain",
    "trust_domain_aliases",
    "identity",
    "federation_cache",
    "admin",
    "health",
    "telemetry",
    "limits",
    "runtime",
)
"""Sections of the configuration that a running process cannot follow: who it is, and what it was built with."""

_log = logging.getLogger("remora")


def as_far_as_possible(config: Config, running: Config) -> Config:
    """Take of `config` what a process that runs can follow, and the rest of what it was started with.

    The labels of a workload are followed: Kubernetes lets them change while a pod lives, and policies select by them.
    """
    kept = {name: getattr(running, name) for name in RESTART}
    kept["workload"] = dataclasses.replace(running.workload, labels=config.workload.labels)
    return dataclasses.replace(config, **kept)


def fixed(config: Config, name: str) -> object:
    """Give what of a section of RESTART a running process cannot follow."""
    if name == "workload":
        return dataclasses.replace(config.workload, labels={})
    return getattr(config, name)


class Doors(Protocol):
    """Where connections come in: listeners of this process, or sockets that its workers accept on."""

    def apply(self, config: Config, file: str) -> None:
        """Make them those of `config`. Raises ConfigError that names `file`; then nothing has changed."""

    def judge_again(self) -> None:
        """Judge connections to services by the trust in force."""


class InForce:
    """Puts in force what was judged."""

    def __init__(
        self,
        sidecar: Sidecar,
        doors: Doors,
        readiness: Readiness,
        *,
        file: str,
        when_ready: Callable[[], None],
        announce: bool = True,
    ) -> None:
        """`file` names the configuration in faults; without `announce` somebody else tells the log of new sets."""
        self._sidecar = sidecar
        self._doors = doors
        self._readiness = readiness
        self._file = file
        self._when_ready: Callable[[], None] | None = when_ready
        self._announce = announce

    def take_certificates(self, tls: TlsGeneration) -> None:
        """Put certificates and trust in force."""
        sidecar = self._sidecar
        sidecar.tls = tls
        if self._announce:
            for warning in key_warnings(sidecar.config):
                _log.warning("certificates: %s", warning)
        hours = (tls.identity_set.not_after - time.time()) / 3600
        self._taken("certificates", f"serial {tls.identity_set.serial}, {hours:.1f} h left", tls.generation)

    def take_policy(self, policy: PolicySnapshot) -> None:
        """Put a policy set in force."""
        self._sidecar.policy = policy
        authentication = policy.authentication
        self._sidecar.key_store.follow(authentication.uris if authentication is not None else {})
        if self._announce:
            for warning in policy.warnings:
                _log.warning("policy: %s", warning)
        self._taken("policy", f"digest {policy.source_digest[:12]}", policy.generation)

    def take_config(self, config: Config, policy: PolicySnapshot | None) -> bool:
        """Put a configuration in force, and a policy set compiled for it; say whether anything has changed.

        Raises ConfigError when a listener cannot be had.
        """
        sidecar = self._sidecar
        if sidecar.draining:
            return False  # what ends opens no port
        self._doors.apply(config, self._file)
        if config == sidecar.config and policy is None:
            return False
        sidecar.take_config(config)
        if policy is not None:
            self.take_policy(policy)
        self._taken("config", "ports, services and policy settings follow it", None)
        return True

    def _taken(self, kind: str, what: str, generation: Generation | None) -> None:
        sidecar, readiness = self._sidecar, self._readiness
        sidecar.metrics.config_rejected[kind] = False
        readiness.rejected.pop(kind, None)
        readiness.missing.pop(kind, None)
        if self._announce:
            number = f" generation {generation}" if generation is not None else ""
            _log.info("%s%s in force: %s", kind, number, what)
        ended = sidecar.registry.judge_again()
        self._doors.judge_again()
        if ended:
            _log.info("%d connections ended that it no longer allows", ended)
        if sidecar.ready and self._when_ready is not None:
            when_ready, self._when_ready = self._when_ready, None
            when_ready()
