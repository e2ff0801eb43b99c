"""Flows of a mesh -> NetworkPolicies: nothing by default in both directions, DNS, and exactly these flows.

Each namespace with sidecars gets two policies for all of its pods (`default-deny-all`, `allow-dns`), and each of its
workloads one for who calls it and one for whom it calls. A connection is open when both sides let it through, so the
caller's policy mirrors that of the callee. A sidecar's way to the authority is part of the caller's.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from injector import names
from injector.decision import Why
from injector.flows import Flows, flows
from injector.install.plan import NAME, NAMESPACE_NAME, PART_OF
from injector.mesh import Mesh, Note, Workload
from injector.ports import NONE, Ports
from injector.selectors import Group, Groups
from injector.values import Document
from proxy.policy.model import PolicySet

DEFAULT_DENY: Final = "default-deny-all"
ALLOW_DNS: Final = "allow-dns"

_INGRESS: Final = "Ingress"
_EGRESS: Final = "Egress"
_DNS_PORT: Final = 53
_HTTPS: Final = 443
_WRITTEN_OUT: Final = 8
"""Neighbouring ports that are written one by one, as people do; more of them become a range."""
_MAX_NAME: Final = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the cluster is like: where DNS answers, where the control plane is, from where metrics are scraped.

    `namespaces` limits what is written to these; empty means every namespace with sidecars.
    """

    dns_namespace: str = "kube-system"
    dns_labels: Mapping[str, str] = field(default_factory=lambda: {"k8s-app": "kube-dns"})
    own_namespace: str = names.NAMESPACE
    metrics_from: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetpolResult:
    """The NetworkPolicies in order of their namespaces, and what the reader must know."""

    documents: tuple[Document, ...]
    notes: tuple[Note, ...]


def generate(mesh: Mesh, policies: PolicySet, options: Options) -> NetpolResult:
    """Write the NetworkPolicies of every namespace with sidecars.

    What they say is what `flows` says. The order hangs on names alone, so equal manifests give equal documents.
    """
    found = flows(mesh, policies)
    managed = tuple(sorted(set(options.namespaces or mesh.sidecar_namespaces)))
    writer = _Writer(mesh, found, options)
    documents = [document for namespace in managed for document in writer.namespace(namespace)]
    notes = (*mesh.notes, *found.notes, *writer.notes(managed))
    return NetpolResult(documents=tuple(documents), notes=tuple(dict.fromkeys(notes)))


class _Writer:
    """Writes the policies of one namespace after the other."""

    def __init__(self, mesh: Mesh, found: Flows, options: Options) -> None:
        self._mesh = mesh
        self._found = found
        self._options = options
        self._groups = Groups(mesh)
        self._open: dict[tuple[Group, Group], Ports] = {}
        for flow in found.pods:
            key = self._groups.of(flow.source), self._groups.of(flow.target)
            self._open[key] = self._open.get(key, NONE) | flow.ports

    def namespace(self, namespace: str) -> Iterator[Document]:
        """Give the policies of a namespace."""
        yield _policy(namespace, DEFAULT_DENY, {}, (_INGRESS, _EGRESS))
        yield _policy(namespace, ALLOW_DNS, {}, (_EGRESS,), egress=[self._dns()])
        taken = {DEFAULT_DENY, ALLOW_DNS}
        for group in self._groups.within(namespace):
            [selector] = self._groups.selectors([group], [group])
            name = _free_name(group, taken)
            ingress, egress = self._ingress(group), self._egress(group)
            if ingress:
                yield _policy(namespace, f"{name}-ingress", selector, (_INGRESS,), ingress=ingress)
            if egress:
                yield _policy(namespace, f"{name}-egress", selector, (_EGRESS,), egress=egress)

    # --- rules ---

    def _ingress(self, target: Group) -> list[Document]:
        rules: list[tuple[Ports, Document | None]] = []
        callers = {source: ports for (source, to), ports in self._open.items() if to is target}
        whole: dict[str, Ports] = {}
        for found in self._found.namespaces:
            if found.target in target.members:
                whole[found.namespace] = whole.get(found.namespace, NONE) | found.ports
        for namespace in sorted({each.namespace for each in callers} | set(whole)):
            peers = self._peers(namespace, callers, whole.get(namespace, NONE))
            rules += ((ports, peer_at(namespace, target.namespace, selector)) for ports, selector in peers)
        outside = [each for each in self._found.outside if each.target in target.members]
        for each in outside:
            for block in () if each.is_everybody else each.blocks.blocks():
                excepted: Document = {"except": list(block.excepted)} if block.excepted else {}
                rules.append((each.ports, {"ipBlock": {"cidr": block.cidr, **excepted}}))
        everybody = functools.reduce(Ports.__or__, (each.ports for each in outside if each.is_everybody), NONE)
        if everybody:
            rules = [(everybody, None), *(rule for rule in rules if rule[0] | everybody != everybody)]
        made = _rules(rules, "from")
        if target.has_sidecar and self._options.metrics_from:
            scrapers = [peer_at(name, "", {}) for name in self._options.metrics_from]
            made.append({"from": scrapers, "ports": [_port(names.HEALTH_PORT)]})
        return made

    def _egress(self, source: Group) -> list[Document]:
        called = {target: ports for (by, target), ports in self._open.items() if by is source}
        rules: list[tuple[Ports, Document | None]] = []
        for namespace in sorted({each.namespace for each in called}):
            peers = self._peers(namespace, called, NONE)
            rules += ((ports, peer_at(namespace, source.namespace, selector)) for ports, selector in peers)
        return [*self._authorities(source), *_rules(rules, "to")]

    def _peers(self, namespace: str, others: Mapping[Group, Ports], whole: Ports) -> Iterator[tuple[Ports, Document]]:
        """Give selectors of pods of a namespace, each with the ports that they share.

        `whole` are those that are open to whatever pod is there: the namespace is written as such where every pod of it
        that is known agrees.
        """
        known = self._groups.within(namespace)
        here = {each: others[each] for each in known if each in others}
        if whole and all(here.get(each, NONE) | whole == here.get(each, NONE) for each in known):
            yield whole, {}
            here = {each: ports for each, ports in here.items() if ports != whole}
        for ports in dict.fromkeys(here.values()):
            wanted = [each for each in known if here.get(each) == ports]
            allowed = [each for each in here if here[each] | ports == here[each]]
            for selector in self._groups.selectors(wanted, allowed):
                yield ports, selector

    def _authorities(self, source: Group) -> list[Document]:
        """Give the ways to the authority that certificates come from."""
        ports = {
            port
            for each in source.members
            if each.has_sidecar and (port := maybe_authority_port(each, self._options)) is not None
        }
        server = peer_at(self._options.own_namespace, "", {"matchLabels": {NAME: names.AUTHORITY}})
        return [{"to": [server], "ports": [_port(port)]} for port in sorted(ports)]

    def _dns(self) -> Document:
        servers = peer_at(self._options.dns_namespace, "", {"matchLabels": dict(self._options.dns_labels)})
        return {"to": [servers], "ports": [_port(_DNS_PORT, "UDP"), _port(_DNS_PORT)]}

    # --- notes ---

    def notes(self, managed: Iterable[str]) -> Iterator[Note]:
        """Say what the policies close or leave open that no mesh policy speaks of."""
        for group in (each for each in self._groups if each.namespace in managed):
            for each in group.members:
                if not each.has_sidecar:
                    yield _note(each, _without_sidecar(each))
                elif maybe_authority_port(each, self._options) is None:
                    authority = f"{names.AUTHORITY} in namespace {self._options.own_namespace}"
                    text = f"its authority {each.settings.authority} is not {authority}, and the way to it is closed"
                    yield _note(each, f"{text}; open it by hand")
            if len({(each.identity, each.has_sidecar, tuple(each.protocols)) for each in group.members}) > 1:
                first, *more = group.members
                others = ", ".join(each.subject for each in more)
                text = (
                    f"its pods have the same labels as those of {others}, so each is open to what is open to the other"
                )
                yield _note(first, f"{text}; give them a label that differs")


