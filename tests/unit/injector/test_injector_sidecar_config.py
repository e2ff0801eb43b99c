"""The sidecar's configuration: each setting arrives where the proxy reads it, and nothing is written that is usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from injector import names
from injector.annotations import ANNOTATIONS
from injector.ports import Ports
from injector.settings import Capture, Settings
from injector.sidecar_config import Performed, pod_ports, sidecar_config
from injector.yaml_text import dump
from proxy.config import load_config
from proxy.config_files import ConfigFiles
from proxy.config_values import ApplicationMetrics, Config, GrpcProbe, HttpGet, IdentityAuthority, Probe, TcpProbe
from proxy.types import Protocol

SPEC: dict[str, Any] = {
    "containers": [
        {
            "name": "app",
            "ports": [
                {"name": "http-web", "containerPort": 8080},
                {"name": "db", "containerPort": 5432},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ],
        }
    ]
}
POD = {"name": b"web-1", "namespace": b"shop", "labels": b'app="web"\n'}
PORTS = {"capture": Capture.PORTS}


def read(performed: Performed | None = None, /, spec: dict[str, Any] | None = None, **settings: Any) -> Config:
    """Give what the proxy makes of the configuration, as the kubelet would mount it."""
    made = sidecar_config(Settings(**settings), spec or SPEC, "web", performed or Performed())
    services = {
        f"{names.SERVICES_DIRECTORY}/{names.SERVICES_FILE}": b"services: [{name: orders, hosts: [orders], "
        b"endpoints: ['10.0.0.7:15443'], protocol: http, tls: none}]"
    }
    files = ConfigFiles(main=dump(made).encode(), pod=POD, services=services)
    return load_config(files.pack(), "config.yaml")


def authority(config: Config) -> IdentityAuthority:
    assert isinstance(config.identity, IdentityAuthority)
    return config.identity


def protocols(config: Config) -> dict[int, str]:
    return {port.port: port.protocol.value for port in config.inbound}


ARRIVES: dict[str, tuple[dict[str, Any], Callable[[Config], object], object]] = {
    "access-log": ({"access_log": "off"}, lambda config: config.telemetry.access_log, "off"),
    "workers": ({"workers": 3}, lambda config: config.runtime.workers, 3),
    "capture": (PORTS, lambda config: config.inbound_capture, None),
    "opaque-ports": (
        {"opaque_ports": Ports.parse("8080")},
        lambda config: [(port.port, port.protocol.value, port.speaks_first) for port in config.inbound],
        [(8080, "tcp", "client")],
    ),
    "skip-sniff-ports": (
        {"skip_sniff_ports": Ports.parse("8080")},
        lambda config: [(port.port, port.protocol.value, port.speaks_first) for port in config.inbound],
        [(8080, "tcp", "server")],
    ),
    "inbound-ports": (
        {"inbound_ports": {5432: "tcp", 9: "http"}},
        protocols,
        {9: "http", 5432: "tcp", 8080: "http"},
    ),
    "outbound-listeners": (
        PORTS | {"outbound_listeners": {"orders": 9001}},
        lambda config: [(str(each.listen), each.service, each.captures) for each in config.outbound.listeners],
        [("127.0.0.1:9001", "orders", False)],
    ),
    "unknown-outbound": ({"unknown_outbound": "passthrough"}, lambda config: config.outbound.unknown, "passthrough"),
    "drain-timeout": ({"drain_timeout": 90.0}, lambda config: config.limits.drain_timeout, 90.0),
    "policy-default": ({"policy_default": "audit"}, lambda config: config.policy.default, "audit"),
    "root-namespace": ({"root_namespace": "mesh"}, lambda config: config.policy.root_namespace, "mesh"),
    "trust-domain": ({"trust_domain": "a.example"}, lambda config: config.trust_domain, "a.example"),
    "authority": ({"authority": "https://ca.x:9"}, lambda config: authority(config).url, "https://ca.x:9"),
    "authority-identity": (
        {"authority_identity": "spiffe://cluster.local/ns/x/sa/y"},
        lambda config: str(authority(config).identity),
        "spiffe://cluster.local/ns/x/sa/y",
    ),
    "certificate-lifetime": ({"certificate_lifetime": 5400.0}, lambda config: authority(config).lifetime, 5400.0),
}
ELSEWHERE = {
    "image", "image-pull-policy", "cpu-request", "cpu-limit", "memory-request", "memory-limit", "log-level",
    "include-inbound-ports", "exclude-inbound-ports", "include-outbound-ports", "exclude-outbound-ports",
    "include-outbound-ip-ranges", "exclude-outbound-ip-ranges", "exclude-interfaces", "rewrite-probes",
    "native-sidecar", "hold-application", "merge-metrics", "policy-config-map", "services-config-map",
    "token-audience", "token-lifetime",
}  # fmt: skip
"""Settings of containers, rules and volumes (test_injector_sidecar.py), and of what is rewritten."""


def test_every_setting_arrives_somewhere() -> None:
    assert {row.key for row in ANNOTATIONS} == set(ARRIVES) | ELSEWHERE
    assert not set(ARRIVES) & ELSEWHERE


@pytest.mark.parametrize("key", ARRIVES)
def test_a_setting_arrives_in_the_proxy(key: str) -> None:
    settings, look, value = ARRIVES[key]
    assert look(read(**settings)) == value
    assert look(read()) != value


@pytest.mark.parametrize("key", sorted(ELSEWHERE - {"rewrite-probes", "merge-metrics"}))
def test_a_setting_of_the_container_changes_nothing_here(key: str) -> None:
    [row] = [row for row in ANNOTATIONS if row.key == key]
    other = {str: "x", bool: False, float: 700.0, tuple: ("10.0.0.0/8",), Ports: Ports.parse("9")}[type(row.default)]
    assert read(**{row.field: other}) == read()


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("drain-timeout", ["0s", "1ms", "1h"]),
        ("certificate-lifetime", ["0s", "1m", "2160h"]),
        ("workers", ["1", "64"]),
        ("root-namespace", ["a" * 63]),
        ("trust-domain", ["a", "a" * 255, "a.b_c-d"]),
        ("authority", ["https://a", "https://[::1]:1/", "https://10.0.0.1"]),
        ("authority-identity", ["", "spiffe://cluster.local/x"]),
        ("inbound-ports", ["1=http,65535=tcp,2=auto"]),
        ("opaque-ports", ["*", "1-65535"]),
    ],
)
def test_what_the_injector_takes_the_proxy_takes(key: str, texts: list[str]) -> None:
    [row] = [row for row in ANNOTATIONS if row.key == key]
    for text in texts:
        read(**{row.field: row.read(text)})


def test_with_rules_everything_comes_by_two_ports() -> None:
    config = read()
    assert (str(config.inbound_capture), protocols(config)) == ("[::]:15006", {8080: "http"})
    assert [(str(each.listen), each.captures) for each in config.outbound.listeners] == [
        ("127.0.0.1:15001", True),
        ("[::1]:15001", True),
    ]


def test_without_rules_each_tcp_port_has_its_listener_and_the_application_is_on_loopback() -> None:
    config = read(capture=Capture.PORTS)
    assert [(str(port.listen), port.port, str(port.app), port.protocol) for port in config.inbound] == [
        ("[::]:15443", 5432, "127.0.0.1:5432", Protocol.AUTO),
        ("[::]:15444", 8080, "127.0.0.1:8080", Protocol.HTTP),
    ]
    assert config.outbound.listeners == ()


def test_the_workload_is_who_the_pod_is() -> None:
    workload = read().workload
    assert (workload.namespace, workload.service_account, workload.name) == ("shop", "web", "web-1")
    assert dict(workload.labels) == {"app": "web"}


def test_the_authority_is_asked_with_the_mounted_token_and_believed_by_the_mounted_roots() -> None:
    found = authority(read())
    assert (found.token_file, found.bundle_file) == (names.TOKEN_FILE, names.BUNDLE_FILE)
    assert found.lifetime is None


def test_what_is_performed_arrives_in_the_proxy() -> None:
    probes = (
        {"path": "/app-health/a/livez", "http_get": {"port": 80, "path": "/l", "scheme": "HTTPS"}, "timeout": "3s"},
        {"path": "/app-health/a/readyz", "tcp_socket": {"port": 81}, "timeout": "1h"},
        {"path": "/app-health/a/startupz", "grpc": {"port": 82, "service": "s"}, "timeout": "1s"},
    )
    health = read(Performed(probes=probes, metrics={"port": 9100, "path": "/m"}, ends_with_job=True)).health
    assert health is not None
    assert health.probes == (
        Probe(path="/app-health/a/livez", action=HttpGet(port=80, path="/l", is_tls=True), timeout=3.0),
        Probe(path="/app-health/a/readyz", action=TcpProbe(port=81), timeout=3600.0),
        Probe(path="/app-health/a/startupz", action=GrpcProbe(port=82, service="s"), timeout=1.0),
    )
    assert health.application_metrics == ApplicationMetrics(port=9100, path="/m")
    assert health.quits_for_loopback
    plain = read().health
    assert plain is not None
    assert (str(plain.listen), plain.probes, plain.quits_for_loopback) == ("[::]:15020", (), False)


def test_only_what_was_chosen_stands_in_it() -> None:
    made = sidecar_config(Settings(), {"containers": []}, "web", Performed())
    assert list(made) == [
        *("workload", "trust_domain", "identity", "inbound", "outbound", "policy", "admin", "health", "limits")
    ]
    assert made["policy"] == {"directory": names.POLICY_DIRECTORY}
    assert made["inbound"] == {"mode": "capture", "listen": "[::]:15006"}


def test_a_port_without_capture_says_where_its_application_is_and_one_with_capture_does_not() -> None:
    spec = {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]}
    made: Any = sidecar_config(Settings(capture=Capture.PORTS), spec, "web", Performed())
    assert made["inbound"]["ports"] == [{"listen": "[::]:15443", "port": 80, "app": "127.0.0.1:80", "protocol": "http"}]
    made = sidecar_config(Settings(), spec, "web", Performed())
    assert made["inbound"]["ports"] == [{"port": 80, "protocol": "http"}]


def test_an_opaque_port_that_is_not_looked_at_waits_for_nobody() -> None:
    both = Ports.parse("8080")
    [port] = read(opaque_ports=both, skip_sniff_ports=both).inbound
    assert (port.protocol, port.speaks_first) == (Protocol.TCP, "server")
    made: Any = sidecar_config(Settings(inbound_ports={9: "tcp"}), SPEC, "web", Performed())
    assert all("speaks_first" not in port for port in made["inbound"]["ports"])


def test_calls_to_nobody_are_told_of_only_where_they_are_captured_and_let_out() -> None:
    def unknown(**settings: Any) -> object:
        made: Any = sidecar_config(Settings(**settings), SPEC, "web", Performed())
        return made["outbound"].get("unknown")

    assert unknown() is None
    assert unknown(unknown_outbound="passthrough") == "passthrough"
    assert unknown(unknown_outbound="passthrough", capture=Capture.PORTS) is None


def test_annotations_say_before_names_and_opaque_before_both() -> None:
    settings = Settings(inbound_ports={8080: "auto", 5432: "http"}, opaque_ports=Ports.parse("5432"))
    assert pod_ports(settings, SPEC) == {5432: "tcp", 8080: "auto"}
    assert list(pod_ports(Settings(), SPEC).items()) == [(5432, "auto"), (8080, "http")]


def test_a_port_that_two_containers_name_has_the_first_name() -> None:
    spec = {
        "containers": [
            {"name": "a", "ports": [{"containerPort": 80, "name": "http"}]},
            {"name": "b", "ports": [{"containerPort": 80, "name": "tcp"}]},
        ]
    }
    assert pod_ports(Settings(), spec) == {80: "http"}
