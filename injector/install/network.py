"""NetworkPolicies of the control plane: who may reach it, and whom it may reach.

The API server is no pod: it calls the webhook from a node's address and is called at its own, and neither can be named
by a selector. So the webhook's port is open to all and asks for TLS, and the way out is by port alone.
"""

from __future__ import annotations

from typing import Final

from injector import names
from injector.install.plan import NAMESPACE_NAME, Document, Plan, metadata, selector

API_SERVER_PORTS: Final = (443, 6443)
"""Of the Service `kubernetes`, and of the API server behind it: a policy may see either, by the network plugin."""


def policies(plan: Plan) -> list[Document]:
    """Give the policies: nothing by default, then the ways that authority and injector need."""
    denied = _policy(plan, "remora-default-deny", {}, ["Ingress", "Egress"])
    # Sidecars may be in every namespace; the operator's commands come by a socket inside the pod.
    signing: Document = {"from": [{"namespaceSelector": {}}], "ports": [_port(names.AUTHORITY_PORT)]}
    scraped = _scraped(plan)
    out = [_dns(), _api_server()]
    both = ["Ingress", "Egress"]
    authority = _policy(plan, names.AUTHORITY, selector(names.AUTHORITY), both, [signing, *scraped], out)
    # Without `from`: the API server calls from a node's own address.
    reviews: Document = {"ports": [_port(names.INJECTOR_PORT)]}
    injector = _policy(plan, names.INJECTOR, selector(names.INJECTOR), both, [reviews, *scraped], out)
    return [denied, authority, injector]


def _policy(
    plan: Plan,
    name: str,
    pods: dict[str, str],
    types: list[str],
    ingress: list[Document] | None = None,
    egress: list[Document] | None = None,
) -> Document:
    spec: Document = {"podSelector": {"matchLabels": pods} if pods else {}, "policyTypes": types}
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan, name),
        "spec": spec,
    }


def _scraped(plan: Plan) -> list[Document]:
    peers = [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}} for name in plan.metrics_from]
    # An empty `from` would mean everybody.
    return [{"from": peers, "ports": [_port(names.CONTROL_HEALTH_PORT)]}] if peers else []


def _dns() -> Document:
    servers: Document = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_NAME: "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {"to": [servers], "ports": [_port(53, "UDP"), _port(53)]}


def _api_server() -> Document:
    return {"ports": [_port(port) for port in API_SERVER_PORTS]}


def _port(number: int, protocol: str = "TCP") -> Document:
    return {"port": number, "protocol": protocol}
