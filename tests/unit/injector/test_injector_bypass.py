"""What of a pod goes round its sidecar: each way has its sentence, and a pod without one has none."""

from __future__ import annotations

from typing import Any

import pytest

from injector.bypass import ways_round
from injector.ports import NONE, Ports
from injector.settings import Capture, Settings

PLAIN: dict[str, Any] = {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]}


def said(spec: dict[str, Any], **settings: Any) -> list[str]:
    return list(ways_round(spec, Settings(**settings)))


def secured(**context: Any) -> dict[str, Any]:
    return {"containers": [{"name": "app", "securityContext": context}]}


def test_a_plain_pod_has_no_way_round() -> None:
    assert said(PLAIN) == []


@pytest.mark.parametrize("field", ["runAsUser", "runAsGroup"])
def test_who_runs_as_the_sidecar_is_named_with_where_it_says_so(field: str) -> None:
    assert said(secured(**{field: 1337}))[0].startswith(f"container app runs with its {field} 1337")
    of_pod = {"securityContext": {field: 1337}, **PLAIN}
    assert said(of_pod)[0].startswith(f"container app runs with the pod's {field} 1337")
    assert said({**secured(**{field: 1}), "securityContext": {field: 1337}}) == []
    assert all("1337" not in each for each in said(of_pod, capture=Capture.PORTS))


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("NET_ADMIN", "NET_ADMIN"),
        ("CAP_NET_ADMIN", "NET_ADMIN"),
        ("net_raw", "NET_RAW"),
        ("ALL", "ALL"),
        ("SYS_PTRACE", "SYS_PTRACE"),
        ("SETUID", "SETUID"),
        ("SETGID", "SETGID"),
        ("SYS_ADMIN", "SYS_ADMIN"),
    ],
)
def test_a_capability_that_leads_round_is_named(written: str, word: str) -> None:
    [sentence] = said(secured(capabilities={"add": [written]}))
    assert sentence.startswith(f"container app has the capability {word}: it may ")


def test_other_capabilities_and_shapes_are_no_way_round() -> None:
    assert said(secured(capabilities={"add": ["CHOWN", 5, None], "drop": ["ALL"]})) == []
    assert said(secured(capabilities={"add": "NET_ADMIN"})) == []
    assert said(secured(privileged="true")) == []


def test_a_privileged_container_is_named_once() -> None:
    [sentence] = said(secured(privileged=True, capabilities={"add": ["NET_ADMIN"]}))
    assert "is privileged" in sentence


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_containers_of_every_kind_are_looked_at(kind: str) -> None:
    other = [{"name": "other", "securityContext": {"privileged": True}}]
    assert said({**PLAIN, kind: other}) == [
        "container other is privileged: it may change the capture rules and enter the sidecar's namespaces"
    ]


@pytest.mark.parametrize("restart", [None, "Always"])
def test_an_init_container_is_looked_at_once_native_sidecar_or_not(restart: str | None) -> None:
    other = {"name": "other", "restartPolicy": restart, "securityContext": {"privileged": True}}
    assert len(said({**PLAIN, "initContainers": [other]})) == 1


def test_the_nodes_own_is_named() -> None:
    assert "hostPID" in said({**PLAIN, "hostPID": True})[0]
    assert "shareProcessNamespace" in said({**PLAIN, "shareProcessNamespace": True})[0]
    assert said({**PLAIN, "hostPID": False, "shareProcessNamespace": None}) == []


@pytest.mark.parametrize(
    ("path", "leads_round"),
    [
        ("/", True),
        ("/proc/", True),
        ("//run", True),
        ("/run/containerd/containerd.sock", True),
        ("/var/lib/kubelet", True),
        ("/var/run", True),
        ("/run/crio", True),
        ("/run/containerd", True),
        ("/var/run/docker.sock", True),
        ("/x/crio.sock", True),
        ("/x/cri-dockerd.sock", True),
        ("/data", False),
        ("/var/log", False),
        ("/process", False),
    ],
)
def test_a_volume_of_the_node_is_named_where_it_reaches_other_pods(path: str, leads_round: bool) -> None:
    volumes = [{"name": "v", "hostPath": {"path": path}}, {"name": "w", "emptyDir": {}}]
    assert bool(said({**PLAIN, "volumes": volumes})) is leads_round


