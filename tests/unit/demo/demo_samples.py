"""Small values that the tests of the demo share."""

from __future__ import annotations

import json
from pathlib import Path

from demo.layout import WORKLOADS, Layout
from demo.records import Access

LAYOUT = Layout(directory=Path("/somewhere/mesh"), base=21_000)


def spiffe(name: str) -> str:
    return f"spiffe://cluster.local/ns/shop/sa/{name}"


def access(**changes: object) -> Access:
    """An access that was denied: web deletes an order."""
    values: dict[str, object] = {
        "workload": "orders",
        "began": "2030-01-01T00:00:00.000Z",
        "direction": "inbound",
        "telling": True,
        "what": "DELETE /orders/7",
        "source": spiffe("web"),
        "destination": spiffe("orders"),
        "status": 403,
        "decision": "deny",
        "policy": "none",
        "reason": "denied_by_policy",
        "why": "no ALLOW rule allows it",
        "nearest": "ns[shop]-policy[orders]-rule[0] (/somewhere/mesh/policies/orders.yaml:15): `methods`",
        "micros": 1_500,
        "retries": 0,
    }
    return Access(**{**values, **changes})  # type: ignore[arg-type]


def line(**changes: object) -> str:
    """A line of an access log, as a sidecar writes it."""
    record: dict[str, object] = {
        "start_time": "2030-01-01T00:00:00.000Z",
        "kind": "request",
        "direction": "inbound",
        "method": "GET",
        "path": "/orders/7",
        "protocol": "HTTP/1.1",
        "response_code": 200,
        "upstream_transport_failure_reason": None,
        "source_principal": spiffe("web"),
        "destination_principal": spiffe("orders"),
        "decision": "allow",
        "policy": "ns[shop]-policy[orders]-rule[0]",
        "reason": "ok",
        "explanation": None,
        "nearest_miss": None,
        "retries": 0,
        "stage_us": {"total": 1_500},
    }
    return json.dumps(record | changes) + "\n"


def empty_logs(directory: Path) -> Layout:
    """A layout whose access logs are there and empty."""
    layout = Layout(directory=directory, base=21_000)
    for workload in WORKLOADS:
        layout.home(workload).mkdir()
        layout.access_log(workload).touch()
    return layout
