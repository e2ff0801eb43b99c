"""Holds objects against the schemas of Kubernetes that the package kubernetes-validate carries, offline.

Its own `validate` reads and resolves all definitions anew for every object, a third of a second each; here a schema is
read once. Strict: a field that Kubernetes does not know is a fault, as it is for `kubectl apply --validate=strict`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import referencing

FIRST, LAST = 29, 37
VERSIONS = tuple(f"1.{minor}" for minor in range(FIRST, LAST + 1))
"""Of Kubernetes: from the first that has native sidecars switched on, to the newest that the package knows."""

_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def faults(document: Mapping[str, Any], version: str) -> list[str]:
    """Say what is wrong with an object in a version such as "1.29": path and message of each fault."""
    validator = _validator(version, str(document["kind"]).lower(), str(document["apiVersion"]))
    return sorted(
        f"{'.'.join(str(part) for part in fault.path)}: {fault.message}" for fault in _leaves(validator, document)
    )


def faults_of_all(documents: list[Mapping[str, Any]], versions: tuple[str, ...] = VERSIONS) -> dict[str, list[str]]:
    """Give the faults of objects by "version kind/name"; empty when all are valid in each version."""
    found = {}
    for version in versions:
        for document in documents:
            wrong = faults(document, version)
            if wrong:
                found[f"{version} {document['kind']}/{document['metadata'].get('name')}"] = wrong
    return found


def _leaves(validator: Any, document: Mapping[str, Any]) -> list[Any]:
    found, waiting = [], list(validator.iter_errors(document))
    while waiting:
        fault = waiting.pop()
        if fault.context:
            waiting += fault.context
        else:
            found.append(fault)
    return found


@functools.cache
def _validator(version: str, kind: str, api_version: str) -> Any:
    directory = _SCHEMAS / f"v{_patch(version)}-local-strict"
    group, _, number = api_version.rpartition("/")
    name = f"{kind}-{group.partition('.')[0]}-{number}" if group else f"{kind}-{number}"
    schema = json.loads((directory / f"{name}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=_definitions(directory))


@functools.cache
def _patch(version: str) -> str:
    """Give the release whose schemas the package has: "1.29" is 1.29.<some>."""
    [found] = [path.name for path in _SCHEMAS.glob(f"v{version}.*-local-strict")]
    return found.removeprefix("v").removesuffix("-local-strict")


@functools.cache
def _definitions(directory: Path) -> Any:
    whole = referencing.Resource.from_contents(json.loads((directory / "_definitions.json").read_text()))
    return (whole @ referencing.Registry()).crawl()
