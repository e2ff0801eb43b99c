"""A configuration of several files: what the directories of workload and services say, judged with the file itself."""

from __future__ import annotations

import pytest

from proxy.config import load_config
from proxy.config_files import ConfigFiles, directories, pod_facts
from proxy.config_values import ApplicationMetrics, GrpcProbe, HttpGet, TcpProbe
from proxy.errors import ConfigError

POD = {"name": b"orders-7d9f", "namespace": b"shop", "labels": b'app="orders"\nversion="v1"\n'}
MAIN = """
workload: {directory: /pod, service_account: orders}
identity: {files: {directory: /identity}}
policy: {directory: /policy}
"""
SERVICES = """
services:
- {name: ledger.shop, addresses: ["10.0.0.9:80"], endpoints: ["ledger:15443"], identities: ["spiffe://cluster.local/ns/shop/sa/ledger"]}
"""


def load(main: str = MAIN, pod: dict[str, bytes] | None = None, services: dict[str, bytes] | None = None):  # type: ignore[no-untyped-def]
    return load_config(ConfigFiles(main=main.encode(), pod=pod or POD, services=services).pack(), "remora.yaml")


def faults(*args: object, **more: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args, **more)  # type: ignore[arg-type]
    return "\n".join(str(fault) for fault in caught.value.faults)


def test_the_workload_is_what_the_downward_api_says() -> None:
    workload = load().workload
    assert (workload.namespace, workload.name, workload.service_account) == ("shop", "orders-7d9f", "orders")
    assert workload.labels == {"app": "orders", "version": "v1"}


def test_an_account_in_a_file_counts_where_the_configuration_names_none() -> None:
    main = MAIN.replace(", service_account: orders", "")
    assert load(main, pod={**POD, "service_account": b"web\n"}).workload.service_account == "web"
    assert "lacks the key `service_account`, and no file says it" in faults(main)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": b""}, "/pod/name:1:1"),
        ({"namespace": b"Shop!"}, "/pod/namespace:1:1: 'Shop!' is no name of Kubernetes"),
        ({"labels": b'app="orders"\nnonsense\n'}, "/pod/labels:2:1: 'nonsense' is no label"),
        ({"labels": b'app="a\\"b"\n'}, "/pod/labels:1:1"),
    ],
)
def test_what_is_no_fact_is_named_with_its_file(change: dict[str, bytes], message: str) -> None:
    assert message in faults(pod={**POD, **change})


@pytest.mark.parametrize("name", ["name", "namespace", "labels"])
def test_a_missing_file_is_named(name: str) -> None:
    pod = {key: value for key, value in POD.items() if key != name}
    assert f"/pod/{name}: the file is missing; mount metadata.{name} there" in faults(pod=pod)


def test_what_the_directory_says_may_not_stand_beside_it() -> None:
    text = faults(MAIN.replace("{directory: /pod", "{directory: /pod, namespace: shop"))
    assert "`workload.namespace` stands beside `workload.directory`" in text


def test_without_its_directory_a_configuration_is_not_taken() -> None:
    with pytest.raises(ConfigError, match="read by a running sidecar alone"):
        load_config(MAIN.encode(), "remora.yaml")


def test_services_come_from_files_of_a_directory() -> None:
    main = MAIN + "outbound: {directory: /services, listeners: [{listen: '127.0.0.1:9001', service: ledger.shop}]}\n"
    outbound = load(main, services={"/services/a.yaml": SERVICES.encode()}).outbound
    assert outbound.is_whole
    assert [str(address) for address in outbound.services["ledger.shop"].addresses] == ["10.0.0.9:80"]
    assert [item.service for item in outbound.listeners] == ["ledger.shop"]


def test_while_services_are_not_known_their_listeners_wait() -> None:
    main = MAIN + "outbound: {directory: /services, listeners: [{listen: '127.0.0.1:9001', service: ledger.shop}]}\n"
    outbound = load(main, services=None).outbound
    assert not outbound.is_whole
    assert outbound.listeners == ()
    assert "no service is named ledger.shop" in faults(main, services={})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: [{name: a}]", "/services/a.yaml:1:12: `services[0]` lacks the key `endpoints`"),
        ("servces: []", '/services/a.yaml:1:1: unknown key "servces"'),
        ("services: [", "/services/a.yaml:"),
        ("services: []\n---\nservices: []\n", "/services/a.yaml:3:1: a second document"),
        (SERVICES.replace("10.0.0.9", "ledger"), "ledger:80 is a name, and a connection has an address"),
    ],
)
def test_a_fault_of_a_services_file_names_that_file(text: str, message: str) -> None:
    assert message in faults(MAIN + "outbound: {directory: /services}\n", services={"/services/a.yaml": text.encode()})


