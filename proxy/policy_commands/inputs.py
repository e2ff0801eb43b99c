"""What every subcommand is given: policy files, and the workload that they are asked for.

Files come from `-f` (a file, a directory as the sidecar reads it, `-` for standard input) or from the directory that a
sidecar's configuration names. Who is asked comes from that configuration, or from options of their own. A fault names
files as they were given.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from proxy.answers.question import World
from proxy.authn import KeySet, parse_key_set
from proxy.config import DEFAULT_TRUST_DOMAIN, MAX_TRUSTED_PROXIES, Config, load_config
from proxy.config_values import PathNormalizationName, PolicyDefaultName
from proxy.documents import MAX_BYTES
from proxy.errors import ConfigError, Fault
from proxy.material import settings_of, workload_of
from proxy.policy import PolicyDefault, PolicySettings, Workload, load
from proxy.protocol.path import PathNormalization
from proxy.types import Generation, Protocol
from proxy.watch import read_policy_files

STDIN: Final = "<stdin>"
"""The name of standard input in faults."""

_OWN: Final = (
    "namespace",
    "account",
    "labels",
    "name",
    "trust_domain",
    "aliases",
    "default",
    "root_namespace",
    "path_normalization",
    "tcp_ports",
    "trusted_proxies",
)
"""The options that --config answers itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Everything but the policies that a decision depends on.

    `tcp_ports` are the workload ports known to carry something else than HTTP; `keys` holds the key sets of rules with
    a jwksUri, which a command never fetches.
    """

    workload: Workload
    settings: PolicySettings
    normalization: PathNormalization = PathNormalization.BASE
    tcp_ports: tuple[int, ...] = ()
    keys: Mapping[str, KeySet]


def add_options(parser: argparse.ArgumentParser, *, files: bool = True) -> None:
    """Add the options that give policies and the workload; without `files` only those that give the workload."""
    group = parser.add_argument_group("policies" if files else "the workload")
    if files:
        group.add_argument(
            "-f",
            "--file",
            dest="files",
            action="append",
            default=[],
            metavar="PATH",
            help="policies: a file, a directory, or - for standard input; may stand several times",
        )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a sidecar's configuration: gives the workload and its settings"
        + (", and the policies unless -f does" if files else ""),
    )
    own = parser.add_argument_group("the workload" if files else "or", "instead of --config")
    own.add_argument("--namespace", metavar="NAME", help="its namespace; default: default")
    own.add_argument("--account", metavar="NAME", help="its ServiceAccount; default: default")
    own.add_argument("--labels", metavar="K=V,...", help="its labels, which selectors look at")
    own.add_argument("--name", metavar="NAME", help="its name")
    own.add_argument("--trust-domain", metavar="NAME", help=f"default: {DEFAULT_TRUST_DOMAIN}")
    own.add_argument("--aliases", metavar="NAME,...", help="former trust domains, which mean ours in policies")
    own.add_argument("--default", choices=get_args(PolicyDefaultName), help="policy.default; default: deny")
    own.add_argument("--root-namespace", metavar="NAME", help="default: istio-system")
    own.add_argument("--path-normalization", choices=get_args(PathNormalizationName), help="default: base")
    own.add_argument("--tcp-ports", metavar="PORT,...", help="workload ports that carry something else than HTTP")
    own.add_argument("--trusted-proxies", metavar="N", help="addresses that our proxies add to x-forwarded-for")
    parser.add_argument(
        "--jwks",
        action="append",
        default=[],
        metavar="URI=FILE",
        help="the key set that a jwksUri would give; nothing is fetched",
    )


def read_world(options: argparse.Namespace) -> World:
    """Read the policies and compile them for the workload. Raises ConfigError with every fault."""
    return compile_world(read_policies(options), read_surroundings(options))


def compile_world(files: Mapping[str, bytes], surroundings: Surroundings) -> World:
    """Compile policy files (name -> content) as a sidecar in these surroundings would. Raises ConfigError."""
    snapshot = load(
        files,
        workload=surroundings.workload,
        settings=surroundings.settings,
        generation=Generation(1),
        tcp_ports=surroundings.tcp_ports,
    )
    return World(
        snapshot=snapshot,
        files=files,
        workload=surroundings.workload,
        settings=surroundings.settings,
        normalization=surroundings.normalization,
        tcp_ports=frozenset(surroundings.tcp_ports),
        keys=surroundings.keys,
    )


# --- files ---


def read_policies(options: argparse.Namespace) -> dict[str, bytes]:
    """Read the policy files that -f names, or those of the directory that --config names. Raises ConfigError."""
    if options.files:
        return read_files(options.files)
    if options.config:
        return read_files([read_config(options.config).policy.directory])
    raise ConfigError([Fault(file="remora policy", message="no policies are given", hint="name them with -f PATH")])


def read_files(paths: Iterable[str]) -> dict[str, bytes]:
    """Read files, directories and standard input (`-`): name as given -> content. Raises ConfigError."""
    files: dict[str, bytes] = {}
    faults: list[Fault] = []
    for path in paths:
        try:
            if path != "-" and os.path.isdir(path):
                directory = path.rstrip("/") or "/"
                files.update((f"{directory}/{name}", content) for name, content in read_policy_files(path).items())
            else:
                name, content = read_file(path)
                files[name] = content
        except OSError as failure:
            message = f"the policy directory cannot be read: {failure.strerror}"
            faults.append(Fault(file=str(failure.filename or path), message=message))
        except ConfigError as failure:
            faults += failure.faults
    if faults:
        raise ConfigError(faults)
    return files


def read_file(path: str, limit: int = MAX_BYTES) -> tuple[str, bytes]:
    """Read one file or standard input (`-`): its name in faults, its content. Raises ConfigError.

    No more than `limit` + 1 bytes are read: who parses refuses what is longer.
    """
    if path == "-":
        return STDIN, sys.stdin.buffer.read(limit + 1)
    try:
        with open(path, "rb") as file:
            return path, file.read(limit + 1)
    except OSError as failure:
        hint = "give a file, a directory, or - for standard input" if isinstance(failure, FileNotFoundError) else ""
        message = f"the file cannot be read: {failure.strerror}"
        raise ConfigError([Fault(file=path, message=message, hint=hint)]) from failure


def read_config(file: str) -> Config:
    """Read a sidecar's configuration. Raises ConfigError with every fault."""
    name, data = read_file(file)
    return load_config(data, name)


