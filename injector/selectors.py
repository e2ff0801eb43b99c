"""Pods of the manifests -> label selectors that take exactly them, in the form in which people write them.

A NetworkPolicy knows pods by labels alone. One label is enough where no other known pod of the namespace has it, and
that is what people write (`app: web`); where it is not enough, further labels are added, and last the absence of labels
that others have. Pods with equal labels are one group: no selector tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.mesh import Mesh, Workload
from injector.values import Document

_PREFERRED: Final = (
    "app",
    "app.kubernetes.io/name",
    "k8s-app",
    "name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "component",
    "role",
    "tier",
)
_VOLATILE: Final = (
    names.INJECT,
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
)
"""Labels that say nothing of what a pod is, or that change with every release: the last to be asked for."""

_PAIRED: Final = 8
"""Labels of which pairs are tried; more are taken all together."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Workloads of one namespace whose pods have the same labels; there is one of each in a `Groups`."""

    namespace: str
    labels: tuple[tuple[str, str], ...]
    members: tuple[Workload, ...]

    @property
    def name(self) -> str:
        """Give the name of the first of its workloads."""
        return self.members[0].name

    @property
    def has_sidecar(self) -> bool:
        """Some of its pods have a sidecar."""
        return any(each.has_sidecar for each in self.members)


class Groups:
    """The groups of a mesh, in the order of its workloads."""

    def __init__(self, mesh: Mesh) -> None:
        found: dict[tuple[str, tuple[tuple[str, str], ...]], list[Workload]] = {}
        for each in mesh.workloads:
            found.setdefault(_key(each), []).append(each)
        self._groups = {key: Group(*key, tuple(members)) for key, members in found.items()}

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def of(self, workload: Workload) -> Group:
        """Give the group of a workload."""
        return self._groups[_key(workload)]

    def within(self, namespace: str) -> list[Group]:
        """Give the groups of a namespace."""
        return [each for each in self if each.namespace == namespace]

    def selectors(self, wanted: Sequence[Group], allowed: Collection[Group] = ()) -> list[Document]:
        """Write selectors that take all of `wanted` and, of the other known pods of their namespace, only `allowed`.

        `wanted` is of one namespace.
        """
        made: list[Document] = []
        covered: set[Group] = set()
        for group in wanted:
            if group in covered:
                continue
            others = [each for each in self.within(group.namespace) if each not in wanted and each not in allowed]
            labels, absent = _selection(group, others)
            covered |= {each for each in wanted if _takes(labels, absent, each)}
            made.append(_written(labels, absent))
        return made


def _key(workload: Workload) -> tuple[str, tuple[tuple[str, str], ...]]:
    return workload.namespace, tuple(sorted(workload.labels.items()))


def _selection(group: Group, others: Sequence[Group]) -> tuple[dict[str, str], list[str]]:
    """Find labels that a group has and keys that it has not, such that none of the others fits."""
    ordered = sorted(group.labels, key=_rank)
    lasting = [each for each in ordered if each[0] not in _VOLATILE]
    candidates: list[tuple[tuple[str, str], ...]] = [(each,) for each in lasting]
    candidates += itertools.combinations(lasting[:_PAIRED], 2)
    candidates += [tuple(lasting), tuple(ordered)]
    for candidate in candidates:
        labels = dict(candidate)
        if labels and not any(_takes(labels, (), each) for each in others):
            return labels, []
    # Whoever still fits has all of its labels, and at least one more.
    labels = dict(ordered)
    absent: list[str] = []
    left = [each for each in others if _takes(labels, (), each)]
    while left:
        keys = sorted({key for each in left for key, _ in each.labels} - {key for key, _ in group.labels})
        best = max(keys, key=lambda key: sum(key in dict(each.labels) for each in left))
        absent.append(best)
        left = [each for each in left if best not in dict(each.labels)]
    return labels, sorted(absent)


def _takes(labels: dict[str, str], absent: Collection[str], group: Group) -> bool:
    own = dict(group.labels)
    return labels.items() <= own.items() and not any(key in own for key in absent)


def _rank(label: tuple[str, str]) -> tuple[int, int, str]:
    key = label[0]
    place = _PREFERRED.index(key) if key in _PREFERRED else len(_PREFERRED)
    return (_VOLATILE.index(key) + 1 if key in _VOLATILE else 0), place, key


def _written(labels: dict[str, str], absent: Sequence[str]) -> Document:
    made: Document = {}
    if labels:
        made["matchLabels"] = labels
    if absent:
        made["matchExpressions"] = [{"key": key, "operator": "DoesNotExist"} for key in absent]
    return made
