"""The configuration file of an injected sidecar, as a value: `proxy/config.py` reads what is written here.

Only what differs from the proxy's own defaults stands in it, so that somebody who looks at a pod sees what was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from injector import names
from injector.ports import declared, mesh_ports
from injector.protocols import protocol_of
from injector.readers import duration_text
from injector.settings import Capture, Settings
from injector.values import Document
from proxy.limits import Limits

_BUILT_IN = Settings()
PROXY_DRAIN_TIMEOUT = Limits().drain_timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """What the sidecar does for the application: probes, the scrape of its metrics, its end with a Job."""

    probes: tuple[Mapping[str, object], ...] = ()
    metrics: Mapping[str, object] | None = None
    ends_with_job: bool = False


def sidecar_config(
    settings: Settings, spec: Mapping[str, object], service_account: str, performed: Performed
) -> Document:
    """Give the configuration of the sidecar of a pod."""
    made: Document = {
        "workload": {"directory": names.POD_DIRECTORY, "service_account": service_account},
        "trust_domain": settings.trust_domain,
        "identity": {"authority": _authority(settings)},
        "inbound": _inbound(settings, spec),
        "outbound": _outbound(settings),
        "policy": _policy(settings),
        "admin": {"listen": f"127.0.0.1:{names.ADMIN_PORT}"},
        "health": _health(performed),
    }
    if settings.access_log != _BUILT_IN.access_log:
        made["telemetry"] = {"access_log": settings.access_log}
    if settings.drain_timeout != PROXY_DRAIN_TIMEOUT:
        made["limits"] = {"drain_timeout": duration_text(settings.drain_timeout)}
    if settings.workers != _BUILT_IN.workers:
        made["runtime"] = {"workers": settings.workers}
    return made


def pod_ports(settings: Settings, spec: Mapping[str, object]) -> dict[int, str]:
    """Give the TCP ports of a pod that are known, ascending, with what is read at each.

    The annotations say first, then a port's name. An opaque port is `tcp`, as is one whose first bytes are not to be
    looked at.
    """
    found: dict[int, str] = {}
    for port in declared(spec):
        if port.protocol == "TCP":
            found.setdefault(port.number, protocol_of(port.name))
    found |= settings.inbound_ports
    for number in found:
        if number in settings.opaque_ports or number in settings.skip_sniff_ports:
            found[number] = "tcp"
    return dict(sorted(found.items()))


def _authority(settings: Settings) -> Document:
    made: Document = {
        "url": settings.authority,
        "token_file": names.TOKEN_FILE,
        "bundle_file": names.BUNDLE_FILE,
    }
    if settings.authority_identity:
        made["identity"] = settings.authority_identity
    if settings.certificate_lifetime:
        made["lifetime"] = duration_text(settings.certificate_lifetime)
    return made


def _inbound(settings: Settings, spec: Mapping[str, object]) -> Document:
    ports = pod_ports(settings, spec)
    if settings.capture is Capture.REDIRECT:
        # `auto` is what a port is that nobody speaks of.
        known = [_port(settings, number, protocol) for number, protocol in ports.items() if protocol != "auto"]
        made: Document = {"mode": "capture", "listen": f"[::]:{names.INBOUND_PORT}"}
        return made | {"ports": known} if known else made
    listens = mesh_ports(ports)
    return {
        "mode": "ports",
        "ports": [
            {"listen": f"[::]:{listens[number]}", **_port(settings, number, protocol)}
            for number, protocol in ports.items()
        ],
    }


def _port(settings: Settings, number: int, protocol: str) -> Document:
    made: Document = {"port": number}
    if settings.capture is Capture.PORTS:
        made["app"] = f"127.0.0.1:{number}"
    made["protocol"] = protocol
    if number in settings.opaque_ports and number not in settings.skip_sniff_ports:
        made["speaks_first"] = "client"
    return made


def _outbound(settings: Settings) -> Document:
    made: Document = {"directory": names.SERVICES_DIRECTORY, "listeners": list(_listeners(settings))}
    if settings.unknown_outbound != _BUILT_IN.unknown_outbound and settings.capture is Capture.REDIRECT:
        made["unknown"] = settings.unknown_outbound
    return made


def _listeners(settings: Settings) -> Iterable[Document]:
    if settings.capture is Capture.REDIRECT:
        yield {"listen": f"127.0.0.1:{names.OUTBOUND_PORT}", "capture": True}
        yield {"listen": f"[::1]:{names.OUTBOUND_PORT}", "capture": True}
        return
    for service, port in settings.outbound_listeners.items():
        yield {"listen": f"127.0.0.1:{port}", "service": service}


def _policy(settings: Settings) -> Document:
    made: Document = {"directory": names.POLICY_DIRECTORY}
    if settings.policy_default != _BUILT_IN.policy_default:
        made["default"] = settings.policy_default
    if settings.root_namespace != _BUILT_IN.root_namespace:
        made["root_namespace"] = settings.root_namespace
    return made


def _health(performed: Performed) -> Document:
    made: Document = {"listen": f"[::]:{names.HEALTH_PORT}"}
    if performed.probes:
        made["probes"] = [dict(probe) for probe in performed.probes]
    if performed.metrics:
        made["application_metrics"] = dict(performed.metrics)
    if performed.ends_with_job:
        made["quit"] = "loopback"
    return made