def test_a_service_of_two_files_is_named_with_both() -> None:
    both = {"/services/a.yaml": SERVICES.encode(), "/services/b.yaml": SERVICES.encode()}
    text = faults(MAIN + "outbound: {directory: /services}\n", services=both)
    assert "/services/b.yaml:3:3: `services[0]`: a service named ledger.shop stands twice" in text
    assert "first in /services/a.yaml" in text


def test_an_empty_directory_of_services_is_whole() -> None:
    assert load(MAIN + "outbound: {directory: /services}\n", services={}).outbound.is_whole


def test_a_packed_configuration_is_unpacked_as_it_was() -> None:
    whole = ConfigFiles(main=b"a", pod=POD, services={"x": b"\xff"})
    assert ConfigFiles.unpack(whole.pack()) == whole
    assert ConfigFiles(main=b"a: 1").pack() == b"a: 1"
    odd = ConfigFiles(main=b"\0 not yaml")
    assert ConfigFiles.unpack(odd.pack()) == odd


def test_directories_are_found_in_what_is_no_good_configuration_too() -> None:
    assert directories(b"outbound: {directory: /s}\nnonsense: [", "x") in (("", "/s"), ("", ""))
    assert directories(b"workload: {directory: [1]}", "x") == ("", "")
    assert directories(b"- directory", "x") == ("", "")


def test_labels_of_the_downward_api_may_be_empty() -> None:
    facts, wrong = pod_facts({**POD, "labels": b'a.b/c="x"\nempty=""\n'}, "/pod")
    assert wrong == []
    assert facts.labels == {"a.b/c": "x", "empty": ""}


HEALTH = """
health:
  listen: 127.0.0.1:15020
  quit: loopback
  application_metrics: {port: 9090, path: /stats, scheme: https}
  probes:
  - path: /app-health/app/livez
    http_get: {port: 8080, path: /live, scheme: HTTPS, headers: [{name: X-A, value: b}]}
    timeout: 5s
  - {path: /app-health/app/readyz, tcp_socket: {port: 8080}}
  - {path: /app-health/app/startupz, grpc: {port: 9000, service: a.B}}
"""


def test_what_is_done_for_the_application_is_read() -> None:
    health = load(MAIN + HEALTH).health
    assert health is not None
    assert health.quits_for_loopback
    assert health.application_metrics == ApplicationMetrics(port=9090, path="/stats", is_tls=True)
    http, tcp, grpc = health.probes
    assert http.action == HttpGet(port=8080, path="/live", is_tls=True, headers=(("X-A", "b"),))
    assert (http.path, http.timeout, tcp.timeout) == ("/app-health/app/livez", 5.0, 1.0)
    assert (tcp.action, grpc.action) == (TcpProbe(port=8080), GrpcProbe(port=9000, service="a.B"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tcp_socket: {port: 8080}", "tcp_socket: {port: 0}", "`health.probes[1].tcp_socket.port` must be between 1"),
        ("tcp_socket: {port: 8080}", "exec: {}", 'unknown key "exec"'),
        ("tcp_socket: {port: 8080}", "timeout: 1s", "needs one of http_get, tcp_socket, grpc"),
        ("/app-health/app/readyz", "/app-health/app/livez", "/app-health/app/livez stands twice"),
        ("/app-health/app/readyz", "/readyz", "/readyz is a page of the sidecar's own"),
        ("path: /live,", "path: live,", "is no path"),
        ("path: /live,", 'path: "/a b",', "is no path"),
        ("name: X-A,", 'name: "X A",', "is no name of a header"),
        ("value: b", 'value: "a\\r\\nb"', "a character that no header may have"),
        ("service: a.B", "service: a/B", "is no name of a gRPC service"),
        ("quit: loopback", "quit: anybody", "must be one of loopback"),
        ("timeout: 5s", "timeout: 61m", "`health.probes[0].timeout` must be"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(old: str, new: str, message: str) -> None:
    text = faults(MAIN + HEALTH.replace(old, new))
    assert message in text
    assert text.startswith("remora.yaml:")
