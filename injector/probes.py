"""Probes and hooks over the network, rewritten so that the sidecar performs them.

The kubelet has no identity, so at a captured port its probe would be turned away like any plaintext. It asks the
sidecar's health listener instead, and that asks the application on loopback: `/app-health/<container>/livez` for the
liveness probe, readyz, startupz, and poststartz, prestopz for the hooks. Probes that run a program stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from injector import names
from injector.ports import FIRST, LAST, SIDECAR_PORTS
from injector.readers import duration_text
from injector.values import Document, mapping, mappings
from proxy.config_health import MAX_TIMEOUT
from proxy.documents import shown

PATHS: Final = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}
HOOKS: Final = {"postStart": "poststartz", "preStop": "prestopz"}
KINDS: Final = ("httpGet", "tcpSocket", "grpc")
HOOK_SECONDS: Final = 30.0
"""A hook has no timeout of its own: the kubelet waits for it as long as the pod may take to end,
30 s if nothing is said."""


class ProbeError(ValueError):
    """A probe that cannot be rewritten, with the field and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """A container with its probes rewritten: what the health listener performs, what stood there before, warnings."""

    container: Document
    probes: tuple[Document, ...] = ()
    before: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def rewrite(container: Mapping[str, object]) -> Rewritten:
    """Rewrite the probes and hooks of one container. Raises ProbeError."""
    made: Document = dict(container)
    before: dict[str, Any] = {}
    probes: list[Document] = []
    warnings: list[str] = []
    for field, path in PATHS.items():
        if isinstance(container.get(field), Mapping):
            probe = mapping(container[field])
            asked = _asked(container, probe, field, path, _timeout(probe), warnings)
            if asked is not None:
                probes.append(asked)
                before[field] = container[field]
                made[field] = _towards_us(probe, asked)
    lifecycle = mapping(container.get("lifecycle"))
    hooks: Document = dict(lifecycle)
    for hook, path in HOOKS.items():
        if isinstance(lifecycle.get(hook), Mapping):
            action = mapping(lifecycle[hook])
            if "tcpSocket" in action:
                warnings.append(
                    f"lifecycle.{hook} of container {container.get('name')} opens a TCP connection, which Kubernetes "
                    "keeps for old manifests and never does: remove it, or use httpGet"
                )
            asked = _asked(container, action, f"lifecycle.{hook}", path, HOOK_SECONDS, warnings, kinds=("httpGet",))
            if asked is not None:
                probes.append(asked)
                before["lifecycle"] = container["lifecycle"]
                hooks[hook] = _towards_us(action, asked)
    if "lifecycle" in before:
        made["lifecycle"] = hooks
    return Rewritten(container=made, probes=tuple(probes), before=before or None, warnings=tuple(warnings))


def health_path(container: str, word: str) -> str:
    """Give the path at which the health listener performs a probe.

    >>> health_path("app", "livez")
    '/app-health/app/livez'
    """
    return f"/app-health/{container}/{word}"


def _asked(
    container: Mapping[str, object],
    probe: Mapping[str, object],
    field: str,
    word: str,
    timeout: float,
    warnings: list[str],
    kinds: tuple[str, ...] = KINDS,
) -> Document | None:
    """Give what the health listener is to do for a probe; None for one that stays as it is."""
    name = str(container.get("name", ""))
    kind = next((kind for kind in kinds if isinstance(probe.get(kind), Mapping)), None)
    if kind is None:
        return None
    action = mapping(probe[kind])
    where = f"{field}.{kind} of container {name}"
    host = action.get("host")
    if kind != "grpc" and host:
        warnings.append(
            f"{where} asks another host ({shown(str(host))}) and stays as it is: it leads past the sidecar, and the "
            "level baseline of Kubernetes 1.34 refuses it"
        )
        return None
    port = _port(container, action.get("port"), where)
    if port in SIDECAR_PORTS:
        warnings.append(f"{where} asks the sidecar's own port {port} and stays as it is")
        return None
    asked: Document = {"path": health_path(name, word)}
    if kind == "httpGet":
        asked["http_get"] = _http_get(action, port)
    elif kind == "tcpSocket":
        asked["tcp_socket"] = {"port": port}
    else:
        service = action.get("service")
        asked["grpc"] = {"port": port, "service": str(service)} if service else {"port": port}
    return {**asked, "timeout": duration_text(timeout)}


def _http_get(action: Mapping[str, object], port: int) -> Document:
    made: Document = {"port": port, "path": str(action.get("path") or "/")}
    if str(action.get("scheme") or "HTTP").upper() == "HTTPS":
        made["scheme"] = "HTTPS"
    headers = [
        {"name": str(each.get("name", "")), "value": str(each.get("value", ""))}
        for each in mappings(action.get("httpHeaders"))
    ]
    if headers:
        made["headers"] = headers
    return made


def _towards_us(probe: Mapping[str, object], asked: Mapping[str, object]) -> Document:
    # In the place of the old action, so that the rest of the probe stays in its order.
    made: Document = {}
    for key, value in probe.items():
        if key in KINDS:
            made["httpGet"] = {"path": asked["path"], "port": names.HEALTH_PORT}
        else:
            made[key] = value
    return made


def _timeout(probe: Mapping[str, object]) -> float:
    seconds = probe.get("timeoutSeconds")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0:
        return min(float(seconds), MAX_TIMEOUT)
    return 1.0  # of the API, for one that is absent or 0


def _port(container: Mapping[str, object], written: object, where: str) -> int:
    if isinstance(written, str) and not written.isdecimal():
        for port in mappings(container.get("ports")):
            if port.get("name") == written:
                return _number(port.get("containerPort"), where)
        raise ProbeError(
            f"{where} asks the port {shown(written)!r}, which the container does not declare: add it to its ports, or "
            "write the number"
        )
    return _number(written, where)


def _number(written: object, where: str) -> int:
    number = int(written) if isinstance(written, str) and written.isdecimal() and len(written) <= 9 else written
    if isinstance(number, bool) or not isinstance(number, int) or not FIRST <= number <= LAST:
        raise ProbeError(f"{where} asks the port {shown(repr(written))}: write a port from {FIRST} to {LAST}")
    return number
