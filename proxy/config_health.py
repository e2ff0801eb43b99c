"""Reads the section `health`: where probes and scrapes arrive, and what is performed there for the application."""

from __future__ import annotations

import re
from typing import Final

from proxy.config_checker import ConfigChecker
from proxy.config_outbound import listen_at
from proxy.config_text import TextError
from proxy.config_values import (
    ApplicationMetrics,
    GrpcProbe,
    HealthConfig,
    HttpGet,
    Probe,
    TcpProbe,
)
from proxy.documents import Node

PROBE_KINDS: Final = ("http_get", "tcp_socket", "grpc")
MAX_TIMEOUT: Final = 3600.0
"""Seconds of a probe. Kubernetes sets no bound; a probe of more than an hour tells nothing that anybody waits for."""
OWN_PAGES: Final = ("/livez", "/readyz", "/metrics", "/quitquitquit")

_PATH = re.compile(r"/[!-~]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SERVICE = re.compile(r"[A-Za-z0-9_.]{0,256}")


def health(checker: ConfigChecker, node: Node | None) -> HealthConfig | None:
    """Read the section; None when it is not there."""
    if node is None:
        return None
    known = ("listen", "probes", "application_metrics", "quit")
    fields = checker.mapping(node, "health", known, required=("listen",))
    quits = checker.choice(fields.get("quit"), "health.quit", ("loopback",), "")
    return HealthConfig(
        listen=listen_at(checker, fields.get("listen"), "health.listen"),
        probes=_probes(checker, fields.get("probes")),
        application_metrics=_metrics(checker, fields.get("application_metrics")),
        quits_for_loopback=quits == "loopback",
    )


def _probes(checker: ConfigChecker, node: Node | None) -> tuple[Probe, ...]:
    found: dict[str, Probe] = {}
    for i, item in enumerate(checker.sequence(node, "health.probes")):
        where = f"health.probes[{i}]"
        fields = checker.mapping(item, where, ("path", "timeout", *PROBE_KINDS), required=("path",))
        path = checker.text(fields.get("path"), f"{where}.path", _path, "")
        kinds = [kind for kind in PROBE_KINDS if kind in fields]
        if len(kinds) != 1 and isinstance(item.value, dict):
            checker.fault(item, f"`{where}` needs one of {', '.join(PROBE_KINDS)}", "write one of them")
            continue
        if path in OWN_PAGES:
            checker.fault(item, f"`{where}.path`: {path} is a page of the sidecar's own", "choose another path")
        elif path in found:
            checker.fault(item, f"`{where}.path`: {path} stands twice", "give each its own")
        timeout = checker.duration(fields.get("timeout"), f"{where}.timeout", 1.0, 0.1, MAX_TIMEOUT)
        if kinds and path:
            action = _action(checker, kinds[0], fields[kinds[0]], f"{where}.{kinds[0]}")
            found.setdefault(path, Probe(path=path, action=action, timeout=timeout))
    return tuple(found.values())


def _action(checker: ConfigChecker, kind: str, node: Node, where: str) -> HttpGet | TcpProbe | GrpcProbe:
    if kind == "http_get":
        fields = checker.mapping(node, where, ("port", "path", "scheme", "headers"), required=("port",))
        scheme = checker.choice(fields.get("scheme"), f"{where}.scheme", ("HTTP", "HTTPS"), "HTTP")
        return HttpGet(
            port=_port(checker, fields.get("port"), where),
            path=checker.text(fields.get("path"), f"{where}.path", _path, "/"),
            is_tls=scheme == "HTTPS",
            headers=_headers(checker, fields.get("headers"), f"{where}.headers"),
        )
    if kind == "tcp_socket":
        fields = checker.mapping(node, where, ("port",), required=("port",))
        return TcpProbe(port=_port(checker, fields.get("port"), where))
    fields = checker.mapping(node, where, ("port", "service"), required=("port",))
    return GrpcProbe(
        port=_port(checker, fields.get("port"), where),
        service=checker.text(fields.get("service"), f"{where}.service", _service, ""),
    )


def _headers(checker: ConfigChecker, node: Node | None, where: str) -> tuple[tuple[str, str], ...]:
    found = []
    for i, item in enumerate(checker.sequence(node, where)):
        fields = checker.mapping(item, f"{where}[{i}]", ("name", "value"), required=("name",))
        name = checker.text(fields.get("name"), f"{where}[{i}].name", _token, "")
        value = checker.string(fields.get("value"), f"{where}[{i}].value", may_be_empty=True)
        if not value.isprintable():
            checker.fault(item, f"`{where}[{i}].value` has a character that no header may have", "remove it")
        found.append((name, value))
    return tuple(found)


def _metrics(checker: ConfigChecker, node: Node | None) -> ApplicationMetrics | None:
    if node is None:
        return None
    where = "health.application_metrics"
    fields = checker.mapping(node, where, ("port", "path", "scheme"), required=("port",))
    return ApplicationMetrics(
        port=_port(checker, fields.get("port"), where),
        path=checker.text(fields.get("path"), f"{where}.path", _path, "/metrics"),
        is_tls=checker.choice(fields.get("scheme"), f"{where}.scheme", ("http", "https"), "http") == "https",
    )


def _port(checker: ConfigChecker, node: Node | None, where: str) -> int:
    return checker.integer(node, f"{where}.port", 0, minimum=1, maximum=65_535)


def _path(text: str) -> str:
    # What is written into a request line must not end it.
    if len(text) <= 2048 and _PATH.fullmatch(text):
        return text
    raise TextError(f"{text[:60]!r} is no path", "begin it with / and write it without spaces")


def _token(text: str) -> str:
    if len(text) <= 256 and _TOKEN.fullmatch(text):
        return text
    raise TextError(f"{text[:60]!r} is no name of a header", "write letters, digits and -")


def _service(text: str) -> str:
    if _SERVICE.fullmatch(text):
        return text
    raise TextError(f"{text[:60]!r} is no name of a gRPC service", "write it as package.Service")
