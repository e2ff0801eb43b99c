"""Reads the mesh's policies for whoever looks at all workloads at once.

A sidecar reads a mounted directory for itself; here the same reader takes the files of the whole mesh, and policies
that stand in manifests between other objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from certs.spiffe import TrustDomain
from injector.documents import split
from injector.values import mapping, mappings
from proxy.errors import ConfigError, Fault
from proxy.policy.model import PolicyDefault, PolicySet, PolicySettings, Workload
from proxy.policy.read import GROUP, read_files

_SKIPPED: Final = "RM0506"
"""Lint's word for a document of another kind."""


def read_policies(
    files: Mapping[str, bytes], manifests: Mapping[str, bytes], *, namespace: str = "default"
) -> tuple[PolicySet, tuple[Fault, ...]]:
    """Read policy files and the policies in manifests; gives them with the reader's warnings.

    `namespace` is where documents are that do not say. Raises ConfigError with every fault of every file.
    """
    taken = {**{name: only_policies(data, name) for name, data in manifests.items()}, **files}
    # Of the workload only the namespace is looked at, and of the settings nothing but the tokens' `jwksUri`.
    nobody = Workload(
        namespace=namespace, service_account="", name="", labels={}, trust_domain=TrustDomain("cluster.local")
    )
    policies, faults, warnings = read_files(taken, nobody, PolicySettings(default=PolicyDefault.DENY))
    if faults:
        raise ConfigError(sorted(faults))
    told = (each for each in warnings if each.file in files or each.code != _SKIPPED)
    return policies, tuple(sorted(set(told)))


def only_policies(data: bytes, source: str) -> bytes:
    """Empty every document of a manifest in which no mesh policy stands.

    Raises ConfigError for what cannot be read.

    >>> only_policies(b"kind: Pod\\n---\\napiVersion: security.istio.io/v1\\n", "m.yaml")
    b'\\n---\\napiVersion: security.istio.io/v1\\n'
    """
    return only_of_group(data, source, GROUP)


def only_of_group(data: bytes, source: str, group: str) -> bytes:
    """Empty every document in which no object of an API group stands, so that places in the others stay right.

    What is left is read by readers that take no anchors and tags, which other documents may have. Raises ConfigError.
    """
    kept = ""
    for part in split(data, source):
        kept += part.opening + (part.text if _is_of_group(part.value, group) else "\n" * part.text.count("\n"))
    return kept.encode()


def _is_of_group(value: object, group: str) -> bool:
    found = mapping(value)
    return any(
        str(each.get("apiVersion", "")).partition("/")[0] == group for each in (found, *mappings(found.get("items")))
    )
