"""Where a manifest has its pod, and how another is put in its place."""

from __future__ import annotations

from typing import Any

import pytest

from injector.manifests import PLACES, replaced, shown_name, template
from injector.record import ABSENT

KINDS = [
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("v1", "PodTemplate"),
    ("v1", "ReplicationController"),
]


def manifest(api_version: str, kind: str, pod: dict[str, Any]) -> dict[str, Any]:
    """Give an object of a kind with a pod in the place that Kubernetes documents for it."""
    whole: dict[str, Any] = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}}
    match kind:
        case "Pod":
            return {**whole, **pod, "metadata": {**whole["metadata"], **(pod.get("metadata") or {})}}
        case "CronJob":
            return {**whole, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod}}}}
        case "PodTemplate":
            return {**whole, "template": pod}
        case _:
            return {**whole, "spec": {"replicas": 2, "template": pod}}


def test_every_kind_that_makes_pods_is_known() -> None:
    assert sorted(PLACES) == KINDS


@pytest.mark.parametrize(("api_version", "kind"), KINDS)
def test_the_pod_is_found_and_replaced_and_nothing_else_is_touched(api_version: str, kind: str) -> None:
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "app"}]}}
    before = manifest(api_version, kind, pod)
    found = template(before)
    assert found is not None
    assert (found.kind, found.name, found.namespace, found.spec) == (kind, "web", "shop", pod["spec"])
    other = {"containers": []}
    made = replaced(before, found.path, found.metadata, other)
    assert made == manifest(api_version, kind, {**pod, "spec": other})
    assert list(made) == list(before)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("example.org/v1", "Deployment"), ("apps/v1beta1", "Deployment"), ("v1", "Deployment"), ("v1", "Service")],
)
def test_what_another_group_calls_so_is_its_own_affair(api_version: str, kind: str) -> None:
    assert template(manifest(api_version, kind, {"spec": {"containers": []}})) is None


@pytest.mark.parametrize("value", [None, [], "x", 5, {}, {"kind": "Pod"}])
def test_what_is_no_object_has_no_pod(value: object) -> None:
    assert template(value) is None


@pytest.mark.parametrize("broken", [None, "x", [], {"template": None}, {"template": {"spec": []}}])
def test_a_workload_whose_template_has_no_shape_has_no_pod(broken: object) -> None:
    assert template({"apiVersion": "apps/v1", "kind": "Deployment", "spec": broken}) is None


def test_a_pod_without_a_name_and_a_namespace_has_empty_ones() -> None:
    found = template({"apiVersion": "v1", "kind": "Pod", "spec": {}})
    assert found is not None
    assert (found.name, found.namespace) == ("", "")


def test_a_name_that_is_to_be_generated_is_a_name() -> None:
    found = template({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"}, "spec": {}})
    assert found is not None
    assert found.name == "web-"


@pytest.mark.parametrize("metadata", [{"labels": {}}, None, ABSENT])
def test_the_metadata_of_a_template_comes_and_goes_as_it_was(metadata: object) -> None:
    without = {"spec": {"containers": []}}
    pod = without if metadata == ABSENT else {"metadata": metadata, **without}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": pod}}
    found = template(document)
    assert found is not None
    assert found.metadata == metadata
    put_in = replaced(document, found.path, {"annotations": {"a": "b"}}, {})
    made: Any = put_in
    assert list(made["spec"]["template"].items()) == [("metadata", {"annotations": {"a": "b"}}), ("spec", {})]
    assert replaced(put_in, found.path, metadata, {"containers": []}) == document


@pytest.mark.parametrize(
    ("document", "namespace", "name"),
    [
        ({"kind": "Pod", "metadata": {"name": "a", "namespace": "n"}}, "other", "pod n/a"),
        ({"kind": "Pod", "metadata": {"generateName": "a-"}}, "other", "pod other/a-"),
        ({"kind": "CronJob"}, "", "cronjob (no name)"),
        ({}, "n", "document n/(no name)"),
        ({}, "", "document (no name)"),
    ],
)
def test_an_object_is_named_for_people(document: dict[str, Any], namespace: str, name: str) -> None:
    assert shown_name(document, namespace) == name
