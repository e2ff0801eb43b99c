"""Answers one AdmissionReview: bytes in, bytes and what the audit log keeps out (Kubernetes, admission.k8s.io/v1).

    bytes --not v1, not strict JSON--> an answer that says so, HTTP 400
      |
      +--> Asked --no pod that is created--> allowed, with a warning
             |
             +--> `doors.admit` --> injected (JSON Patch) | unchanged | skipped (warning) | refused (422, every reason)

Where nothing can be told for certain the answer is no. In which namespace it is says the request and never the object,
which its author wrote. Pure: no clock, no log.
"""

from __future__ import annotations

import base64
import enum
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from certs.strict_json import parse_json
from injector import names
from injector.annotations import AnnotationError
from injector.bounds import too_large
from injector.decision import Why
from injector.doors import Outcome, Refused, World, admit, decide_in
from injector.jsonpatch import difference
from injector.values import Document, mapping, mappings
from proxy.documents import quoted, shown

VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"

MAX_BODY: Final = 3 * 1024 * 1024
"""Bytes: API servers take no larger request, and a review adds little. Less would refuse pods that they have taken."""
MAX_DEPTH: Final = 64
"""Of objects and lists in each other. A pod with its managedFields has 16; code that calls itself ends before 1000."""
MAX_WARNING: Final = 256
MAX_WARNINGS: Final = 4096
"""Characters of one warning, and of all: API servers cut what is longer, or drop it."""
MAX_MESSAGE: Final = 4096
"""Characters of a refusal: kubectl shows it whole."""
_MAX_WORD: Final = 253
"""Characters of names in the audit log: Kubernetes has none longer."""

OK, BAD_REQUEST, UNPROCESSABLE, INTERNAL = 200, 400, 422, 500


class Verdict(enum.Enum):
    """What became of a review."""

    INJECTED = "injected"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    REFUSED = "refused"
    ERROR = "error"


class Reason(enum.Enum):
    """Why, where it was not the decision about a pod (`decision.Why`)."""

    NO_POD = "no_pod"
    NO_CREATE = "no_create"
    BAD_POD = "bad_pod"
    BAD_REVIEW = "bad_review"
    INTERNAL = "internal"


