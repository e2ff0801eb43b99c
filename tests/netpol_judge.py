"""Judges connections by NetworkPolicies, as the reference of networking.k8s.io/v1 says and from nothing but their text.

It shares no code with what writes them. A pod that no policy selects in a direction is open in it; one that is selected
lets through what some rule of some policy lets through; a connection between pods needs both sides.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as a NetworkPolicy sees it; `ports` are its containers' named ports."""

    namespace: str
    labels: Mapping[str, str]
    ip: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outsider:
    """Somebody who is no pod, at an address."""

    ip: str


class Judge:
    """Judges by a set of policies; `namespaces` are the labels of each namespace."""

    def __init__(self, policies: Sequence[Policy], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        self._policies = policies
        self._namespaces = namespaces

    def is_open(self, source: Pod | Outsider, target: Pod | Outsider, port: int, protocol: str = "TCP") -> bool:
        """Say whether a connection comes through: out of the one and into the other."""
        leaves = not isinstance(source, Pod) or self.leaves(source, target, port, protocol)
        return leaves and (not isinstance(target, Pod) or self.enters(source, target, port, protocol))

    def leaves(self, source: Pod, target: Pod | Outsider, port: int, protocol: str = "TCP") -> bool:
        """Say whether the source's side lets it through."""
        return self._passes(source, "Egress", "egress", "to", target, target, port, protocol)

    def enters(self, source: Pod | Outsider, target: Pod, port: int, protocol: str = "TCP") -> bool:
        """Say whether the target's side lets it through."""
        return self._passes(target, "Ingress", "ingress", "from", source, target, port, protocol)

    def _passes(
        self,
        subject: Pod,
        kind: str,
        rules: str,
        peers: str,
        other: Pod | Outsider,
        target: Pod | Outsider,
        port: int,
        protocol: str,
    ) -> bool:
        selecting = [each for each in self._policies if kind in _types(each) and _selects(each, subject)]
        return not selecting or any(
            self._is_peer(rule.get(peers), other, each["metadata"]["namespace"])
            and _is_port(rule.get("ports"), target, port, protocol)
            for each in selecting
            for rule in each["spec"].get(rules) or []
        )

    def _is_peer(self, peers: Sequence[Mapping[str, Any]] | None, other: Pod | Outsider, own: str) -> bool:
        return not peers or any(self._is(peer, other, own) for peer in peers)

    def _is(self, peer: Mapping[str, Any], other: Pod | Outsider, own: str) -> bool:
        block = peer.get("ipBlock")
        if block is not None:
            return _lies_in(block["cidr"], other.ip) and not any(
                _lies_in(e, other.ip) for e in block.get("except") or []
            )
        if not isinstance(other, Pod):
            return False
        if "namespaceSelector" in peer:
            is_there = matches(peer["namespaceSelector"], self._namespaces.get(other.namespace, {}))
        else:
            is_there = other.namespace == own
        return is_there and matches(peer.get("podSelector") or {}, other.labels)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Say whether a label selector takes these labels; an empty one takes all."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(expression["operator"])


def _types(policy: Policy) -> Sequence[str]:
    spec = policy["spec"]
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    found: Sequence[str] = spec.get("policyTypes") or default
    return found


def _selects(policy: Policy, pod: Pod) -> bool:
    namespace: str = policy["metadata"]["namespace"]
    return namespace == pod.namespace and matches(policy["spec"].get("podSelector") or {}, pod.labels)


def _is_port(ports: Sequence[Mapping[str, Any]] | None, target: Pod | Outsider, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for each in ports:
        if each.get("protocol", "TCP") != protocol:
            continue
        wanted = each.get("port")
        if isinstance(wanted, str):
            wanted = target.ports.get(wanted) if isinstance(target, Pod) else None
            if wanted == port:
                return True
        elif wanted is None or wanted <= port <= each.get("endPort", wanted):
            return True
    return False


def _lies_in(cidr: str, ip: str) -> bool:
    return bool(ip) and ipaddress.ip_address(ip) in ipaddress.ip_network(cidr)