@pytest.mark.parametrize(
    ("port", "word"),
    [
        ({"containerPort": 53, "protocol": "UDP"}, "is 'UDP'"),
        ({"containerPort": 53, "protocol": "SCTP"}, "SCTP"),
        ({"containerPort": 80, "hostPort": 8080}, "hostPort 8080"),
    ],
)
def test_a_port_outside_the_mesh_is_named(port: dict[str, Any], word: str) -> None:
    [sentence] = said({"containers": [{"name": "app", "ports": [port]}]})
    assert word.strip("is '") in sentence


@pytest.mark.parametrize(
    "settings",
    [{"exclude_inbound_ports": Ports.parse("8080")}, {"include_inbound_ports": Ports.parse("1-8079,8081-65535")}],
)
def test_a_declared_port_that_is_not_captured_is_named(settings: dict[str, Any]) -> None:
    assert said(PLAIN, **settings) == [
        "port 8080 of container app is not captured: its callers are neither authenticated nor authorized"
    ]


def test_ports_that_are_not_captured_are_named_where_none_is_declared() -> None:
    [sentence] = said({"containers": [{"name": "app"}]}, include_inbound_ports=Ports.parse("80"))
    assert sentence == "remora.io/include-inbound-ports 80: other ports are not captured"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"exclude_outbound_ports": Ports.parse("25")}, "remora.io/exclude-outbound-ports 25: what the pod sends"),
        (
            {"exclude_outbound_ip_ranges": ("10.0.0.0/8", "fd00::/8")},
            "remora.io/exclude-outbound-ip-ranges 10.0.0.0/8,fd00::/8: what the pod sends",
        ),
        ({"exclude_interfaces": ("eth1", "x")}, "remora.io/exclude-interfaces eth1,x: what the pod sends"),
        (
            {"include_outbound_ip_ranges": ("10.0.0.0/8", "fd00::/8")},
            "remora.io/include-outbound-ip-ranges 10.0.0.0/8,fd00::/8: calls to other addresses are not captured",
        ),
        (
            {"include_outbound_ip_ranges": ()},
            "remora.io/include-outbound-ip-ranges none: calls to other addresses are not captured",
        ),
    ],
)
def test_calls_that_are_not_captured_are_named(settings: dict[str, Any], sentence: str) -> None:
    [found] = said(PLAIN, **settings)
    assert found.startswith(sentence)
    assert all(sentence not in each for each in said(PLAIN, capture=Capture.PORTS, **settings))


def test_a_port_of_udp_is_not_said_to_miss_capture() -> None:
    spec = {"containers": [{"name": "app", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]}
    assert len(said(spec, exclude_inbound_ports=Ports.parse("53"))) == 1


def test_an_init_container_before_a_plain_sidecar_is_named() -> None:
    spec = {**PLAIN, "initContainers": [{"name": "migrate"}]}
    assert said(spec) == []
    assert said(PLAIN, native_sidecar=False) == []
    assert "init container migrate runs before the sidecar" in said(spec, native_sidecar=False)[0]
    assert all("migrate" not in each for each in said(spec, native_sidecar=False, capture=Capture.PORTS))


def test_without_capture_who_dials_the_pod_itself_goes_round() -> None:
    [sentence] = said(PLAIN, capture=Capture.PORTS, inbound_ports={9: "tcp"})
    assert "callers that dial 9, 8080 of the pod itself go round the sidecar" in sentence
    [none] = said({"containers": [{"name": "app"}]}, capture=Capture.PORTS, include_inbound_ports=NONE)
    assert "nothing reaches the pod by its sidecar" in none
