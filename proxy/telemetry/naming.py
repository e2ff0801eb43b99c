"""Istio's names for both ends of the traffic, as far as a sidecar without a control plane knows them.

Our own end is described whole, from the workload's configuration. Of the peer there is what its certificate proves:
its principal, and from that its namespace. An Istio sidecar learns the rest (workload, app, version) from its control
plane or from its peer; here it is `unknown`, which is also what Istio writes then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from certs.spiffe import SpiffeId
from proxy.config import Config, Service, WorkloadConfig

UNKNOWN: Final = "unknown"

OTHER: Final = "other"
"""The principal and the namespace of peers for which no label set of their own is left."""

LATEST: Final = "latest"
"""Istio's canonical revision of a workload that names none, or of which nothing is known."""

LABELS: Final = (
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
)
"""The labels of Istio's request metrics, in the order in which Istio emits them."""

TCP_LABELS: Final = tuple(label for label in LABELS if label not in ("response_code", "grpc_response_status"))
"""The labels of Istio's connection metrics."""

Peer = SpiffeId | Literal["other"] | None
"""Who is at the other end: a verified identity, one of the many that share a label set, or nobody that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of the traffic, in Istio's words."""

    workload: str = UNKNOWN
    canonical_service: str = UNKNOWN
    canonical_revision: str = LATEST
    namespace: str = UNKNOWN
    principal: str = UNKNOWN
    app: str = UNKNOWN
    version: str = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What all label sets of one inbound side, or of one service, have in common. Equal edges write equal labels."""

    reporter: Literal["source", "destination"]
    own: End
    service: str
    service_name: str
    service_namespace: str

    def labels(self, peer: Peer, *, protocol: str, status: int | None, flags: str) -> dict[str, str]:
        """Write a label set, in Istio's order; `status` None is that of a connection."""
        inbound = self.reporter == "destination"
        other = _end_of(peer)
        source, destination = (other, self.own) if inbound else (self.own, other)
        values = {
            "reporter": self.reporter,
            "source_workload": source.workload,
            "source_canonical_service": source.canonical_service,
            "source_canonical_revision": source.canonical_revision,
            "source_workload_namespace": source.namespace,
            "source_principal": source.principal,
            "source_app": source.app,
            "source_version": source.version,
            "source_cluster": UNKNOWN,
            "destination_workload": destination.workload,
            "destination_workload_namespace": destination.namespace,
            "destination_principal": destination.principal,
            "destination_app": destination.app,
            "destination_version": destination.version,
            "destination_service": self.service,
            "destination_canonical_service": destination.canonical_service,
            "destination_canonical_revision": destination.canonical_revision,
            "destination_service_name": self.service_name,
            "destination_service_namespace": self.service_namespace,
            "destination_cluster": UNKNOWN,
            "request_protocol": protocol,
            "response_code": str(status),
            "grpc_response_status": "",
            "response_flags": flags,
            # Istio's client leaves it to the server to say, and Kiali reads it there.
            "connection_security_policy": UNKNOWN if not inbound else "none" if peer is None else "mutual_tls",
        }
        return {label: values[label] for label in (TCP_LABELS if status is None else LABELS)}


class Naming:
    """The edges of one configuration: one for everything inbound, one for each service."""

    __slots__ = ("_inbound", "_outbound")

    def __init__(self, inbound: Edge, outbound: Mapping[str, Edge]) -> None:
        """`outbound` is by the names of services."""
        self._inbound = inbound
        self._outbound = dict(outbound)

    @classmethod
    def of(cls, config: Config) -> Naming:
        """Derive the names from the workload and the services of a configuration."""
        workload = config.workload
        principal = str(SpiffeId.for_service_account(config.trust_domain, workload.namespace, workload.service_account))
        own = _own_end(workload, principal)
        inbound = Edge(
            reporter="destination",
            own=own,
            service=UNKNOWN,  # which Service led a caller here is not told to the server
            service_name=own.canonical_service,
            service_namespace=own.namespace,
        )
        plain = _own_end(workload, UNKNOWN)
        return cls(
            inbound,
            {
                name: Edge(
                    reporter="source",
                    own=own if service.mutual else plain,
                    service=max(service.hosts, key=lambda host: host.count("."), default=service.name),
                    service_name=service.name,
                    service_namespace=_namespace(service),
                )
                for name, service in config.outbound.services.items()
            },
        )

    def edge(self, direction: str, cluster: str) -> Edge:
        """Give the edge of a connection; `cluster` is `inbound|PORT` or `outbound|SERVICE`, as in access records."""
        if direction == "inbound":
            return self._inbound
        name = cluster.partition("|")[2]
        return self._outbound.get(name) or Edge(
            reporter="source",
            own=self._inbound.own,
            service=name or UNKNOWN,
            service_name=name or UNKNOWN,
            service_namespace=UNKNOWN,
        )


NOBODY: Final = Naming(
    Edge(reporter="destination", own=End(), service=UNKNOWN, service_name=UNKNOWN, service_namespace=UNKNOWN),
    {},
)
"""The names of a process without a configuration."""


def _own_end(workload: WorkloadConfig, principal: str) -> End:
    labels = workload.labels

    def first(*names: str, otherwise: str) -> str:
        return next((labels[name] for name in names if labels.get(name)), otherwise)

    return End(
        workload=workload.name,
        canonical_service=first(
            "service.istio.io/canonical-name", "app.kubernetes.io/name", "app", otherwise=workload.name
        ),
        canonical_revision=first(
            "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version", otherwise=LATEST
        ),
        namespace=workload.namespace,
        principal=principal,
        app=first("app", otherwise=UNKNOWN),
        version=first("version", otherwise=UNKNOWN),
    )


def _namespace(service: Service) -> str:
    """The namespace of a Kubernetes Service: in its full name, or that of the accounts behind it, which it shares."""
    for host in service.hosts:
        match host.split("."):
            case [_, namespace, "svc", *_]:
                return namespace
    namespaces = {identity.namespace for identity in service.identities}
    return (namespaces.pop() or UNKNOWN) if len(namespaces) == 1 else UNKNOWN


def _end_of(peer: Peer) -> End:
    if peer is None:
        return End()
    if isinstance(peer, SpiffeId):
        return End(namespace=peer.namespace or UNKNOWN, principal=str(peer))
    return End(namespace=OTHER, principal=OTHER)
