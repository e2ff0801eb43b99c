"""What the mesh allows between the pods of one workload and whoever is at the other end, as a NetworkPolicy sees both.

At the other end are pods of the manifests; pods of a namespace of which nothing but the name is known; and pods of all
namespaces that nobody names. Of the last two, labels are known in part: a selector then takes them for sure, or may.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.blocks import EVERYWHERE, Blocks
from injector.callers import Answer, Callers, Port
from injector.flows import Flows, mesh_ports_of
from injector.install.plan import NAME, NAMESPACE_NAME
from injector.mesh import Mesh, Workload
from injector.netpol import Options, maybe_authority_port, peer_at
from injector.netpol_read import Direction, NetworkPolicy, Peer
from injector.ports import ALL, NONE, SIDECAR_PORTS, Ports
from injector.protocols import AUTO
from injector.selectors import Group, Groups
from injector.settings import Capture
from injector.values import Document
from proxy.policy.model import PolicySet

DNS: Final = Ports(((53, 53),))

_STRANGERS: Final = ("q7-nobody-0x", "z3-nobody-9k")
"""Namespaces that no policy means: what holds for both, whatever a pattern says, holds for any."""


@dataclass(frozen=True, slots=True)
class Other:
    """Pods at the other end. `group` is None for pods that no manifest has: whatever else is in the namespace.

    `namespace` None stands for every namespace that nobody names. `labels` None stands for pods of any labels: only a
    selector that takes all pods of the namespace takes them for sure.
    """

    namespace: str | None
    labels: Mapping[str, str] | None
    group: Group | None = None

    @property
    def subject(self) -> str:
        """Name them for people."""
        if self.namespace is None:
            return "pods of any other namespace"
        if self.group is not None:
            return f"{self.namespace}/{self.group.name}"
        if self.labels is not None:
            return f"{','.join(f'{key}={value}' for key, value in self.labels.items())} in {self.namespace}"
        return f"other pods of {self.namespace}"


class Sides:
    """Knows who is there and what each may; `existing` are the policies that may name further namespaces."""

    def __init__(
        self,
        mesh: Mesh,
        policies: PolicySet,
        found: Flows,
        existing: Sequence[NetworkPolicy],
        options: Options,
    ) -> None:
        self._mesh = mesh
        self._policies = policies
        self._found = found
        self._options = options
        self.groups = Groups(mesh)
        self._open: dict[tuple[Group, Group], Ports] = {}
        for flow in found.pods:
            key = self.groups.of(flow.source), self.groups.of(flow.target)
            self._open[key] = self._open.get(key, NONE) | flow.ports
        self.dns = Other(options.dns_namespace, options.dns_labels)
        self.authority = Other(options.own_namespace, {NAME: names.AUTHORITY})
        self.others = (*self._known(), *self._unknown(existing), self.dns, self.authority)
        self._judges = functools.cache(self._judges_of)

    def _known(self) -> Iterator[Other]:
        for each in self.groups:
            yield Other(each.namespace, dict(each.labels), each)

    def _unknown(self, existing: Sequence[NetworkPolicy]) -> Iterator[Other]:
        named = {each.namespace for each in self.groups} | {each.namespace for each in self._found.namespaces}
        named |= {*self._options.metrics_from, self._options.dns_namespace, self._options.own_namespace}
        for policy in existing:
            for peer in (peer for rule in policy.rules for peer in rule.peers if peer.namespaces is not None):
                named |= peer.namespaces.values(NAMESPACE_NAME) if peer.namespaces is not None else set()
        for name in sorted(named):
            yield Other(name, None)
        yield Other(None, None)

    def has_known_pods(self, namespace: str | None) -> bool:
        """Say whether pods of a namespace are among the manifests."""
        return namespace is not None and bool(self.groups.within(namespace))

    def takes(self, policy: NetworkPolicy, peer: Peer, other: Other, *, perhaps: bool = False) -> bool:
        """Say whether a peer takes pods for sure; with `perhaps`, whether it may, where labels are not known."""
        if peer.blocks is not None:
            return False
        if peer.namespaces is None:
            is_there = other.namespace == policy.namespace
        elif other.namespace is None:
            is_there = peer.namespaces.is_empty
        else:
            known = self._mesh.namespaces.get(other.namespace)
            labels = {NAMESPACE_NAME: other.namespace, **(known.labels if known is not None else {})}
            is_described = known is not None and known.origin is not None
            is_there = peer.namespaces.takes(labels, is_whole=is_described or not perhaps)
        if not is_there or other.labels is None:
            # Where pods are known, further ones are no excuse for labels that none of them has.
            return is_there and (peer.pods.is_empty or (perhaps and not self.has_known_pods(other.namespace)))
        return peer.pods.takes(other.labels, is_whole=other.group is not None or not perhaps)

    def peer_of(self, other: Other, here: str) -> Document:
        """Write others as a peer of a rule in the namespace `here`."""
        pods: Document = {}
        if other.group is not None:
            [pods] = self.groups.selectors([other.group])
        elif other.labels is not None:
            pods = {"matchLabels": dict(other.labels)}
        return peer_at(str(other.namespace), here, pods)

    # --- what may be ---

    def needed(self, group: Group, other: Other, direction: Direction) -> Ports:
        """Give the ports that must be open for the mesh to do what it allows, as `generate` opens them."""
        if direction is Direction.EGRESS:
            if other is self.authority:
                return self._authority_ports(group)
            return NONE if other.group is None else self._open.get((group, other.group), NONE)
        everybody = union(
            each.ports for each in self._found.outside if each.is_everybody and each.target in group.members
        )
        if other.group is not None:
            return everybody | self._open.get((other.group, group), NONE)
        # Of pods that nobody knows, those count whose namespace is let in whole and has no known pod.
        whole = [
            each.ports
            for each in self._found.namespaces
            if each.target in group.members and each.namespace == other.namespace
        ]
        return union(whole) if whole and not self.has_known_pods(other.namespace) else NONE

    def allowed(self, group: Group, other: Other, direction: Direction) -> Ports:
        """Give all ports at which the mesh may take a connection, those too that nobody declares."""
        target, caller = (group, other) if direction is Direction.INGRESS else (other.group, None)
        if target is None:
            return NONE
        own = Other(group.namespace, dict(group.labels), group)
        found = self.needed(group, other, direction)
        if other.group is None and other.labels is None and self.has_known_pods(other.namespace):
            # What all pods of a namespace may that are known is written for the namespace.
            known = (Other(each.namespace, None, each) for each in self.groups.within(str(other.namespace)))
            found |= functools.reduce(Ports.__and__, (self.allowed(group, each, direction) for each in known))
        return found | union(
            port.arrivals
            for callers, ports in self._judges(target)
            for port in ports
            if self._may_call(callers, port, own if caller is None else caller)
        )

    def spared(self, group: Group, other: Other, direction: Direction, opened: Ports) -> Ports:
        """Give the ports of which no mesh policy speaks: what a rule opens of them is not judged."""
        if direction is Direction.EGRESS:
            # A rule for DNS alone is often one for whoever there is, and nobody else answers at its port.
            dns = NONE if opened - DNS else DNS
            if other.group is not None:
                at_home = self._authority_ports(group) if other.namespace == self._options.own_namespace else NONE
                answers = any(DNS & one(number) for each in other.group.members for number in each.protocols)
                return at_home | round_the_sidecar(other.group) | (NONE if answers else dns)
            # Who is in a namespace without manifests is not known, so nobody can say what it may be asked.
            return dns if other.namespace is None else ALL
        scrapes = other.namespace in self._options.metrics_from
        return round_the_sidecar(group) | (one(names.HEALTH_PORT) if scrapes else NONE)

    def outside(self, group: Group) -> Iterator[tuple[Blocks, Ports]]:
        """Give the addresses outside the mesh that it may let in, each with its ports."""
        for callers, ports in self._judges(group):
            for port in ports:
                blocks = callers.from_outside(port)
                if blocks:
                    yield blocks, port.arrivals

    def _may_call(self, callers: Callers, port: Port, other: Other) -> bool:
        if callers.from_outside(port) == EVERYWHERE:
            return True
        if other.group is not None:
            return any(callers.from_pod(each, port) is not Answer.NO for each in other.group.members)
        asked = _STRANGERS if other.namespace is None else (other.namespace,)
        return all(callers.from_namespace(name, port) is not Answer.NO for name in asked)

    def _judges_of(self, group: Group) -> list[tuple[Callers, list[Port]]]:
        found = []
        for each in (each for each in group.members if each.has_sidecar):
            callers = Callers(each, self._policies, self._mesh.workloads)
            ports = mesh_ports_of(each, callers.named_ports)
            found.append((callers, [*ports, *_undeclared(each, ports)]))
        return found

    def _authority_ports(self, group: Group) -> Ports:
        found = (maybe_authority_port(each, self._options) for each in group.members if each.has_sidecar)
        return union(one(port) for port in found if port is not None)


def round_the_sidecar(group: Group) -> Ports:
    """Give the ports of pods that no sidecar judges and that are not its own: no mesh policy speaks of them.

    Without rules in the kernel there are none: there the mesh comes by the sidecar's ports, and the application's own,
    where they are open, are a way past it.
    """
    found = NONE
    for each in group.members:
        if not each.has_sidecar:
            return ALL
        if each.settings.capture is Capture.REDIRECT:
            found |= ALL - (each.settings.include_inbound_ports - each.settings.exclude_inbound_ports)
    return found - union(map(one, SIDECAR_PORTS))


def union(many: Iterable[Ports]) -> Ports:
    """Join sets of ports."""
    return Ports.of(each for ports in many for each in ports.ranges)


def one(number: int) -> Ports:
    """Give the set of one port."""
    return Ports(((number, number),))


def _undeclared(workload: Workload, ports: Sequence[Port]) -> Iterator[Port]:
    """Give, as one, the captured ports that nobody declares or names: the sidecar judges what comes to them too."""
    if workload.settings.capture is Capture.REDIRECT:
        rest = workload.settings.include_inbound_ports - workload.settings.exclude_inbound_ports
        rest = rest - union(each.arrivals for each in ports) - union(map(one, SIDECAR_PORTS))
        if rest:
            yield Port(number=None, arrivals=rest, protocol=AUTO)