# --- the workload ---


def gives_workload(options: argparse.Namespace) -> bool:
    """Say whether the options say anything of the workload or its settings."""
    return options.config is not None or any(getattr(options, name) is not None for name in _OWN)


def read_surroundings(options: argparse.Namespace) -> Surroundings:
    """Take the workload and its settings from --config, or from options of their own. Raises ConfigError."""
    keys = read_key_sets(options.jwks)
    if options.config is None:
        return _from_options(options, keys)
    given = [f"--{name.replace('_', '-')}" for name in _OWN if getattr(options, name) is not None]
    if given:
        hint = "leave one of the two out"
        raise ConfigError([Fault(file=name, message="--config says this already", hint=hint) for name in given])
    return from_config(read_config(options.config), keys)


def from_config(config: Config, keys: Mapping[str, KeySet]) -> Surroundings:
    """Take the workload and its settings from a sidecar's configuration."""
    return Surroundings(
        workload=workload_of(config),
        settings=settings_of(config),
        normalization=PathNormalization(config.policy.path_normalization),
        tcp_ports=tuple(port.port for port in config.inbound if port.protocol is Protocol.TCP),
        keys=keys,
    )


def _from_options(options: argparse.Namespace, keys: Mapping[str, KeySet]) -> Surroundings:
    reader = _OptionReader()
    trust_domain = reader.trust_domain("--trust-domain", options.trust_domain or str(DEFAULT_TRUST_DOMAIN))
    namespace, account = options.namespace or "default", options.account or "default"
    try:
        SpiffeId.for_service_account(trust_domain, namespace, account)
    except SpiffeIdError as failure:
        reader.fault("--namespace", f"namespace and account make no SPIFFE ID: {failure}")
    surroundings = Surroundings(
        workload=Workload(
            namespace=namespace,
            service_account=account,
            name=options.name or account,
            labels=reader.labels("--labels", options.labels),
            trust_domain=trust_domain,
            trust_domain_aliases=tuple(reader.trust_domain("--aliases", alias) for alias in _split(options.aliases)),
        ),
        settings=PolicySettings(
            default=PolicyDefault(options.default or "deny"),
            root_namespace=options.root_namespace or "istio-system",
            trusted_proxies=reader.integer("--trusted-proxies", options.trusted_proxies or "0", 0, MAX_TRUSTED_PROXIES),
            # What is asked is never fetched, so nothing is reached by taking such a URI.
            jwks_allow_loopback=True,
        ),
        normalization=PathNormalization(options.path_normalization or "base"),
        tcp_ports=tuple(reader.integer("--tcp-ports", port, 1, 65_535) for port in _split(options.tcp_ports)),
        keys=keys,
    )
    if reader.faults:
        raise ConfigError(reader.faults)
    return surroundings


class _OptionReader:
    """Reads the texts of options; a fault names the option as a file's would name the file."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, option: str, message: str, hint: str = "") -> None:
        self.faults.append(Fault(file=option, message=message, hint=hint))

    def trust_domain(self, option: str, text: str) -> TrustDomain:
        try:
            return parse_trust_domain(text)
        except SpiffeIdError as failure:
            self.fault(option, str(failure))
            return DEFAULT_TRUST_DOMAIN

    def labels(self, option: str, text: str | None) -> dict[str, str]:
        labels: dict[str, str] = {}
        for part in _split(text):
            key, sign, value = part.partition("=")
            if not sign or not key:
                self.fault(option, f"{part!r} is no label", "write KEY=VALUE, several with commas: app=orders,tier=api")
            labels[key] = value
        return labels

    def integer(self, option: str, text: str, minimum: int, maximum: int) -> int:
        if text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum:
            return int(text)
        self.fault(option, f"{text!r} is not a number from {minimum} to {maximum}")
        return minimum


def _split(text: str | None) -> Sequence[str]:
    return [part for part in (text or "").split(",") if part]


def read_key_sets(items: Iterable[str]) -> dict[str, KeySet]:
    """Read `URI=FILE` items: URI -> key set. Raises ConfigError."""
    keys: dict[str, KeySet] = {}
    for item in items:
        uri, sign, path = item.rpartition("=")
        if not sign or not uri or not path:
            raise ConfigError([Fault(file="--jwks", message=f"{item!r} is not URI=FILE")])
        name, data = read_file(path)
        try:
            keys[uri] = parse_key_set(data)
        except ValueError as failure:
            raise ConfigError([Fault(file=name, message=f"no key set: {failure}")]) from failure
    return keys
