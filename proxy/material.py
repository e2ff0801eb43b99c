"""What the configuration points at: our certificate and trust, and the policy set. Read, then judged whole.

What is missing or broken is said with every fault, and the caller keeps what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from certs.crl import CrlPolicy
from certs.spiffe import SpiffeId
from certs.store import key_file_warnings
from proxy.config import Config
from proxy.config_values import (
    IdentityAuthority,
    IdentityCommand,
    IdentityCredentialBundle,
    IdentityFiles,
    IdentityWorkloadApi,
)
from proxy.errors import ConfigError, Fault
from proxy.handshake.contexts import TlsGeneration
from proxy.identity.delivered import CredentialBundleSource
from proxy.identity.source import EnrolledSource, FilesSource, Material, judge_files
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.types import Generation, Protocol
from proxy.watch import read_policy_files


def read_identity(config: Config) -> Mapping[str, bytes]:
    """Read the files of our identity, all of one publication. Raises ConfigError.

    What a program or an API has to be asked for, a running sidecar asks for and keeps: see `proxy.enrolment.sources`.
    """
    match config.identity:
        case IdentityFiles():
            return _mounted(config, config.identity).read()
        case IdentityCredentialBundle():
            return _delivered(config.identity).read()
        case _:
            where = name_of_source(config)
            message = "this source is asked by a running sidecar alone"
            raise ConfigError([Fault(file=where, message=message, hint="see its readiness, or read from files")])


def judge_identity(config: Config, files: Mapping[str, bytes], generation: Generation, now: float) -> TlsGeneration:
    """Judge the files of an identity at `now` (seconds since the epoch). Raises ConfigError with every fault."""
    material = judge_material(config, files, now)
    return TlsGeneration(material.identity_set, material.trust, generation)


def judge_material(config: Config, files: Mapping[str, bytes], now: float) -> Material:
    """Judge as `judge_identity` does, and make no contexts of it. Raises ConfigError with every fault."""
    match config.identity:
        case IdentityAuthority(url=url, crl=crl):
            source = EnrolledSource(
                url=url,
                trust_domain=config.trust_domain,
                aliases=config.trust_domain_aliases,
                expected=identity_of(config),
                crl=CrlPolicy(crl),
            )
            return source.judge(files, now)
        case IdentityFiles():
            return _mounted(config, config.identity).judge(files, now)
        case _:
            return judge_files(
                files,
                now,
                trust_domain=config.trust_domain,
                aliases=config.trust_domain_aliases,
                expected=identity_of(config),
                place=_places(config),
            )


def identity_of(config: Config) -> SpiffeId:
    """Name this workload as its certificate must."""
    workload = config.workload
    return SpiffeId.for_service_account(config.trust_domain, workload.namespace, workload.service_account)


def is_file(config: Config) -> bool:
    """Tell whether our identity is read from files, and not asked for."""
    return isinstance(config.identity, IdentityFiles | IdentityCredentialBundle)


def name_of_source(config: Config) -> str:
    """Name where our identity comes from, for messages."""
    match config.identity:
        case IdentityFiles(directory=directory):
            return directory
        case IdentityAuthority(url=url):
            return url
        case IdentityCredentialBundle(file=file):
            return file
        case IdentityCommand(run=run):
            return run[0]
        case IdentityWorkloadApi(socket=socket):
            return str(socket)


def key_warnings(config: Config) -> list[str]:
    """Warn of a mounted private key that everybody on the machine may read or change."""
    match config.identity:
        case IdentityFiles(directory=directory):
            return key_file_warnings(Path(directory))
        case IdentityCredentialBundle(file=file):
            return key_file_warnings(Path(file).parent, Path(file).name)
        case _:
            return []


def _places(config: Config) -> Callable[[str], Fault]:
    match config.identity:
        case IdentityCredentialBundle():
            return _delivered(config.identity).place
        case _:
            where = name_of_source(config)
            return lambda sentence: Fault(file=where, message=sentence)


def _mounted(config: Config, identity: IdentityFiles) -> FilesSource:
    return FilesSource(
        directory=Path(identity.directory),
        trust_domain=config.trust_domain,
        aliases=config.trust_domain_aliases,
        expected=identity_of(config),
        crl=CrlPolicy(identity.crl),
    )


def _delivered(identity: IdentityCredentialBundle) -> CredentialBundleSource:
    return CredentialBundleSource(
        file=Path(identity.file),
        bundle_file=Path(identity.bundle_file),
        bundles=Path(identity.bundles) if identity.bundles else None,
    )


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