class ReviewError(ValueError):
    """What was sent is no AdmissionReview v1 with a pod; `uid` is whose review it is, as far as that is known."""

    def __init__(self, message: str, uid: str = "") -> None:
        super().__init__(message)
        self.uid = uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the audit log keeps of a review."""

    uid: str = ""
    namespace: str = ""
    name: str = ""
    generate_name: str = ""
    owner: str = ""
    verdict: Verdict
    reason: str
    warnings: int = 0
    is_dry_run: bool = False

    def as_document(self) -> dict[str, object]:
        """Give the members of the audit line, in their order."""
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "name": self.name,
            "generate_name": self.generate_name,
            "owner": self.owner,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "warnings": self.warnings,
            "dry_run": self.is_dry_run,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer on the wire, and its audit record."""

    status: int = OK
    body: bytes
    audit: Audit


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A review that was read: `pod` is its object, and None where it is about something else."""

    uid: str
    namespace: str
    name: str
    operation: str
    subject: str
    pod: Mapping[str, object] | None
    is_dry_run: bool


def review(data: bytes, world: World) -> Answered:
    """Answer a review. Raises nothing that has to do with what was sent; whoever calls catches faults of our own."""
    try:
        asked = read_review(data)
    except ReviewError as fault:
        return failed(str(fault), uid=fault.uid)
    return answer(asked, world)


def read_review(data: bytes) -> Asked:
    """Read a review strictly. Raises ReviewError, with the field and the mend.

    >>> read_review(b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"}')
    Traceback (most recent call last):
    injector.review.ReviewError: apiVersion is "admission.k8s.io/v1beta1": only admission.k8s.io/v1 is served; name it \
in admissionReviewVersions
    """
    if len(data) > MAX_BODY:
        raise ReviewError(f"a review has at most {MAX_BODY} bytes")
    try:
        whole = parse_json(data)
        _check(whole)
    except ValueError as fault:
        raise ReviewError(f"what was sent is no JSON that can be taken: {fault}") from None
    top = mapping(whole)
    request = top.get("request")
    uid = mapping(request).get("uid")
    known = _word(uid)
    if top.get("kind") != KIND:
        raise ReviewError(f"kind is {_shown(top.get('kind'))}: this is for an {KIND}", known)
    if top.get("apiVersion") != VERSION:
        version = _shown(top.get("apiVersion"))
        mend = f"only {VERSION} is served; name it in admissionReviewVersions"
        raise ReviewError(f"apiVersion is {version}: {mend}", known)
    if not isinstance(request, Mapping):
        raise ReviewError("request is no object: an API server sends one to a webhook")
    if not isinstance(uid, str) or not uid or known != uid:
        raise ReviewError("request.uid is no text that an API server makes: the answer needs it", known)
    return _asked(request, uid)


def _asked(request: Mapping[str, object], uid: str) -> Asked:
    resource, kind = mapping(request.get("resource")), mapping(request.get("kind"))
    operation, subresource = request.get("operation"), request.get("subResource")
    if not isinstance(operation, str):
        raise ReviewError("request.operation is no text", uid)
    is_pod = (
        (resource.get("group", ""), resource.get("version"), resource.get("resource")) == ("", "v1", "pods")
        and (kind.get("group", ""), kind.get("version"), kind.get("kind")) == ("", "v1", "Pod")
        and not subresource
    )
    subject = "/".join(_word(part) for part in (kind.get("kind"), subresource) if part)
    namespace = request.get("namespace", "")
    pod = request.get("object")
    if is_pod and operation == "CREATE":
        if not isinstance(namespace, str) or not namespace:
            raise ReviewError("request.namespace is no name: every pod is in a namespace", uid)
        if not isinstance(pod, Mapping) or not isinstance(pod.get("spec"), Mapping):
            raise ReviewError("request.object is no pod: it has no spec", uid)
        if not isinstance(pod.get("metadata"), Mapping):
            raise ReviewError("request.object.metadata is no object", uid)
    return Asked(
        uid=uid,
        namespace=_word(namespace),
        name=_word(request.get("name")),
        operation=_word(operation),
        subject=subject or "an object without kind",
        pod=pod if is_pod and isinstance(pod, Mapping) else None,
        is_dry_run=request.get("dryRun") is True,
    )


def answer(asked: Asked, world: World) -> Answered:
    """Answer a review that was read."""
    audit = _audit(asked)
    if asked.pod is None:
        told = [f"not looked at: {asked.subject} is no pod; the webhook's rules should name pods alone"]
        return _allowed(asked.uid, None, told, replace(audit, verdict=Verdict.UNCHANGED, reason=Reason.NO_POD.value))
    if asked.operation != "CREATE":
        told = [f"not looked at: {asked.operation}; a sidecar comes with CREATE, the rules should name that alone"]
        return _allowed(asked.uid, None, told, replace(audit, verdict=Verdict.UNCHANGED, reason=Reason.NO_CREATE.value))
    metadata, spec = mapping(asked.pod.get("metadata")), mapping(asked.pod.get("spec"))
    kind = mapping(_controller(metadata)).get("kind")
    seen = _seen_from(world, asked.namespace)
    try:
        large = tuple(too_large(metadata, spec))
        if large and not _is_skipped(metadata, spec, asked.namespace, seen):
            raise Refused(large)
        outcome = admit(
            metadata,
            spec,
            seen,
            namespace=asked.namespace,
            owner_kind=kind if isinstance(kind, str) else "Pod",
        )
    except Refused as refused:
        audit = replace(audit, verdict=Verdict.REFUSED, reason=Reason.BAD_POD.value)
        return _denied(asked.uid, UNPROCESSABLE, "Invalid", "; ".join(refused.messages), audit)
    return _settled(asked, asked.pod, outcome, audit)


def failed(message: str, *, uid: str = "", status: int = BAD_REQUEST) -> Answered:
    """Answer what is no review that can be judged: no, and why."""
    audit = Audit(uid=uid, verdict=Verdict.ERROR, reason=Reason.BAD_REVIEW.value)
    return replace(_denied(uid, status, "BadRequest", message, audit), status=status)


def broken(data: bytes) -> Answered:
    """Answer a review in which we failed ourselves: no, without a word of how it went wrong inside."""
    try:
        uid = _word(mapping(mapping(parse_json(data)).get("request")).get("uid"))
    except ValueError:
        uid = ""
    audit = Audit(uid=uid, verdict=Verdict.ERROR, reason=Reason.INTERNAL.value)
    message = "the injector failed on this pod; its log says why, and the uid of this review finds the place"
    return _denied(uid, INTERNAL, "InternalError", message, audit)


def _settled(asked: Asked, pod: Mapping[str, object], outcome: Outcome, audit: Audit) -> Answered:
    decision = outcome.decision
    patch: list[dict[str, object]] | None = None
    if outcome.spec is not None:
        patch = difference(pod, {**pod, "metadata": outcome.metadata, "spec": outcome.spec})
        verdict, told = Verdict.INJECTED, []
    elif decision.why is Why.ALREADY_INJECTED:
        verdict, told = Verdict.UNCHANGED, [f"unchanged: {decision.sentence}"]
    else:
        verdict, told = Verdict.SKIPPED, [f"not injected: {decision.sentence}"]
    audit = replace(audit, verdict=verdict, reason=decision.why.value)
    return _allowed(asked.uid, patch, [*told, *outcome.warnings], audit)


def _seen_from(world: World, namespace: str) -> World:
    # A review has no labels of the namespace. But the API server shows a pod only when its namespace asks or the pod's
    # own label does (`install.webhook`), and the pod's label wins anyway.
    return replace(world, unasked=True, namespaces={namespace: {names.INJECT: "enabled"}})


def _is_skipped(metadata: Mapping[str, object], spec: Mapping[str, object], namespace: str, world: World) -> bool:
    try:
        decision = decide_in(world, metadata, spec, namespace=namespace)
    except AnnotationError:
        return False
    return not decision.injects and decision.why is not Why.ALREADY_INJECTED


def _audit(asked: Asked) -> Audit:
    metadata = mapping(mapping(asked.pod).get("metadata"))
    owner = mapping(_controller(metadata))
    return Audit(
        uid=asked.uid,
        namespace=asked.namespace,
        name=_word(metadata.get("name")) or asked.name,
        generate_name=_word(metadata.get("generateName")),
        owner=f"{_word(owner.get('kind'))}/{_word(owner.get('name'))}" if owner else "",
        verdict=Verdict.ERROR,
        reason=Reason.INTERNAL.value,
        is_dry_run=asked.is_dry_run,
    )


def _controller(metadata: Mapping[str, object]) -> Mapping[str, object] | None:
    owners = mappings(metadata.get("ownerReferences"))
    return next((owner for owner in owners if owner.get("controller") is True), None)


def _allowed(uid: str, patch: Sequence[Mapping[str, object]] | None, told: Sequence[str], audit: Audit) -> Answered:
    response: Document = {"uid": uid, "allowed": True}
    if patch:
        response["patchType"] = "JSONPatch"
        text = json.dumps(patch, separators=(",", ":"), allow_nan=False)
        response["patch"] = base64.b64encode(text.encode("ascii")).decode("ascii")
    if told:
        response["warnings"] = shortened(told)
    return Answered(body=_written(response), audit=replace(audit, warnings=len(told)))


def _denied(uid: str, code: int, reason: str, message: str, audit: Audit) -> Answered:
    status: Document = {"status": "Failure", "message": _cut(message, MAX_MESSAGE), "reason": reason, "code": code}
    return Answered(body=_written({"uid": uid, "allowed": False, "status": status}), audit=audit)


def _written(response: Document) -> bytes:
    whole = {"apiVersion": VERSION, "kind": KIND, "response": response}
    return json.dumps(whole, separators=(",", ":"), allow_nan=False).encode("ascii")


def shortened(warnings: Iterable[str]) -> list[str]:
    """Cut warnings to what API servers pass on; what has no room any more is counted in the last.

    >>> [len(each) for each in shortened(["x" * 300] * 100)][-2:], shortened(["x" * 300] * 100)[-1]
    ([256, 83], '85 more warnings have no room here: `remora inject` on the manifest shows every one')
    """
    cut = [_cut(" ".join(each.split()), MAX_WARNING) for each in warnings]
    if sum(map(len, cut)) <= MAX_WARNINGS:
        return cut
    kept: list[str] = []
    room = MAX_WARNINGS - MAX_WARNING
    for each in cut:
        if len(each) > room:
            break
        room -= len(each)
        kept.append(each)
    return [
        *kept,
        f"{len(cut) - len(kept)} more warnings have no room here: `remora inject` on the manifest shows every one",
    ]


def _cut(text: str, most: int) -> str:
    # What cannot be sent as UTF-8 an API server would not take.
    clean = "".join(each if each.isprintable() else "?" for each in text)
    return clean if len(clean) <= most else clean[: most - 3] + "..."


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else shown(repr(value))


def _word(value: object) -> str:
    return value[:_MAX_WORD] if isinstance(value, str) else ""


def _check(value: object) -> None:
    """Refuse what other readers may take differently. Raises ValueError."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, float) and not math.isfinite(each):
                raise ValueError("a number is too large")
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
