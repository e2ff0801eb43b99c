"""Reads the configuration file: YAML text in, a checked `Config` or every fault of the file out.

One function per section, in the order of the file. Each gives a value even when it found faults, so that one run
shows all of them; nothing is returned unless there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from proxy.config_checker import ConfigChecker
from proxy.config_files import ConfigFiles, pod_facts
from proxy.config_health import health
from proxy.config_identity import federation, identity
from proxy.config_inbound import inbound
from proxy.config_outbound import NOWHERE, outbound
from proxy.config_text import TextError, parse_listen
from proxy.config_values import (
    Address,
    Config,
    IdentityFiles,
    InboundPort,
    ListenConfig,
    LoopName,
    OutboundConfig,
    OutboundListener,
    PathNormalizationName,
    PolicyConfig,
    PolicyDefaultName,
    RevokedName,
    RuntimeConfig,
    Service,
    TelemetryConfig,
    UnixSocket,
    WorkloadConfig,
)
from proxy.documents import Node, parse
from proxy.errors import ConfigError, Fault
from proxy.limits import Limits

__all__ = [
    "Address",
    "Config",
    "IdentityFiles",
    "InboundPort",
    "Limits",
    "ListenConfig",
    "OutboundConfig",
    "OutboundListener",
    "PolicyConfig",
    "RuntimeConfig",
    "Service",
    "TelemetryConfig",
    "UnixSocket",
    "WorkloadConfig",
    "load_config",
]

DEFAULT_TRUST_DOMAIN: Final = TrustDomain("cluster.local")
"""What Istio and Kubernetes call a cluster that nobody named."""

MIN_WATCH_INTERVAL: Final = 0.05
"""Below, digesting the mounted files costs more than a percent of a core."""
MAX_WATCH_INTERVAL: Final = 60.0
"""Above, a revoked peer stays in longer than the kubelet's own sync period of a minute."""

MAX_WORKERS: Final = 64
"""More cores than a sidecar is ever given; each worker costs 45 MiB and a socket for every listener."""

MAX_TRUSTED_PROXIES: Final = 32
"""More hops than any route has; a larger number is a mistake, and would trust what clients write."""

_SECTIONS: Final = (
    "workload",
    "trust_domain",
    "trust_domain_aliases",
    "identity",
    "federation",
    "federation_cache",
    "inbound",
    "outbound",
    "policy",
    "admin",
    "health",
    "telemetry",
    "limits",
    "runtime",
)


def load_config(data: bytes, file: str) -> Config:
    """Read the bytes of a configuration file; `file` is its name in messages.

    `data` may be packed with what the directories of workload and services held (`ConfigFiles.pack`). Raises
    ConfigError with every fault found, in the order of the file. Looks at nothing but `data`: whether the directories
    that it names hold what they should is for their readers to say.
    """
    files = ConfigFiles.unpack(data)
    documents, faults = parse(files.main, file)
    if faults and not documents:
        raise ConfigError(faults)
    checker = ConfigChecker(file)
    if not documents or documents[0].value is None:
        raise ConfigError(
            [
                *faults,
                Fault(file=file, message="the file is empty", hint="write at least workload, identity and policy"),
            ]
        )
    for document in documents[1:]:
        checker.fault(document, "a second document in one configuration file", "remove the line --- and what follows")
    config = _config(checker, documents[0], files)
    faults = sorted({*faults, *checker.faults})
    if faults:
        raise ConfigError(faults)
    return config


def _config(checker: ConfigChecker, root: Node, files: ConfigFiles) -> Config:
    fields = checker.mapping(root, "the file", _SECTIONS, required=("workload", "identity", "policy"))
    limits = checker.limits(fields.get("limits"))
    trust_domain = checker.text(fields.get("trust_domain"), "trust_domain", parse_trust_domain, DEFAULT_TRUST_DOMAIN)
    # Before the targets, so that a port for peers that leads to the admin pages is seen.
    admin = _admin(checker, fields.get("admin"))
    health_config = health(checker, fields.get("health"))
    ports, capture = inbound(checker, fields.get("inbound"))
    return Config(
        workload=_workload(checker, fields.get("workload"), trust_domain, files),
        trust_domain=trust_domain,
        trust_domain_aliases=_aliases(checker, fields.get("trust_domain_aliases"), trust_domain),
        identity=identity(checker, fields.get("identity"), trust_domain),
        inbound=ports,
        inbound_capture=capture,
        outbound=outbound(checker, fields.get("outbound"), limits, files.services),
        policy=_policy(checker, fields.get("policy")),
        admin=admin,
        health=health_config,
        telemetry=_telemetry(checker, fields.get("telemetry")),
        limits=limits,
        runtime=_runtime(checker, fields.get("runtime")),
        federation=federation(checker, fields.get("federation"), trust_domain),
        federation_cache=checker.string(fields.get("federation_cache"), "federation_cache"),
    )


def _workload(
    checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain, files: ConfigFiles
) -> WorkloadConfig:
    fields = checker.mapping(node, "workload", ("directory", "namespace", "service_account", "name", "labels"))
    directory = checker.string(fields.get("directory"), "workload.directory")
    service_account = checker.string(fields.get("service_account"), "workload.service_account")
    if directory and node is not None:
        return _pod(checker, node, fields, directory, service_account, trust_domain, files)
    for key in ("namespace", "service_account"):
        if key not in fields and node is not None and isinstance(node.value, dict):
            checker.fault(node, f"`workload` lacks the key `{key}`")
    namespace = checker.string(fields.get("namespace"), "workload.namespace")
    _check_identity(checker, node, trust_domain, namespace, service_account)
    return WorkloadConfig(
        namespace=namespace,
        service_account=service_account,
        name=checker.string(fields.get("name"), "workload.name", service_account),
        labels=checker.string_mapping(fields.get("labels"), "workload.labels"),
    )


