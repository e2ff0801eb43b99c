"""What this sidecar does right now, as data for pages: collected from its parts when somebody looks, and never kept."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Final

from proxy.admin import topics
from proxy.admin.pages import Readiness
from proxy.admin.words import Data, moment, time_of_day
from proxy.config import Config, Service
from proxy.errors import Reason
from proxy.sidecar import Sidecar
from proxy.telemetry.decisions_log import ORDINARY, WINDOW, Decision
from proxy.view import View

GLANCE: Final = 20
"""Rows of one table of the overview."""


def overview(sidecar: Sidecar, readiness: Readiness, view: View, started_at: float) -> Data:
    """Collect everything at a glance: the page of a person, and `remora status`."""
    now = time.time()
    decided = view.decisions(now)
    tls, policy = sidecar.tls, sidecar.policy
    identity = tls.identity_set if tls is not None else None
    return {
        "identity": {
            "name": f"{sidecar.config.workload.namespace}/{sidecar.config.workload.name}",
            "spiffe_id": str(sidecar.identity),
        },
        "readiness": topics.readiness(readiness),
        "facts": {
            "certificate_left_seconds": round(identity.not_after - now) if identity is not None else None,
            "certificate_generation": sidecar.tls_generation,
            "policy_generation": sidecar.policy_generation,
            "policy_default": policy.default.value if policy is not None else sidecar.config.policy.default,
            "policy_rules": len(topics.rules_of(policy)) if policy is not None else 0,
            "policy_warnings": len(policy.warnings) if policy is not None else 0,
            "inbound_open": view.open_count("inbound"),
            "outbound_open": view.open_count("outbound"),
            "draining": sidecar.draining,
            "records_lost": view.records_lost(),
            "up_seconds": round(now - started_at),
            "process": os.getpid(),
            **view.facts(),
        },
        "ports": ports(sidecar),
        "services": services(sidecar),
        "next_hops": next_hops(view),
        "traffic": traffic(sidecar)[:GLANCE],
        "refused": refused(sidecar)[:GLANCE],
        "refusals": [brief(each) for each in decided if each.decision != "allow"][:GLANCE],
        "permits": [brief(each) for each in decided if each.decision == "allow"][:GLANCE],
        "connections": view.connections(now)[1][:GLANCE],
        "footer": f"As of {moment(now)}; times are UTC. Decisions are those of the last {WINDOW / 60:g} minutes.",
    }


def ports(sidecar: Sidecar) -> list[Data]:
    """List the ports that peers and the application reach."""
    config = sidecar.config
    inbound: list[Data] = [
        {
            "direction": "inbound",
            "listen": str(port.listen or "captured"),
            "leads_to": f"the application on {port.app or 'the address that was dialled'}",
            "port": str(port.port),
            "protocol": port.protocol.value,
        }
        for port in config.inbound
    ]
    if config.inbound_capture is not None:
        every: Data = {
            "direction": "inbound",
            "listen": str(config.inbound_capture),
            "leads_to": "the application, at every port that is captured",
            "port": "any",
            "protocol": "auto",
        }
        inbound = [every, *inbound]
    return inbound + [
        {
            "direction": "outbound",
            "listen": str(item.listen),
            "leads_to": "the service that was dialled" if item.captures else f"service {item.service}",
        }
        for item in config.outbound.listeners
    ]


def brief_ports(config: Config) -> tuple[str, str]:
    """Say in one line each what is open to peers and to the application."""
    inbound = [f"{port.listen}->{port.app}" for port in config.inbound if port.listen is not None]
    if config.inbound_capture is not None:
        inbound = [f"{config.inbound_capture}->every captured port", *inbound]
    outbound = [f"{item.listen}->{item.service or 'every captured address'}" for item in config.outbound.listeners]
    return ", ".join(inbound) or "none", ", ".join(outbound) or "none"


def services(sidecar: Sidecar) -> list[Data]:
    """List the services that the application may call."""
    return [_service(service) for service in sidecar.config.outbound.services.values()]


def _service(service: Service) -> Data:
    return {
        "name": service.name,
        "protocol": service.protocol.value,
        "tls": "mutual" if service.mutual else "none",
        "endpoints": [str(endpoint) for endpoint in service.endpoints],
        "identities": sorted(str(identity) for identity in service.identities),
        "hosts": list(service.hosts),
        "timeout_seconds": service.timeout,
    }


def next_hops(view: View) -> list[Data]:
    """List the pools of connections to the application and to endpoints."""
    return [
        {
            "next_hop": hop.name,
            "connections": hop.idle + hop.busy,
            "busy": hop.busy,
            "idle": hop.idle,
            "waiting": hop.waiting,
        }
        for hop in view.hops()
        if not hop.closed
    ]


def traffic(sidecar: Sidecar) -> list[Data]:
    """Sum up what metrics counted by peer, the busiest first."""
    found: dict[tuple[str, str, str], Data] = {}
    sets = sidecar.metrics.label_sets

    def row(labels: dict[str, str]) -> Data:
        inbound = labels["reporter"] == "destination"
        peer = labels["source_principal" if inbound else "destination_principal"]
        service = "" if inbound else labels["destination_service_name"]
        direction = "inbound" if inbound else "outbound"
        blank = {"direction": direction, "service": service, "peer": peer, "requests": 0}
        blank |= dict.fromkeys(("ok", "4xx", "5xx", "tcp", "received_bytes", "sent_bytes"), 0)
        return found.setdefault((direction, service, peer), blank)

    for requests in sets.all_requests():
        into = row(requests.labels)
        into["requests"] += requests.count
        status = requests.labels["response_code"]
        into[f"{status[0]}xx" if status[0] in "45" else "ok"] += requests.count
        into["received_bytes"] += requests.received_sum
        into["sent_bytes"] += requests.sent_sum
    for opaque in sets.all_connections():
        into = row(opaque.labels)
        into["tcp"] += opaque.opened
        into["received_bytes"] += opaque.received
        into["sent_bytes"] += opaque.sent
    return sorted(found.values(), key=lambda each: (-each["requests"] - each["tcp"], each["peer"]))


def refused(sidecar: Sidecar) -> list[Data]:
    """Count what did not go through, by reason, since the start; the most frequent first."""
    metrics = sidecar.metrics
    found: dict[tuple[str, str, Reason], int] = {}
    for (direction, _, decision, reason), tally in metrics.requests.items():
        if decision == "deny" or reason not in ORDINARY:
            key = direction, "requests", reason
            found[key] = found.get(key, 0) + tally.value
    for (direction, decision, reason), count in metrics.ended.items():
        malformed = reason.consequence.flags == "DPE"  # its request is counted
        if decision == "deny" or not (malformed or reason in ORDINARY):
            key = direction, "connections", reason
            found[key] = found.get(key, 0) + count
    for (direction, reason), count in metrics.handshakes.items():
        if direction == "outbound" and reason is not Reason.OK:  # inbound they are connections that ended so
            found[direction, "handshakes", reason] = count
    rows: list[Data] = [
        {"direction": direction, "what": what, "reason": reason.word, "count": count}
        for (direction, what, reason), count in found.items()
    ]
    return sorted(rows, key=lambda each: -int(each["count"]))


def brief(decision: Decision) -> Data:
    """Show a decision in one row, and why below it."""
    return {
        "at": time_of_day(decision.at),
        "direction": decision.direction,
        "decision": decision.decision,
        "reason": decision.reason,
        "status": decision.status or None,
        "method": decision.method,
        "path": decision.path,
        "peer": decision.source if decision.direction == "inbound" else decision.destination,
        "rule": decision.rule,
        "request_id": decision.request_id,
        "explanation": decision.explanation,
        "nearest_miss": decision.nearest_miss,
        "detail": decision.detail,
    }


def whole(decision: Decision) -> Data:
    """Show everything of a decision."""
    shown: dict[str, Any] = {name: getattr(decision, name) for name in Decision.__dataclass_fields__ if name != "asked"}
    return shown | {"at": moment(decision.at)}


def some(rows: Sequence[Data]) -> tuple[int, list[Data]]:
    """Count rows and give as many as a page holds."""
    return len(rows), list(rows[: topics.MAX_ROWS])
