"""Services of a mesh -> what sidecars may call, where it is, how it is read, who must answer, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from injector import services
from injector.mesh import Origin
from injector.mesh_read import Sourced, read_mesh
from injector.services import ServicesResult, generate
from proxy.config_text import parse_host, parse_name
from proxy.errors import ConfigError

ME = "spiffe://cluster.local/ns/shop/sa/"


def namespace(name: str, inject: str = "enabled") -> dict[str, Any]:
    labels = {"remora.io/inject": inject}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(
    name: str = "orders", *, app: str = "orders", account: str = "", place: str = "shop", **more: Any
) -> dict[str, Any]:
    ports = more.pop("ports", [{"name": "web", "containerPort": 8080}])
    annotations = {f"remora.io/{key.replace('_', '-')}": value for key, value in more.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": place, "labels": {"app": app}, "annotations": annotations},
        "spec": {"serviceAccountName": account or app, "containers": [{"name": "app", "ports": ports}]},
    }


def service(name: str = "orders", *ports: dict[str, Any], place: str = "shop", **spec: Any) -> dict[str, Any]:
    whole = {
        "clusterIP": "10.96.0.1",
        "selector": {"app": "orders"},
        "ports": list(ports) or [{"port": 80, "targetPort": 8080}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": place}, "spec": whole}


def made(*documents: dict[str, Any], **options: Any) -> ServicesResult:
    sources = [Sourced(document, Origin("shop.yaml", line)) for line, document in enumerate(documents, 1)]
    return generate(read_mesh(sources), **options)


def entries(*documents: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    result = made(namespace("shop"), *documents, **options)
    loaded: list[dict[str, Any]] = yaml.safe_load(data(result, "shop"))["services"]
    return loaded


def data(result: ServicesResult, place: str) -> str:
    [text] = [
        each["data"]["services.yaml"]  # type: ignore[index]
        for each in result.documents
        if each["metadata"]["namespace"] == place  # type: ignore[index]
    ]
    return str(text)


def notes(*documents: dict[str, Any]) -> list[str]:
    return [f"{note.subject}: {note.text}" for note in made(namespace("shop"), *documents).notes]


# --- one Service ---


def test_a_service_is_its_hosts_its_address_its_protocol_and_the_accounts_behind_it() -> None:
    assert entries(pod(), service("orders", {"port": 80, "targetPort": 8080, "name": "http"})) == [
        {
            "name": "orders.shop",
            "hosts": ["orders", "orders.shop", "orders.shop.svc", "orders.shop.svc.cluster.local"],
            "addresses": ["10.96.0.1:80"],
            "endpoints": ["10.96.0.1:80"],
            "protocol": "http",
            "tls": "mutual",
            "identities": [f"{ME}orders"],
        }
    ]


def test_both_families_are_addresses_and_the_first_is_dialled() -> None:
    [entry] = entries(pod(), service(clusterIP="fd00::1", clusterIPs=["fd00::1", "10.96.0.1"]))
    assert entry["addresses"] == ["[fd00::1]:80", "10.96.0.1:80"]
    assert entry["endpoints"] == ["[fd00::1]:80"]


def test_without_a_cluster_address_the_dns_name_is_dialled_and_a_note_says_so() -> None:
    documents = (pod(), service(clusterIP=""))
    [entry] = entries(*documents, cluster_domain="lab.example")
    assert "addresses" not in entry
    assert entry["endpoints"] == ["orders.shop.svc.lab.example:80"]
    assert entry["hosts"][-1] == "orders.shop.svc.lab.example"
    assert any("no clusterIP in the manifest" in note for note in notes(*documents))


def test_a_headless_service_is_dialled_at_the_port_of_its_pods() -> None:
    documents = (pod(), service("orders", {"port": 80, "targetPort": "web"}, clusterIP="None"))
    [entry] = entries(*documents)
    assert "addresses" not in entry
    assert entry["endpoints"] == ["orders.shop.svc.cluster.local:8080"]
    assert any("headless" in note for note in notes(*documents))


def test_a_headless_service_whose_pods_have_different_ports_is_left_out() -> None:
    documents = (
        pod("a"),
        pod("b", ports=[{"name": "web", "containerPort": 9090}]),
        service("orders", {"port": 80, "targetPort": "web"}, clusterIP="None"),
    )
    assert entries(*documents) == []
    assert any(
        "its pods take it at different ports (pod shop/a at 8080, pod shop/b at 9090)" in x for x in notes(*documents)
    )


def test_behind_a_cluster_address_pods_may_have_different_ports() -> None:
    documents = (pod("a"), pod("b", ports=[{"name": "web", "containerPort": 9090}]))
    [entry] = entries(*documents, service("orders", {"port": 80, "targetPort": "web"}))
    assert entry["endpoints"] == ["10.96.0.1:80"]


def test_each_further_port_is_a_service_of_its_own_name_and_hosts_stand_once() -> None:
    found = entries(pod(), service("orders", {"port": 80, "name": "http"}, {"port": 9090, "name": "tcp-x"}))
    assert [each["name"] for each in found] == ["orders.shop", "9090.orders.shop"]
    assert [each["protocol"] for each in found] == ["http", "tcp"]
    assert "hosts" not in found[1]


def test_the_first_port_keeps_the_plain_name_even_when_it_is_left_out() -> None:
    found = entries(pod(), service("orders", {"port": 80, "targetPort": "no-such"}, {"port": 81}))
    assert [each["name"] for each in found] == ["81.orders.shop"]


def test_a_host_that_would_be_read_as_an_address_is_left_out() -> None:
    result = made(namespace("8"), pod(place="8"), service(place="8"))
    [entry] = yaml.safe_load(data(result, "8"))["services"]
    assert entry["hosts"] == ["orders", "orders.8.svc", "orders.8.svc.cluster.local"]


def test_names_and_hosts_are_such_as_the_configuration_of_a_sidecar_takes() -> None:
    for entry in entries(pod(), service("orders", {"port": 80}, {"port": 81})):
        parse_name(entry["name"])
        for host in entry.get("hosts", [entry["name"]]):
            parse_host(host)


# --- who must answer ---


def test_every_account_behind_a_service_may_answer_and_a_note_names_them() -> None:
    documents = (pod("a", account="one"), pod("b", account="two"), service())
    [entry] = entries(*documents)
    assert entry["identities"] == [f"{ME}one", f"{ME}two"]
    assert any("its pods have 2 identities" in note for note in notes(*documents))


def test_a_service_of_pods_without_sidecars_is_plaintext_and_names_no_identity() -> None:
    outside = (namespace("old", "disabled"), pod(place="old"), service(place="old"))
    [entry] = entries(pod("x", app="x"), *outside)
    assert entry["tls"] == "none"
    assert "identities" not in entry


def test_where_some_pods_have_no_sidecar_it_is_mutual_and_a_note_names_them() -> None:
    bare = pod("b", account="bare")
    bare["metadata"]["labels"]["remora.io/inject"] = "false"
    documents = (pod("a"), bare, service())
    [entry] = entries(*documents)
    assert (entry["tls"], entry["identities"]) == ("mutual", [f"{ME}orders"])
    [note] = notes(*documents)
    assert "pod shop/b (no sidecar: the pod's label remora.io/inject says no)" in note


def test_a_port_that_the_sidecar_leaves_alone_is_plaintext() -> None:
    documents = pod(exclude_inbound_ports="9100"), service("orders", {"port": 80}, {"port": 9100})
    assert [each["tls"] for each in entries(*documents)] == ["mutual", "none"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"type": "ExternalName", "externalName": "db.example.com"}, "it is a name for db.example.com"),
        ({"selector": None}, "it has no selector"),
        ({"selector": {"app": "nobody", "tier": "x"}}, "its selector app=nobody,tier=x matches no pod"),
        ({"ports": []}, "it names no port"),
    ],
)
def test_where_nobody_can_know_who_answers_the_service_is_left_out_and_named(spec: dict[str, Any], said: str) -> None:
    assert entries(pod(), service(**spec)) == []
    [note] = notes(pod(), service(**spec))
    assert note.startswith("service shop/orders: left out")
    assert said in note


def test_a_port_name_that_no_container_has_is_named() -> None:
    documents = (pod("a"), pod("b", ports=[]), service("orders", {"port": 80, "targetPort": "web"}))
    assert len(entries(*documents)) == 1
    [note] = notes(*documents)
    assert note == "service shop/orders: port 80/TCP: no container of pod shop/b has a TCP port named web"
    nobody = (pod("a"), service("orders", {"port": 80, "targetPort": "admin"}))
    assert entries(*nobody) == []
    assert notes(*nobody)[0].endswith("has a TCP port named admin; the port is left out")


def test_what_is_not_tcp_is_left_out_and_named() -> None:
    documents = (
        pod(),
        service("orders", {"port": 53, "protocol": "UDP"}, {"port": 54, "protocol": "SCTP"}, {"port": 55}),
    )
    assert [each["name"] for each in entries(*documents)] == ["orders.shop"]
    assert [note.partition(": ")[2] for note in notes(*documents)] == [
        "port 53/UDP is left out: sidecars carry TCP alone",
        "port 54/SCTP is left out: sidecars carry TCP alone",
    ]


# --- how it is read ---


@pytest.mark.parametrize(
    ("port", "annotations", "protocol"),
    [
        ({"name": "http-api"}, {}, "http"),
        ({"name": "web"}, {}, "auto"),
        ({"name": "web", "appProtocol": "http"}, {}, "http"),
        ({"name": "http", "appProtocol": "https"}, {}, "tcp"),
        ({"appProtocol": "kubernetes.io/h2c"}, {}, "tcp"),
        ({"name": "redis"}, {}, "tcp"),
        ({"name": "http"}, {"opaque_ports": "8080"}, "tcp"),
        ({"name": "http"}, {"skip_sniff_ports": "8000-9000"}, "tcp"),
        ({}, {"inbound_ports": "8080=http"}, "http"),
        ({"name": "tcp"}, {"inbound_ports": "8080=http"}, "tcp"),
    ],
)
def test_the_protocol_is_the_services_own_word_then_that_of_its_pods(
    port: dict[str, Any], annotations: dict[str, str], protocol: str
) -> None:
    [entry] = entries(pod(**annotations), service("orders", {"port": 80, "targetPort": 8080, **port}))
    assert entry["protocol"] == protocol


def test_a_port_that_is_opaque_for_one_of_its_pods_is_opaque() -> None:
    [entry] = entries(
        pod("a", opaque_ports="8080"), pod("b"), service("orders", {"port": 80, "targetPort": 8080, "name": "http"})
    )
    assert entry["protocol"] == "tcp"


def test_pods_that_do_not_agree_about_the_protocol_leave_it_open() -> None:
    [entry] = entries(pod("a", inbound_ports="8080=http"), pod("b", inbound_ports="8080=tcp"), service())
    assert entry["protocol"] == "auto"


# --- sidecars without rules in the kernel ---


def test_without_capture_a_headless_service_leads_to_the_sidecars_own_port() -> None:
    documents = pod(capture="ports"), service(clusterIP="None")
    assert entries(*documents)[0]["endpoints"] == ["orders.shop.svc.cluster.local:15443"]


def test_without_capture_a_cluster_address_leads_by_another_service_of_the_same_pods() -> None:
    way = service("orders-mesh", {"port": 8080}, clusterIP="None")
    found = {each["name"]: each for each in entries(pod(capture="ports"), service(), way)}
    assert found["orders.shop"]["endpoints"] == ["orders-mesh.shop.svc.cluster.local:15443"]
    assert found["orders.shop"]["addresses"] == ["10.96.0.1:80"], "what the application dials still means it"


def test_a_service_of_other_pods_is_no_way_in() -> None:
    elsewhere = service("other", {"port": 8080}, clusterIP="None", selector={"app": "other"})
    documents = (pod(capture="ports"), pod("other", app="other", capture="ports"), service(), elsewhere)
    assert [each["name"] for each in entries(*documents)] == ["other.shop"]
    assert any("its sidecars listen at port 15443, to which no Service leads" in note for note in notes(*documents))


def test_a_port_of_a_service_that_leads_to_the_sidecar_is_the_way_in_and_no_entry() -> None:
    both = service("orders", {"port": 443, "targetPort": 15443}, {"port": 80, "targetPort": 8080})
    [entry] = entries(pod(capture="ports"), both)
    assert entry["name"] == "orders.shop"
    assert entry["endpoints"] == ["10.96.0.1:443"]
    assert entry["addresses"] == ["10.96.0.1:80"]


def test_a_port_that_no_sidecar_was_told_of_is_left_out_and_named() -> None:
    documents = pod(capture="ports"), service("orders", {"port": 80, "targetPort": 7777}, clusterIP="None")
    assert entries(*documents) == []
    [note] = notes(*documents)
    assert "port 80/TCP is left out: no sidecar listens for pod shop/orders (port 7777)" in note
    assert "remora.io/inbound-ports" in note


def test_pods_of_which_some_are_captured_and_some_are_not_have_no_one_port() -> None:
    documents = pod("a", capture="ports"), pod("b"), service()
    assert entries(*documents) == []
    assert any("pod shop/a at 15443, pod shop/b at 8080" in note for note in notes(*documents))


def test_pods_whose_sidecars_listen_at_different_ports_have_no_one_port() -> None:
    several = [{"containerPort": 80}, {"name": "web", "containerPort": 8080}]
    documents = (
        pod("a", capture="ports"),
        pod("b", capture="ports", ports=several),
        service("orders", {"port": 80, "targetPort": "web"}, clusterIP="None"),
    )
    assert entries(*documents) == []
    assert any("pod shop/a at 15443, pod shop/b at 15444" in note for note in notes(*documents))


def test_a_pod_without_sidecar_beside_one_that_listens_itself_does_not_turn_calls_into_plaintext() -> None:
    bare = pod("b", capture="ports")
    bare["metadata"]["labels"]["remora.io/inject"] = "false"
    [entry] = entries(pod("a", capture="ports"), bare, service(clusterIP="None"))
    assert entry["endpoints"] == ["orders.shop.svc.cluster.local:15443"]
    assert entry["tls"] == "mutual"


def test_the_sidecars_port_is_no_way_in_where_there_is_no_sidecar() -> None:
    bare = pod(capture="ports")
    bare["metadata"]["labels"]["remora.io/inject"] = "false"
    found = entries(bare, service("orders", {"port": 443, "targetPort": 15443}), into=["shop"])
    assert [(each["name"], each["tls"]) for each in found] == [("orders.shop", "none")]


def test_a_way_in_is_a_tcp_port() -> None:
    udp = service("orders", {"port": 9, "targetPort": 15443, "protocol": "UDP"}, {"port": 80, "targetPort": 8080})
    assert entries(pod(capture="ports"), udp) == []


def test_a_listener_of_a_pod_that_leads_to_no_service_is_named_with_the_nearest() -> None:
    caller = pod("web", app="web", capture="ports", outbound_listeners="orders.shp=9001,orders.shop=9002,x.y=9003")
    found = [note for note in notes(pod(), service(), caller) if note.startswith("pod shop/web: ")]
    assert found == [
        "pod shop/web: remora.io/outbound-listeners names orders.shp, and there is no such service; "
        "did you mean orders.shop?",
        "pod shop/web: remora.io/outbound-listeners names x.y, and there is no such service; "
        "nothing that is written here is called so",
    ]
    caller["metadata"]["labels"]["remora.io/inject"] = "false"
    assert not [note for note in notes(pod(), service(), caller) if "outbound-listeners" in note], "nobody listens"


# --- the ConfigMaps ---


def test_each_namespace_with_sidecars_has_its_own_and_bare_names_mean_neighbours() -> None:
    documents = (
        *(namespace("shop"), pod(), service()),
        *(namespace("pay"), pod(place="pay"), service(place="pay", clusterIP="10.96.0.2")),
        *(namespace("old", "disabled"), pod(place="old")),
    )
    result = made(*documents)
    assert [each["metadata"]["namespace"] for each in result.documents] == ["pay", "shop"]  # type: ignore[index]
    hosts = {each["name"]: each["hosts"][0] for each in yaml.safe_load(data(result, "pay"))["services"]}
    assert hosts == {"orders.pay": "orders", "orders.shop": "orders.shop"}


def test_into_writes_for_the_namespaces_that_are_named_and_no_others() -> None:
    result = made(namespace("shop"), pod(), service(), into=["b", "a", "b"])
    assert [each["metadata"]["namespace"] for each in result.documents] == ["a", "b"]  # type: ignore[index]


def test_the_config_map_has_the_name_that_pods_mount() -> None:
    def names_of(*documents: dict[str, Any]) -> list[str]:
        return [each["metadata"]["name"] for each in made(namespace("shop"), *documents).documents]  # type: ignore[index]

    assert names_of(pod()) == ["remora-services"]
    assert names_of(pod("a", services_config_map="mine"), pod("b")) == ["mine", "remora-services"]
    bare = pod("a", services_config_map="mine")
    bare["metadata"]["labels"]["remora.io/inject"] = "false"
    assert names_of(bare, pod("b")) == ["remora-services"], "a pod without sidecar mounts none"


def test_equal_manifests_in_another_order_give_equal_bytes() -> None:
    documents = [namespace("shop"), pod("a"), pod("b", account="x"), service(), service("z", clusterIP="10.96.0.2")]
    assert made(*documents).documents == made(*reversed(documents)).documents


def test_more_than_a_config_map_may_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_BYTES", 100)
    with pytest.raises(ConfigError, match=r"configmap shop/remora-services: 1 entries make \d+ bytes"):
        made(namespace("shop"), pod(), service())
