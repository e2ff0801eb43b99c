"""One door to both ways in: a pod with what is known of it -> what becomes of it, and a whole manifest in the same way.

The webhook has a pod from an API server, the command a manifest with templates; the decision, the settings and the
injection are these here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from injector import names
from injector.annotations import AnnotationError, read_settings
from injector.decision import Decision, Why, decide
from injector.documents import Part, join
from injector.inject import InjectError, inject_pod, uninject_pod
from injector.manifests import replaced, shown_name, template
from injector.record import RecordError, read_record
from injector.settings import Settings
from injector.values import Document, mapping


class Refused(ValueError):
    """A pod that is refused: a sentence for each reason."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is known besides the pod: defaults, the trust bundle, namespaces, what holds where nobody asked."""

    defaults: Settings = field(default_factory=Settings)
    trust_bundle: str | None = None
    own_namespace: str = names.NAMESPACE
    unasked: bool = True
    namespaces: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Labels by namespace, of those that are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a pod: the decision, and the pod if it was changed."""

    decision: Decision
    metadata: object = None
    spec: Document | None = None
    warnings: tuple[str, ...] = ()


def decide_in(world: World, metadata: Mapping[str, object], spec: Mapping[str, object], *, namespace: str) -> Decision:
    """Decide about a pod of `namespace` by what is known of the world. Raises AnnotationError, as `decide` does."""
    return decide(
        metadata,
        spec,
        namespace=namespace,
        namespace_labels=world.namespaces.get(namespace),
        own_namespace=world.own_namespace,
        unasked=world.unasked,
    )


def admit(
    metadata: object, spec: Mapping[str, object], world: World, *, namespace: str, owner_kind: str = "Pod"
) -> Outcome:
    """Decide about a pod and put the sidecar in where that is the decision.

    One that has its sidecar stays as it is; only when containers came to it since is the sidecar put in anew, so that
    their probes are performed too. Raises Refused.
    """
    known = mapping(metadata)
    annotations = mapping(known.get("annotations"))
    try:
        decision = decide_in(world, known, spec, namespace=namespace)
        if decision.why is Why.ALREADY_INJECTED:
            record = read_record(annotations)
            if record is None or record.covers_all(spec):
                return Outcome(decision=decision)
            before = uninject_pod(metadata, spec)
            if before is not None:
                metadata, spec = before
                annotations = mapping(mapping(metadata).get("annotations"))
                sentence = "containers came since its sidecar was put in: it is put in anew"
                decision = Decision(injects=True, why=Why.ALREADY_INJECTED, sentence=sentence)
        if not decision.injects:
            return Outcome(decision=decision, warnings=decision.warnings)
        settings, warnings = read_settings(annotations, world.defaults)
        made = inject_pod(metadata, spec, settings=settings, trust_bundle=world.trust_bundle, owner_kind=owner_kind)
    except (AnnotationError, InjectError) as fault:
        raise Refused(fault.messages) from None
    return Outcome(
        decision=decision,
        metadata=made.metadata,
        spec=made.spec,
        warnings=(*decision.warnings, *warnings, *made.warnings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the report: of which object, what was done or why not. `is_refusal`: nothing may be applied."""

    subject: str
    text: str
    is_refusal: bool = False
    is_warning: bool = False

    def __str__(self) -> str:
        return f"{self.subject}: {'warning: ' if self.is_warning else ''}{self.text}"


@dataclass(slots=True)
class Report:
    """What the commands say on standard error, in the order of the manifest."""

    lines: list[Line] = field(default_factory=list)
    changed: int = 0

    @property
    def is_refused(self) -> bool:
        """Something was refused: the manifest must not be applied."""
        return any(line.is_refusal for line in self.lines)


Change = Callable[[Mapping[str, object], str, Report], Document]
"""Changes one object of a namespace, and reports; gives the same object when nothing is to be done."""


