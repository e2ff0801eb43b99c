"""Finds the pods in manifests: a Pod itself, or the template of what makes pods.

Only kinds of Kubernetes' own API groups: what another group calls a Deployment is its own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from injector.record import ABSENT
from injector.values import Document, mapping

_TEMPLATE: Final = ("spec", "template")
PLACES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("v1", "Pod"): (),
    ("v1", "ReplicationController"): _TEMPLATE,
    ("apps/v1", "Deployment"): _TEMPLATE,
    ("apps/v1", "StatefulSet"): _TEMPLATE,
    ("apps/v1", "DaemonSet"): _TEMPLATE,
    ("apps/v1", "ReplicaSet"): _TEMPLATE,
    ("batch/v1", "Job"): _TEMPLATE,
    ("batch/v1", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("v1", "PodTemplate"): ("template",),
}
"""Where the pod template of a kind is, by apiVersion and kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The pod of a manifest: whose it is, where in it, and its two halves."""

    kind: str
    name: str
    namespace: str
    path: tuple[str, ...]
    metadata: object
    """A mapping, None for null, `record.ABSENT` for none."""
    spec: Mapping[str, object]


def template(document: object) -> Template | None:
    """Find the pod of one object; None when it makes no pods, or has none where its kind has it.

    >>> template({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": []}}).name
    'web'
    """
    whole = mapping(document)
    kind = whole.get("kind")
    path = PLACES.get((str(whole.get("apiVersion")), str(kind)))
    if path is None:
        return None
    inner: object = whole
    for key in path:
        inner = mapping(inner).get(key)
    spec = mapping(inner).get("spec")
    if not isinstance(inner, Mapping) or not isinstance(spec, Mapping):
        return None
    own = mapping(whole.get("metadata"))
    return Template(
        kind=str(kind),
        name=str(own.get("name") or own.get("generateName") or ""),
        namespace=str(own.get("namespace") or ""),
        path=path,
        metadata=inner.get("metadata", ABSENT),
        spec=spec,
    )


def replaced(document: Mapping[str, object], path: tuple[str, ...], metadata: object, spec: object) -> Document:
    """Give the object with another pod in the place of its own; keys keep their order, a new metadata is the first.

    `metadata` is None for null, `record.ABSENT` for none at all.
    """
    if path:
        return {**document, path[0]: replaced(mapping(document[path[0]]), path[1:], metadata, spec)}
    if metadata == ABSENT:
        return {**{key: value for key, value in document.items() if key != "metadata"}, "spec": spec}
    if "metadata" in document:
        return {**document, "metadata": metadata, "spec": spec}
    return {"metadata": metadata, **document, "spec": spec}


def shown_name(document: Mapping[str, object], namespace: str = "") -> str:
    """Name an object for people: `deployment shop/web`.

    >>> shown_name({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}})
    'service shop/web'
    """
    own = mapping(document.get("metadata"))
    name = str(own.get("name") or own.get("generateName") or "(no name)")
    place = str(own.get("namespace") or namespace)
    return (
        f"{str(document.get('kind') or 'document').lower()} {place}/{name}"
        if place
        else (f"{str(document.get('kind') or 'document').lower()} {name}")
    )
