"""What the configuration points at: our certificate and trust, and the policy set. Read, then judged whole.

What is missing or broken is said with every fault, and the caller keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from certs.spiffe import SpiffeId
from proxy.config import Config
from proxy.errors import ConfigError, Fault
from proxy.handshake.contexts import TlsGeneration
from proxy.identity.source import FilesSource
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import Generation, Protocol
from proxy.watch import read_policy_files


def read_identity(config: Config) -> Mapping[str, bytes]:
    """Read the identity directory, all of one publication. Raises ConfigError."""
    return _source(config).read()


def judge_identity(config: Config, files: Mapping[str, bytes], generation: Generation, now: float) -> TlsGeneration:
    """Judge what `read_identity` gave at `now` (seconds since the epoch). Raises ConfigError with every fault."""
    material = _source(config).judge(files, now)
    return TlsGeneration(material.identity_set, material.trust, generation)


def read_policy(config: Config) -> Mapping[str, bytes]:
    """Read the policy directory: path -> content. Raises ConfigError."""
    directory = config.policy.directory
    try:
        files = read_policy_files(directory)
    except OSError as failure:
        missing = isinstance(failure, FileNotFoundError)
        hint = "create it; an empty directory is a valid set that denies everything" if missing else ""
        message = f"the policy directory cannot be read: {failure.strerror}"
        raise ConfigError([Fault(file=str(failure.filename or directory), message=message, hint=hint)]) from failure
    return {f"{directory}/{name}": content for name, content in files.items()}


def compile_policy(config: Config, files: Mapping[str, bytes], generation: Generation) -> PolicySnapshot:
    """Compile what `read_policy` gave. Raises ConfigError with every fault."""
    return load(
        files,
        workload=workload_of(config),
        settings=settings_of(config),
        generation=generation,
        tcp_ports=[port.port for port in config.inbound if port.protocol is Protocol.TCP],
    )


def workload_of(config: Config) -> Workload:
    """Take the workload that policies are read for."""
    workload = config.workload
    return Workload(
        namespace=workload.namespace,
        service_account=workload.service_account,
        name=workload.name,
        labels=workload.labels,
        trust_domain=config.trust_domain,
        trust_domain_aliases=config.trust_domain_aliases,
    )


def settings_of(config: Config) -> PolicySettings:
    """Take what the configuration says about policy."""
    return PolicySettings(
        default=PolicyDefault(config.policy.default),
        root_namespace=config.policy.root_namespace,
        trusted_proxies=config.policy.trusted_proxies,
        jwks_allow_loopback=config.policy.jwks_allow_loopback,
    )


def _source(config: Config) -> FilesSource:
    workload = config.workload
    return FilesSource(
        directory=Path(config.identity.directory),
        trust_domain=config.trust_domain,
        aliases=config.trust_domain_aliases,
        expected=SpiffeId.for_service_account(config.trust_domain, workload.namespace, workload.service_account),
    )
