"""Whether pods have what they ask for: a sidecar, a ready one, the one of today. Judgments, no calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from injector import names
from injector.annotations import AnnotationError
from injector.check import Finding, counted, fail, listed, ok, warn
from injector.decision import Why, decide
from injector.values import mapping, mappings

_ENDED: Final = ("Succeeded", "Failed")


@dataclass(slots=True)
class _Seen:
    with_sidecar: int = 0
    without: list[str] = field(default_factory=list)
    unready: list[str] = field(default_factory=list)
    faulty: list[str] = field(default_factory=list)
    images: dict[str, list[str]] = field(default_factory=dict)


def pods(
    found: Sequence[Mapping[str, object]],
    *,
    namespace: str,
    labels: Mapping[str, object],
    own_namespace: str,
    image: str | None,
) -> Iterator[Finding]:
    """Judge the pods of one namespace with these labels; `image` is what sidecars have, None if that is not known."""
    seen = _Seen()
    for pod in found:
        if mapping(pod.get("status")).get("phase") in _ENDED or _is_going(pod):
            continue
        _look(seen, pod, namespace, labels, own_namespace)
    restart = f"kubectl -n {namespace} rollout restart deployment"
    check = "pods"
    if seen.without:
        yield warn(
            check,
            f"{counted(len(seen.without), 'pod')} of {namespace} should have a sidecar and {_have(seen.without)} none: "
            f"{listed(seen.without)}",
            f"{restart} (pods get it when they are made)",
        )
    if seen.faulty:
        yield warn(
            check,
            f"{counted(len(seen.faulty), 'pod')} of {namespace} with annotations that cannot be read: "
            f"{listed(seen.faulty)}",
            f"correct the annotations {names.PREFIX}* where the pods are made",
        )
    if seen.unready:
        yield fail(
            check,
            f"{counted(len(seen.unready), 'pod')} of {namespace} whose sidecar is not ready: {listed(seen.unready)}",
            f"kubectl -n {namespace} logs POD -c {names.PROXY}",
        )
    others = {other: where for other, where in seen.images.items() if image is not None and other != image}
    for other, where in sorted(others.items()):
        yield warn(
            check,
            f"{counted(len(where), 'pod')} of {namespace} with the sidecar {other} instead of {image}: {listed(where)}",
            restart,
        )
    if not (seen.without or seen.faulty or seen.unready or others):
        yield ok(
            check, f"namespace {namespace}: {counted(seen.with_sidecar, 'pod')} with a ready sidecar, none without"
        )


def _look(
    seen: _Seen, pod: Mapping[str, object], namespace: str, labels: Mapping[str, object], own_namespace: str
) -> None:
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    name = str(metadata.get("name", ""))
    try:
        decision = decide(
            metadata, spec, namespace=namespace, namespace_labels=labels, own_namespace=own_namespace, unasked=False
        )
    except AnnotationError:
        seen.faulty.append(name)
        return
    if decision.why is Why.ALREADY_INJECTED:
        seen.with_sidecar += 1
        if not _is_ready(pod):
            seen.unready.append(name)
        # A pod that names its own image is meant to differ.
        if f"{names.PREFIX}image" not in mapping(metadata.get("annotations")):
            seen.images.setdefault(_image(spec), []).append(name)
    elif decision.injects and "kubernetes.io/config.mirror" not in mapping(metadata.get("annotations")):
        seen.without.append(name)


def _is_going(pod: Mapping[str, object]) -> bool:
    return bool(mapping(pod.get("metadata")).get("deletionTimestamp"))


def _is_ready(pod: Mapping[str, object]) -> bool:
    status = mapping(pod.get("status"))
    return any(
        each.get("name") == names.PROXY and each.get("ready") is True
        for key in ("initContainerStatuses", "containerStatuses")
        for each in mappings(status.get(key))
    )


def _image(spec: Mapping[str, object]) -> str:
    for key in ("initContainers", "containers"):
        for each in mappings(spec.get(key)):
            if each.get("name") == names.PROXY:
                return str(each.get("image"))
    return ""


def _have(found: Sequence[str]) -> str:
    return "has" if len(found) == 1 else "have"
