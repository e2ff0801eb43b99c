"""Existing NetworkPolicies beside the policies of a mesh: what is open and must not be, what is closed and must not be.

    for each workload with a sidecar and each direction: what its policies open, less what the mesh may take = holes
                                                         what the mesh allows, less what they open           = missing

Each side of a connection is judged alone: a caller that may go anywhere is a hole, though the other side is closed.
Judged are pods of the manifests, pods of namespaces that somebody names, and addresses outside. Ports that go round a
sidecar, and pods without one, are nobody's business here: no mesh policy speaks of them. Where labels are not known, a
selector counts as one that takes them when a way is looked for, and as one that does not when a hole is.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from injector.blocks import EVERYWHERE, NOWHERE, Blocks
from injector.flows import Flows, flows
from injector.mesh import Mesh, Note, Origin
from injector.netpol import Options
from injector.netpol_read import Direction, NetworkPolicy, Rule
from injector.netpol_sides import DNS, Other, Sides, one, round_the_sidecar, union
from injector.ports import ALL, NONE, SIDECAR_PORTS, Ports
from injector.selectors import Group
from injector.values import Document
from proxy.policy.model import PolicySet

_SHOWN: Final = 4
"""Peers that a finding names; of more it gives the number."""
_WHOLE: Final = ALL - union(map(one, SIDECAR_PORTS))
"""What a rule without ports is meant to open: those of the application."""


class Kind(enum.Enum):
    """What is wrong."""

    HOLE = "hole"
    MISSING = "missing"
    DEAD = "dead rule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing wrong: where it stands, which object it is, what it is, and what to write instead."""

    kind: Kind
    origin: Origin
    subject: str
    text: str
    mend: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.kind.value}: {self.subject}: {self.text}; {self.mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found, in the order of files and lines; and what could not be judged."""

    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]


def verify(mesh: Mesh, policies: PolicySet, existing: Sequence[NetworkPolicy], options: Options) -> Verified:
    """Compare NetworkPolicies with what the policies of the mesh allow, in the namespaces with sidecars."""
    found = flows(mesh, policies)
    sides = Sides(mesh, policies, found, existing, options)
    verifier = _Verifier(mesh, found, sides, existing, options)
    findings = sorted(verifier.findings(), key=lambda each: (each.origin.file, each.origin.line, each.kind.value))
    return Verified(findings=tuple(dict.fromkeys(findings)), notes=tuple(verifier.notes()))


class _Verifier:
    def __init__(
        self, mesh: Mesh, found: Flows, sides: Sides, existing: Sequence[NetworkPolicy], options: Options
    ) -> None:
        self._found = found
        self._sides = sides
        self._options = options
        self._managed = frozenset(options.namespaces or mesh.sidecar_namespaces)
        self._policies = [each for each in existing if each.namespace in self._managed]
        self._passed_over = [each for each in existing if each.namespace not in self._managed]

    def findings(self) -> Iterator[Finding]:
        """Give everything that is wrong."""
        useful: set[Rule] = set()
        for group in (each for each in self._sides.groups if each.namespace in self._managed and each.has_sidecar):
            for direction in Direction:
                selecting = [each for each in self._policies if direction in each.directions and _selects(each, group)]
                if not selecting:
                    yield _not_closed(group, direction)
                    continue
                rules = [(policy, rule) for policy in selecting for rule in policy.rules if rule.direction is direction]
                for policy, rule in rules:
                    yield from self._holes(group, policy, rule, useful)
                yield from self._missing(group, direction, rules)
        yield from self._dead(useful)

    # --- holes ---

    def _holes(self, group: Group, policy: NetworkPolicy, rule: Rule, useful: set[Rule]) -> Iterator[Finding]:
        direction = rule.direction
        too_much: dict[tuple[Ports, Ports], list[str]] = {}
        for other in self._sides.others:
            opened = _opened(rule, group if direction is Direction.INGRESS else other.group)
            if not self._is_peer(policy, rule, other, perhaps=True) or not (opened or _has_other_protocols(rule)):
                continue
            useful.add(rule)
            if self._is_peer(policy, rule, other):
                allowed = self._sides.allowed(group, other, direction)
                left = opened - allowed - self._sides.spared(group, other, direction, opened)
                if left:
                    too_much.setdefault((left, opened & allowed), []).append(other.subject)
        if any(peer.blocks is not None for peer in rule.peers):
            useful.add(rule)
        if direction is Direction.INGRESS:
            for ports, blocks in self._open_to_outside(group, rule):
                too_much.setdefault((ports, NONE), []).append(f"addresses {blocks}")
        for (ports, usable), subjects in too_much.items():
            yield _hole(group, policy, rule, ports, usable, subjects)

    def _open_to_outside(self, group: Group, rule: Rule) -> Iterator[tuple[Ports, Blocks]]:
        blocks = _blocks(rule)
        opened = _opened(rule, group) - round_the_sidecar(group)
        entries = list(self._sides.outside(group)) if blocks else []
        for cell in _cells(opened, [ports for _, ports in entries]) if blocks else ():
            allowed = NOWHERE
            for each, ports in entries:
                allowed |= each if cell & ports else NOWHERE
            if blocks - allowed:
                yield cell, blocks - allowed

    def _is_peer(self, policy: NetworkPolicy, rule: Rule, other: Other, *, perhaps: bool = False) -> bool:
        if rule.direction is Direction.INGRESS and other.namespace in (
            self._options.dns_namespace,
            self._options.own_namespace,
        ):
            perhaps = False  # nobody expects calls from there, whatever labels these namespaces have
        return not rule.peers or any(self._sides.takes(policy, peer, other, perhaps=perhaps) for peer in rule.peers)

    # --- missing ways ---

    def _missing(
        self, group: Group, direction: Direction, rules: Sequence[tuple[NetworkPolicy, Rule]]
    ) -> Iterator[Finding]:
        for other in self._sides.others:
            target = group if direction is Direction.INGRESS else other.group
            needed = self._sides.needed(group, other, direction)
            opened = union(
                _opened(rule, target)
                for policy, rule in (rules if needed else ())
                if self._is_peer(policy, rule, other, perhaps=True)
            )
            if needed - opened:
                peers = [self._sides.peer_of(other, group.namespace)]
                yield _missing_way(group, direction, other.subject, needed - opened, peers)
        if direction is Direction.EGRESS:
            yield from self._missing_dns(group, rules)
        else:
            yield from self._missing_outside(group, [rule for _, rule in rules])

    def _missing_dns(self, group: Group, rules: Sequence[tuple[NetworkPolicy, Rule]]) -> Iterator[Finding]:
        for policy, rule in rules:
            # A cache on the node answers at an address of its own.
            has_address = any(peer.blocks is not None for peer in rule.peers)
            if not has_address and not self._is_peer(policy, rule, self._sides.dns, perhaps=True):
                continue
            # The name of a port may be that of DNS: the pods are not known.
            if rule.ports is None or any(
                each.protocol == "UDP" and (each.name or DNS & each.numbers) for each in rule.ports
            ):
                return
        peers = [self._sides.peer_of(self._sides.dns, group.namespace)]
        who = f"DNS in {self._options.dns_namespace}"
        yield _missing_way(group, Direction.EGRESS, who, DNS, peers, protocol="UDP")

    def _missing_outside(self, group: Group, rules: Sequence[Rule]) -> Iterator[Finding]:
        for entry in (each for each in self._found.outside if each.target in group.members):
            for cell in _cells(entry.ports, [_opened(rule, group) for rule in rules]):
                opened = NOWHERE
                for rule in (each for each in rules if cell & _opened(each, group)):
                    opened |= _blocks(rule)
                if entry.blocks - opened:
                    closed = entry.blocks - opened
                    yield _missing_way(group, Direction.INGRESS, f"addresses {closed}", cell, _peers(entry.blocks))

    # --- dead rules ---

    def _dead(self, useful: set[Rule]) -> Iterator[Finding]:
        for policy in self._policies:
            selected = [each for each in self._sides.groups.within(policy.namespace) if _selects(policy, each)]
            if not selected and not policy.pods.is_empty:
                text = f"its `podSelector` ({policy.pods}) takes no pod of the manifests"
                mend = "correct the labels, or delete the policy"
                yield Finding(kind=Kind.DEAD, origin=policy.origin, subject=policy.subject, text=text, mend=mend)
            if not any(each.has_sidecar for each in selected):
                continue
            for rule in policy.rules:
                if rule.direction not in policy.directions:
                    text = (
                        f"`policyTypes` leaves {rule.direction.value} out, so this `{rule.direction.key}` rule is idle"
                    )
                    mend = f"add {rule.direction.value} to `policyTypes`, or delete the rule"
                elif rule not in useful:
                    text, mend = self._why_dead(policy, rule)
                else:
                    continue
                yield Finding(kind=Kind.DEAD, origin=rule.origin, subject=policy.subject, text=text, mend=mend)

    def _why_dead(self, policy: NetworkPolicy, rule: Rule) -> tuple[str, str]:
        if any(self._is_peer(policy, rule, other, perhaps=True) for other in self._sides.others):
            ports = ", ".join(map(str, rule.ports or ()))
            text = f"this `{rule.direction.key}` rule opens nothing: no pod has the ports {ports}"
            return text, "write a port's number, or the name that a container gives it, or delete the rule"
        peers = "; ".join(map(str, rule.peers))
        text = f"this `{rule.direction.key}` rule opens nothing: no pod of the manifests is one of its peers ({peers})"
        return text, "correct the labels of its peers, or delete the rule"

    def notes(self) -> Iterator[Note]:
        """Say what was not judged."""
        for policy in self._passed_over:
            text = f"not judged: no pod in namespace {policy.namespace} has a sidecar"
            yield Note(origin=policy.origin, subject=policy.subject, text=text)
        for group in self._sides.groups:
            for each in group.members:
                if not each.has_sidecar and each.namespace in self._managed:
                    text = f"not judged: it has no sidecar ({each.decision.sentence}), so no mesh policy speaks of it"
                    yield Note(origin=each.origin, subject=each.subject, text=text)
        for policy in self._policies:
            for rule in policy.rules:
                unknown = [
                    str(other.namespace)
                    for other in self._sides.others
                    if other.labels is None and not self._sides.has_known_pods(other.namespace)
                    if other.namespace not in (None, self._options.dns_namespace, self._options.own_namespace)
                    if rule.peers and self._is_peer(policy, rule, other)
                ]
                if unknown and rule.direction is Direction.EGRESS:
                    text = f"not judged: no pod of {', '.join(unknown)} is among the manifests, so nobody knows it"
                    yield Note(origin=rule.origin, subject=policy.subject, text=text)


# --- findings --------------------------------------------------------------------------------------------------------


def _not_closed(group: Group, direction: Direction) -> Finding:
    who = "everybody may connect to it" if direction is Direction.INGRESS else "it may connect to everybody"
    return Finding(
        kind=Kind.HOLE,
        origin=group.members[0].origin,
        subject=group.members[0].subject,
        text=f"no NetworkPolicy closes its {direction.key}: {who}",
        mend=(
            f"add a default deny to namespace {group.namespace}: a NetworkPolicy with `podSelector: {{}}` and "
            f"`policyTypes: [{direction.value}]`"
        ),
    )


def _hole(
    group: Group, policy: NetworkPolicy, rule: Rule, ports: Ports, usable: Ports, subjects: Sequence[str]
) -> Finding:
    more = f" and {len(subjects) - _SHOWN} more" if len(subjects) > _SHOWN else ""
    who = f"{', '.join(subjects[:_SHOWN])}{more}"
    here = f"{group.namespace}/{group.name}"
    way = f"{who} into {here}" if rule.direction is Direction.INGRESS else f"{here} out to {who}"
    if usable:
        mend = f"open {_shown(usable)} alone by `ports`"
    elif rule.peers:
        mend = "narrow its peers, so that these are none of them"
    else:
        mend = (
            f"name its peers by `{'from' if rule.direction is Direction.INGRESS else 'to'}`: without, it is everybody"
        )
    return Finding(
        kind=Kind.HOLE,
        origin=rule.origin,
        subject=policy.subject,
        text=f"it lets {way} at {_shown(ports)}, which the mesh denies whatever is asked",
        mend=f"{mend}, or allow it by an AuthorizationPolicy",
    )


def _missing_way(
    group: Group, direction: Direction, who: str, ports: Ports, peers: list[Document], *, protocol: str = "TCP"
) -> Finding:
    way = f"from {who}" if direction is Direction.INGRESS else f"to {who}"
    return Finding(
        kind=Kind.MISSING,
        origin=group.members[0].origin,
        subject=group.members[0].subject,
        text=f"its {direction.key} {way} at {_shown(ports, protocol)} is allowed by the mesh and closed here",
        mend=f"add to `{direction.key}` of a policy that selects it: {_rule(direction, peers, ports, protocol)}",
    )


def _rule(direction: Direction, peers: list[Document], ports: Ports, protocol: str) -> str:
    """Write a rule in one line, as JSON, which is YAML; without peers it is one for everybody."""
    rule: Document = {"from" if direction is Direction.INGRESS else "to": peers} if peers else {}
    entries = (
        {"port": low, **({"endPort": high} if low < high else {}), "protocol": protocol} for low, high in ports.ranges
    )
    return json.dumps({**rule, "ports": list(entries)})


def _peers(blocks: Blocks) -> list[Document]:
    """Write addresses as peers; of all of them, none."""
    found = () if blocks == EVERYWHERE else blocks.blocks()
    return [
        {"ipBlock": {"cidr": each.cidr, **({"except": list(each.excepted)} if each.excepted else {})}} for each in found
    ]


# --- rules -----------------------------------------------------------------------------------------------------------


def _selects(policy: NetworkPolicy, group: Group) -> bool:
    return policy.namespace == group.namespace and policy.pods.takes(dict(group.labels))


def _opened(rule: Rule, target: Group | None) -> Ports:
    """Give the TCP ports that a rule opens; names are those of the target's containers."""
    if rule.ports is None:
        return _WHOLE
    found = [each.numbers for each in rule.ports if each.protocol == "TCP" and not each.name]
    wanted = {each.name for each in rule.ports if each.protocol == "TCP" and each.name}
    for workload in target.members if target is not None else ():
        numbers = (workload.maybe_number(name) for name in sorted(wanted))
        found += [one(number) for number in numbers if number is not None]
    return union(found)


def _blocks(rule: Rule) -> Blocks:
    """Give the addresses that a rule takes."""
    found = NOWHERE if rule.peers else EVERYWHERE
    for peer in rule.peers:
        found |= peer.blocks or NOWHERE
    return found


def _has_other_protocols(rule: Rule) -> bool:
    """Say whether a rule opens something else than TCP: it is not judged."""
    return rule.ports is not None and any(each.protocol != "TCP" for each in rule.ports)


def _cells(ports: Ports, others: Sequence[Ports]) -> Iterator[Ports]:
    """Cut ports into parts that lie each wholly inside or wholly outside of each of the others."""
    parts = [ports] if ports else []
    for other in others:
        parts = [cut for part in parts for cut in (part & other, part - other) if cut]
    yield from parts


def _shown(ports: Ports, protocol: str = "TCP") -> str:
    if ports in (ALL, _WHOLE):
        return "every port"
    if len((_WHOLE - ports).ranges) < len(ports.ranges):
        return f"every port but {_WHOLE - ports}/{protocol}"
    is_one = len(ports.ranges) == 1 and ports.ranges[0][0] == ports.ranges[0][1]
    return f"{'port' if is_one else 'ports'} {ports}/{protocol}"
