"""Meshes of any shape: what is written is true of the pods behind it, a sidecar takes it, nothing is passed over."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from injector.mesh import Door, Mesh, Origin
from injector.mesh_read import Sourced, read_mesh
from injector.services import ServicesResult, generate
from proxy.errors import ConfigError
from tests.services_reader import faults_of

PLACES = ("a", "b")
OFTEN_A = st.sampled_from(("a", "a", "a", "b"))
"""Services select pods of their own namespace: in too many of them nobody meets anybody."""
APPS = ("x", "y")
NUMBERS = (80, 80, 8080, 15020, 15443)
PORT_NAMES = ("", "http", "sql")

some_ports = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from(NUMBERS)},
        optional={"name": st.sampled_from(PORT_NAMES[1:]), "protocol": st.sampled_from(("TCP", "UDP"))},
    ),
    max_size=2,
)
own_words = st.fixed_dictionaries(
    {"remora.io/capture": st.sampled_from(("ports", "ports", "redirect"))},
    optional={
        "remora.io/exclude-inbound-ports": st.just("8080"),
        "remora.io/opaque-ports": st.just("80"),
        "remora.io/inbound-ports": st.just("81=http"),
    },
)
labels = st.fixed_dictionaries(
    {"app": st.sampled_from(APPS)}, optional={"remora.io/inject": st.sampled_from(("true", "true", "false"))}
)
service_ports = st.lists(
    st.fixed_dictionaries(
        {"port": st.sampled_from((80, 81, 9000))},
        optional={
            "targetPort": st.sampled_from((*NUMBERS, "http", "sql", "none")),
            "name": st.sampled_from(("http", "grpc", "x")),
            "protocol": st.sampled_from(("TCP", "UDP")),
        },
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda port: (port["port"], port.get("protocol", "TCP")),
)


@st.composite
def meshes(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for place in PLACES:
        if draw(st.booleans()):
            asks = draw(st.sampled_from(({}, {"remora.io/inject": "enabled"}, {"remora.io/inject": "disabled"})))
            found.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place, "labels": asks}})
    for i in range(draw(st.integers(1, 4))):
        own = {
            "name": f"p{i}",
            "namespace": draw(OFTEN_A),
            "labels": draw(labels),
            "annotations": draw(own_words),
        }
        spec = {
            "serviceAccountName": draw(st.sampled_from(("one", "two"))),
            "hostNetwork": draw(st.sampled_from((False, False, False, True))),
            "containers": [{"name": "app", "ports": draw(some_ports)}],
        }
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": own, "spec": spec})
    for i in range(draw(st.integers(1, 5))):
        spec = {
            "clusterIP": draw(st.sampled_from(("None", "", f"10.0.0.{i}", f"fd00::{i}"))),
            "selector": draw(
                st.sampled_from(({"app": "x"}, {"app": "x"}, {"app": "y"}, {"app": "y"}, {}, {"app": "nobody"}))
            ),
            "ports": draw(service_ports),
        }
        own = {"name": f"s{i}", "namespace": draw(OFTEN_A)}
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": own, "spec": spec})
    return found


def read(documents: list[dict[str, Any]]) -> Mesh:
    return read_mesh([Sourced(document, Origin("mesh.yaml", i)) for i, document in enumerate(documents, 1)])


def text_of(result: ServicesResult) -> str:
    [document] = result.documents
    return str(document["data"]["services.yaml"])  # type: ignore[index]


def entries(result: ServicesResult) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load(text_of(result))["services"]
    return loaded


@given(meshes())
def test_a_sidecar_takes_whatever_is_written(documents: list[dict[str, Any]]) -> None:
    assert faults_of(text_of(generate(read(documents), into=["a"]))) == []


@given(meshes())
def test_what_is_written_is_true_of_the_pods_behind_it(documents: list[dict[str, Any]]) -> None:
    mesh = read(documents)
    by_name = {f"{each.name}.{each.namespace}": each for each in mesh.services}
    for entry in entries(generate(mesh, into=["a"])):
        *number, name, place = entry["name"].split(".")
        service = by_name[f"{name}.{place}"]
        tcp = [port for port in service.ports if port.protocol == "TCP"]
        candidates = [port for port in tcp if port.number == int(number[0])] if number else tcp
        doors = [
            (workload.door(target), str(workload.identity))
            for workload in mesh.selected(service)
            for port in candidates
            if (target := workload.maybe_number(port.target)) is not None
        ]
        if entry["tls"] == "none":
            assert any(door is Door.APPLICATION for door, _ in doors)
            assert not number or not any(door is Door.SIDECAR for door, _ in doors), "never plaintext to a sidecar"
        else:
            assert set(entry["identities"]) <= {identity for door, identity in doors if door is Door.SIDECAR}
            assert entry["identities"]


@given(meshes())
def test_every_port_of_every_service_is_written_or_named(documents: list[dict[str, Any]]) -> None:
    mesh = read(documents)
    result = generate(mesh, into=["a"])
    said = {(note.subject, note.text) for note in result.notes}
    written = [entry["name"] for entry in entries(result)]
    for service in mesh.services:
        texts = [text for subject, text in said if subject == service.subject]
        if any(text.startswith("left out") for text in texts):
            continue
        own = [name for name in written if name.endswith(f"{service.name}.{service.namespace}")]
        named = [text for text in texts if text.startswith("port ") and "left out" in text]
        ways_in = sum(1 for port in service.ports if _leads_to_a_sidecar(documents, port.target))
        assert len(own) + len(named) >= len(service.ports) - ways_in


@given(meshes(), st.randoms(use_true_random=False))
def test_the_order_of_the_documents_makes_no_difference(documents: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(documents)
    random.shuffle(shuffled)
    assert generate(read(documents)).documents == generate(read(shuffled)).documents


def _leads_to_a_sidecar(documents: list[dict[str, Any]], target: int | str) -> bool:
    """Say whether a port may be a way into sidecars that listen themselves: such a port is no service."""
    return target == 15443 or any(
        port.get("containerPort") == 15443 and port.get("name") == target
        for document in documents
        for container in document.get("spec", {}).get("containers", ())
        for port in container["ports"]
    )


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70_000),
    st.sampled_from(("", "None", "*", "\n", "a/b", "10.0.0.1", "http", 1.5, [], {}, [{}], [None], {"name": None})),
)


@given(meshes(), st.data())
def test_whatever_stands_in_a_manifest_is_read_or_refused(documents: list[dict[str, Any]], data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        spots = list(_places(documents))
        holder, key = spots[data.draw(st.integers(0, len(spots) - 1))]
        holder[key] = copy.deepcopy(data.draw(junk))  # the strategy gives the very same list each time
    objects = [each for each in documents if isinstance(each, dict)]
    places: set[int] = set()
    try:
        assert faults_of(text_of(generate(read(objects), into=["a"]))) == []
    except ConfigError as error:
        places = {fault.line for fault in error.faults}
    assert places <= set(range(1, len(documents) + 1))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Give every place in a value: its holder and its key there."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)
