"""The record of an injection: what was added by name, and what was there before of everything that was changed.

It stands in the annotation `remora.io/status`, as one line of JSON. By name and not by place: whatever was added to the
pod later stays where it is when the sidecar is taken out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from injector import names
from injector.values import Document, mapping, mappings, names_of
from proxy.documents import shown

VERSION: Final = 1
ABSENT: Final = "absent"
"""Instead of a value: the key was not there."""
NULL_METADATA, NO_METADATA = "null metadata", "no metadata"
MAX_BYTES: Final = 262_144
"""All annotations of an object together have at most 256 KiB."""

LISTS: Final = ("initContainers", "containers", "volumes")
ACTIONS: Final = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
"""What is rewritten in a container."""


class RecordError(ValueError):
    """A record that is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one injection did.

    `containers`, `volumes`, `annotations` are names that were added (init containers among the containers); `covers`
    are the containers of the application that were there. `annotations_before` has the values of those that were
    changed, `actions` probes and hooks by container, `lists` what stood in place of a list that had nothing in it,
    `metadata` the same for the annotations as a whole.
    """

    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    annotations: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    annotations_before: Mapping[str, Any] = field(default_factory=dict)
    actions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lists: Mapping[str, Any] = field(default_factory=dict)
    metadata: Any = None
    """What stood for annotations: a mapping, written as {}, null, "absent", or that metadata was null or none."""

    def text(self) -> str:
        """Write it as the annotation has it."""
        whole = {
            "version": VERSION,
            "containers": list(self.containers),
            "volumes": list(self.volumes),
            "annotations": list(self.annotations),
            "covers": list(self.covers),
            "before": {
                "annotations": dict(self.annotations_before),
                "actions": {name: dict(value) for name, value in self.actions.items()},
                "lists": dict(self.lists),
                "metadata": self.metadata,
            },
        }
        return json.dumps(whole, separators=(",", ":"))

    def covers_all(self, spec: Mapping[str, object]) -> bool:
        """Say whether the application's containers are those that were there when the sidecar was added."""
        here = [name for kind in ("initContainers", "containers") for name in names_of(spec.get(kind))]
        return [name for name in here if name not in self.containers] == list(self.covers)


def read_record(annotations: Mapping[str, object]) -> Record | None:
    """Read the record of a pod; None when it has none.

    Raises RecordError when the annotation holds something else: it is written by the injector alone.

    >>> read_record({}) is None
    True
    >>> read_record({"remora.io/status": "injected"})
    Traceback (most recent call last):
    injector.record.RecordError: the annotation remora.io/status holds no record of an injection: it is written by the \
injector alone; remove it
    """
    if names.STATUS not in annotations:
        return None
    text = annotations[names.STATUS]
    try:
        if not isinstance(text, str) or len(text) > MAX_BYTES:
            raise ValueError("no text")
        return _record(json.loads(text))
    except RecordError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RecordError(
            f"the annotation {names.STATUS} holds no record of an injection: it is written by the injector alone; "
            "remove it"
        ) from None


def take_out(metadata: Mapping[str, object], spec: Mapping[str, object], record: Record) -> tuple[object, Document]:
    """Give the metadata and spec of a pod as they were before the injection that the record tells of.

    The metadata is a mapping, None where it was null, ABSENT where it was none.
    """
    return _metadata_before(metadata, record), _spec_before(spec, record)


def annotations_before(metadata: object) -> object:
    """Say for a record what stood for annotations, from the metadata of a pod without a sidecar."""
    if not isinstance(metadata, Mapping):
        return NULL_METADATA if metadata is None else NO_METADATA
    annotations = metadata.get("annotations", ABSENT)
    return {} if isinstance(annotations, Mapping) else annotations


def _record(whole: Any) -> Record:
    if whole["version"] != VERSION:
        raise RecordError(
            f"the annotation {names.STATUS} was written by another version ({shown(repr(whole['version']))}): take the "
            "sidecar out by the version that put it in"
        )
    before = _mapping(whole["before"])
    return Record(
        containers=_names(whole["containers"]),
        volumes=_names(whole["volumes"]),
        annotations=_names(whole["annotations"]),
        covers=_names(whole["covers"]),
        annotations_before={str(key): value for key, value in _mapping(before["annotations"]).items()},
        actions={str(name): _actions(value) for name, value in _mapping(before["actions"]).items()},
        lists={str(name): value for name, value in _mapping(before["lists"]).items() if name in LISTS},
        metadata=before["metadata"],
    )


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return tuple(_text(each) for each in value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no mapping")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _actions(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= set(ACTIONS):
        raise TypeError("no probes or hooks")
    return value


def _metadata_before(metadata: Mapping[str, object], record: Record) -> object:
    annotations: Document = {}
    for key, value in mapping(metadata.get("annotations")).items():
        if key not in record.annotations:
            annotations[key] = record.annotations_before.get(key, value)
    made = dict(metadata)
    if annotations or record.metadata == {}:
        made["annotations"] = annotations
    elif record.metadata is None:
        made["annotations"] = None
    else:
        made.pop("annotations", None)
    if not made and record.metadata in (NULL_METADATA, NO_METADATA):
        return None if record.metadata == NULL_METADATA else ABSENT
    return made


def _spec_before(spec: Mapping[str, object], record: Record) -> Document:
    made = dict(spec)
    for kind, ours in (("initContainers", record.containers), ("containers", record.containers)):
        if isinstance(spec.get(kind), list):
            kept = [each for each in _list(spec[kind]) if mapping(each).get("name") not in ours]
            made[kind] = [_container_before(each, record) for each in kept]
    if isinstance(spec.get("volumes"), list):
        made["volumes"] = [each for each in _list(spec["volumes"]) if mapping(each).get("name") not in record.volumes]
    for kind, before in record.lists.items():
        if made.get(kind) == []:
            if before == ABSENT:
                del made[kind]
            else:
                made[kind] = before
    return made


def _container_before(container: object, record: Record) -> object:
    if not isinstance(container, Mapping) or str(container.get("name")) not in record.actions:
        return container
    return {**container, **record.actions[str(container["name"])]}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def covered(spec: Mapping[str, object]) -> tuple[str, ...]:
    """Name the containers of a pod that has no sidecar yet, init containers first."""
    return tuple(
        str(each.get("name", "")) for kind in ("initContainers", "containers") for each in mappings(spec.get(kind))
    )
