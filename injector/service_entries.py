"""One Service of the mesh -> the entries of `outbound.services` that lead to it, and notes of what cannot be known.

An entry is a promise about who answers. So nothing is guessed: mutual TLS and plaintext are both written only where the
manifests say what stands behind the Service, and what they do not say is left out, with a note that names it. A call to
what is left out is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from injector.annotations import BY_KEY
from injector.mesh import Door, Mesh, Note, Service, ServicePort, Workload
from injector.ports import mesh_ports
from injector.protocols import AUTO, protocol_of
from injector.settings import Capture
from injector.values import Document

INBOUND_PORTS: Final = BY_KEY["inbound-ports"].full_key
_TCP: Final = "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One port of a Service as callers see it. `identities` is empty for plaintext.

    `addresses` are the original destinations that mean it, `endpoints` what is dialled. `is_first`: it carries the
    Service's host names, of which the configuration knows each once.
    """

    service: Service
    port: ServicePort
    is_first: bool
    addresses: tuple[str, ...]
    endpoints: tuple[str, ...]
    protocol: str
    identities: tuple[str, ...]

    @property
    def name(self) -> str:
        """Give its name: `orders.shop`, and `9090.orders.shop` for a Service's other ports."""
        whole = f"{self.service.name}.{self.service.namespace}"
        return whole if self.is_first else f"{self.port.number}.{whole}"

    def document(self, namespace: str, cluster_domain: str) -> Document:
        """Write it as sidecars of `namespace` read it, where a neighbour is also known by its bare name."""
        made: Document = {"name": self.name}
        if self.is_first:
            here = [self.service.name] if self.service.namespace == namespace else []
            short = f"{self.service.name}.{self.service.namespace}"
            hosts = (*here, short, f"{short}.svc", self.service.host(cluster_domain))
            # What ends in digits alone is read as an address, wherever: in a namespace named 8 the long names are left.
            made["hosts"] = [host for host in hosts if not host.rpartition(".")[2].isdecimal()]
        if self.addresses:
            made["addresses"] = list(self.addresses)
        made |= {"endpoints": list(self.endpoints), "protocol": self.protocol}
        return made | ({"tls": "mutual", "identities": list(self.identities)} if self.identities else {"tls": "none"})


