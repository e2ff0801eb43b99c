"""Policy sets and worlds for the tests of tables, starters and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.answers.question import World
from proxy.policy import PolicyDefault, PolicySettings, load
from proxy.policy.examples import workload
from proxy.types import Generation

WEB = "cluster.local/ns/demo/sa/web"

ORDERS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: demo}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/demo/sa/web]}}]
    to: [{operation: {methods: [GET, HEAD], paths: ["/orders/*"]}}]
"""

NO_ADMIN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: demo}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"]}}]
"""

TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: issuer, namespace: demo}
spec:
  jwtRules: [{issuer: "https://issuer.test", jwksUri: "https://issuer.test/keys"}]
"""


def world(*texts: str, tcp_ports: tuple[int, ...] = (), **settings: Any) -> World:
    """Load files for the workload demo/orders; the names are 0.yaml, 1.yaml and so on."""
    files = {f"{i}.yaml": text.encode() for i, text in enumerate(texts)}
    made = PolicySettings(**{"default": PolicyDefault.DENY, **settings})
    snapshot = load(files, workload=workload, settings=made, generation=Generation(1), tcp_ports=tcp_ports)
    return World(snapshot=snapshot, files=files, workload=workload, settings=made, tcp_ports=frozenset(tcp_ports))


def rules(spec: str, *, name: str = "p", action: str = "ALLOW") -> str:
    """Write an AuthorizationPolicy with the rules of `spec`, a YAML list."""
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: demo}}\nspec:\n  action: {action}\n  rules: {spec}\n"
    )


def record(**changed: Any) -> Mapping[str, Any]:
    """An access record of an allowed request, with other values for some keys."""
    return {
        "kind": "request",
        "direction": "inbound",
        "method": "GET",
        "path": "/orders/7",
        "response_code": 200,
        "x_forwarded_for": None,
        "user_agent": "curl/8.5.0",
        "request_id": "5f2b1c1e",
        "authority": "orders.demo",
        "upstream_cluster": "inbound|8080||",
        "downstream_local_address": "10.0.0.8:15443",
        "downstream_remote_address": "10.0.0.7:40312",
        "requested_server_name": None,
        "source_principal": f"spiffe://{WEB}",
        "destination_principal": "spiffe://cluster.local/ns/demo/sa/orders",
        "decision": "allow",
        "policy": "ns[demo]-policy[orders]-rule[0]",
        "reason": "ok",
        **changed,
    }
