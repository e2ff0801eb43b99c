"""What loads and is probably not meant. A finding never changes a decision and never fails a load.

    documents --lint(set, scene)--> findings, each a Fault with a stable `code`

Each check is a generator over one thing (a clause, a rule, a document, the set) and says nothing when it would have to
guess: `Scene` holds what is known beside the policies. The ids stand in `catalogue`, a page for each in `pages`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from proxy.documents import quoted
from proxy.errors import Fault
from proxy.policy.lint.catalogue import Severity, severity_of
from proxy.policy.lint.identities import identity_remarks, plaintext_remarks, who_takes_plaintext
from proxy.policy.lint.peers import peer_findings
from proxy.policy.lint.rules import port_findings, rule_findings
from proxy.policy.lint.scene import COMPARISONS_AT_LOAD, Remark, Scene, at_origin, at_rule
from proxy.policy.lint.scopes import scope_findings
from proxy.policy.lint.shadows import shadow_findings
from proxy.policy.lint.tokens import token_findings
from proxy.policy.lint.values import value_remarks
from proxy.policy.model import Action, AuthorizationPolicy, PolicySet, PolicySettings, Workload, selects
from proxy.policy.peers import PeerModes

__all__ = ["MAX_FINDINGS", "Scene", "at_load", "lint"]

MAX_FINDINGS: Final = 1_000
"""Nobody reads more; a generated set of thousands of rules may repeat one finding in each."""


def lint(
    policies: PolicySet,
    scene: Scene,
    *,
    modes: PeerModes | None = None,
    selecting: Sequence[AuthorizationPolicy] | None = None,
) -> list[Fault]:
    """List the findings of a set, in the order of places.

    `modes` are those of the workload at hand. With `selecting`, rules are judged of these policies only: a sidecar
    has no use for what its neighbours' rules say. Above MAX_FINDINGS the rest is dropped.
    """
    judged = policies.authorization if selecting is None else selecting
    found = list(islice(_findings(policies, judged, scene, modes), MAX_FINDINGS))
    return sorted(dict.fromkeys(found))


def at_load(
    policies: PolicySet,
    selecting: Sequence[AuthorizationPolicy],
    modes: PeerModes,
    workload: Workload,
    settings: PolicySettings,
    tcp_ports: Collection[int],
) -> list[Fault]:
    """List what a sidecar has to say of a set that it takes: errors and warnings, found in little time."""
    scene = Scene(
        settings=settings,
        workload=workload,
        trust_domains=(workload.trust_domain, *workload.trust_domain_aliases),
        tcp_ports=frozenset(tcp_ports),
        is_configured=True,
        comparisons=COMPARISONS_AT_LOAD,
    )
    found = lint(policies, scene, modes=modes, selecting=selecting)
    return [fault for fault in found if severity_of(fault.code) is not Severity.INFO]


def _findings(
    policies: PolicySet, judged: Sequence[AuthorizationPolicy], scene: Scene, modes: PeerModes | None
) -> Iterator[Fault]:
    # What speaks of the whole set comes first, so that findings about single rules cannot crowd it out.
    yield from scope_findings(policies, scene)
    yield from peer_findings(policies.peer_authentication, scene)
    yield from token_findings(policies, judged, scene)
    for policy in judged:
        yield from _policy(policy, policies, scene, modes)
    yield from shadow_findings(judged, scene)


def _policy(policy: AuthorizationPolicy, policies: PolicySet, scene: Scene, modes: PeerModes | None) -> Iterator[Fault]:
    if policy.action is Action.ALLOW and not policy.rules:
        message = (
            f"the ALLOW policy {quoted(policy.name)} has no rules: it allows nothing, and what it selects is denied"
        )
        yield at_origin(policy.origin, Remark("RM0307", message, "right if nothing is to be allowed"))
    is_here = scene.workload is None or _speaks_to(policy, scene)
    for rule in policy.rules:
        yield from rule_findings(policy, rule, scene)
        if is_here:
            yield from port_findings(policy, rule, scene)
        open_to = who_takes_plaintext(policy, rule, policies.peer_authentication, modes, scene) if is_here else ""
        for clause in rule.clauses():
            remarks: Iterable[Remark] = (*value_remarks(clause, policy.action, scene), *identity_remarks(clause, scene))
            for remark in remarks:
                yield at_rule(policy, clause, remark)
            if open_to:
                for remark in plaintext_remarks(clause, policy.action, open_to):
                    yield at_rule(policy, clause, remark)


def _speaks_to(policy: AuthorizationPolicy, scene: Scene) -> bool:
    workload = scene.workload
    return (
        workload is not None
        and policy.namespace in (workload.namespace, scene.settings.root_namespace)
        and selects(policy.selector, workload.labels)
    )