def _without_sidecar(workload: Workload) -> str:
    why = workload.decision.sentence
    if workload.decision.why is Why.HOST_NETWORK:
        return f"no sidecar ({why}), and no NetworkPolicy holds for a pod on the node's network: who calls it is open"
    text = f"no sidecar ({why}), so no mesh policy says who may call it"
    return f"{text}: it is closed, and sidecars reach it no more; open its ways by hand"


def maybe_authority_port(workload: Workload, options: Options) -> int | None:
    """Give the port of the authority that a sidecar asks; None when it is not the one of the control plane."""
    url = urlsplit(workload.settings.authority)
    host = re.escape(f"{names.AUTHORITY}.{options.own_namespace}")
    if re.fullmatch(rf"{host}(\.svc(\..+)?)?", url.hostname or "") is None:
        return None
    return url.port or _HTTPS


def _note(workload: Workload, text: str) -> Note:
    return Note(origin=workload.origin, subject=workload.subject, text=text)


# --- documents -------------------------------------------------------------------------------------------------------


def _policy(
    namespace: str,
    name: str,
    pods: Document,
    types: tuple[str, ...],
    *,
    ingress: list[Document] | None = None,
    egress: list[Document] | None = None,
) -> Document:
    spec: Document = {"podSelector": pods, "policyTypes": list(types)}
    if ingress is not None:
        spec["ingress"] = ingress
    if egress is not None:
        spec["egress"] = egress
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {PART_OF: "remora"}},
        "spec": spec,
    }


def _free_name(group: Group, taken: set[str]) -> str:
    """Name the policies of a group after its first workload, with its kind where another has the name already."""
    longest = _MAX_NAME - len("-ingress")
    named_by_kind = f"{group.members[0].kind.lower()}-{group.name}"
    candidates = itertools.chain([group.name, named_by_kind], (f"{i}-{named_by_kind}" for i in itertools.count(2)))
    name = next(each[:longest] for each in candidates if each[:longest] not in taken)
    taken.add(name)
    return name


def peer_at(namespace: str, here: str, pods: Document) -> Document:
    """Write a peer as seen from the namespace `here`: all pods of another are named by the namespace alone."""
    if namespace == here:
        return {"podSelector": pods}
    made: Document = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: namespace}}}
    return made | ({"podSelector": pods} if pods else {})


def _rules(peers: Iterable[tuple[Ports, Document | None]], direction: str) -> list[Document]:
    """Join peers with the same ports to one rule; None is everybody, for whom a rule names nobody."""
    joined: dict[Ports, list[Document | None]] = {}
    for ports, peer in peers:
        known = joined.setdefault(ports, [])
        if peer not in known:
            known.append(peer)
    made: list[Document] = []
    for ports, found in joined.items():
        ports_of_rule: Document = {"ports": [each for low, high in ports.ranges for each in _range(low, high)]}
        made.append(ports_of_rule if None in found else {direction: found, **ports_of_rule})
    return made


def _range(low: int, high: int) -> list[Document]:
    if high - low < _WRITTEN_OUT:
        return [_port(number) for number in range(low, high + 1)]
    return [{"port": low, "endPort": high, "protocol": "TCP"}]


def _port(number: int, protocol: str = "TCP") -> Document:
    return {"port": number, "protocol": protocol}
