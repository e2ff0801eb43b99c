"""Whole manifests through the one door: what is reported, what stays byte for byte, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from injector import names
from injector.decision import Why
from injector.documents import split
from injector.doors import Refused, World, admit, inject_manifest, namespace_labels, objects, uninject_manifest
from injector.settings import Settings

WORLD = World(trust_bundle="PEM")
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app}]}\n"


def injected(text: str, world: World = WORLD, namespace: str = "default") -> tuple[str, list[str]]:
    made, report = inject_manifest(split(text.encode(), "m.yaml"), world, namespace=namespace)
    return made, [str(line) for line in report.lines]


def test_what_has_no_pod_keeps_every_byte_and_is_not_reported() -> None:
    text = "# mine\nkind:   Service\napiVersion: v1 # one\n---\n\n# nothing here\n---\n- a list\n"
    assert injected(text) == (text, [])


def test_each_pod_has_its_line() -> None:
    never = POD.replace("{name: web}", "{name: never, labels: {remora.io/inject: disabled}}")
    made, lines = injected(f"{POD}---\n{never}---\n{POD.replace('web', 'third')}")
    assert lines == [
        "pod default/web: injected: nothing says otherwise",
        "pod default/never: not injected: the pod's label remora.io/inject says no",
        "pod default/third: injected: nothing says otherwise",
    ]
    assert never in made
    again, lines = injected(made)
    assert again == made
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == ["unchanged", "not injected", "unchanged"]


def test_lists_of_every_kind_are_gone_through() -> None:
    nested = {"kind": "List", "items": [{"kind": "PodList", "items": [{"kind": "A"}]}, {"kind": "B"}, 5, None]}
    parts = split(repr(nested).replace("None", "null").encode(), "m.yaml")
    assert [each["kind"] for each in objects(parts)] == ["A", "B"]
    pod = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}}'
    made, lines = injected(f'{{"kind": "List", "items": [{{"kind": "B"}}, {pod}]}}')
    assert len(lines) == 1
    assert [each["kind"] for each in objects(split(made.encode(), "m.yaml"))] == ["B", "Pod"]
    assert uninject_manifest(split(made.encode(), "m.yaml"))[1].changed == 1


@pytest.mark.parametrize(
    "text", ["{kind: List}\n", "{kind: List, items: x}\n", "{kind: Other, items: [{kind: A}]}\n", "5\n"]
)
def test_what_is_no_list_is_not_gone_through(text: str) -> None:
    found = list(objects(split(text.encode(), "m.yaml")))
    assert found == ([] if text == "5\n" else [split(text.encode(), "m.yaml")[0].value])
    assert injected(text) == (text, [])


def test_another_groups_namespace_has_no_say() -> None:
    text = (
        "apiVersion: example.org/v1\nkind: Namespace\nmetadata: {name: default, labels: {remora.io/inject: disabled}}"
    )
    assert namespace_labels(split(text.encode(), "m.yaml")) == {}


def test_a_namespace_of_the_manifest_has_its_say() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {remora.io/inject: disabled}}\n---\n" + POD
    assert namespace_labels(split(text.encode(), "m.yaml")) == {"shop": {names.INJECT: "disabled"}}
    assert "namespace shop says no" in injected(text, namespace="shop")[1][0]
    assert "injected: nothing says otherwise" in injected(text)[1][0]
    known = World(trust_bundle="PEM", namespaces={"default": {names.INJECT: "disabled"}})
    assert "namespace default says no" in injected(POD, known)[1][0]


def test_every_fault_of_every_pod_is_reported_and_the_pod_stays() -> None:
    bad = POD.replace("{name: web}", "{name: web, annotations: {remora.io/workers: '0', remora.io/capture: x}}")
    _, report = inject_manifest(split(f"{bad}---\n{POD}".encode(), "m.yaml"), WORLD)
    assert report.is_refused
    assert [line.is_refusal for line in report.lines] == [True, True, False]
    assert report.changed == 1


def test_warnings_follow_their_pod() -> None:
    _, lines = injected(POD.replace("{name: web}", "{name: web, annotations: {remora.io/log-levle: x}}"))
    assert lines[1].startswith("pod default/web: warning: the annotation remora.io/log-levle is not known")


def test_defaults_are_of_the_world_and_the_own_namespace_is_left_alone() -> None:
    made, _ = injected(POD, World(trust_bundle="PEM", defaults=Settings(image="r/x:9")))
    assert "image: r/x:9" in made
    assert injected(POD, World(own_namespace="mine"), "mine")[0] == POD


def admitted(spec: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    first: Any = admit({}, spec, WORLD, namespace="shop")
    return first.metadata, first.spec


def test_a_container_that_came_later_is_covered_by_a_new_injection() -> None:
    probe = {"livenessProbe": {"httpGet": {"port": 8080}}}
    metadata, spec = admitted({"containers": [{"name": "app"}]})
    metadata["annotations"]["remora.io/log-level"] = "debug"
    same = admit(metadata, spec, WORLD, namespace="shop")
    assert (same.decision.why, same.spec) == (Why.ALREADY_INJECTED, None)
    grown = {**spec, "containers": [*spec["containers"], {"name": "late", **probe}]}
    outcome: Any = admit(metadata, grown, WORLD, namespace="shop")
    assert outcome.decision.injects
    late = next(each for each in outcome.spec["containers"] if each["name"] == "late")
    assert outcome.spec["initContainers"][1]["args"][-1] == "debug"
    assert late["livenessProbe"]["httpGet"] == {"path": "/app-health/late/livez", "port": 15020}
    assert [each["name"] for each in outcome.spec["initContainers"]] == [names.CAPTURE, names.PROXY]


def test_a_pod_with_a_record_that_is_none_is_refused_both_ways() -> None:
    metadata = {"annotations": {names.STATUS: "{"}}
    spec = {"containers": [{"name": names.PROXY}]}
    with pytest.raises(Refused):
        admit(metadata, spec, WORLD, namespace="shop")
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{annotations: {{{names.STATUS}: '{{'}}}}\nspec: {{containers: []}}\n"
    made, report = uninject_manifest(split(text.encode(), "m.yaml"))
    assert made == text
    assert report.is_refused


def test_a_pod_without_a_sidecar_has_none_taken_out() -> None:
    made, report = uninject_manifest(split(POD.encode(), "m.yaml"))
    assert (made, [str(line) for line in report.lines]) == (
        POD,
        ["pod default/web: unchanged: it has no sidecar of ours"],
    )
