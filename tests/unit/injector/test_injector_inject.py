"""One pod and its sidecar: what clashes or has no shape is refused, all at once."""

from __future__ import annotations

from typing import Any

import pytest

from injector import names
from injector.inject import InjectError, inject_pod, uninject_pod
from injector.record import ABSENT
from injector.settings import Capture, Settings


def faults(spec: dict[str, Any], metadata: Any = ABSENT, **settings: Any) -> tuple[str, ...]:
    with pytest.raises(InjectError) as caught:
        inject_pod(metadata, spec, settings=Settings(**settings), trust_bundle="PEM")
    return caught.value.messages


@pytest.mark.parametrize("kind", ["containers", "initContainers", "volumes"])
@pytest.mark.parametrize("value", ["x", {}, 5, True])
def test_a_list_that_is_none_is_refused(kind: str, value: object) -> None:
    assert f"spec.{kind} is no list: write its items with a dash" in faults({kind: value})


@pytest.mark.parametrize("container", [{}, {"name": None}, {"name": ""}, {"name": 5}, None, "app", []])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_container_without_a_name_is_refused(kind: str, container: object) -> None:
    assert faults({kind: [{"name": "a"}, container]}) == (f"spec.{kind}[1] has no name: give it one",)


def test_two_containers_of_one_name_are_refused() -> None:
    spec = {"initContainers": [{"name": "a"}], "containers": [{"name": "a"}]}
    assert faults(spec) == ("two containers have the name a: rename one",)


def test_metadata_of_another_shape_is_refused() -> None:
    assert faults({}, "x") == ("metadata is no mapping: write keys and values",)
    assert faults({}, {"annotations": "x"}) == ("metadata.annotations is no mapping: write keys and values",)


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize("name", [names.PROXY, names.CAPTURE])
def test_a_name_of_ours_is_refused(kind: str, name: str) -> None:
    assert faults({kind: [{"name": name}]}) == (f"a container has the name {name}, which the sidecar's has: rename it",)


def test_every_reason_is_said_at_once() -> None:
    spec = {
        "containers": [
            {"name": "a", "ports": [{"containerPort": 15001}], "livenessProbe": {"httpGet": {"port": 0}}},
        ],
        "volumes": [{"name": names.VOLUME_POD}],
    }
    assert len(faults(spec, {"annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "x"}})) == 4


def test_a_loopback_listener_on_a_port_of_the_pod_is_refused() -> None:
    spec = {"containers": [{"name": "a", "ports": [{"containerPort": 9001}]}]}
    [fault] = faults(spec, capture=Capture.PORTS, outbound_listeners={"orders.shop": 9001})
    assert "which the pod uses already" in fault


def test_a_pod_without_a_record_has_nothing_to_take_out() -> None:
    assert uninject_pod({"annotations": None}, {}) is None


def test_an_application_that_is_scraped_is_scraped_by_us() -> None:
    metadata = {"annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9100"}}
    made = inject_pod(metadata, {"containers": [{"name": "a"}]}, settings=Settings(), trust_bundle="PEM")
    annotations: Any = made.metadata["annotations"]
    assert annotations["prometheus.io/port"] == "15020"
    assert "port: 9100" in annotations[names.CONFIG]


def test_without_a_bundle_and_with_a_short_grace_there_are_warnings() -> None:
    spec = {"containers": [{"name": "a"}], "terminationGracePeriodSeconds": 5}
    said = " ".join(inject_pod({}, spec, settings=Settings(), owner_kind="Job").warnings)
    assert "give --trust-bundle" in said
    assert "terminationGracePeriodSeconds 5 is less" in said
