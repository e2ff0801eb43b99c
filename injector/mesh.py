"""What the manifests of a mesh say: namespaces, workloads, services and accounts, as values that everybody shares.

`injector/mesh_read.py` makes a `Mesh` of documents. Which services there are, which pods a Service selects, whether
their traffic passes a sidecar and at which port: what is generated from manifests asks here, so that services and
NetworkPolicies cannot come to different answers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from certs.spiffe import SpiffeId, parse_trust_domain
from injector.decision import Decision, Why
from injector.ports import SIDECAR_PORTS, DeclaredPort, mesh_ports
from injector.settings import Capture, Settings

NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The label that the API server gives to every namespace."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was read: the file, and the line where its document begins."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What manifests do not say, or what somebody who reads the result must know; `subject` names the object."""

    origin: Origin
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.subject}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace with its labels, the one with its name among them.

    `origin` is None for one that objects name and no document describes: its labels are not known.
    """

    name: str
    labels: Mapping[str, str]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A ServiceAccount that stands in the manifests."""

    name: str
    namespace: str
    origin: Origin


class Door(enum.Enum):
    """What a caller meets at a port of a pod."""

    SIDECAR = "sidecar"
    """The sidecar: mutual TLS."""
    APPLICATION = "application"
    """The application itself: no sidecar, or a port that its sidecar leaves alone."""
    CLOSED = "closed"
    """No address for the mesh: the sidecar has no rules in the kernel and was not told of this port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A pod, or what makes pods of one template.

    `labels` are the pods'. `ports` is what the containers declare, `protocols` the TCP ports that the sidecar is told
    of, with what is read at each. `decision` says whether they get a sidecar. `governing_service` is the `serviceName`
    of a StatefulSet, "" for others.
    """

    kind: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    service_account: str
    ports: tuple[DeclaredPort, ...]
    protocols: Mapping[int, str]
    settings: Settings
    decision: Decision
    origin: Origin
    governing_service: str = ""

    @property
    def subject(self) -> str:
        """Name it for people: `deployment shop/web`."""
        return f"{self.kind.lower()} {self.namespace}/{self.name}"

    @property
    def has_sidecar(self) -> bool:
        """Its pods have a sidecar, or get one when they are made."""
        return self.decision.injects or self.decision.why is Why.ALREADY_INJECTED

    @property
    def identity(self) -> SpiffeId:
        """The SPIFFE ID that its sidecars show."""
        trust_domain = parse_trust_domain(self.settings.trust_domain)
        return SpiffeId.for_service_account(trust_domain, self.namespace, self.service_account)

    def maybe_number(self, target: int | str, protocol: str = "TCP") -> int | None:
        """Give the number of a port that is named by number or name; None when no container has the name."""
        if isinstance(target, int):
            return target
        return next((port.number for port in self.ports if (port.name, port.protocol) == (target, protocol)), None)

    def door(self, number: int) -> Door:
        """Say what a caller meets who wants this TCP port of the pod."""
        if not self.has_sidecar:
            return Door.APPLICATION
        if self.settings.capture is Capture.PORTS:
            if number in SIDECAR_PORTS:
                return Door.APPLICATION
            return Door.SIDECAR if number in self.protocols else Door.CLOSED
        settings = self.settings
        is_captured = number in settings.include_inbound_ports and number not in settings.exclude_inbound_ports
        return Door.SIDECAR if is_captured and number not in SIDECAR_PORTS else Door.APPLICATION

    def arrival(self, number: int) -> int:
        """Give the port of the pod's address at which traffic for a port of its application arrives.

        With rules in the kernel it is the port itself; without, the one where the sidecar listens for it.
        """
        if self.door(number) is Door.SIDECAR and self.settings.capture is Capture.PORTS:
            return mesh_ports(self.protocols)[number]
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """A port of a Service; `target` is the number or the name of a port of its pods."""

    number: int
    target: int | str
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service. `selector` is empty where nothing is selected, `cluster_ips` where no address is known.

    `external_name` is "" unless its type is ExternalName. `external_ips` are addresses outside the cluster's own that
    somebody gave it.
    """

    name: str
    namespace: str
    selector: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    origin: Origin
    kind: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    is_headless: bool = False

    @property
    def subject(self) -> str:
        """Name it for people: `service shop/web`."""
        return f"service {self.namespace}/{self.name}"

    def host(self, cluster_domain: str) -> str:
        """Give its full DNS name."""
        return f"{self.name}.{self.namespace}.svc.{cluster_domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Everything that the manifests say, in an order that does not hang on theirs.

    `namespaces` holds those that are described and those that are only named. `notes` is what reading found worth
    saying.
    """

    namespaces: Mapping[str, Namespace] = field(default_factory=lambda: MappingProxyType({}))
    workloads: tuple[Workload, ...] = ()
    services: tuple[Service, ...] = ()
    accounts: tuple[ServiceAccount, ...] = ()
    notes: tuple[Note, ...] = ()

    def selected(self, service: Service) -> tuple[Workload, ...]:
        """Give the workloads whose pods a Service selects; none for one without a selector."""
        return tuple(self._selected(service)) if service.selector else ()

    def _selected(self, service: Service) -> Iterator[Workload]:
        for workload in self.workloads:
            if workload.namespace == service.namespace and service.selector.items() <= workload.labels.items():
                yield workload

    @property
    def sidecar_namespaces(self) -> tuple[str, ...]:
        """Give the namespaces in which there are sidecars, sorted."""
        return tuple(sorted({each.namespace for each in self.workloads if each.has_sidecar}))
