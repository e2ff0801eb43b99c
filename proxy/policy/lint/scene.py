"""What lint knows beside the policies. All of it is optional: a pipeline often has the directory and nothing else.

Checks that need what is not known say nothing, so that a finding is never a guess about a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.documents import shown
from proxy.errors import Fault
from proxy.policy.model import (
    Attribute,
    AuthorizationPolicy,
    Clause,
    Origin,
    PolicySettings,
    Rule,
    Workload,
)
from proxy.protocol.path import PathNormalization
from proxy.types import Protocol

COMPARISONS: Final = 4_000_000
"""How many values `remora policy lint` compares to find shadowed rules: about four seconds."""

COMPARISONS_AT_LOAD: Final = 20_000
"""The same for a sidecar that takes a new set: about 0.1 s, while its traffic waits."""


class KnownWorkload(NamedTuple):
    """A workload of the mesh, as a list of what exists names it."""

    namespace: str
    service_account: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What exists in the mesh. Of each kind that has any member the list counts as complete.

    `accounts` are `<namespace>/<service account>`; `hinted_*` are names that are known to exist without the list being
    complete: they only serve to find what differs from one of them by a letter.
    """

    namespaces: frozenset[str] = frozenset()
    accounts: frozenset[str] = frozenset()
    workloads: tuple[KnownWorkload, ...] = ()
    hinted_namespaces: frozenset[str] = frozenset()
    hinted_accounts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where the policies are to be in force.

    Without `workload` the policies of all namespaces are judged. `ports` are all ports of the workload, `tcp_ports`
    those known to carry no HTTP. `trust_domains` is the mesh's own, then its aliases; empty when unknown.
    `is_configured` says that the settings are those of a real sidecar and not defaults.
    """

    settings: PolicySettings
    workload: Workload | None = None
    trust_domains: tuple[str, ...] = ()
    normalization: PathNormalization | None = None
    ports: Mapping[int, Protocol] | None = None
    tcp_ports: frozenset[int] = frozenset()
    is_configured: bool = False
    known: Known = field(default_factory=Known)
    comparisons: int = COMPARISONS


MAX_CONDITIONS: Final = 16
"""Conditions of a rule that every item of `from` and `to` is compared with. Nobody writes more."""


class Remark(NamedTuple):
    """What is to be said of a clause or a rule whose place the caller knows."""

    code: str
    message: str
    hint: str = ""


def at_origin(origin: Origin, remark: Remark) -> Fault:
    """Place a remark at a document."""
    return Fault(
        file=origin.file,
        line=origin.line,
        column=origin.column,
        message=remark.message,
        hint=remark.hint,
        code=remark.code,
    )


def at_rule(policy: AuthorizationPolicy, place: Rule | Clause, remark: Remark) -> Fault:
    """Place a remark at a rule, or at a clause and then behind the clause's name."""
    message = f"`{shown(place.name)}`: {remark.message}" if isinstance(place, Clause) else remark.message
    return Fault(
        file=policy.origin.file,
        line=place.line,
        column=place.column,
        message=message,
        hint=remark.hint,
        code=remark.code,
    )


def combinations(rule: Rule) -> Iterator[tuple[Clause, ...]]:
    """Yield each operation together with the conditions: everything in a rule that may name a port."""
    for operation in rule.operations or ((),):
        yield (*operation, *rule.conditions)


def admits_port(clauses: tuple[Clause, ...], port: int) -> bool:
    """Say whether clauses that must all hold leave a port open."""
    text = str(port)
    return all(
        (text in clause.values) is not clause.negated for clause in clauses if clause.attribute is Attribute.PORT
    )
