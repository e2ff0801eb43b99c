"""The one table of annotations: key, what is allowed, default, meaning. Documentation and validation come from it.

A setting is an annotation of the pod (`remora.io/log-level: debug`) or a line of the defaults file (`log-level: debug`)
and the pod's own wins. A bad value rejects the pod with a sentence for each; a key that nobody knows is a warning: a
newer injector may know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from certs.spiffe import SpiffeId
from injector import names, readers
from injector.ports import Ports
from injector.settings import Capture, Settings
from proxy.documents import nearest, quoted, shown

_DAY: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Annotation:
    """One setting: its key without the prefix, who reads it, its type in words, its meaning."""

    key: str
    read: Callable[[str], object]
    kind: str
    meaning: str
    is_for_redirect: bool = False
    """It speaks of capture rules, of which there are none with `capture: ports`."""

    @property
    def field(self) -> str:
        """The attribute of `Settings`."""
        return self.key.replace("-", "_")

    @property
    def full_key(self) -> str:
        """The key of the annotation."""
        return names.PREFIX + self.key

    @property
    def default(self) -> object:
        """The built-in value."""
        return getattr(_BUILT_IN, self.field)


def _capture(text: str) -> Capture:
    return Capture(readers.word(*(each.value for each in Capture))(text))


_BUILT_IN: Final = Settings()
_PORTS = "ports and ranges, `*` for all"
_RANGES = "networks, `*` for all"

ANNOTATIONS: Final[tuple[Annotation, ...]] = (
    Annotation("image", readers.image, "image", "the sidecar's image"),
    Annotation(
        "image-pull-policy",
        readers.word("Always", "IfNotPresent", "Never"),
        "`Always`, `IfNotPresent`, `Never`",
        "when the kubelet pulls it; Kubernetes decides if it is not set",
    ),
    Annotation("cpu-request", readers.quantity, "quantity", "CPU that the sidecar is promised"),
    Annotation(
        "cpu-limit", readers.quantity, "quantity", "CPU that it may use at most; none by default, as it throttles"
    ),
    Annotation("memory-request", readers.quantity, "quantity", "memory that the sidecar is promised"),
    Annotation("memory-limit", readers.quantity, "quantity", "memory at which it is killed"),
    Annotation(
        "log-level",
        readers.word("debug", "info", "warning", "error"),
        "`debug`, `info`, `warning`, `error`",
        "how much the sidecar says of itself",
    ),
    Annotation("access-log", readers.word("stdout", "off"), "`stdout`, `off`", "one JSON line for each request"),
    Annotation("workers", readers.integer(1, 64), "1 to 64", "processes of the sidecar"),
    Annotation(
        "capture",
        _capture,
        "`redirect`, `ports`",
        "`redirect`: rules in the kernel, set by an init container with NET_ADMIN; `ports`: no privilege, no rules, "
        "the sidecar listens on ports of its own",
    ),
    Annotation("include-inbound-ports", readers.ports, _PORTS, "ports whose callers are captured", True),
    Annotation("exclude-inbound-ports", readers.ports, _PORTS, "ports that callers reach past the sidecar", True),
    Annotation(
        "include-outbound-ports", readers.ports, _PORTS, "ports captured even where their address is not included", True
    ),
    Annotation("exclude-outbound-ports", readers.ports, _PORTS, "ports that the pod calls past the sidecar", True),
    Annotation("include-outbound-ip-ranges", readers.ip_ranges, _RANGES, "destinations that are captured", True),
    Annotation("exclude-outbound-ip-ranges", readers.ip_ranges, _RANGES, "destinations called past the sidecar", True),
    Annotation("exclude-interfaces", readers.interfaces, "names", "interfaces whose traffic is not captured", True),
    Annotation("opaque-ports", readers.ports, _PORTS, "ports of the pod that carry bytes and no HTTP: protocol `tcp`"),
    Annotation(
        "skip-sniff-ports",
        readers.ports,
        _PORTS,
        "ports of the pod whose first bytes are not looked at: the server speaks first, or silence is usual",
    ),
    Annotation(
        "inbound-ports",
        readers.port_protocols,
        "`PORT=PROTOCOL`",
        "protocols of the pod's ports (`auto`, `http`, `tcp`), where their names do not say; also ports that no "
        "container declares",
    ),
    Annotation(
        "outbound-listeners",
        readers.listeners,
        "`SERVICE=PORT`",
        "ports on loopback by which the application calls services, with `capture: ports`",
    ),
    Annotation(
        "unknown-outbound",
        readers.word("reject", "passthrough"),
        "`reject`, `passthrough`",
        "what becomes of calls to no known service",
        True,
    ),
    Annotation(
        "rewrite-probes", readers.boolean, "boolean", "probes and hooks over the network are performed by the sidecar"
    ),
    Annotation(
        "native-sidecar",
        readers.boolean,
        "boolean",
        "an init container that stays (Kubernetes 1.29 and newer); `false`: a container beside the others",
    ),
    Annotation(
        "hold-application",
        readers.boolean,
        "boolean",
        "without a native sidecar: the application starts when the sidecar is ready",
    ),
    Annotation(
        "drain-timeout",
        readers.duration(0, 3600),
        "duration",
        "time for what runs to finish when the pod ends; then it is cut",
    ),
    Annotation(
        "merge-metrics",
        readers.boolean,
        "boolean",
        "one scrape gives the application's metrics and the sidecar's",
    ),
    Annotation("policy-config-map", readers.object_name, "name", "the ConfigMap with policy files"),
    Annotation("services-config-map", readers.object_name, "name", "the ConfigMap with services"),
    Annotation(
        "policy-default",
        readers.word("deny", "allow-authenticated", "allow-all", "audit"),
        "`deny`, `allow-authenticated`, `allow-all`, `audit`",
        "what holds where no policy speaks",
    ),
    Annotation("root-namespace", readers.namespace, "namespace", "policies of this namespace hold in every other"),
    Annotation("trust-domain", readers.trust_domain, "trust domain", "whose identities the pod has and believes"),
    Annotation("authority", readers.authority_url, "`https://HOST:PORT`", "where the sidecar gets its certificate"),
    Annotation("authority-identity", readers.spiffe_id, "SPIFFE ID", "who must answer there; the usual one if not set"),
    Annotation("token-audience", readers.audience, "word", "the audience of the token that the sidecar shows"),
    # The API server refuses less than ten minutes.
    Annotation("token-lifetime", readers.duration(600, _DAY), "duration", "how long a token is good; it is renewed"),
    Annotation(
        "certificate-lifetime",
        readers.duration(60, 90 * _DAY, or_none=True),
        "duration",
        "lifetime that is asked for, a minute at least; `0s`: what the authority usually gives",
    ),
)
BY_KEY: Final[Mapping[str, Annotation]] = {row.key: row for row in ANNOTATIONS}
OWN: Final = (names.INJECT, names.STATUS, names.CONFIG, names.TRUST_BUNDLE)
"""Keys of ours that are no settings."""

HINTS: Final[Mapping[str, str]] = {
    "sidecar.istio.io/inject": "inject",
    "sidecar.istio.io/proxyImage": "image",
    "sidecar.istio.io/proxyCPU": "cpu-request",
    "sidecar.istio.io/proxyCPULimit": "cpu-limit",
    "sidecar.istio.io/proxyMemory": "memory-request",
    "sidecar.istio.io/proxyMemoryLimit": "memory-limit",
    "sidecar.istio.io/logLevel": "log-level",
    "sidecar.istio.io/agentLogLevel": "log-level",
    "sidecar.istio.io/rewriteAppHTTPProbers": "rewrite-probes",
    "sidecar.istio.io/nativeSidecar": "native-sidecar",
    "sidecar.istio.io/interceptionMode": "capture",
    "prometheus.istio.io/merge-metrics": "merge-metrics",
    "traffic.sidecar.istio.io/includeInboundPorts": "include-inbound-ports",
    "traffic.sidecar.istio.io/excludeInboundPorts": "exclude-inbound-ports",
    "traffic.sidecar.istio.io/includeOutboundPorts": "include-outbound-ports",
    "traffic.sidecar.istio.io/excludeOutboundPorts": "exclude-outbound-ports",
    "traffic.sidecar.istio.io/includeOutboundIPRanges": "include-outbound-ip-ranges",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": "exclude-outbound-ip-ranges",
    "traffic.sidecar.istio.io/excludeInterfaces": "exclude-interfaces",
    "proxy.istio.io/config": "drain-timeout",
    "linkerd.io/inject": "inject",
    "config.linkerd.io/proxy-image": "image",
    "config.linkerd.io/proxy-cpu-request": "cpu-request",
    "config.linkerd.io/proxy-cpu-limit": "cpu-limit",
    "config.linkerd.io/proxy-memory-request": "memory-request",
    "config.linkerd.io/proxy-memory-limit": "memory-limit",
    "config.linkerd.io/proxy-log-level": "log-level",
    "config.linkerd.io/skip-inbound-ports": "exclude-inbound-ports",
    "config.linkerd.io/skip-outbound-ports": "exclude-outbound-ports",
    "config.linkerd.io/opaque-ports": "opaque-ports",
    "config.linkerd.io/default-inbound-policy": "policy-default",
    "config.alpha.linkerd.io/proxy-enable-native-sidecar": "native-sidecar",
    "config.linkerd.io/proxy-enable-native-sidecar": "native-sidecar",
    "config.linkerd.io/proxy-await": "hold-application",
}
"""Annotations of other meshes and ours that means the same."""


class AnnotationError(ValueError):
    """Settings that cannot be taken: a sentence for each."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