class Writer:
    """Makes the entries of the Services of one mesh, and collects notes."""

    def __init__(self, mesh: Mesh, cluster_domain: str) -> None:
        # Every port that needs a way in asks for all of them: 500 Services of a namespace took 10.6 s, and take 0.1 s.
        self._behind = {(each.namespace, each.name): _Behind(each, mesh.selected(each)) for each in mesh.services}
        self._cluster_domain = cluster_domain
        self.notes: list[Note] = []

    def entries(self, service: Service) -> list[Entry]:
        """Give the entries of a Service, none when it cannot be known who answers."""
        behind = self._behind[service.namespace, service.name]
        workloads = behind.workloads
        if not self._is_known(service, workloads):
            return []
        if not service.ports:
            self._note(service, "left out: it names no port")
        for port in service.ports:
            if port.protocol != _TCP:
                self._note(service, f"port {port} is left out: sidecars carry TCP alone")
        ports = [port for port in service.ports if port.protocol == _TCP and not behind.is_way_in(port)]
        made = [self._entry(behind, port, is_first=port is ports[0]) for port in ports]
        entries = [entry for entry in made if entry is not None]
        if entries:
            self._about(service, workloads)
        return entries

    def _is_known(self, service: Service, workloads: Sequence[Workload]) -> bool:
        if service.kind == "ExternalName":
            text = (
                f"left out: it is a name for {service.external_name or 'another host'}, and who answers there is not "
            )
            self._note(service, f"{text}in the manifests; write the service by hand into outbound.services")
        elif not service.selector:
            text = "left out: it has no selector, so the manifests do not say who answers"
            self._note(service, f"{text}; write the service by hand into outbound.services")
        elif not workloads:
            selector = ",".join(f"{key}={value}" for key, value in sorted(service.selector.items()))
            self._note(service, f"left out: its selector {selector} matches no pod in the manifests; give theirs too")
        return bool(workloads)

    def _about(self, service: Service, workloads: Sequence[Workload]) -> None:
        """Say what a reader must know of a Service that is written."""
        if service.is_headless:
            self._note(
                service, "headless: its pods have no address in a manifest, so it has an endpoint and no addresses"
            )
            for workload in workloads:
                if workload.governing_service == service.name:
                    text = (
                        f"{workload.subject} gives each pod a name ({workload.name}-0.{service.name}); no entry leads "
                    )
                    self._note(service, f"{text}to one pod alone, the Service leads to any of them")
        elif not service.cluster_ips:
            text = "no clusterIP in the manifest, so no addresses: captured calls to that IP are to no known service"
            self._note(service, f"{text}; what kubectl get services -o yaml prints has it")
        if service.external_ips:
            text = "externalIPs are no addresses of it: whoever writes a Service could take the calls to any IP"
            self._note(service, text)
        accounts = sorted({str(each.identity) for each in workloads if each.has_sidecar})
        if len(accounts) > 1:
            self._note(
                service, f"its pods have {len(accounts)} identities, any of which may answer: {', '.join(accounts)}"
            )

    def _entry(self, behind: _Behind, port: ServicePort, *, is_first: bool) -> Entry | None:
        service = behind.service
        targets = behind.targets(port)
        self._missing(behind, port, targets)
        doors = {door: [each for each in targets if each.door is door] for door in Door}
        if doors[Door.CLOSED]:
            unknown = ", ".join(f"{each.workload.subject} (port {each.number})" for each in doors[Door.CLOSED])
            verb = "" if len(doors[Door.CLOSED]) < len(targets) else " is left out"
            text = (
                f"port {port}{verb}: no sidecar listens for {unknown}; declare the port in a container, or add it to "
            )
            self._note(service, text + INBOUND_PORTS)
        answering = doors[Door.SIDECAR] or doors[Door.APPLICATION]
        if not answering:
            return None
        if doors[Door.SIDECAR] and doors[Door.APPLICATION]:
            open_ones = ", ".join(f"{each.workload.subject} ({each.why})" for each in doors[Door.APPLICATION])
            text = (
                f"port {port}: mutual TLS, which some of its pods do not speak: {open_ones}; calls that reach them fail"
            )
            self._note(service, text)
        endpoint = self._endpoint(behind, port, answering)
        if endpoint is None:
            return None
        addresses = () if service.is_headless else service.cluster_ips
        return Entry(
            service=service,
            port=port,
            is_first=is_first,
            addresses=tuple(_address(ip, port.number) for ip in addresses),
            endpoints=(endpoint,),
            protocol=_protocol(port, answering),
            identities=tuple(sorted({str(each.workload.identity) for each in doors[Door.SIDECAR]})),
        )

    def _missing(self, behind: _Behind, port: ServicePort, targets: Sequence[_Target]) -> None:
        found = [each.workload for each in targets]
        lacking = [each.subject for each in behind.workloads if each not in found]
        if lacking:
            text = f"port {port}: no container of {', '.join(lacking)} has a TCP port named {port.target}"
            self._note(behind.service, text if found else f"{text}; the port is left out")

    def _endpoint(self, behind: _Behind, port: ServicePort, answering: Sequence[_Target]) -> str | None:
        service = behind.service
        arrivals = sorted({(each.has_own_listener, each.arrival) for each in answering})
        _, arrival = arrivals[0]
        if not any(has_own for has_own, _ in arrivals):
            if not service.is_headless:
                return self._dialled(service, port.number)
            if len(arrivals) == 1:
                return f"{service.host(self._cluster_domain)}:{arrival}"
        elif len(arrivals) == 1:
            way = self._way(behind, arrival)
            if way is None:
                text = (
                    f"port {port} is left out: its sidecars listen at port {arrival}, to which no Service leads; add a "
                )
                self._note(service, f"{text}headless Service with this selector, or a port with targetPort {arrival}")
            return way
        numbers = ", ".join(f"{each.workload.subject} at {each.arrival}" for each in answering)
        self._note(
            service, f"port {port} is left out: its pods take it at different ports ({numbers}); make them equal"
        )
        return None

    def _way(self, behind: _Behind, arrival: int) -> str | None:
        """Find what leads to a port of the pods' own addresses: the Service, or another one of the very same pods."""
        same = [each.service for each in self._behind.values() if each.workloads == behind.workloads]
        for candidate in (behind.service, *same):
            if candidate.is_headless:
                return f"{candidate.host(self._cluster_domain)}:{arrival}"
            for port in candidate.ports:
                leads = {each.maybe_number(port.target) for each in behind.workloads}
                if port.protocol == _TCP and leads == {arrival}:
                    return self._dialled(candidate, port.number)
        return None

    def _dialled(self, service: Service, number: int) -> str:
        """Give the address of a Service; its first family, which is the one that its cluster prefers."""
        if service.cluster_ips:
            return _address(service.cluster_ips[0], number)
        return f"{service.host(self._cluster_domain)}:{number}"

    def _note(self, service: Service, text: str) -> None:
        self.notes.append(Note(origin=service.origin, subject=service.subject, text=text))


@dataclass(frozen=True, slots=True)
class _Target:
    """A workload and the port of it to which a Service leads."""

    workload: Workload
    number: int

    @property
    def door(self) -> Door:
        return self.workload.door(self.number)

    @property
    def arrival(self) -> int:
        return self.workload.arrival(self.number)

    @property
    def has_own_listener(self) -> bool:
        return self.door is Door.SIDECAR and self.workload.settings.capture is Capture.PORTS

    @property
    def is_opaque(self) -> bool:
        settings = self.workload.settings
        return self.number in settings.opaque_ports or self.number in settings.skip_sniff_ports

    @property
    def why(self) -> str:
        """Say why no sidecar answers."""
        if self.workload.has_sidecar:
            return f"its sidecar leaves port {self.number} alone"
        return f"no sidecar: {self.workload.decision.sentence}"


@dataclass(frozen=True, slots=True)
class _Behind:
    """A Service and what its selector matches."""

    service: Service
    workloads: tuple[Workload, ...]

    def targets(self, port: ServicePort) -> list[_Target]:
        found = ((each, each.maybe_number(port.target)) for each in self.workloads)
        return [_Target(workload, number) for workload, number in found if number is not None]

    def is_way_in(self, port: ServicePort) -> bool:
        """Say whether a port leads to the sidecars' own listeners: it is part of the mesh and no service."""
        targets = self.targets(port)
        return bool(targets) and all(
            each.workload.has_sidecar
            and each.workload.settings.capture is Capture.PORTS
            and each.number in mesh_ports(each.workload.protocols).values()
            for each in targets
        )


def _protocol(port: ServicePort, answering: Iterable[_Target]) -> str:
    """Say what is read: an opaque port of the pods first, then the Service's word, then the pods', if they agree."""
    targets = list(answering)
    if any(each.is_opaque for each in targets):
        return "tcp"
    said = protocol_of(port.name, port.app_protocol)
    if said != AUTO:
        return said
    theirs = {each.workload.protocols.get(each.number, AUTO) for each in targets}
    return theirs.pop() if len(theirs) == 1 else AUTO


def _address(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
