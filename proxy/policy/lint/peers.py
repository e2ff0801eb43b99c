"""RM06: PeerAuthentication. Files carry no age, so of two documents for one scope the first counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from proxy.documents import quoted, shown
from proxy.errors import Fault
from proxy.policy.lint.scene import Remark, Scene, at_origin
from proxy.policy.model import MtlsMode, PeerAuthentication, selects


def peer_findings(policies: Sequence[PeerAuthentication], scene: Scene) -> Iterator[Fault]:
    """Judge the PeerAuthentications of a set, in the order of (file, document)."""
    root = scene.settings.root_namespace
    counting: list[PeerAuthentication] = []
    for policy in policies:
        if policy.namespace == root and policy.selector:
            message = f"the PeerAuthentication {quoted(policy.name)} has a selector in the root namespace and no effect"
            hint = "move it into the namespace of the workload, or remove the selector"
            yield at_origin(policy.origin, Remark("RM0602", message, hint))
        else:
            counting.append(policy)
    yield from _doubles(counting, scene)
    for policy in counting:
        yield from _modes(policy, scene)


def _doubles(policies: Sequence[PeerAuthentication], scene: Scene) -> Iterator[Fault]:
    first_of: dict[tuple[str, frozenset[tuple[str, str]]], PeerAuthentication] = {}
    named: set[int] = set()
    for policy in policies:
        first = first_of.setdefault((policy.namespace, frozenset(policy.selector.items())), policy)
        if first is not policy:
            named.add(id(policy))
            yield _second(policy, first, "the same scope")
    for namespace, labels in _workloads(scene):
        own = [each for each in policies if each.selector and each.namespace == namespace]
        selecting = [each for each in own if selects(each.selector, labels)]
        for policy in selecting[1:]:
            if id(policy) not in named:
                named.add(id(policy))
                yield _second(policy, selecting[0], f"a workload ({_shown(labels)})")


def _second(policy: PeerAuthentication, first: PeerAuthentication, shared: str) -> Fault:
    place = f"{quoted(first.name)} ({first.origin.file}:{first.origin.line})"
    message = (
        f"the PeerAuthentication {quoted(policy.name)} shares {shared} with {place}, which wins: all of it is ignored"
    )
    return at_origin(policy.origin, Remark("RM0601", message, "keep one of the two"))


def _workloads(scene: Scene) -> Iterable[tuple[str, Mapping[str, str]]]:
    if scene.workload is not None:
        yield scene.workload.namespace, scene.workload.labels
    for each in scene.known.workloads:
        yield each.namespace, each.labels


def _shown(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{shown(key)}={shown(value)}" for key, value in sorted(labels.items())[:4])


def _modes(policy: PeerAuthentication, scene: Scene) -> Iterator[Fault]:
    workload = scene.workload
    if workload is not None and (
        policy.namespace not in (workload.namespace, scene.settings.root_namespace)
        or not selects(policy.selector, workload.labels)
    ):
        return
    if scene.ports is not None:
        for port in sorted(set(policy.ports) - set(scene.ports)):
            message = f"`portLevelMtls` names port {port}, which this workload does not serve"
            hint = (
                f"its ports: {', '.join(map(str, sorted(scene.ports))) or 'none'} (the workload's, not the Service's)"
            )
            yield at_origin(policy.origin, Remark("RM0603", message, hint))
    taking = [str(port) for port, mode in sorted(policy.ports.items()) if _takes_plaintext(mode)]
    if _takes_plaintext(policy.mode) or taking:
        where = "everywhere in its scope" if _takes_plaintext(policy.mode) else f"on port {', '.join(taking)}"
        message = f"the PeerAuthentication {quoted(policy.name)} takes plaintext {where}: such peers have no identity"
        yield at_origin(policy.origin, Remark("RM0604", message, "write STRICT once every caller has a sidecar"))


def _takes_plaintext(mode: MtlsMode) -> bool:
    return mode in (MtlsMode.PERMISSIVE, MtlsMode.DISABLE)
