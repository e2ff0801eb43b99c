"""Worlds and questions for the tests of explanations: the workload demo/orders, its caller web."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from certs.spiffe import TrustDomain
from proxy.answers.question import Question, World
from proxy.answers.report import Report, explain
from proxy.policy import PolicyDefault, PolicySettings, Workload, load
from proxy.protocol.path import PathNormalization
from proxy.types import Generation

WEB = "cluster.local/ns/demo/sa/web"
NOW = 1_800_000_000.0

ORDERS = """\
# Who may call orders.
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: orders
  namespace: demo
spec:
  selector:
    matchLabels:
      app: orders
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/demo/sa/web"]
    to:
    - operation:
        methods: ["GET"]
        paths: ["/orders/*"]   # reading
  - from:
    - source: {serviceAccounts: [billing]}
    - source: {namespaces: [ops]}
"""
NO_ADMIN = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: demo}
spec:
  action: DENY
  rules:
  - to:
    - operation: {paths: ["/admin*"]}
"""
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: either, namespace: demo}
spec: {mtls: {mode: PERMISSIVE}}
"""


def allow(name: str, rules: str, *, action: str = "ALLOW", more: str = "", namespace: str = "demo") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{more}action: {action}, rules: {rules}}}\n"
    )


def world(
    *texts: str,
    default: str = "deny",
    normalization: PathNormalization = PathNormalization.BASE,
    labels: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    trusted_proxies: int = 0,
    tcp_ports: frozenset[int] = frozenset(),
    **more: Any,
) -> World:
    """Load texts as the files a.yaml, b.yaml and so on."""
    content = dict(files or {f"{chr(97 + i)}.yaml": text.encode() for i, text in enumerate(texts)})
    workload = Workload(
        namespace="demo",
        service_account="orders",
        name="orders-1",
        labels={"app": "orders"} if labels is None else labels,
        trust_domain=TrustDomain("cluster.local"),
    )
    settings = PolicySettings(default=PolicyDefault(default), trusted_proxies=trusted_proxies)
    snapshot = load(content, workload=workload, settings=settings, generation=Generation(1), tcp_ports=tcp_ports)
    return World(
        snapshot=snapshot,
        workload=workload,
        settings=settings,
        normalization=normalization,
        files=content,
        tcp_ports=tcp_ports,
        **more,
    )


def question(target: str = "/", **more: Any) -> Question:
    values: dict[str, Any] = {"principal": WEB, "target": target, "host": "orders"}
    return Question(**(values | more))


def explained(asked: World, target: str = "/", **more: Any) -> Report:
    return explain(asked, question(target, **more), NOW)
