"""What was asked for, and the values that many objects share: labels, selectors, security contexts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from injector import names

Document = dict[str, object]
"""One Kubernetes object as the API has it."""

PART_OF: Final = "app.kubernetes.io/part-of"
NAME: Final = "app.kubernetes.io/name"
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""The label that every namespace has had since Kubernetes 1.21, with its name: it cannot be given to another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is installed. `mesh_namespaces` get the ConfigMaps that their sidecars mount; `replicas` is of each of both.

    `failure_policy` says what becomes of a pod while no injector answers: `Fail` holds it back, `Ignore` lets it run
    without a sidecar, and so without anything that the mesh promises.
    """

    namespace: str = names.NAMESPACE
    image: str
    image_pull_policy: str = "IfNotPresent"
    trust_domain: str = "cluster.local"
    cluster_domain: str = "cluster.local"
    replicas: int = 2
    failure_policy: str = "Fail"
    mesh_namespaces: tuple[str, ...] = ()
    metrics_from: tuple[str, ...] = ()
    """Namespaces whose pods may scrape authority and injector."""
    defaults: tuple[tuple[str, str], ...] = ()
    """Further lines of the defaults file, by their keys."""


def metadata(plan: Plan, name: str, *, namespaced: bool = True, **more: object) -> Document:
    """Give the metadata of one of our objects."""
    made: Document = {"name": name}
    if namespaced:
        made["namespace"] = plan.namespace
    return {**made, "labels": {NAME: name, PART_OF: "remora"}, **more}


def selector(name: str) -> dict[str, str]:
    """Give the labels by which the pods of a Deployment are found. They never change: Kubernetes forbids it.

    >>> selector("remora-authority")
    {'app.kubernetes.io/name': 'remora-authority'}
    """
    return {NAME: name}


def pod_security() -> Document:
    """Give the pod's security context: what the level `restricted` asks for, and our user."""
    return {
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": names.USER,
        "fsGroup": names.USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Document:
    """Give a container's security context at the level `restricted`, with a root file system that nobody writes."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": names.USER,
        "runAsGroup": names.USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
