"""Pods of any shape through the injector: taken out again they are what they were, and put in twice is put in once."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from injector import names
from injector.documents import split
from injector.doors import World, inject_manifest, uninject_manifest
from injector.inject import InjectError, inject_pod, uninject_pod
from injector.manifests import PLACES
from injector.record import ABSENT
from injector.settings import Capture, Settings
from injector.yaml_text import dump
from proxy.errors import ConfigError, Fault

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
WORDS = st.sampled_from(
    ("1e3", "on", "y", "~", "0o17", "017", "1:30", "2020-01-01", "=", "<<", "a: b", " a", "x\n", "-")
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | WORDS, inner, max_size=4),
    max_leaves=25,
)
PORT = st.sampled_from((80, 8080, "http"))
ACTIONS = st.one_of(
    st.fixed_dictionaries({"httpGet": st.fixed_dictionaries({"port": PORT}, optional={"path": st.just("/z")})}),
    st.fixed_dictionaries({"tcpSocket": st.fixed_dictionaries({"port": PORT}, optional={"host": st.just("db")})}),
    st.just({"grpc": {"port": 8080, "service": "s"}}),
    st.just({"exec": {"command": ["true"]}}),
)
PROBES = st.none() | st.tuples(ACTIONS, st.sampled_from(({}, {"timeoutSeconds": 3}))).map(
    lambda both: both[1] | both[0]
)
HOOKS = st.none() | st.dictionaries(st.sampled_from(("postStart", "preStop")), ACTIONS, max_size=2)


def containers(prefix: str) -> st.SearchStrategy[list[Any]]:
    one = st.fixed_dictionaries(
        {"image": st.just("app:1")},
        optional={
            "livenessProbe": PROBES,
            "lifecycle": HOOKS,
            "readinessProbe": PROBES,
            "startupProbe": PROBES,
            "restartPolicy": st.just("Always") if prefix == "first" else st.nothing(),
            "securityContext": st.sampled_from((None, {}, {"runAsUser": 1337})),
        },
    )
    return st.lists(one, max_size=3).map(
        lambda found: [
            {"name": f"{prefix}-{place}", "ports": [{"name": "http", "containerPort": 8080 + place}], **each}
            for place, each in enumerate(found)
        ]
    )


ANNOTATIONS = st.none() | st.dictionaries(
    st.sampled_from(("a", "prometheus.io/scrape", "prometheus.io/port", "kubectl.kubernetes.io/default-container")),
    st.sampled_from(("true", "8080")),
)
METADATA = st.sampled_from((None, ABSENT)) | st.fixed_dictionaries(
    {},
    optional={"name": st.just("web"), "annotations": ANNOTATIONS, "labels": st.sampled_from((None, {}, {"app": "w"}))},
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "volumes": st.none() | st.lists(st.sampled_from(({"name": "a", "emptyDir": {}}, {"name": "b"})), max_size=2),
        "containers": st.none() | containers("app"),
        "restartPolicy": st.just("Always"),
        "initContainers": st.none() | containers("first"),
        "serviceAccountName": st.just("web"),
    },
)
SETTINGS = st.builds(
    Settings,
    capture=st.sampled_from(Capture),
    native_sidecar=st.booleans(),
    rewrite_probes=st.booleans(),
    merge_metrics=st.booleans(),
    hold_application=st.booleans(),
)


def text(value: object) -> str:
    """Write a value so that order, type and absence show."""
    return json.dumps(value)


def injected(metadata: Any, spec: Any, settings: Settings, bundle: str | None = "PEM") -> Any:
    try:
        return inject_pod(metadata, spec, settings=settings, trust_bundle=bundle)
    except InjectError:
        return None  # prometheus.io/port: "true", which is refused


@given(METADATA, SPECS, SETTINGS, st.sampled_from(("PEM", None)))
def test_taken_out_again_it_is_the_pod_that_it_was(metadata: Any, spec: Any, settings: Settings, bundle: Any) -> None:
    made = injected(metadata, spec, settings, bundle)
    if made is not None:
        back = uninject_pod(made.metadata, made.spec)
        assert back is not None
        assert text(back) == text([metadata, spec])


@given(METADATA, SPECS, SETTINGS)
def test_nothing_that_was_given_is_changed(metadata: Any, spec: Any, settings: Settings) -> None:
    before = copy.deepcopy((metadata, spec))
    made = injected(metadata, spec, settings)
    assert text((metadata, spec)) == text(before)
    if made is not None:
        after = copy.deepcopy((made.metadata, made.spec))
        uninject_pod(made.metadata, made.spec)
        assert text((made.metadata, made.spec)) == text(after)


@given(METADATA, SPECS, SETTINGS)
def test_the_sidecar_is_there_once_and_starts_where_it_should(metadata: Any, spec: Any, settings: Settings) -> None:
    made = injected(metadata, spec, settings)
    if made is not None:
        first = [each["name"] for each in made.spec.get("initContainers") or []]
        beside = [each["name"] for each in made.spec["containers"]]
        assert (first + beside).count(names.PROXY) == 1
        capture = [names.CAPTURE] if settings.capture is Capture.REDIRECT else []
        ours = [*capture, names.PROXY] if settings.native_sidecar else capture
        assert first[: len(ours)] == ours
        assert (beside[:1] == [names.PROXY]) is not settings.native_sidecar


@given(st.sampled_from(sorted(PLACES)), METADATA, SPECS, SETTINGS)
def test_a_workload_of_every_kind_comes_back_and_is_injected_once(
    kind: tuple[str, str], metadata: Any, spec: Any, settings: Settings
) -> None:
    inner: Any = {"spec": spec} if metadata == ABSENT else {"metadata": metadata, "spec": spec}
    for key in reversed(PLACES[kind]):
        inner = {"before": 1, key: inner, "after": None}
    whole = {"apiVersion": kind[0], "kind": kind[1], **inner}
    world = World(defaults=settings, trust_bundle="PEM")
    manifest = dump(whole)
    once, report = inject_manifest(split(manifest.encode(), "m"), world)
    if report.is_refused:
        return
    assert report.changed == 1
    twice, report = inject_manifest(split(once.encode(), "m"), world)
    assert (twice, report.changed) == (once, 0)
    back, report = uninject_manifest(split(once.encode(), "m"))
    assert report.changed == 1
    assert text(split(back.encode(), "m")[0].value) == text(whole)


@given(JSON)
def test_what_is_written_as_yaml_is_read_as_the_same_value(value: Any) -> None:
    [part] = split(dump({"x": value}).encode(), "m")
    assert text(part.value) == text({"x": value})


@given(st.lists(st.dictionaries(TEXTS, JSON, min_size=1, max_size=3), min_size=1, max_size=3))
def test_several_documents_stay_apart(values: list[Any]) -> None:
    parts = split("---\n".join(dump(value) for value in values).encode(), "m")
    assert text([part.value for part in parts]) == text(values)


@given(st.binary(max_size=80) | st.text(alphabet="-:[]{}&*<! \n\t\"'#%|>a1.~?,@`", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_place(data: bytes) -> None:
    faults: tuple[Fault, ...] = ()
    try:
        split(data, "m")
    except ConfigError as error:
        faults = tuple(error.faults)
        event("refused")
    assert all(fault.file == "m" and fault.line >= 1 and fault.message for fault in faults)


@given(JSON, JSON)
def test_a_pod_of_any_shape_is_injected_or_refused_with_sentences(metadata: Any, inner: Any) -> None:
    for spec in (
        inner,
        {"containers": inner},
        {"containers": [inner]},
        {"containers": [{"name": "a", "ports": inner}]},
    ):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        _, report = inject_manifest(split(json.dumps(whole).encode(), "m"), World())
        assert all(line.text for line in report.lines)


@given(JSON)
def test_a_forged_record_is_taken_out_or_refused_with_a_sentence(value: Any) -> None:
    forms = (value, json.dumps(value), json.dumps({"version": 1, "before": value, "containers": value}))
    for record in forms:
        whole = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"annotations": {names.STATUS: record}},
            "spec": {"a": 1},
        }
        _, report = uninject_manifest(split(json.dumps(whole).encode(), "m"))
        assert report.lines


@pytest.mark.parametrize("field", ["annotations", "actions", "lists"])
@given(JSON)
def test_a_forged_part_of_a_record_too(field: str, value: Any) -> None:
    before = {"annotations": {}, "actions": {}, "lists": {}, "metadata": value, field: value}
    record = {"version": 1, "containers": [], "volumes": [], "annotations": [], "covers": [], "before": before}
    whole = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"annotations": {names.STATUS: json.dumps(record)}},
        "spec": {"containers": [{"name": "a"}]},
    }
    _, report = uninject_manifest(split(json.dumps(whole).encode(), "m"))
    assert report.lines
