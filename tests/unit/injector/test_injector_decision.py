"""Whether a pod gets a sidecar: the first that holds decides, and every skip has its sentence."""

from __future__ import annotations

from typing import Any

import pytest

from injector import names
from injector.annotations import AnnotationError
from injector.decision import Why, decide
from injector.record import Record

RECORD = Record(containers=(names.PROXY,), volumes=()).text()
INJECT = names.INJECT


def why(
    metadata: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    *,
    namespace: str = "shop",
    labels: dict[str, Any] | None = None,
    unasked: bool = False,
) -> Why:
    found = decide(metadata or {}, spec or {}, namespace=namespace, namespace_labels=labels, unasked=unasked)
    assert found.sentence
    assert found.injects is (
        found.why in {Why.ASKED_BY_LABEL, Why.ASKED_BY_ANNOTATION, Why.ASKED_BY_NAMESPACE, Why.UNASKED}
    )
    return found.why


def test_label_beats_annotation_beats_namespace() -> None:
    yes, no = {INJECT: "enabled"}, {INJECT: "false"}
    assert why({"labels": yes, "annotations": no}, labels=no) is Why.ASKED_BY_LABEL
    assert why({"labels": no, "annotations": yes}, labels=yes) is Why.DISABLED_BY_LABEL
    assert why({"annotations": yes}, labels=no) is Why.ASKED_BY_ANNOTATION
    assert why({"annotations": no}, labels=yes) is Why.DISABLED_BY_ANNOTATION
    assert why(labels=yes) is Why.ASKED_BY_NAMESPACE
    assert why(labels=no, unasked=True) is Why.DISABLED_BY_NAMESPACE


def test_where_nobody_asks_the_caller_decides() -> None:
    assert why(unasked=True) is Why.UNASKED
    assert why(unasked=False) is Why.NOT_ASKED


def test_a_label_and_an_annotation_that_differ_are_a_warning() -> None:
    metadata = {"labels": {INJECT: "true"}, "annotations": {INJECT: "false"}}
    [warning] = decide(metadata, {}, namespace="shop", unasked=True).warnings
    assert "the label holds" in warning


@pytest.mark.parametrize("labels", [None, "x", [], 5])
def test_labels_of_another_shape_say_nothing(labels: object) -> None:
    assert why({"labels": labels, "annotations": labels}) is Why.NOT_ASKED


@pytest.mark.parametrize("value", ["yes", "", "True", True, None, 1, [], {}])
@pytest.mark.parametrize("place", ["labels", "annotations"])
def test_a_value_that_is_neither_yes_nor_no_is_refused(place: str, value: object) -> None:
    with pytest.raises(AnnotationError, match="write one of true, enabled, false, disabled"):
        why({place: {INJECT: value}})


@pytest.mark.parametrize("namespace", [*names.NEVER, names.NAMESPACE])
def test_what_must_not_have_a_sidecar_gets_none_whatever_it_asks(namespace: str) -> None:
    asked = {"labels": {INJECT: "enabled"}}
    assert why(asked, namespace=namespace) in {Why.SYSTEM_NAMESPACE, Why.OWN_NAMESPACE}
    assert why(asked, {"hostNetwork": True}) is Why.HOST_NETWORK
    assert why(asked, {"hostNetwork": False}) is Why.ASKED_BY_LABEL


OS = "kubernetes.io/os"


def affinity(*values: list[str]) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": OS, "operator": "In", "values": each}]} for each in values]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {"affinity": {"nodeAffinity": required}}


@pytest.mark.parametrize(
    "spec",
    [
        {"os": {"name": "windows"}},
        {"nodeSelector": {OS: "windows"}},
        {"nodeSelector": {"beta.kubernetes.io/os": "windows"}},
        {"securityContext": {"windowsOptions": {}}},
        {"containers": [{"name": "a", "securityContext": {"windowsOptions": {}}}]},
        affinity(["windows"], ["windows"]),
    ],
)
def test_a_windows_pod_gets_none(spec: dict[str, Any]) -> None:
    assert why({"labels": {INJECT: "true"}}, spec) is Why.WINDOWS


@pytest.mark.parametrize(
    "spec", [affinity(["windows"], ["linux"]), affinity(["linux", "windows"]), affinity(), {"os": "x"}]
)
def test_a_pod_that_may_run_on_linux_is_none_of_windows(spec: dict[str, Any]) -> None:
    assert why({}, spec, unasked=True) is Why.UNASKED


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_only_a_record_with_its_container_is_an_injection(kind: str) -> None:
    spec = {kind: [{"name": names.PROXY}]}
    assert why({"annotations": {names.STATUS: RECORD}}, spec) is Why.ALREADY_INJECTED
    assert why({}, spec, unasked=True) is Why.FOREIGN_SIDECAR
    assert why({"annotations": {names.STATUS: RECORD}}, {}, unasked=True) is Why.UNASKED


def test_a_forged_record_is_refused() -> None:
    with pytest.raises(AnnotationError, match="holds no record"):
        why({"annotations": {names.STATUS: "injected"}})
