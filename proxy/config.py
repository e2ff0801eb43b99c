"""Reads the configuration file: YAML text in, a checked `Config` or every fault of the file out.

One function per section, in the order of the file. Each gives a value even when it found faults, so that one run
shows all of them; nothing is returned unless there are none.
"""

from __future__ import annotations

from typing import Final, get_args

from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from proxy.config_checker import ConfigChecker
from proxy.config_identity import federation, identity
from proxy.config_text import TextError, Use, parse_address, parse_host, parse_listen, parse_name
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
    SpeaksFirstName,
    TelemetryConfig,
    UnixSocket,
    WorkloadConfig,
)
from proxy.documents import Node, did_you_mean, parse
from proxy.errors import ConfigError, Fault
from proxy.limits import Limits
from proxy.types import Protocol

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

_NOWHERE: Final = Address(host="127.0.0.1", port=0)
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

    Raises ConfigError with every fault found, in the order of the file. Looks at nothing but `data`: whether the
    directories that it names hold what they should is for their readers to say.
    """
    documents, faults = parse(data, file)
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
    config = _config(checker, documents[0])
    faults = sorted({*faults, *checker.faults})
    if faults:
        raise ConfigError(faults)
    return config


def _config(checker: ConfigChecker, root: Node) -> Config:
    fields = checker.mapping(root, "the file", _SECTIONS, required=("workload", "identity", "policy"))
    limits = checker.limits(fields.get("limits"))
    trust_domain = checker.text(fields.get("trust_domain"), "trust_domain", parse_trust_domain, DEFAULT_TRUST_DOMAIN)
    # Before the targets, so that a port for peers that leads to the admin pages is seen.
    admin = _admin(checker, fields.get("admin"))
    health = _health(checker, fields.get("health"))
    return Config(
        workload=_workload(checker, fields.get("workload"), trust_domain),
        trust_domain=trust_domain,
        trust_domain_aliases=_aliases(checker, fields.get("trust_domain_aliases"), trust_domain),
        identity=identity(checker, fields.get("identity"), trust_domain),
        inbound=_inbound(checker, fields.get("inbound")),
        outbound=_outbound(checker, fields.get("outbound"), limits),
        policy=_policy(checker, fields.get("policy")),
        admin=admin,
        health=health,
        telemetry=_telemetry(checker, fields.get("telemetry")),
        limits=limits,
        runtime=_runtime(checker, fields.get("runtime")),
        federation=federation(checker, fields.get("federation"), trust_domain),
        federation_cache=checker.string(fields.get("federation_cache"), "federation_cache"),
    )


def _workload(checker: ConfigChecker, node: Node | None, trust_domain: TrustDomain) -> WorkloadConfig:
    known = ("namespace", "service_account", "name", "labels")
    fields = checker.section(
        node, "workload", known, required=("namespace", "service_account"), not_built=("directory",)
    )
    namespace = checker.string(fields.get("namespace"), "workload.namespace")
    service_account = checker.string(fields.get("service_account"), "workload.service_account")
    if node is not None and namespace and service_account:
        try:
            SpiffeId.for_service_account(trust_domain, namespace, service_account)
        except SpiffeIdError as error:
            checker.fault(node, f"`workload` makes no SPIFFE ID: {error}")
    return WorkloadConfig(
        namespace=namespace,
        service_account=service_account,
        name=checker.string(fields.get("name"), "workload.name", service_account),
        labels=checker.string_mapping(fields.get("labels"), "workload.labels"),
    )


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


def _inbound(checker: ConfigChecker, node: Node | None) -> tuple[InboundPort, ...]:
    fields = checker.section(node, "inbound", ("mode", "ports"), not_built=("listen",))
    mode = fields.get("mode")
    if checker.choice(mode, "inbound.mode", ("ports", "capture"), "ports") == "capture" and mode is not None:
        checker.not_supported(mode, "inbound.mode: capture", "write mode: ports and list the ports")
    ports: list[InboundPort] = []
    items = checker.sequence(fields.get("ports"), "inbound.ports")
    for i, item in enumerate(items):
        where = f"inbound.ports[{i}]"
        port_fields = checker.section(
            item,
            where,
            ("listen", "port", "app", "protocol", "speaks_first"),
            required=("listen", "port"),
            not_built=("app_protocol",),
        )
        port = checker.integer(port_fields.get("port"), f"{where}.port", 0, minimum=1, maximum=65_535)
        if port and any(port == other.port for other in ports):
            checker.fault(item, f"`{where}`: port {port} stands twice", "policies tell ports apart: give each its own")
        listen = _listen(checker, port_fields.get("listen"), f"{where}.listen")
        default = Address(host="127.0.0.1", port=port)
        app = checker.text(port_fields.get("app"), f"{where}.app", lambda text: parse_address(text, Use.DIAL), default)
        protocol = checker.protocol(port_fields.get("protocol"), f"{where}.protocol")
        speaks_first: SpeaksFirstName = "client" if protocol is Protocol.HTTP else "server"
        ports.append(
            InboundPort(
                listen=listen,
                port=port,
                app=app,
                protocol=protocol,
                speaks_first=checker.word(
                    port_fields.get("speaks_first"),
                    f"{where}.speaks_first",
                    get_args(SpeaksFirstName),
                    speaks_first,
                ),
            )
        )
    for i, (item, inbound) in enumerate(zip(items, ports, strict=True)):
        checker.refuse_loop(item, f"inbound.ports[{i}].app", inbound.app, ("inbound.", "admin."))
    return tuple(ports)


def _outbound(checker: ConfigChecker, node: Node | None, limits: Limits) -> OutboundConfig:
    fields = checker.mapping(node, "outbound", ("listeners", "services", "unknown"))
    unknown = fields.get("unknown")
    if checker.choice(unknown, "outbound.unknown", ("reject", "passthrough"), "reject") == "passthrough" and unknown:
        checker.not_supported(unknown, "outbound.unknown: passthrough", "write unknown: reject")
    listeners = _listeners(checker, fields.get("listeners"))
    services = _services(checker, fields.get("services"), limits)
    for where, item, listener in listeners:
        if listener.service and listener.service not in services:
            hint = did_you_mean(listener.service, services) or "add it under outbound.services"
            checker.fault(item, f"`{where}.service`: no service is named {listener.service}", hint)
    return OutboundConfig(listeners=tuple(listener for _, _, listener in listeners), services=services)


def _listeners(checker: ConfigChecker, node: Node | None) -> list[tuple[str, Node, OutboundListener]]:
    listeners: list[tuple[str, Node, OutboundListener]] = []
    for i, item in enumerate(checker.sequence(node, "outbound.listeners")):
        where = f"outbound.listeners[{i}]"
        fields = checker.mapping(item, where, ("listen", "service", "capture"), required=("listen",))
        capture = fields.get("capture")
        if checker.boolean(capture, f"{where}.capture") and capture is not None:
            checker.not_supported(capture, f"{where}.capture: true", "name the service of this listener")
        elif "service" not in fields and isinstance(item.value, dict):
            checker.fault(item, f"`{where}` lacks the key `service`")
        listen = _listen(checker, fields.get("listen"), f"{where}.listen")
        service = checker.text(fields.get("service"), f"{where}.service", parse_name, "")
        listeners.append((where, item, OutboundListener(listen=listen, service=service)))
    return listeners


def _services(checker: ConfigChecker, node: Node | None, limits: Limits) -> dict[str, Service]:
    services: dict[str, Service] = {}
    owners: dict[str, str] = {}
    for i, item in enumerate(checker.sequence(node, "outbound.services")):
        where = f"outbound.services[{i}]"
        service = _service(checker, item, where, limits)
        if not service.name:
            continue
        if service.name in services:
            checker.fault(item, f"`{where}`: a service named {service.name} stands twice", "give each its own name")
            continue
        services[service.name] = service
        for host in service.hosts:
            if owners.setdefault(host, service.name) != service.name:
                checker.fault(item, f"`{where}.hosts`: {host} is a host of {owners[host]} already", "name it once")
    return services


def _service(checker: ConfigChecker, item: Node, where: str, limits: Limits) -> Service:
    known = ("name", "hosts", "endpoints", "protocol", "timeout", "tls", "identities")
    fields = checker.section(item, where, known, required=("name", "endpoints"), not_built=("addresses",))
    name = checker.text(fields.get("name"), f"{where}.name", parse_name, "")
    mutual = checker.choice(fields.get("tls"), f"{where}.tls", ("mutual", "none"), "mutual") == "mutual"
    hosts = [
        checker.text(host, f"{where}.hosts[{i}]", parse_host, "")
        for i, host in enumerate(checker.sequence(fields.get("hosts"), f"{where}.hosts"))
    ]
    return Service(
        name=name,
        hosts=tuple(dict.fromkeys(hosts)) or (name,),
        endpoints=_endpoints(checker, fields.get("endpoints"), f"{where}.endpoints"),
        protocol=checker.protocol(fields.get("protocol"), f"{where}.protocol"),
        timeout=checker.duration(fields.get("timeout"), f"{where}.timeout", limits.service_timeout, 0.001, 86_400),
        mutual=mutual,
        identities=_identities(checker, item, fields.get("identities"), where, mutual),
    )


def _endpoints(checker: ConfigChecker, node: Node | None, where: str) -> tuple[Address, ...]:
    items = checker.sequence(node, where)
    if node is not None and not items:
        checker.fault(node, f"`{where}` is empty", "name at least one address to dial")
    endpoints: list[Address] = []
    for i, item in enumerate(items):
        endpoint = checker.text(item, f"{where}[{i}]", lambda text: parse_address(text, Use.DIAL), _NOWHERE)
        if endpoint != _NOWHERE and endpoint in endpoints:
            checker.fault(item, f"`{where}[{i}]`: {endpoint} stands twice", "remove one")
        checker.refuse_loop(item, f"{where}[{i}]", endpoint, ("outbound.", "admin."))
        endpoints.append(endpoint)
    return tuple(endpoints)


def _identities(
    checker: ConfigChecker, service: Node, node: Node | None, where: str, mutual: bool
) -> frozenset[SpiffeId]:
    identities: set[SpiffeId] = set()
    items = checker.sequence(node, f"{where}.identities")
    for i, item in enumerate(items):
        identity = checker.text(item, f"{where}.identities[{i}]", SpiffeId.parse, None)
        if identity is None:
            continue
        if not identity.path:
            checker.fault(
                item,
                f"`{where}.identities[{i}]`: {identity} names a trust domain and no workload",
                "add the path, such as /ns/demo/sa/orders",
            )
        identities.add(identity)
    if mutual and not items and isinstance(service.value, dict):
        checker.fault(
            node or service,
            f"`{where}` is mutual and names no identities: nobody would know who must answer",
            'write identities: ["spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"], or tls: none',
        )
    if not mutual and node is not None:
        checker.fault(node, f"`{where}.identities` cannot be checked with tls: none", "remove one of the two")
    return frozenset(identities)


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


def _listen(checker: ConfigChecker, node: Node | None, where: str) -> Address:
    listen = checker.text(node, where, lambda text: parse_address(text, Use.LISTEN), _NOWHERE)
    checker.claim(node, where, listen)
    return listen


def _admin(checker: ConfigChecker, node: Node | None) -> ListenConfig | None:
    if node is None:
        return None
    fields = checker.mapping(node, "admin", ("listen",), required=("listen",))
    at = fields.get("listen")
    listen = checker.text(at, "admin.listen", parse_listen, None) or _NOWHERE
    if isinstance(listen, Address) and not listen.is_loopback:
        checker.fault(
            at or node,
            f"`admin.listen` is {listen}, which others can reach, and admin pages show everything",
            f"write 127.0.0.1:{listen.port} or unix:/run/remora/admin.sock",
        )
    checker.claim(at, "admin.listen", listen)
    return ListenConfig(listen=listen)


def _health(checker: ConfigChecker, node: Node | None) -> ListenConfig | None:
    if node is None:
        return None
    fields = checker.mapping(node, "health", ("listen",), required=("listen",))
    return ListenConfig(listen=_listen(checker, fields.get("listen"), "health.listen"))


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
