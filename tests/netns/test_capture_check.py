"""`remora injector capture --check`: it looks with real connections, says what holds, what does not, and the mend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bare_pod import BarePod

pytestmark = [pytest.mark.debian, pytest.mark.timeout(120)]

ALL = ("--include-inbound-ports", "*", "--exclude-inbound-ports", "15020", "--include-outbound-ip-ranges", "*")


@pytest.fixture
def pod() -> Iterator[BarePod]:
    with BarePod() as made:
        yield made


def test_rules_that_work_are_found_and_left_as_they_are(pod: BarePod) -> None:
    pod.capture(*ALL)
    before = pod.state()
    said = pod.capture(*ALL, "--check")
    assert said == (
        "remora injector capture: the rules work; verified: outbound IPv4 by 192.0.2.1:80, inbound IPv4 by "
        "10.77.1.2:80, inbound IPv4 by 10.77.2.2:80, outbound IPv6 by [2001:db8::1]:80, inbound IPv6 by "
        "[fd77:1::2]:80, inbound IPv6 by [fd77:2::2]:80\n"
    )
    assert pod.state() == before


def test_without_rules_it_fails_for_each_direction_and_version(pod: BarePod) -> None:
    said = pod.capture(*ALL, "--check", code=1)
    for what in ("outbound IPv4", "inbound IPv4", "outbound IPv6", "inbound IPv6"):
        assert f"remora injector capture: {what}: a connection to " in said
    assert "look at the rules by `nft list ruleset` and `iptables-save`" in said
    assert "verified:" not in said.replace("not verified:", "")


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        ("nft flush chain inet remora output", "outbound IPv4"),
        ("nft flush chain inet remora inbound", "inbound IPv6"),
        ("nft insert rule inet remora output meta nfproto ipv6 return", "outbound IPv6"),
        ("nft insert rule inet remora inbound meta nfproto ipv4 tcp dport 80 redirect to :99", "inbound IPv4"),
    ],
)
def test_rules_that_somebody_changed_are_found(pod: BarePod, broken: str, fault: str) -> None:
    pod.capture(*ALL)
    done = pod.pod.run(*broken.split())
    assert done.returncode == 0, done.stderr
    assert f"remora injector capture: {fault}: a connection to " in pod.capture(*ALL, "--check", code=1)


def test_a_redirect_that_is_taken_by_another_rule_first_fails_when_it_is_applied(pod: BarePod) -> None:
    # Another's rule comes before ours, as those of a CNI may.
    script = (
        "table inet before { chain first { type nat hook output priority -150; "
        "meta skuid != 1337 ip daddr 192.0.2.0/24 tcp dport 80 redirect to :4444; }; }"
    )
    assert pod.pod.run("nft", script).returncode == 0
    said = pod.capture(*ALL, code=1)
    assert "outbound IPv4: a connection to 192.0.2.1:80 should have come out at port 15001" in said
    assert "another program that changes them" in said
    # The rules stay: a pod that calls nobody is safer than one that goes round its policies.
    assert "table inet remora" in pod.state()


def test_who_has_no_privilege_checks_calls_and_names_what_it_cannot(pod: BarePod) -> None:
    pod.capture(*ALL)
    done = pod.unprivileged("injector", "capture", *ALL, "--check")
    assert done.returncode == 0, done.stderr
    assert "the rules work; verified: outbound IPv4 by 192.0.2.1:80, outbound IPv6 by [2001:db8::1]:80" in done.stderr
    assert "not verified: inbound IPv4 (it takes the sidecar's user 1337, its group, or NET_ADMIN)" in done.stderr


def test_the_sidecars_user_checks_callers_and_names_what_it_cannot(pod: BarePod) -> None:
    pod.capture(*ALL)
    done = pod.unprivileged("injector", "capture", *ALL, "--check", user=1337)
    assert done.returncode == 0, done.stderr
    assert "verified: inbound IPv4 by 10.77.1.2:80" in done.stderr
    assert "not verified: outbound IPv4 (this process has the sidecar's user or group, which is let out)" in done.stderr


def test_what_the_rules_leave_out_is_not_called_verified(pod: BarePod) -> None:
    few = ("--include-outbound-ip-ranges", "10.9.0.0/16")
    said = pod.capture(*few)
    assert "verified: nothing" in said
    assert "not verified: inbound IPv4 (no inbound port is captured)" in said
    assert "not verified: outbound IPv6 (no address for tests (RFC 5737, RFC 3849) is among what is captured)" in said
    assert "nothing could be verified, so nothing is known of the rules" in pod.capture(*few, "--check", code=1)


def test_beside_a_running_sidecar_a_check_says_that_it_comes_too_late(pod: BarePod) -> None:
    pod.capture(*ALL)
    pod.start_sidecar()
    said = pod.capture(*ALL, "--check", code=1)
    assert "not verified: outbound IPv4 (port 15001 is in use: a sidecar runs already)" in said
    assert "not verified: inbound IPv6 at fd77:1::2 (port 15006 is in use: a sidecar runs already)" in said
    assert "check before the sidecar has its ports" in said
    assert "verified: nothing" in pod.capture(*ALL)


def test_without_a_route_a_call_is_not_tried(pod: BarePod) -> None:
    done = pod.pod.run("sh", "-euc", "ip route del default; ip -6 route del default")
    assert done.returncode == 0, done.stderr
    said = pod.capture(*ALL)
    assert "not verified: outbound IPv4 (no route to 192.0.2.1: Network is unreachable)" in said
    assert "inbound IPv4 by 10.77.1.2:80" in said