def read_settings(annotations: Mapping[str, object], defaults: Settings) -> tuple[Settings, list[str]]:
    """Read a pod's annotations over the defaults; gives the settings and warnings.

    Raises AnnotationError with every value that is not allowed, each in a sentence that names key, value and what is.

    >>> read_settings({"remora.io/log-level": "debug"}, Settings())[0].log_level
    'debug'
    >>> read_settings({"remora.io/log-level": "loud"}, Settings())
    Traceback (most recent call last):
    injector.annotations.AnnotationError: the annotation remora.io/log-level is "loud": write one of debug, info, \
warning, error
    """
    faults: list[str] = []
    values: dict[str, object] = {}
    for row in ANNOTATIONS:
        if row.full_key in annotations:
            written = annotations[row.full_key]
            try:
                values[row.field] = read_value(row, written)
            except ValueError as fault:
                faults.append(f"the annotation {row.full_key} is {_quoted(written)}: {fault}")
    settings = _with(defaults, values)
    faults += [f"{fault} ({_origin(values, keys)})" for keys, fault in conflicts(settings)]
    if faults:
        raise AnnotationError(tuple(faults))
    return settings, [*_unknown(annotations), *_meaningless(settings, values), *_foreign(annotations)]


def read_value(row: Annotation, written: object) -> object:
    """Read one value as written. Raises ValueError with what is allowed."""
    if not isinstance(written, str):
        raise ValueError("write it in quotes: the values of annotations are text")
    if len(written.encode("utf-8", "surrogatepass")) > readers.MAX_TEXT:
        raise ValueError(f"a value has at most {readers.MAX_TEXT} bytes")
    return row.read(written.strip())


def conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give the keys and the sentence of what cannot hold together: the API server would refuse the pod."""
    for resource in ("cpu", "memory"):
        request = getattr(settings, f"{resource}_request")
        limit = getattr(settings, f"{resource}_limit")
        if request and limit and readers.amount(limit) < readers.amount(request):
            keys = (f"{resource}-request", f"{resource}-limit")
            yield keys, f"{names.PREFIX}{keys[1]} {limit} is below {names.PREFIX}{keys[0]} {request}: raise the limit"
    if settings.authority_identity:
        domain = SpiffeId.parse(settings.authority_identity).trust_domain
        if domain != settings.trust_domain:
            yield (
                ("authority-identity", "trust-domain"),
                f"{names.PREFIX}authority-identity {settings.authority_identity} is of {domain}, and "
                f"{names.PREFIX}trust-domain is {settings.trust_domain}: an authority is of the domain it signs for",
            )
    both = [
        port
        for port, protocol in settings.inbound_ports.items()
        if protocol == "http" and port in settings.opaque_ports
    ]
    if both:
        yield (
            ("opaque-ports", "inbound-ports"),
            f"port {both[0]} is http by {names.PREFIX}inbound-ports and opaque by {names.PREFIX}opaque-ports: keep one",
        )


def inject_value(annotations_or_labels: Mapping[str, object]) -> bool | None:
    """Read `remora.io/inject` of labels or annotations: None when it is not there.

    Raises AnnotationError for a value that is neither yes nor no: to guess would leave a pod without its sidecar.
    """
    if names.INJECT not in annotations_or_labels:
        return None
    written = annotations_or_labels[names.INJECT]
    if written in readers.TRUES:
        return True
    if written in readers.FALSES:
        return False
    allowed = ", ".join((*readers.TRUES, *readers.FALSES))
    raise AnnotationError((f"{names.INJECT} is {_quoted(written)}: write one of {allowed}, in quotes",))


def value_text(value: object) -> str:
    """Write a value of `Settings` as its annotation has it."""
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return readers.duration_text(value)
        case Capture():
            return value.value
        case Ports():
            return str(value)
        case tuple():
            return "*" if value == ("0.0.0.0/0", "::/0") else ",".join(value)
        case Mapping():
            return ",".join(f"{key}={each}" for key, each in value.items())
        case _:
            return str(value)


def markdown_table() -> str:
    """Write the table of annotations for the documentation, in Markdown."""
    rows = [
        (
            f"`{names.INJECT}`",
            "`enabled`, `disabled`, also `true`, `false`",
            "as the namespace",
            "label of a pod (wins), annotation of a pod, label of a namespace: whether a sidecar is added",
        )
    ]
    for row in ANNOTATIONS:
        default = value_text(row.default)
        rows.append((f"`{row.full_key}`", row.kind, f"`{default}`" if default else "", row.meaning))
    lines = ["| annotation | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _with(settings: Settings, values: Mapping[str, Any]) -> Settings:
    return replace(settings, **values) if values else settings


def _origin(values: Mapping[str, object], keys: tuple[str, ...]) -> str:
    ours = [names.PREFIX + key for key in keys if key.replace("-", "_") in values]
    return f"annotation {', '.join(ours)}; the rest by the defaults" if ours else "both by the defaults"


def _unknown(annotations: Mapping[str, object]) -> Iterator[str]:
    injected = names.STATUS in annotations
    for key in annotations:
        if not key.startswith(names.PREFIX) or key.removeprefix(names.PREFIX) in BY_KEY or key == names.INJECT:
            continue
        if key in OWN:
            if not injected:
                yield f"the annotation {key} is the injector's own and is replaced: remove it"
            continue
        near = nearest(key.removeprefix(names.PREFIX), BY_KEY)
        mend = f"did you mean {names.PREFIX}{near}?" if near else "`remora injector annotations` lists those that exist"
        yield f"the annotation {shown(key)} is not known and does nothing: {mend}"


def _meaningless(settings: Settings, values: Mapping[str, object]) -> Iterator[str]:
    rows = [row for row in ANNOTATIONS if row.field in values]
    if settings.capture is Capture.PORTS:
        for row in rows:
            if row.is_for_redirect:
                yield f"{row.full_key} does nothing with {names.PREFIX}capture ports, which captures nothing: remove it"
    elif "outbound_listeners" in values:
        yield f"{names.PREFIX}outbound-listeners does nothing with {names.PREFIX}capture redirect: calls are captured"
    if settings.native_sidecar and "hold_application" in values:
        yield f"{names.PREFIX}hold-application does nothing for a native sidecar, which always starts first: remove it"


def _foreign(annotations: Mapping[str, object]) -> Iterator[str]:
    for key in annotations:
        domain = key.partition("/")[0]
        ours = HINTS.get(key)
        if ours is not None:
            yield f"the annotation {key} is another mesh's and does nothing here: write {names.PREFIX}{ours}"
        elif domain.endswith(("sidecar.istio.io", "config.linkerd.io")) and key != "sidecar.istio.io/status":
            yield f"the annotation {shown(key)} is another mesh's and does nothing here"


def _quoted(written: object) -> str:
    return quoted(written) if isinstance(written, str) else shown(repr(written))


def _check_table() -> None:
    """Hold the table against `Settings`: one row for each field."""
    missing = {each.name for each in fields(Settings)} ^ {row.field for row in ANNOTATIONS}
    if missing:
        raise TypeError(f"Settings and ANNOTATIONS differ in {sorted(missing)}")


_check_table()
