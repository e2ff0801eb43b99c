"""The capture rules in a real kernel: who is brought to the sidecar and who goes past, by each backend, IPv4 and IPv6.

The sidecar's inbound listener is one dual-stack socket, so an IPv4 caller is an IPv4-mapped one there; its outbound
listeners are one for each version. Where a connection was going must be read right in all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from bare_pod import LOOPBACK, OWN, PASS_SOURCE, BarePod

from injector.capture.rules import Backend

pytestmark = [pytest.mark.debian, pytest.mark.timeout(120)]

ALL = ("--include-inbound-ports", "*", "--include-outbound-ip-ranges", "*")
WORLD = {4: "192.0.2.10", 6: "2001:db8::10"}
BY_ETH1 = {4: "10.200.0.1", 6: "fd02::1"}
"""What the pod reaches by its second interface."""
BACKENDS = [backend.value for backend in Backend]

Captured = Callable[..., BarePod]


@pytest.fixture(scope="module", params=BACKENDS)
def captured(request: pytest.FixtureRequest) -> Iterator[Captured]:
    """Give one pod, in which the rules of each test take the place of those before."""
    with BarePod() as pod:
        pod.start_sidecar()

        def capture(*words: str) -> BarePod:
            pod.capture(*words, "--backend", request.param)
            return pod

        yield capture


def shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("version", [4, 6])
def test_every_call_of_the_application_is_captured_but_dns(captured: Captured, version: int) -> None:
    pod, world = captured(*ALL), WORLD[version]
    for port in (80, 443, 1, 65535):
        assert pod.dial(world, port) == f"outbound {shown(world, port)}"
    assert pod.dial(BY_ETH1[version], 80) == f"outbound {shown(BY_ETH1[version], 80)}"
    assert pod.dial(world, 53) == "world"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("who", [{"uid": 1337}, {"gid": 1337}])
def test_the_sidecar_is_let_out_and_comes_to_its_own_pod_like_any_caller(
    captured: Captured, version: int, who: dict[str, int]
) -> None:
    pod, own = captured(*ALL), OWN[version][0]
    assert pod.dial(WORLD[version], 80, **who) == "world"
    assert pod.dial(own, 8080, **who) == f"inbound {shown(own, 8080)}"
    assert pod.dial(LOOPBACK[version], 8080, **who) == "app"
    # The call that the sidecar makes for a caller, which it tells by its source.
    assert pod.dial(own, 8080, source=PASS_SOURCE[version], **who) == "app"


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_else_is_taken_for_the_sidecar(captured: Captured, version: int) -> None:
    pod, world = captured(*ALL), WORLD[version]
    for who in ({"uid": 1336}, {"gid": 1338}, {"mark": 1337}):
        assert pod.dial(world, 80, **who) == f"outbound {shown(world, 80)}"


@pytest.mark.parametrize("version", [4, 6])
def test_what_stays_in_the_pod_is_not_captured(captured: Captured, version: int) -> None:
    pod = captured(*ALL)
    assert pod.dial(LOOPBACK[version], 8080) == "app"
    assert pod.dial(OWN[version][0], 8080) == "app"
    assert pod.dial(OWN[version][1], 8080) == "app"


@pytest.mark.parametrize("version", [4, 6])
def test_every_caller_is_captured_at_every_address_and_port(captured: Captured, version: int) -> None:
    pod = captured(*ALL)
    for own in OWN[version]:
        for port in (80, 9999, 15006):
            assert pod.dial(own, port, from_world=True) == f"inbound {shown(own, port)}"


@pytest.mark.parametrize("version", [4, 6])
def test_excluded_inbound_ports_reach_the_application(captured: Captured, version: int) -> None:
    pod, own = captured(*ALL, "--exclude-inbound-ports", "15020,9000-9005"), OWN[version][0]
    assert pod.dial(own, 15020, from_world=True) == "app"
    assert pod.dial(own, 9005, from_world=True) == "app"
    assert pod.dial(own, 9006, from_world=True) == f"inbound {shown(own, 9006)}"
    assert pod.dial(own, 9005, uid=1337) == "app"


@pytest.mark.parametrize("version", [4, 6])
def test_only_included_inbound_ports_are_captured(captured: Captured, version: int) -> None:
    pod, own = captured("--include-inbound-ports", "80,8000-8080"), OWN[version][0]
    assert pod.dial(own, 80, from_world=True) == f"inbound {shown(own, 80)}"
    assert pod.dial(own, 8080, from_world=True) == f"inbound {shown(own, 8080)}"
    assert pod.dial(own, 9005, from_world=True) == "app"
    assert pod.dial(WORLD[version], 80) == "world"


@pytest.mark.parametrize("version", [4, 6])
def test_without_included_inbound_ports_no_caller_is_captured(captured: Captured, version: int) -> None:
    pod = captured("--include-outbound-ip-ranges", "*")
    assert pod.dial(OWN[version][0], 8080, from_world=True) == "app"
    assert pod.dial(OWN[version][0], 8080, uid=1337) == "app"
    assert pod.dial(WORLD[version], 80) == f"outbound {shown(WORLD[version], 80)}"


@pytest.mark.parametrize("version", [4, 6])
def test_excluded_outbound_ports_go_past_the_sidecar(captured: Captured, version: int) -> None:
    pod, world = captured(*ALL, "--exclude-outbound-ports", "25,8000-8005"), WORLD[version]
    assert pod.dial(world, 25) == "world"
    assert pod.dial(world, 8005) == "world"
    assert pod.dial(world, 8006) == f"outbound {shown(world, 8006)}"


@pytest.mark.parametrize("version", [4, 6])
def test_included_outbound_ports_are_captured_whatever_their_address(captured: Captured, version: int) -> None:
    pod, world = captured("--include-outbound-ports", "443,8000-8005"), WORLD[version]
    assert pod.dial(world, 443) == f"outbound {shown(world, 443)}"
    assert pod.dial(world, 8005) == f"outbound {shown(world, 8005)}"
    assert pod.dial(world, 80) == "world"


INCLUDED = ("--include-outbound-ip-ranges", "198.51.100.0/24,198.51.100.0/28,2001:db8:1::/48,2001:db8:1::1/128")
EXCLUDED = ("--exclude-outbound-ip-ranges", "198.51.100.128/25,198.51.100.129/32,2001:db8:1:1::/64")
INSIDE = {4: "198.51.100.1", 6: "2001:db8:1::1"}
CUT_OUT = {4: "198.51.100.129", 6: "2001:db8:1:1::1"}


@pytest.mark.parametrize("version", [4, 6])
def test_only_included_networks_are_captured(captured: Captured, version: int) -> None:
    pod = captured(*INCLUDED)
    for inside in (INSIDE[version], CUT_OUT[version]):
        assert pod.dial(inside, 80) == f"outbound {shown(inside, 80)}"
    assert pod.dial(WORLD[version], 80) == "world"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("included", [INCLUDED, ALL])
def test_excluded_networks_go_past_whatever_is_included(
    captured: Captured, version: int, included: tuple[str, ...]
) -> None:
    pod = captured(*included, *EXCLUDED, "--include-outbound-ports", "443")
    assert pod.dial(INSIDE[version], 80) == f"outbound {shown(INSIDE[version], 80)}"
    assert pod.dial(CUT_OUT[version], 80) == "world"
    assert pod.dial(CUT_OUT[version], 443) == "world"


@pytest.mark.parametrize("version", [4, 6])
def test_an_excluded_interface_is_not_captured_either_way(captured: Captured, version: int) -> None:
    pod, (first, second) = captured(*ALL, "--exclude-interfaces", "eth1"), OWN[version]
    assert pod.dial(WORLD[version], 80) == f"outbound {shown(WORLD[version], 80)}"
    assert pod.dial(BY_ETH1[version], 80) == "world"
    assert pod.dial(first, 8080, from_world=True) == f"inbound {shown(first, 8080)}"
    assert pod.dial(second, 8080, from_world=True) == "app"


@pytest.mark.parametrize("version", [4, 6])
def test_other_ids_and_ports_are_taken(captured: Captured, version: int) -> None:
    pod, world = (
        captured(*ALL, "--uid", "2000", "--gid", "3000", "--outbound-port", "15006", "--inbound-port", "15001"),
        WORLD[version],
    )
    assert pod.dial(world, 80, uid=2000) == "world"
    assert pod.dial(world, 80, gid=3000) == "world"
    assert pod.dial(world, 80, uid=1337) == f"inbound {shown(world, 80)}"  # whose listener 15006 is
