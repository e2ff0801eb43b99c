"""Sets of ports as annotations write them, and the ports of a pod."""

from __future__ import annotations

import pytest

from injector.ports import ALL, NONE, Ports, app_containers, declared, mesh_ports


@pytest.mark.parametrize(
    ("text", "written"),
    [("", ""), ("*", "*"), (" 80 , 81 ", "80-81"), ("90-100,80,95-120", "80,90-120"), ("1-65535", "*"), ("80,,", "80")],
)
def test_ports_are_read_joined_and_ascending(text: str, written: str) -> None:
    assert str(Ports.parse(text)) == written
    assert Ports.parse(written) == Ports.parse(text)


@pytest.mark.parametrize(
    "text", ["0", "65536", "-1", "80-", "a", "90-80", "8080.0", "٨٠", "1e3", "80 81", "*,80", "9" * 5000]
)
def test_what_is_no_port_is_refused_with_a_short_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no port from 1 to 65535|ends before it begins") as caught:
        Ports.parse(text)
    assert len(str(caught.value)) < 100


def test_both_ends_of_a_range_belong_to_it() -> None:
    ports = Ports.parse("80-90")
    assert [port in ports for port in (79, 80, 90, 91)] == [False, True, True, False]
    assert "80" not in ports
    assert (bool(NONE), bool(ALL)) == (False, True)
    assert str(Ports.parse("80") | Ports.parse("81")) == "80-81"


def test_only_what_is_a_port_is_declared() -> None:
    wrong = [{"containerPort": each} for each in (0, 65536, "80", True, None, 80.0)]
    spec = {
        "initContainers": [
            {"name": "once", "ports": [{"containerPort": 1}]},
            {"name": "native", "restartPolicy": "Always", "ports": [{"containerPort": 2, "protocol": "UDP"}]},
        ],
        "containers": [
            {"name": "remora-proxy", "ports": [{"containerPort": 3}]},
            {"name": "app", "ports": [{"containerPort": 80, "name": "web"}, *wrong, "odd"]},
            {"name": "odd", "ports": "x"},
            5,
        ],
    }
    assert [(each.container, each.number, each.name, each.protocol) for each in declared(spec)] == [
        ("native", 2, "", "UDP"),
        ("app", 80, "web", "TCP"),
    ]


@pytest.mark.parametrize("containers", ["x", {}, None, [None, 5, []]])
def test_containers_of_another_shape_are_none(containers: object) -> None:
    assert app_containers({"containers": containers, "initContainers": containers}) == []


def test_the_port_for_the_mesh_passes_over_those_of_the_pod_and_of_the_sidecar() -> None:
    assert mesh_ports([9090, 8080, 15444]) == {8080: 15443, 9090: 15445, 15444: 15446}
    assert mesh_ports([15020]) == {}
    assert mesh_ports(reversed([80, 81])) == {80: 15443, 81: 15444}