def inject_manifest(parts: list[Part], world: World, *, namespace: str = "default") -> tuple[str, Report]:
    """Put sidecars into every pod of a manifest; gives the text and the report.

    `namespace` is where objects are that do not say. Namespaces that stand in the manifest bring their labels.
    """
    found = {**world.namespaces, **namespace_labels(parts)}
    here = World(
        defaults=world.defaults,
        trust_bundle=world.trust_bundle,
        own_namespace=world.own_namespace,
        unasked=world.unasked,
        namespaces=found,
    )

    def change(document: Mapping[str, object], place: str, report: Report) -> Document:
        return _inject(document, place, report, here)

    return _changed(parts, change, namespace)


def uninject_manifest(parts: list[Part], *, namespace: str = "default") -> tuple[str, Report]:
    """Take the sidecars out of every pod of a manifest; gives the text and the report."""
    return _changed(parts, _uninject, namespace)


def namespace_labels(parts: list[Part]) -> dict[str, Mapping[str, object]]:
    """Give the labels of the Namespaces in a manifest."""
    found = {}
    for document in objects(parts):
        if document.get("kind") == "Namespace" and document.get("apiVersion") == "v1":
            own = mapping(document.get("metadata"))
            found[str(own.get("name"))] = mapping(own.get("labels"))
    return found


def objects(parts: list[Part]) -> Iterator[Mapping[str, object]]:
    """Give every object of a manifest, those in Lists too."""
    for part in parts:
        yield from _of(part.value)


def _of(value: object) -> Iterator[Mapping[str, object]]:
    whole = mapping(value)
    items = whole.get("items")
    if is_list(whole) and isinstance(items, list):
        for item in items:
            yield from _of(item)
    elif whole:
        yield whole


def is_list(document: Mapping[str, object]) -> bool:
    """Say whether an object is a list of others: `List`, or a list of one kind as `kubectl get -o yaml` writes it."""
    return str(document.get("kind")).endswith("List") and "items" in document


def _changed(parts: list[Part], change: Change, namespace: str) -> tuple[str, Report]:
    report = Report()
    written = [(part, _deep(part.value, change, namespace, report)) for part in parts]
    return join(written), report


def _deep(value: object, change: Change, namespace: str, report: Report) -> object:
    """Change an object, or every object of a list; what stays the same is the very same value."""
    if not isinstance(value, Mapping):
        return value
    items = value.get("items")
    if is_list(value) and isinstance(items, list):
        made = [_deep(item, change, namespace, report) for item in items]
        return value if all(new is old for new, old in zip(made, items, strict=True)) else {**value, "items": made}
    own = mapping(value.get("metadata")).get("namespace")
    return change(value, str(own) if own else namespace, report)


def _inject(document: Mapping[str, object], namespace: str, report: Report, world: World) -> Document:
    found = template(document)
    same: Document = document  # type: ignore[assignment]
    subject = shown_name(document, namespace)
    if found is None:
        return same
    try:
        outcome = admit(found.metadata, found.spec, world, namespace=namespace, owner_kind=found.kind)
    except Refused as refused:
        report.lines += [Line(subject=subject, text=f"refused: {text}", is_refusal=True) for text in refused.messages]
        return same
    if outcome.spec is None:
        is_there = outcome.decision.why is Why.ALREADY_INJECTED
        text = outcome.decision.sentence
        report.lines.append(Line(subject=subject, text=f"unchanged: {text}" if is_there else f"not injected: {text}"))
    else:
        report.changed += 1
        report.lines.append(Line(subject=subject, text=f"injected: {outcome.decision.sentence}"))
    report.lines += [Line(subject=subject, text=text, is_warning=True) for text in outcome.warnings]
    return same if outcome.spec is None else replaced(document, found.path, outcome.metadata, outcome.spec)


def _uninject(document: Mapping[str, object], namespace: str, report: Report) -> Document:
    found = template(document)
    same: Document = document  # type: ignore[assignment]
    if found is None:
        return same
    subject = shown_name(document, namespace)
    try:
        before = uninject_pod(found.metadata, found.spec)
    except RecordError as fault:
        report.lines.append(Line(subject=subject, text=f"refused: {fault}", is_refusal=True))
        return same
    if before is None:
        report.lines.append(Line(subject=subject, text="unchanged: it has no sidecar of ours"))
        return same
    report.changed += 1
    report.lines.append(Line(subject=subject, text="its sidecar was taken out"))
    return replaced(document, found.path, *before)
