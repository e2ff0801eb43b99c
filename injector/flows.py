"""Mesh policies and manifests -> who may connect to whom: what a NetworkPolicy can say of a mesh.

    for each workload with a sidecar, each of its ports, each caller: could the policies allow it?

A flow is here when some connection or request of it may be allowed. What only a request decides (method, path, header,
token) leaves the flow open and `is_conditional`: the sidecar goes on to judge it. Everything else is closed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from injector.blocks import EVERYWHERE, Blocks
from injector.callers import Answer, Callers, Port
from injector.mesh import Door, Mesh, Note, Workload
from injector.ports import SIDECAR_PORTS, Ports
from injector.protocols import AUTO
from injector.settings import Capture
from proxy.policy.model import PolicySet


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Pods of `source` may connect to pods of `target`.

    `ports` are those of the pods' address, where the traffic arrives: with capture the application's own, without the
    sidecar's (`Workload.arrival`). `is_conditional`: the mesh allows some requests of it and not all.
    """

    source: Workload
    target: Workload
    ports: Ports
    is_conditional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FromNamespace:
    """Whatever sidecar is in a namespace, also of pods that the manifests do not have, may connect to `target`."""

    namespace: str
    target: Workload
    ports: Ports


@dataclass(frozen=True, slots=True, kw_only=True)
class FromOutside:
    """Whoever has one of these addresses may connect to pods of `target`; everybody, when they are `EVERYWHERE`."""

    blocks: Blocks
    target: Workload
    ports: Ports

    @property
    def is_everybody(self) -> bool:
        """Say whether no caller is left out, pods without a sidecar included."""
        return self.blocks == EVERYWHERE


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """All flows of a mesh, in the order of its workloads. `notes` say what could not be said exactly."""

    pods: tuple[Flow, ...]
    namespaces: tuple[FromNamespace, ...] = ()
    outside: tuple[FromOutside, ...] = ()
    notes: tuple[Note, ...] = ()


def flows(mesh: Mesh, policies: PolicySet) -> Flows:
    """Find every flow that the policies of a mesh may allow.

    Only ports at which a sidecar judges count; where one leaves a port alone, or there is none, no policy speaks.
    """
    found = _Finder(mesh, policies)
    for target in mesh.workloads:
        if target.has_sidecar:
            found.add(target)
    return Flows(
        pods=tuple(found.pods),
        namespaces=tuple(found.namespaces),
        outside=tuple(found.outside),
        notes=tuple(dict.fromkeys(found.notes)),
    )


def mesh_ports_of(workload: Workload, named: frozenset[int] = frozenset()) -> list[Port]:
    """Give the ports of a workload at which its sidecar judges.

    They are those that it declares; with capture also those that policies name, and where nothing is declared, all.
    """
    known = dict(workload.protocols)
    captures = workload.settings.capture is Capture.REDIRECT
    if captures:
        known |= dict.fromkeys(named - set(known), AUTO)
    found = [
        Port(number=number, arrivals=_one(workload.arrival(number)), protocol=protocol)
        for number, protocol in sorted(known.items())
        if workload.door(number) is Door.SIDECAR
    ]
    if captures and not workload.protocols:
        rest = workload.settings.include_inbound_ports - workload.settings.exclude_inbound_ports
        rest -= Ports.of((number, number) for number in (*SIDECAR_PORTS, *known))
        if rest:
            found.append(Port(number=None, arrivals=rest, protocol=AUTO))
    return found


class _Finder:
    """Collects the flows to one target after the other."""

    def __init__(self, mesh: Mesh, policies: PolicySet) -> None:
        self._mesh = mesh
        self._policies = policies
        self._present = frozenset(each.namespace for each in mesh.workloads)
        self._judged = frozenset(mesh.sidecar_namespaces)
        self.pods: list[Flow] = []
        self.namespaces: list[FromNamespace] = []
        self.outside: list[FromOutside] = []
        self.notes: list[Note] = []

    def add(self, target: Workload) -> None:
        """Take the flows to a workload."""
        callers = Callers(target, self._policies, self._mesh.workloads)
        self.notes += callers.notes()
        ports = mesh_ports_of(target, callers.named_ports)
        if not target.protocols and ports:
            self._note(target, "it declares no port, so callers get every port that its sidecar captures; declare them")
        self.pods += self._from_pods(target, callers, ports)
        unknown = callers.named_namespaces - self._present
        for namespace in sorted(unknown | self._judged):
            allowed = [port.arrivals for port in ports if callers.from_namespace(namespace, port) is not Answer.NO]
            if allowed:
                self.namespaces.append(FromNamespace(namespace=namespace, target=target, ports=_union(allowed)))
            if allowed and namespace in unknown:
                text = f"no pod of namespace {namespace} is among the manifests: all of its pods are let in"
                self._note(target, text)
        by_blocks: dict[Blocks, list[Ports]] = {}
        for port in ports:
            blocks = callers.from_outside(port)
            if blocks:
                by_blocks.setdefault(blocks, []).append(port.arrivals)
        for blocks, arrivals in by_blocks.items():
            self.outside.append(FromOutside(blocks=blocks, target=target, ports=_union(arrivals)))
        self._left_alone(target)

    def _from_pods(self, target: Workload, callers: Callers, ports: list[Port]) -> Iterator[Flow]:
        for source in self._mesh.workloads:
            answers = [(port, callers.from_pod(source, port)) for port in ports]
            allowed = [(port, answer) for port, answer in answers if answer is not Answer.NO]
            if allowed:
                yield Flow(
                    source=source,
                    target=target,
                    ports=_union([port.arrivals for port, _ in allowed]),
                    is_conditional=any(answer is Answer.MAYBE for _, answer in allowed),
                )

    def _left_alone(self, target: Workload) -> None:
        """Name the declared ports that go round the sidecar."""
        for port in target.ports:
            if port.protocol != "TCP":
                text = f"port {port.number}/{port.protocol} is closed: sidecars carry TCP alone"
                self._note(target, f"{text}; open it by hand for whom it is meant")
        for number in target.protocols:
            if target.door(number) is Door.APPLICATION:
                text = f"port {number} goes round its sidecar, so no mesh policy speaks of it: it is closed"
                self._note(target, f"{text}; open it by hand for whom it is meant")

    def _note(self, target: Workload, text: str) -> None:
        self.notes.append(Note(origin=target.origin, subject=target.subject, text=text))


def _one(number: int) -> Ports:
    return Ports.of([(number, number)])


def _union(many: list[Ports]) -> Ports:
    return Ports.of(each for ports in many for each in ports.ranges)
