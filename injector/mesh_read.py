"""Reads a `Mesh` out of manifests: Namespaces, ServiceAccounts, Services, and everything that makes pods.

What somebody wrote, and what `kubectl get -o yaml` prints of a cluster. There a Pod has a ReplicaSet and that a
Deployment: whoever has an owner among the documents is spoken for by it, so that the pods of yesterday's template
count for nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from certs.spiffe import SpiffeId, SpiffeIdError, parse_trust_domain
from injector import names
from injector.annotations import AnnotationError, read_settings
from injector.decision import Decision, decide
from injector.manifests import Template, shown_name, template
from injector.mesh import NAMESPACE_NAME, Mesh, Namespace, Note, Origin, Service, ServiceAccount, ServicePort, Workload
from injector.ports import FIRST, LAST, declared
from injector.settings import Settings
from injector.sidecar_config import pod_ports
from injector.values import mapping, mappings
from proxy.documents import quoted
from proxy.errors import ConfigError, Fault

DEFAULT_ACCOUNT: Final = "default"
"""The ServiceAccount that every namespace has, and that pods get which name none."""

_HEADLESS: Final = "None"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
"""RFC 1123: Services and namespaces are parts of DNS names."""
_Object = TypeVar("_Object", Namespace, ServiceAccount, Service, Workload)


@dataclass(frozen=True, slots=True)
class Sourced:
    """One object of a manifest, taken out of its List, and where it was read."""

    value: Mapping[str, object]
    origin: Origin


def read_mesh(
    documents: Iterable[Sourced],
    *,
    namespace: str = "default",
    defaults: Settings | None = None,
    own_namespace: str = names.NAMESPACE,
    unasked: bool = False,
) -> Mesh:
    """Read the mesh that manifests describe; kinds that say nothing of it are passed over.

    `namespace` is where objects are that do not say. `unasked` says whether pods have sidecars for which nothing asks:
    those of the webhook do not. Where a namespace is not described, nobody knows what its label asks: its pods count
    as asked for, so that what is generated rather refuses a call than sends it in plaintext.

    Raises ConfigError with every object that an API server would not take either.

    >>> pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}
    >>> read_mesh([Sourced(pod, Origin("web.yaml", 1))]).workloads[0].subject
    'pod default/web'
    """
    reader = _Reader(namespace, defaults or Settings(), own_namespace, unasked)
    objects = list(documents)
    for each in objects:
        reader.read(each)
    reader.read_workloads(objects)
    if reader.faults:
        raise ConfigError(reader.faults)
    return reader.mesh()


class _Reader:
    """Collects objects, and faults with the place of each."""

    def __init__(self, namespace: str, defaults: Settings, own_namespace: str, unasked: bool) -> None:
        self._namespace = namespace
        self._defaults = defaults
        self._own_namespace = own_namespace
        self._unasked = unasked
        self._namespaces: dict[tuple[str, ...], Namespace] = {}
        self._accounts: dict[tuple[str, ...], ServiceAccount] = {}
        self._services: dict[tuple[str, ...], Service] = {}
        self._workloads: dict[tuple[str, ...], Workload] = {}
        self._notes: list[Note] = []
        self.faults: list[Fault] = []

    def read(self, sourced: Sourced) -> None:
        """Take a Namespace, ServiceAccount or Service; leave everything else."""
        document, origin = sourced.value, sourced.origin
        if document.get("apiVersion") != "v1":
            return
        own = mapping(document.get("metadata"))
        name, place = str(own.get("name") or ""), self._place(own)
        if document.get("kind") in ("Namespace", "Service") and name and not _LABEL.match(name):
            hint = "write small letters, digits and -, at most 63"
            self._fault(origin, f"{shown_name(document)}: {quoted(name)} is no label of a DNS name", hint)
            return
        match document.get("kind"):
            case "Namespace" if self._is_named(document, origin, name):
                labels = {NAMESPACE_NAME: name, **_texts(own.get("labels"))}
                self._keep(self._namespaces, (name,), Namespace(name=name, labels=labels, origin=origin), document)
            case "ServiceAccount" if self._is_named(document, origin, name):
                account = ServiceAccount(name=name, namespace=place, origin=origin)
                self._keep(self._accounts, (place, name), account, document)
            case "Service" if self._is_named(document, origin, name):
                service = self._service(mapping(document.get("spec")), name, place, origin)
                self._keep(self._services, (place, name), service, document)

    def read_workloads(self, objects: Iterable[Sourced]) -> None:
        """Take what makes pods, once the namespaces are known."""
        found = []
        for sourced in objects:
            made = template(sourced.value)
            if made is not None:
                found.append((sourced, made, self._place(mapping(sourced.value.get("metadata")))))
        present = {(made.kind, place, made.name) for _, made, place in found}
        for sourced, made, place in found:
            owner = _owner(sourced.value)
            if owner is None or (owner[0], place, owner[1]) not in present:
                self._workload(sourced, made, place)

    def mesh(self) -> Mesh:
        """Give what was read."""
        known = {each.name: each for each in self._namespaces.values()}
        named = {place for kept in (self._services, self._workloads, self._accounts) for place, *_ in kept}
        for place in named - set(known):
            known[place] = Namespace(name=place, labels={NAMESPACE_NAME: place})
        return Mesh(
            namespaces=dict(sorted(known.items())),
            workloads=tuple(each for _, each in sorted(self._workloads.items())),
            services=tuple(each for _, each in sorted(self._services.items())),
            accounts=tuple(each for _, each in sorted(self._accounts.items())),
            notes=tuple(self._notes) + tuple(self._doubts()),
        )

    def _doubts(self) -> Iterable[Note]:
        said: set[str] = set()
        for _, workload in sorted(self._workloads.items()):
            place, account = workload.namespace, workload.service_account
            if (place,) not in self._namespaces and workload.decision.injects and place not in said:
                said.add(place)
                text = (
                    f"the Namespace {place} is not among the manifests, so nobody knows its label {names.INJECT}: pods "
                    "that say nothing of their own count as injected; add it (kubectl get namespaces -o yaml)"
                )
                yield Note(origin=workload.origin, subject=workload.subject, text=text)
            if self._accounts and account != DEFAULT_ACCOUNT and (place, account) not in self._accounts:
                text = f"its ServiceAccount {account} is not among the manifests; its pods cannot start without it"
                yield Note(origin=workload.origin, subject=workload.subject, text=text)

    def _service(self, spec: Mapping[str, object], name: str, place: str, origin: Origin) -> Service:
        subject = f"service {place}/{name}"
        kind = str(spec.get("type") or "ClusterIP")
        addresses = _list(spec.get("clusterIPs")) or [str(spec.get("clusterIP") or "")]
        ports = []
        for i, port in enumerate(mappings(spec.get("ports"))):
            where = f"spec.ports[{i}]"
            number = self._number(port.get("port"), f"{where}.port", subject, origin)
            target = port.get("targetPort") or number
            if isinstance(target, str) and target.isascii() and target.isdecimal():
                target = int(target)  # as Kubernetes' own IntOrString has it in some clients
            if not isinstance(target, str):
                target = self._number(target, f"{where}.targetPort", subject, origin)
            ports.append(
                ServicePort(
                    number=number,
                    target=target,
                    name=str(port.get("name") or ""),
                    protocol=str(port.get("protocol") or "TCP"),
                    app_protocol=str(port.get("appProtocol") or ""),
                )
            )
        return Service(
            name=name,
            namespace=place,
            selector={} if kind == "ExternalName" else _texts(spec.get("selector")),  # Kubernetes ignores it there
            ports=tuple(ports),
            origin=origin,
            kind=kind,
            cluster_ips=self._addresses(addresses, "spec.clusterIPs", subject, origin),
            external_ips=self._addresses(_list(spec.get("externalIPs")), "spec.externalIPs", subject, origin),
            external_name=str(spec.get("externalName") or "") if kind == "ExternalName" else "",
            is_headless=_HEADLESS in addresses,
        )

    def _workload(self, sourced: Sourced, made: Template, place: str) -> None:
        subject = shown_name(sourced.value, place)
        if not self._is_named(sourced.value, sourced.origin, made.name):
            return
        metadata = mapping(made.metadata)
        try:
            decision = self._decide(made, place)
            settings, _ = read_settings(mapping(metadata.get("annotations")), self._defaults)
        except AnnotationError as refusal:
            for message in refusal.messages:
                self._fault(sourced.origin, f"{subject}: {message}")
            return
        workload = Workload(
            kind=made.kind,
            name=made.name,
            namespace=place,
            labels=_texts(metadata.get("labels")),
            service_account=str(
                made.spec.get("serviceAccountName") or made.spec.get("serviceAccount") or DEFAULT_ACCOUNT
            ),
            ports=tuple(declared(made.spec)),
            protocols=pod_ports(settings, made.spec),
            settings=settings,
            decision=decision,
            origin=sourced.origin,
            governing_service=str(mapping(sourced.value.get("spec")).get("serviceName") or "")
            if made.kind == "StatefulSet"
            else "",
        )
        try:
            SpiffeId.for_service_account(parse_trust_domain(settings.trust_domain), place, workload.service_account)
        except SpiffeIdError as refusal:
            self._fault(sourced.origin, f"{subject}: {refusal}")
            return
        self._keep(self._workloads, (place, made.kind, made.name), workload, sourced.value)

    def _decide(self, made: Template, place: str) -> Decision:
        known = self._namespaces.get((place,))
        return decide(
            mapping(made.metadata),
            made.spec,
            namespace=place,
            namespace_labels=None if known is None else known.labels,
            own_namespace=self._own_namespace,
            unasked=self._unasked or known is None,
        )

    def _place(self, own: Mapping[str, object]) -> str:
        return str(own.get("namespace") or self._namespace)

    def _keep(
        self,
        kept: dict[tuple[str, ...], _Object],
        key: tuple[str, ...],
        item: _Object,
        document: Mapping[str, object],
    ) -> None:
        first = kept.setdefault(key, item)
        if first is not item and item.origin is not None:
            subject = shown_name(document, "" if isinstance(item, Namespace) else item.namespace)
            self._fault(item.origin, f"{subject} stands twice (first at {first.origin})", "keep one of the two")

    def _is_named(self, document: Mapping[str, object], origin: Origin, name: str) -> bool:
        if not name:
            self._fault(origin, f"{shown_name(document)} lacks metadata.name", "name it")
        return bool(name)

    def _number(self, value: object, where: str, subject: str, origin: Origin) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and FIRST <= value <= LAST:
            return value
        written = "nothing" if value is None else quoted(str(value))
        self._fault(origin, f"{subject}: {where} is {written}", f"write a number from {FIRST} to {LAST}")
        return FIRST

    def _addresses(self, texts: Iterable[str], where: str, subject: str, origin: Origin) -> tuple[str, ...]:
        found = []
        for text in texts:
            if text in ("", _HEADLESS):
                continue
            try:
                found.append(str(ipaddress.ip_address(text)))
            except ValueError:
                self._fault(origin, f"{subject}: {where} has {quoted(text)}", "write an IP address")
        return tuple(dict.fromkeys(found))

    def _fault(self, origin: Origin, message: str, hint: str = "") -> None:
        self.faults.append(Fault(file=origin.file, line=origin.line, column=1, message=message, hint=hint))


def _owner(document: Mapping[str, object]) -> tuple[str, str] | None:
    """Give kind and name of what made an object, None when nothing did."""
    for owner in mappings(mapping(document.get("metadata")).get("ownerReferences")):
        if owner.get("controller") is True:
            return str(owner.get("kind")), str(owner.get("name"))
    return None


def _texts(value: object) -> dict[str, str]:
    return {str(key): str(each) for key, each in mapping(value).items()}


def _list(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
