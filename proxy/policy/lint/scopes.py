"""RM05, and the dry runs of RM04: documents beside each other, and whom they select."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from proxy.documents import quoted, shown
from proxy.errors import Fault
from proxy.policy.lint.scene import KnownWorkload, Remark, Scene, at_origin
from proxy.policy.model import (
    Action,
    AuthorizationPolicy,
    Clause,
    PeerAuthentication,
    PolicySet,
    RequestAuthentication,
    selects,
)

Document = AuthorizationPolicy | PeerAuthentication | RequestAuthentication


def documents_of(policies: PolicySet) -> Iterator[Document]:
    """Yield every document of a set, of whatever kind."""
    yield from policies.authorization
    yield from policies.peer_authentication
    yield from policies.request_authentication


def scope_findings(policies: PolicySet, scene: Scene) -> Iterator[Fault]:
    """Judge names, namespaces and selectors of all documents."""
    seen: dict[tuple[str, str, str], Document] = {}
    for document in documents_of(policies):
        kind = type(document).__name__
        first = seen.setdefault((kind, document.namespace, document.name), document)
        if first is not document:
            place = f"{first.origin.file}:{first.origin.line}"
            message = f"a second {kind} {document.namespace}/{document.name} (the first: {place}); both count here"
            hint = "give it a name of its own: in a cluster the second would replace the first"
            yield at_origin(document.origin, Remark("RM0501", message, hint))
        yield from _reach(document, kind, scene)
    yield from _dry_runs(policies.authorization)


def _reach(document: Document, kind: str, scene: Scene) -> Iterator[Fault]:
    root = scene.settings.root_namespace
    in_root = document.namespace == root
    workload = scene.workload
    if workload is not None and not in_root and document.namespace != workload.namespace:
        message = f"the {kind} {quoted(document.name)} is of namespace {document.namespace} and has no effect here"
        hint = f"this workload is in {workload.namespace}, the root namespace is {root}"
        yield at_origin(document.origin, Remark("RM0504", message, hint))
        return
    if not document.selector or (in_root and kind == "PeerAuthentication"):
        return
    near = [each for each in scene.known.workloads if in_root or each.namespace == document.namespace]
    if scene.known.workloads and not any(selects(document.selector, each.labels) for each in near):
        where = "no known workload" if in_root else f"no known workload of namespace {document.namespace}"
        message = f"the selector of the {kind} {quoted(document.name)} ({_shown(document.selector)}) selects {where}"
        yield at_origin(document.origin, Remark("RM0502", message, _nearest(document.selector, near)))
    elif workload is not None and not selects(document.selector, workload.labels):
        message = f"the {kind} {quoted(document.name)} ({_shown(document.selector)}) does not select this workload"
        hint = f"its labels: {_shown(workload.labels) or 'none'}"
        yield at_origin(document.origin, Remark("RM0503", message, hint))


def _shown(labels: Mapping[str, str]) -> str:
    pairs = [f"{shown(key)}={shown(value)}" for key, value in sorted(labels.items())]
    return ", ".join(pairs[:6]) + (", ..." if len(pairs) > 6 else "")


def _nearest(selector: Mapping[str, str], workloads: Iterable[KnownWorkload]) -> str:
    def shared(workload: KnownWorkload) -> int:
        return sum(workload.labels.get(key) == value for key, value in selector.items())

    nearest = max(workloads, key=shared, default=None)
    if nearest is None:
        return "nothing runs there"
    missing = [
        f"{shown(key)}={shown(nearest.labels.get(key, '(none)'))}"
        for key in selector
        if nearest.labels.get(key) != selector[key]
    ]
    return f"the nearest, of account {nearest.service_account}, has {', '.join(missing[:3])}"


# --- dry runs ---


def _dry_runs(policies: Sequence[AuthorizationPolicy]) -> Iterator[Fault]:
    enforced = {_content(policy): policy for policy in policies if not policy.dry_run}
    for policy in policies:
        if not policy.dry_run:
            continue
        if policy.action is Action.AUDIT:
            message = (
                f"a dry run of the AUDIT policy {quoted(policy.name)} does nothing: AUDIT never changes a decision"
            )
            yield at_origin(policy.origin, Remark("RM0404", message, "remove the annotation"))
        elif (same := enforced.get(_content(policy))) is not None:
            place = f"{quoted(same.name)} ({same.origin.file}:{same.origin.line})"
            message = f"the dry run {quoted(policy.name)} says what {place} enforces already: it shows nothing"
            yield at_origin(policy.origin, Remark("RM0405", message, "remove it"))


def _content(policy: AuthorizationPolicy) -> Hashable:
    """Give what a policy says, whatever its name and place, the order of rules and of items."""

    def clauses(group: Iterable[Clause]) -> Hashable:
        return frozenset(
            (each.attribute, each.header, each.claim, each.negated, frozenset(each.values)) for each in group
        )

    rules = frozenset(
        (
            frozenset(map(clauses, rule.sources)),
            frozenset(map(clauses, rule.operations)),
            clauses(rule.conditions),
        )
        for rule in policy.rules
    )
    return policy.namespace, policy.action, frozenset(policy.selector.items()), rules