def _pod(
    checker: ConfigChecker,
    node: Node,
    fields: Mapping[str, Node],
    directory: str,
    service_account: str,
    trust_domain: TrustDomain,
    files: ConfigFiles,
) -> WorkloadConfig:
    """Take the workload from what the downward API says; only the account may stand beside the directory."""
    for key in ("namespace", "name", "labels"):
        if key in fields:
            checker.fault(
                node.at(key),
                f"`workload.{key}` stands beside `workload.directory`, which says it",
                "remove one of the two",
            )
    if files.pod is None:
        checker.fault(node.at("directory"), f"`workload.directory`: {directory} is read by a running sidecar alone")
        return WorkloadConfig(namespace="", service_account=service_account, name="", labels={}, directory=directory)
    facts, faults = pod_facts(files.pod, directory)
    checker.faults += faults
    account = service_account or facts.service_account
    if not account:
        checker.fault(node, "`workload` lacks the key `service_account`, and no file says it")
    if not faults:
        _check_identity(checker, node, trust_domain, facts.namespace, account)
    return WorkloadConfig(
        namespace=facts.namespace,
        service_account=account,
        name=facts.name,
        labels=facts.labels,
        directory=directory,
    )


def _check_identity(
    checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain, namespace: str, service_account: str
) -> None:
    if node is not None and namespace and service_account:
        try:
            SpiffeId.for_service_account(trust_domain, namespace, service_account)
        except SpiffeIdError as error:
            checker.fault(node, f"`workload` makes no SPIFFE ID: {error}")


def _aliases(checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain) -> tuple[TrustDomain, ...]:
    aliases: list[TrustDomain] = []
    for i, item in enumerate(checker.sequence(node, "trust_domain_aliases")):
        where = f"trust_domain_aliases[{i}]"
        alias = checker.text(item, where, parse_trust_domain, None)
        if alias is None:
            continue
        if alias == trust_domain or alias in aliases:
            checker.fault(item, f"`{where}`: {alias} is named already", "remove it")
        aliases.append(alias)
    return tuple(aliases)


def _policy(checker: ConfigChecker, node: Node | None) -> PolicyConfig:
    known = (
        "directory",
        "default",
        "path_normalization",
        "root_namespace",
        "trusted_proxies",
        "jwks_allow_loopback",
        "revoked",
    )
    fields = checker.mapping(node, "policy", known, required=("directory",))
    default: PolicyDefaultName = "deny"
    normalization: PathNormalizationName = "base"
    revoked: RevokedName = "reset"
    return PolicyConfig(
        directory=checker.string(fields.get("directory"), "policy.directory"),
        default=checker.word(fields.get("default"), "policy.default", get_args(PolicyDefaultName), default),
        path_normalization=checker.word(
            fields.get("path_normalization"),
            "policy.path_normalization",
            get_args(PathNormalizationName),
            normalization,
        ),
        root_namespace=checker.string(fields.get("root_namespace"), "policy.root_namespace", "istio-system"),
        trusted_proxies=checker.integer(
            fields.get("trusted_proxies"), "policy.trusted_proxies", minimum=0, maximum=MAX_TRUSTED_PROXIES
        ),
        jwks_allow_loopback=checker.boolean(fields.get("jwks_allow_loopback"), "policy.jwks_allow_loopback"),
        revoked=checker.word(fields.get("revoked"), "policy.revoked", get_args(RevokedName), revoked),
    )


def _admin(checker: ConfigChecker, node: Node | None) -> ListenConfig | None:
    if node is None:
        return None
    fields = checker.mapping(node, "admin", ("listen",), required=("listen",))
    at = fields.get("listen")
    listen = checker.text(at, "admin.listen", parse_listen, None) or NOWHERE
    if isinstance(listen, Address) and not listen.is_loopback:
        checker.fault(
            at or node,
            f"`admin.listen` is {listen}, which others can reach, and admin pages show everything",
            f"write 127.0.0.1:{listen.port} or unix:/run/remora/admin.sock",
        )
    checker.claim(at, "admin.listen", listen)
    return ListenConfig(listen=listen)


def _telemetry(checker: ConfigChecker, node: Node | None) -> TelemetryConfig:
    fields = checker.mapping(node, "telemetry", ("access_log",))
    access_log = fields.get("access_log")
    if access_log is not None and access_log.value is False and access_log.text == "off":
        return TelemetryConfig(access_log="off")
    return TelemetryConfig(access_log=checker.text(access_log, "telemetry.access_log", _access_log, "stdout"))


def _access_log(text: str) -> str:
    # A word without a slash is more often a mistyped word than a file beside wherever the process was started.
    if text in ("stdout", "off") or "/" in text:
        return text
    raise TextError(f"{text!r} is neither stdout, off nor a path", "write stdout, off, or a path with a slash")


def _runtime(checker: ConfigChecker, node: Node | None) -> RuntimeConfig:
    fields = checker.mapping(node, "runtime", ("loop", "workers", "watch_interval"))
    workers = fields.get("workers")
    count = checker.integer(workers, "runtime.workers", 1, minimum=1, maximum=MAX_WORKERS)
    loop: LoopName = "uvloop"
    return RuntimeConfig(
        loop=checker.word(fields.get("loop"), "runtime.loop", get_args(LoopName), loop),
        workers=count,
        watch_interval=checker.duration(
            fields.get("watch_interval"), "runtime.watch_interval", 0.5, MIN_WATCH_INTERVAL, MAX_WATCH_INTERVAL
        ),
    )
