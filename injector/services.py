"""The mesh -> ConfigMaps `remora-services`: what sidecars may call, where it is and who must answer.

A ConfigMap stays in its namespace, so each namespace with sidecars has its own, and only there the bare name of a
neighbour means something.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.annotations import BY_KEY
from injector.install.plan import NAME, PART_OF
from injector.mesh import Mesh, Note
from injector.service_entries import Entry, Writer
from injector.values import Document
from injector.yaml_text import dump
from proxy.documents import MAX_BYTES, nearest
from proxy.errors import ConfigError, Fault

CLUSTER_DOMAIN: Final = "cluster.local"
LISTENERS: Final = BY_KEY["outbound-listeners"].full_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesResult:
    """The ConfigMaps in order of their namespaces, and what the reader must know."""

    documents: tuple[Document, ...]
    notes: tuple[Note, ...]


def generate(
    mesh: Mesh,
    *,
    cluster_domain: str = CLUSTER_DOMAIN,
    into: Sequence[str] = (),
    config_map: str = names.SERVICES,
) -> ServicesResult:
    """Write the services of a mesh for each namespace with sidecars, or for those of `into`.

    `config_map` is its name where no pod says another. The order hangs on names alone, so equal manifests give equal
    bytes. Raises ConfigError when a ConfigMap would be larger than Kubernetes stores and sidecars read.
    """
    writer = Writer(mesh, cluster_domain)
    entries = [entry for service in mesh.services for entry in writer.entries(service)]
    documents = [
        _config_map(name, namespace, entries, cluster_domain)
        for namespace in sorted(set(into or mesh.sidecar_namespaces))
        for name in _config_maps(mesh, namespace, config_map)
    ]
    notes = (*mesh.notes, *writer.notes, *_listeners_to_nowhere(mesh, entries))
    return ServicesResult(documents=tuple(documents), notes=notes)


def _listeners_to_nowhere(mesh: Mesh, entries: Sequence[Entry]) -> Iterator[Note]:
    """Name the loopback listeners of pods that lead to no entry: their sidecars would not start."""
    known = [entry.name for entry in entries]
    for workload in mesh.workloads:
        for service in workload.settings.outbound_listeners if workload.has_sidecar else ():
            if service not in known:
                near = nearest(service, known)
                mend = f"did you mean {near}?" if near else "nothing that is written here is called so"
                text = f"{LISTENERS} names {service}, and there is no such service; {mend}"
                yield Note(origin=workload.origin, subject=workload.subject, text=text)


def _config_maps(mesh: Mesh, namespace: str, otherwise: str) -> list[str]:
    """Give the names of the ConfigMaps that the pods of a namespace mount."""
    mounted = {
        each.settings.services_config_map for each in mesh.workloads if each.namespace == namespace and each.has_sidecar
    }
    return sorted(mounted or {otherwise})


def _config_map(name: str, namespace: str, entries: Sequence[Entry], cluster_domain: str) -> Document:
    text = dump({"services": [entry.document(namespace, cluster_domain) for entry in entries]})
    if len(text.encode()) > MAX_BYTES:
        message = f"{len(entries)} entries make {len(text.encode())} bytes, and {MAX_BYTES} is what one may hold"
        hint = "give the manifests of those namespaces alone that are called from there"
        raise ConfigError([Fault(file=f"configmap {namespace}/{name}", message=message, hint=hint)])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {NAME: name, PART_OF: "remora"}},
        "data": {names.SERVICES_FILE: text},
    }
