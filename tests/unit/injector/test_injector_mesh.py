"""The mesh that manifests describe: who is in it, who has a sidecar, what a Service selects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from injector.documents import split
from injector.doors import World, inject_manifest, objects
from injector.mesh import Door, Mesh, Origin, Workload
from injector.mesh_read import Sourced, read_mesh
from injector.settings import Capture, Settings
from proxy.errors import ConfigError

ASKING: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "shop", "labels": {"remora.io/inject": "enabled"}},
}
SILENT: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}


def pod(
    name: str = "web",
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ports: tuple[dict[str, Any], ...] = ({"name": "http", "containerPort": 8080},),
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": dict(labels or {"app": name}),
            "annotations": dict(annotations or {}),
        },
        "spec": {"containers": [{"name": "app", "image": "app:1", "ports": list(ports)}], **spec},
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    whole = {"selector": {"app": name}, "ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": whole}


def mesh(*documents: dict[str, Any], **options: Any) -> Mesh:
    sources = [Sourced(document, Origin("shop.yaml", line)) for line, document in enumerate(documents, 1)]
    return read_mesh(sources, **options)


def only(*documents: dict[str, Any], **options: Any) -> Workload:
    [workload] = mesh(*documents, **options).workloads
    return workload


def faults(*documents: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        mesh(*documents)
    return [str(fault) for fault in caught.value.faults]


# --- who is in it ---


def test_every_kind_that_makes_pods_is_a_workload_with_the_labels_of_its_pods() -> None:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"serviceAccountName": "x", "containers": []}}
    kinds = {
        "apps/v1": ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"),
        "v1": ("ReplicationController",),
        "batch/v1": ("Job",),
    }
    documents = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": {"template": template}}
        for version, names in kinds.items()
        for kind in names
    ]
    found = mesh(*documents)
    assert {each.kind for each in found.workloads} == {kind for names in kinds.values() for kind in names}
    assert all(each.labels == {"app": "x"} and each.service_account == "x" for each in found.workloads)


def test_a_pod_without_a_namespace_is_in_the_one_that_is_given() -> None:
    document = pod()
    del document["metadata"]["namespace"]
    assert only(document).namespace == "default"
    assert only(document, namespace="lab").namespace == "lab"


def test_a_pod_that_names_no_account_has_the_account_default() -> None:
    assert str(only(ASKING, pod()).identity) == "spiffe://cluster.local/ns/shop/sa/default"
    assert only(pod(serviceAccountName="web")).service_account == "web"
    assert only(pod(serviceAccount="old-field")).service_account == "old-field"


def test_the_trust_domain_is_that_of_the_pod_and_else_of_the_defaults() -> None:
    defaults = Settings(trust_domain="mesh.example")
    assert str(only(pod(), defaults=defaults).identity).startswith("spiffe://mesh.example/")
    own = pod(annotations={"remora.io/trust-domain": "lab.example"})
    assert str(only(own, defaults=defaults).identity).startswith("spiffe://lab.example/")


def test_a_namespace_has_the_label_with_its_name_whether_it_is_described_or_only_named() -> None:
    assert mesh(pod()).namespaces["shop"].labels == {"kubernetes.io/metadata.name": "shop"}
    assert mesh(pod()).namespaces["shop"].origin is None
    described = mesh(pod(), ASKING).namespaces["shop"]
    assert described.labels == {"kubernetes.io/metadata.name": "shop", "remora.io/inject": "enabled"}
    assert described.origin == Origin("shop.yaml", 2)


def test_whoever_has_its_owner_among_the_manifests_is_spoken_for_by_it() -> None:
    owner = {"kind": "Job", "name": "report", "controller": True}
    owned = pod("report-x7")
    owned["metadata"]["ownerReferences"] = [owner]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "report", "namespace": "shop"},
        "spec": {"template": {"spec": {"containers": []}}},
    }
    assert [each.kind for each in mesh(owned, job).workloads] == ["Job"]
    assert [each.kind for each in mesh(owned).workloads] == ["Pod"], "its owner is not there to speak"
    adopted = pod("report-x7")
    adopted["metadata"]["ownerReferences"] = [{**owner, "controller": False}]
    assert len(mesh(adopted, job).workloads) == 2, "an owner that is no controller has no template for it"
    elsewhere = {**job, "metadata": {"name": "report", "namespace": "other"}}
    assert len(mesh(owned, elsewhere).workloads) == 2


def test_kinds_of_other_groups_say_nothing() -> None:
    foreign = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {}}
    assert mesh(foreign).services == ()


def test_the_mesh_does_not_hang_on_the_order_of_the_documents() -> None:
    documents = [ASKING, pod("b"), pod("a"), service("b"), service("a")]
    first, second = mesh(*documents), mesh(*reversed(documents))
    assert [each.name for each in first.workloads] == [each.name for each in second.workloads] == ["a", "b"]
    assert [each.name for each in first.services] == [each.name for each in second.services] == ["a", "b"]


# --- who has a sidecar ---


def test_the_label_of_the_namespace_decides_wherever_in_the_manifests_it_stands() -> None:
    assert only(pod(), ASKING).has_sidecar
    assert not only(pod(), SILENT).has_sidecar


def test_pods_that_nothing_asks_for_have_a_sidecar_when_the_command_injects_them() -> None:
    assert only(pod(), SILENT, unasked=True).has_sidecar


def test_where_the_namespace_is_not_described_pods_count_as_injected_and_a_note_says_so_once() -> None:
    found = mesh(pod("a"), pod("b"))
    assert all(each.has_sidecar for each in found.workloads)
    [note] = found.notes
    assert str(note).startswith("shop.yaml:1: pod shop/a: the Namespace shop is not among the manifests")


def test_a_pod_that_says_no_has_no_sidecar_and_needs_no_note() -> None:
    found = mesh(pod(labels={"remora.io/inject": "false"}))
    assert not found.workloads[0].has_sidecar
    assert found.notes == ()


def test_a_pod_that_was_injected_has_a_sidecar_whatever_its_namespace_says_now() -> None:
    plain = split(
        b"apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop, labels: {app: web}}\n"
        b"spec: {containers: [{name: app, image: x, ports: [{containerPort: 8080}]}]}\n",
        "shop.yaml",
    )
    text, _ = inject_manifest(plain, World(trust_bundle="x"))
    [injected] = objects(split(text.encode(), "shop.yaml"))
    workload = only(dict(injected), SILENT)
    assert workload.has_sidecar
    assert workload.protocols == {8080: "auto"}, "the sidecar's own ports are none of the pod's"


def test_namespaces_listed_are_those_in_which_a_pod_has_a_sidecar() -> None:
    other = pod("x")
    other["metadata"]["namespace"] = "kube-system"
    assert mesh(ASKING, pod(), other).sidecar_namespaces == ("shop",)


# --- what a caller meets ---


@pytest.mark.parametrize(
    ("annotations", "port", "door", "arrival"),
    [
        ({}, 8080, Door.SIDECAR, 8080),
        ({}, 7777, Door.SIDECAR, 7777),
        ({"exclude-inbound-ports": "8000-9000"}, 8080, Door.APPLICATION, 8080),
        ({"include-inbound-ports": "9090"}, 8080, Door.APPLICATION, 8080),
        ({"include-inbound-ports": "9090"}, 9090, Door.SIDECAR, 9090),
        ({}, 15020, Door.APPLICATION, 15020),
        ({"capture": "ports"}, 8080, Door.SIDECAR, 15443),
        ({"capture": "ports", "inbound-ports": "81=tcp"}, 8080, Door.SIDECAR, 15444),
        ({"capture": "ports"}, 7777, Door.CLOSED, 7777),
        ({"capture": "ports", "inbound-ports": "15020=tcp"}, 15020, Door.APPLICATION, 15020),
    ],
)
def test_what_a_caller_meets_at_a_port(annotations: dict[str, str], port: int, door: Door, arrival: int) -> None:
    workload = only(ASKING, pod(annotations={f"remora.io/{key}": value for key, value in annotations.items()}))
    assert (workload.door(port), workload.arrival(port)) == (door, arrival)


def test_a_pod_without_sidecar_is_met_itself_at_every_port() -> None:
    workload = only(SILENT, pod(annotations={"remora.io/capture": "ports"}))
    assert workload.settings.capture is Capture.PORTS
    assert (workload.door(8080), workload.arrival(8080)) == (Door.APPLICATION, 8080)


def test_a_port_is_found_by_its_name_and_protocol() -> None:
    workload = only(
        pod(ports=({"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "web", "containerPort": 80}))
    )
    assert workload.maybe_number("web") == 80
    assert workload.maybe_number("dns") is None
    assert workload.maybe_number("dns", "UDP") == 53
    assert workload.maybe_number(4711) == 4711


# --- Services ---


def test_a_service_selects_pods_of_its_namespace_that_have_all_its_labels() -> None:
    elsewhere = pod("web")
    elsewhere["metadata"]["namespace"] = "other"
    found = mesh(pod(labels={"app": "web", "tier": "front"}), pod("b"), elsewhere, service())
    assert [each.subject for each in found.selected(found.services[0])] == ["pod shop/web"]


def test_a_service_without_a_selector_selects_nothing() -> None:
    found = mesh(pod(), service(selector=None))
    assert found.selected(found.services[0]) == ()


def test_cluster_addresses_of_both_families_are_kept_in_their_order() -> None:
    [found] = mesh(service(clusterIP="fd00::1", clusterIPs=["fd00::1", "10.0.0.1"])).services
    assert found.cluster_ips == ("fd00::1", "10.0.0.1")
    [alone] = mesh(service(clusterIP="10.0.0.9")).services
    assert alone.cluster_ips == ("10.0.0.9",)


def test_a_headless_service_has_no_address() -> None:
    for spec in ({"clusterIP": "None"}, {"clusterIP": "None", "clusterIPs": ["None"]}):
        [found] = mesh(service(**spec)).services
        assert found.is_headless
        assert found.cluster_ips == ()


def test_a_target_port_is_the_port_where_none_is_written() -> None:
    ports = [{"port": 80}, {"port": 81, "targetPort": "web"}, {"port": 82, "targetPort": "8"}]
    [found] = mesh(service(ports=ports)).services
    assert [each.target for each in found.ports] == [80, "web", 8]


# --- what is refused ---


def test_an_object_that_stands_twice_is_named_with_both_places() -> None:
    expected = "shop.yaml:2:1: service shop/web stands twice (first at shop.yaml:1); keep one of the two"
    assert faults(service(), service()) == [expected]
    assert "pod shop/web stands twice" in faults(pod(), pod())[0]
    assert "namespace shop stands twice" in faults(ASKING, SILENT)[0]


def test_every_fault_is_said_at_once() -> None:
    found = faults(
        service(ports=[{"port": 0}]),
        service("b", clusterIP="10.0.0"),
        pod(annotations={"remora.io/capture": "magic"}),
        pod("c", serviceAccountName="a/b"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {}},
    )
    assert len(found) == 5
    assert 'shop.yaml:1:1: service shop/web: spec.ports[0].port is "0"; write a number from 1 to 65535' in found
    assert 'shop.yaml:2:1: service shop/b: spec.clusterIPs has "10.0.0"; write an IP address' in found
    assert any("remora.io/capture" in each and each.startswith("shop.yaml:3:1: pod shop/web: ") for each in found)


@pytest.mark.parametrize("name", ["Web", "web.a", "web/a", "-web", "w" * 64, "web\n"])
def test_a_service_whose_name_is_no_part_of_a_dns_name_is_refused(name: str) -> None:
    assert "is no label of a DNS name; write small letters" in faults(service(name))[0]
    assert "is no label of a DNS name" in faults({**ASKING, "metadata": {"name": name}})[0]


def test_an_account_that_is_not_among_those_that_are_given_is_noted() -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "shop"}}
    found = mesh(ASKING, account, pod("a", serviceAccountName="web"), pod("b", serviceAccountName="wbe"), pod("c"))
    assert [note.subject for note in found.notes] == ["pod shop/b"]
    assert "its ServiceAccount wbe is not among the manifests" in found.notes[0].text
    assert mesh(ASKING, pod("b", serviceAccountName="wbe")).notes == (), "none is given: they come from elsewhere"
