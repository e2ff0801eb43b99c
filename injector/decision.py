"""Whether a pod gets a sidecar, and why not: every pod that is passed over is named with its reason.

The order, first that holds: what is injected already stays; what cannot or must not have a sidecar never gets one; the
pod's label beats its annotation, which beats the namespace's label; what nobody asked for is for the caller to say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from injector import names
from injector.annotations import AnnotationError, inject_value
from injector.ports import app_containers
from injector.record import RecordError, read_record
from injector.values import mapping, mappings


class Why(enum.Enum):
    """What decided."""

    ASKED_BY_LABEL = "label"
    ASKED_BY_ANNOTATION = "annotation"
    ASKED_BY_NAMESPACE = "namespace_label"
    UNASKED = "default"
    ALREADY_INJECTED = "already_injected"
    HOST_NETWORK = "host_network"
    SYSTEM_NAMESPACE = "system_namespace"
    OWN_NAMESPACE = "own_namespace"
    WINDOWS = "windows"
    FOREIGN_SIDECAR = "foreign_container_name"
    DISABLED_BY_LABEL = "disabled_by_label"
    DISABLED_BY_ANNOTATION = "disabled_by_annotation"
    DISABLED_BY_NAMESPACE = "disabled_by_namespace_label"
    NOT_ASKED = "not_asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether to inject. `sentence` says why, for people; `warnings` name what was said and does not count."""

    injects: bool
    why: Why
    sentence: str
    warnings: tuple[str, ...] = ()


def decide(
    metadata: Mapping[str, object],
    spec: Mapping[str, object],
    *,
    namespace: str,
    namespace_labels: Mapping[str, object] | None = None,
    own_namespace: str = names.NAMESPACE,
    unasked: bool,
) -> Decision:
    """Decide about a pod or a pod template by its metadata and spec.

    `namespace_labels` is None where they are not known; `unasked` says what holds when nobody asked. Raises
    AnnotationError for an inject value that is neither yes nor no, and for a record that cannot be read.

    >>> decide({}, {"hostNetwork": True}, namespace="shop", unasked=True).sentence
    'hostNetwork: the rules of its sidecar would be the rules of the node'
    """
    never = _already(metadata, spec) or _never(spec, namespace, own_namespace)
    if never is not None:
        return never
    return _asked(metadata, namespace, namespace_labels or {}, unasked)


def _already(metadata: Mapping[str, object], spec: Mapping[str, object]) -> Decision | None:
    names_here = {
        str(each.get("name"))
        for kind in ("containers", "initContainers", "ephemeralContainers")
        for each in mappings(spec.get(kind))
    }
    try:
        record = read_record(mapping(metadata.get("annotations")))
    except RecordError as fault:
        raise AnnotationError((str(fault),)) from None
    if record is not None and names.PROXY in names_here and names.PROXY in record.containers:
        return _skip(Why.ALREADY_INJECTED, "it has its sidecar already")
    taken = sorted(names_here & {names.PROXY, names.CAPTURE})
    if taken:
        return _skip(
            Why.FOREIGN_SIDECAR,
            f"a container that is not ours has the name {taken[0]}: rename it, or put ours in by `remora inject`",
        )
    return None


def _never(spec: Mapping[str, object], namespace: str, own_namespace: str) -> Decision | None:
    if spec.get("hostNetwork") is True:
        return _skip(Why.HOST_NETWORK, "hostNetwork: the rules of its sidecar would be the rules of the node")
    if namespace in names.NEVER:
        return _skip(Why.SYSTEM_NAMESPACE, f"pods in {namespace} never get a sidecar: the cluster stands on them")
    if namespace == own_namespace:
        return _skip(Why.OWN_NAMESPACE, f"pods in {namespace} never get a sidecar: sidecars stand on them")
    sign = _windows(spec)
    if sign:
        return _skip(Why.WINDOWS, f"it runs on Windows ({sign}), where there is no sidecar")
    return None


def _asked(
    metadata: Mapping[str, object], namespace: str, namespace_labels: Mapping[str, object], unasked: bool
) -> Decision:
    by_label = inject_value(mapping(metadata.get("labels")))
    by_annotation = inject_value(mapping(metadata.get("annotations")))
    by_namespace = inject_value(namespace_labels)
    key = names.INJECT
    warnings: tuple[str, ...] = ()
    if by_label is not None and by_annotation is not None and by_label is not by_annotation:
        warnings = (f"the label {key} and the annotation {key} differ: the label holds; remove one",)
    if by_label is not None:
        return _said(by_label, Why.ASKED_BY_LABEL, Why.DISABLED_BY_LABEL, f"the pod's label {key}", warnings)
    if by_annotation is not None:
        place = f"the pod's annotation {key}"
        # The API server selects pods by labels alone, so it shows this pod only where the namespace asks.
        if by_annotation and by_namespace is not True:
            warnings = (f"the webhook does not see the annotation {key}: write it as a label of the pod too",)
        return _said(by_annotation, Why.ASKED_BY_ANNOTATION, Why.DISABLED_BY_ANNOTATION, place, warnings)
    if by_namespace is not None:
        place = f"the label {key} of namespace {namespace}"
        return _said(by_namespace, Why.ASKED_BY_NAMESPACE, Why.DISABLED_BY_NAMESPACE, place, ())
    if unasked:
        return Decision(injects=True, why=Why.UNASKED, sentence="nothing says otherwise")
    return _skip(Why.NOT_ASKED, f"neither the pod nor its namespace has the label {key}: enabled")


def _said(yes: bool, asked: Why, disabled: Why, place: str, warnings: tuple[str, ...]) -> Decision:
    if yes:
        return Decision(injects=True, why=asked, sentence=f"asked for by {place}", warnings=warnings)
    return Decision(injects=False, why=disabled, sentence=f"{place} says no", warnings=warnings)


def _skip(why: Why, sentence: str) -> Decision:
    return Decision(injects=False, why=why, sentence=sentence)


def _windows(spec: Mapping[str, object]) -> str:
    """Name what says that a pod runs on Windows, "" if nothing does."""
    if mapping(spec.get("os")).get("name") == "windows":
        return "spec.os.name"
    selector = mapping(spec.get("nodeSelector"))
    for label in ("kubernetes.io/os", "beta.kubernetes.io/os"):
        if selector.get(label) == "windows":
            return f"nodeSelector {label}"
    if "windowsOptions" in mapping(spec.get("securityContext")):
        return "securityContext.windowsOptions"
    for container in app_containers(spec):
        if "windowsOptions" in mapping(container.get("securityContext")):
            return f"windowsOptions of container {container.get('name')}"
    required = mapping(
        mapping(mapping(spec.get("affinity")).get("nodeAffinity")).get("requiredDuringSchedulingIgnoredDuringExecution")
    )
    terms = mappings(required.get("nodeSelectorTerms"))
    # Terms are alternatives: only when every one wants Windows does the pod.
    if terms and all(_wants_windows(term) for term in terms):
        return "required node affinity"
    return ""


def _wants_windows(term: Mapping[str, object]) -> bool:
    return any(
        each.get("key") in ("kubernetes.io/os", "beta.kubernetes.io/os")
        and each.get("operator") == "In"
        and each.get("values") == ["windows"]
        for each in mappings(term.get("matchExpressions"))
    )
