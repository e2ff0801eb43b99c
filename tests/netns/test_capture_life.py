"""Rules come and go: removed without a trace, applied twice is once, one backend after the other, all or nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bare_pod import OWN, BarePod

from injector.capture.rules import Backend

pytestmark = [pytest.mark.debian, pytest.mark.timeout(120)]

BACKENDS = [backend.value for backend in Backend]
EVERYTHING = (
    *("--include-inbound-ports", "*", "--exclude-inbound-ports", "15020,9000-9010"),
    *("--include-outbound-ports", "443", "--exclude-outbound-ports", "25"),
    *("--include-outbound-ip-ranges", "10.0.0.0/8,192.0.2.0/24,fd00::/8,2001:db8::/32"),
    *("--exclude-outbound-ip-ranges", "10.1.0.0/16,fd01::/16", "--exclude-interfaces", "eth1,net7"),
)
WORLD = "192.0.2.10"


@pytest.fixture
def pod() -> Iterator[BarePod]:
    with BarePod() as made:
        yield made


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_are_removed_without_a_trace(pod: BarePod, backend: str) -> None:
    before = pod.state()
    pod.capture(*EVERYTHING, "--backend", backend)
    assert "::6" in pod.state()
    said = pod.capture("--remove")
    assert "the capture rules and the address are gone" in said
    assert pod.state() == before
    pod.capture("--remove")
    assert pod.state() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_applied_twice_is_once(pod: BarePod, backend: str) -> None:
    pod.capture(*EVERYTHING, "--backend", backend)
    once = pod.state()
    pod.capture(*EVERYTHING, "--backend", backend)
    assert pod.state() == once


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_rules_take_the_place_of_those_before(pod: BarePod, backend: str) -> None:
    fewer = ("--include-outbound-ports", "443", "--backend", backend)
    pod.capture(*fewer)
    few = pod.state()
    pod.capture(*EVERYTHING, "--backend", backend)
    pod.capture(*fewer)
    assert pod.state() == few


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in BACKENDS for b in BACKENDS if a != b])
def test_one_backend_takes_away_what_another_left(pod: BarePod, first: str, second: str) -> None:
    pod.capture(*EVERYTHING, "--backend", second)
    alone = pod.state()
    pod.capture("--remove")
    pod.capture(*EVERYTHING, "--backend", first)
    pod.capture(*EVERYTHING, "--backend", second)
    assert pod.state() == alone


@pytest.mark.parametrize("backend", BACKENDS)
def test_rules_of_others_stay(pod: BarePod, backend: str) -> None:
    done = pod.pod.run(
        *(
            "sh",
            "-euc",
            "iptables-nft -t nat -A OUTPUT -p tcp --dport 81 -j RETURN; iptables-legacy -t nat -N MINE; "
            "nft add table inet mine; nft add chain inet mine one",
        )
    )
    assert done.returncode == 0, done.stderr
    before = pod.state()
    pod.capture(*EVERYTHING, "--backend", backend)
    assert all(each in pod.state() for each in ("--dport 81 -j RETURN", ":MINE", "table inet mine"))
    pod.capture("--remove")
    assert pod.state() == before


def test_what_a_dry_run_prints_for_nft_is_what_gets_into_the_kernel(pod: BarePod) -> None:
    pod.capture(*EVERYTHING, "--backend", "nft")
    made = pod.pod.run("nft", "list", "ruleset").stdout
    pod.capture("--remove")
    before = pod.state()
    text = pod.capture(*EVERYTHING, "--dry-run")
    assert pod.state() == before
    done = pod.pod.run("sh", "-euc", 'printf %s "$1" | nft -f -', "sh", text)
    assert done.returncode == 0, done.stderr
    assert pod.pod.run("nft", "list", "ruleset").stdout == made
    removal = pod.capture("--dry-run", "--remove")
    assert pod.pod.run("nft", "list", "ruleset").stdout == made
    assert pod.pod.run("sh", "-euc", 'printf %s "$1" | nft -f -', "sh", removal).returncode == 0
    assert pod.state() == before


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_what_a_dry_run_prints_for_iptables_is_what_gets_into_the_kernel(pod: BarePod, backend: str) -> None:
    pod.capture(*EVERYTHING, "--backend", backend)
    made = pod.state()
    pod.capture("--remove")
    for part in pod.capture(*EVERYTHING, "--dry-run", "--backend", backend).split("# ")[1:]:
        command, _, text = part.partition("\n")
        program = command.replace("tables", backend.removeprefix("ip"))
        done = pod.pod.run("sh", "-euc", f'printf "%s\n" "$1" | {program}', "sh", text)
        assert done.returncode == 0, done.stderr
    done = pod.pod.run("ip", "address", "add", "::6/128", "dev", "lo")
    assert pod.state() == made


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("iptables-nft -t nat -N ISTIO_OUTPUT", "ISTIO_OUTPUT (iptables-nft)"),
        ("ip6tables-legacy -t nat -N ISTIO_INBOUND", "ISTIO_INBOUND (iptables-legacy)"),
        ("iptables-nft -t nat -N PROXY_INIT_OUTPUT", "PROXY_INIT_OUTPUT (iptables-nft)"),
        ("nft add table inet istio-proxy-nat", "inet istio-proxy-nat (nftables)"),
    ],
)
def test_rules_of_another_mesh_are_named(pod: BarePod, made: str, found: str) -> None:
    assert "warning" not in pod.capture(*EVERYTHING)
    assert pod.pod.run(*made.split()).returncode == 0
    assert f"warning: rules of another mesh are here: {found}; a pod is in one mesh alone" in pod.capture(*EVERYTHING)


def test_the_first_backend_that_works_is_taken(pod: BarePod) -> None:
    assert "remora injector capture: nft, IPv4 and IPv6; " in pod.capture(*EVERYTHING)
    pod.hide("nft")
    assert "remora injector capture: iptables-nft, IPv4 and IPv6; " in pod.capture(*EVERYTHING)
    pod.capture("--remove")
    for name in ("iptables-nft-restore", "ip6tables-nft-restore"):
        pod.hide(name)
    assert "remora injector capture: iptables-legacy, IPv4 and IPv6; " in pod.capture(*EVERYTHING)


@pytest.mark.parametrize("backend", ["iptables-nft", "iptables-legacy"])
def test_both_versions_of_ip_are_captured_or_none(pod: BarePod, backend: str) -> None:
    before = pod.state()
    pod.hide(f"ip6{backend.removeprefix('ip')}-restore")
    said = pod.capture(*EVERYTHING, "--backend", backend, code=1)
    assert f"no rules could be set ({backend}: broken (IPv6)); nothing is captured and nothing was left behind" in said
    assert pod.state() == before
    assert pod.dial(WORLD, 80) == "world"


def test_where_no_backend_works_each_says_why(pod: BarePod) -> None:
    before = pod.state()
    for name in ("nft", "iptables-nft-restore", "iptables-legacy-restore"):
        pod.hide(name)
    said = pod.capture(*EVERYTHING, code=1)
    assert "nft: broken; iptables-nft: broken (IPv4); iptables-legacy: broken (IPv4)" in said
    assert "or use the annotation remora.io/capture: ports" in said
    assert pod.state() == before


@pytest.mark.parametrize("words", [EVERYTHING, ("--remove",)])
def test_without_net_admin_nothing_is_done_and_the_mend_is_said(pod: BarePod, words: tuple[str, ...]) -> None:
    before = pod.state()
    done = pod.unprivileged("injector", "capture", *words)
    assert done.returncode == 1
    assert "this process may not set rules: it lacks the capability NET_ADMIN; run it as root with" in done.stderr
    assert pod.state() == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_ipv6_is_off_ipv4_alone_is_captured(backend: str) -> None:
    with BarePod(ipv6=False) as pod:
        said = pod.capture(*EVERYTHING, "--backend", backend)
        assert "not verified: IPv6, which is off here" in said
        assert "inbound IPv4 by 10.77.1.2:80" in said
        pod.start_sidecar()
        assert pod.dial(WORLD, 80) == f"outbound {WORLD}:80"
        assert pod.dial(OWN[4][0], 80, from_world=True) == f"inbound {OWN[4][0]}:80"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--include-inbound-ports", "http"), "--include-inbound-ports: "),
        (("--include-outbound-ip-ranges", "10.0.0.1/8"), "--include-outbound-ip-ranges: '10.0.0.1/8': write networks"),
        (("--uid", "0"), "--uid: '0' is no id of a sidecar: write one from 1 to 4294967294, by convention 1337"),
        (("--inbound-port", "15001"), "--inbound-port and --outbound-port are both 15001"),
    ],
)
def test_arguments_that_make_no_rules_change_nothing(pod: BarePod, words: tuple[str, ...], sentence: str) -> None:
    before = pod.state()
    assert sentence in pod.capture(*words, code=2)
    assert pod.state() == before
