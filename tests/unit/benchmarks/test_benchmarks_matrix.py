"""The scenarios of the suite: the whole matrix has names, and what the targets need is in the quick run."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.cli import main
from benchmarks.matrix import (
    COMPILED,
    CONNECTIONS,
    FORWARDERS,
    HTTP_PEERS,
    PAYLOADS,
    REMORA,
    RULES,
    SIDES,
    TCP_PEERS,
    Kind,
    Tier,
    scenarios,
    select,
    usual,
)
from benchmarks.suite_commands import REPETITIONS, SECONDS
from benchmarks.targets import TARGETS

ALL = scenarios()
NAMES = {scenario.name for scenario in ALL}


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["run", "--list", *words]) == 0
    return [line.rsplit(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]


def test_no_two_scenarios_have_one_name() -> None:
    assert len(NAMES) == len(ALL)


@pytest.mark.parametrize("load", ["capacity-c32-0B", "latency-2000rps-c16"])
def test_our_contenders_are_there_with_every_rule_count_log_and_side(
    load: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = set(listed(capsys))
    for tls, side, rules, log, contender in itertools.product(
        ("mtls", "plain"), SIDES, RULES, ("log", "no-log"), REMORA
    ):
        assert f"{load}/{tls}/{side}/{rules}-rules/{log}/{contender}" in names
    for tls, side, contender in itertools.product(("mtls", "plain"), SIDES, FORWARDERS):
        assert f"{load}/{tls}/{side}/0-rules/no-log/{contender}" in names


def test_every_payload_comes_with_every_number_of_connections(capsys: pytest.CaptureFixture[str]) -> None:
    names = set(listed(capsys))
    for connections, payload, contender in itertools.product(CONNECTIONS, PAYLOADS, (*REMORA, *HTTP_PEERS, *TCP_PEERS)):
        assert f"capacity-c{connections}-{payload}/{usual(contender).name}" in names
    assert {
        f"capacity-c{connections}-{payload}/no-proxy" for connections in CONNECTIONS for payload in PAYLOADS
    } <= names


@pytest.mark.parametrize(
    "pattern",
    ["roundtrips-*/remora-tcp", "bulk-*/remora-tcp", "handshakes-*/remora-tcp", "idle-2000/*", "start/*"],
)
def test_the_other_loads_are_part_of_a_full_run(pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys, "--only", pattern)
    assert any(scenario.tier <= Tier.FULL for scenario in select(ALL, pattern))


def test_a_full_run_has_every_setup_under_one_load_and_every_load_in_the_usual_setup() -> None:
    full = {scenario.name for scenario in ALL if scenario.tier <= Tier.FULL}
    assert {scenario.name for scenario in select(ALL, "capacity-c32-0B/*remora*")} <= full
    assert {f"capacity-c{c}-{size}/{usual('remora-http').name}" for c in CONNECTIONS for size in PAYLOADS} <= full


def test_a_quick_run_settles_every_target() -> None:
    quick = {scenario.name for scenario in ALL if scenario.tier is Tier.QUICK}
    for target in TARGETS:
        assert set(target.ours) & quick
        assert {name for name in (target.theirs, target.without) if name} <= quick


def test_the_compiled_form_is_measured_beside_the_pure_one() -> None:
    pure = {
        scenario.name: scenario
        for scenario in select(ALL, "10-rules/log/remora-http")
        if scenario.load.kind in (Kind.CAPACITY, Kind.LATENCY)
    }
    compiled = {scenario.name: scenario for scenario in select(ALL, "/remora-compiled")}
    assert {name.replace("remora-http", COMPILED) for name in pure} == set(compiled)
    for name, scenario in pure.items():
        other = compiled[name.replace("remora-http", COMPILED)]
        assert other.block == scenario.block
        assert (other.tier <= Tier.FULL) is (scenario.tier <= Tier.FULL)
    quick = [scenario.name for scenario in compiled.values() if scenario.tier is Tier.QUICK]
    assert quick == ["capacity-c32-0B/mtls/both/10-rules/log/remora-compiled"]


def test_handshakes_are_held_against_a_tunnel_too() -> None:
    named = {scenario.name: scenario for scenario in ALL}
    http, tunnel = (named[f"handshakes-c8/mtls/both/0-rules/no-log/{name}"] for name in ("nginx", "nginx-tcp"))
    assert tunnel.block == http.block
    assert {tunnel.tier, http.tier} == {Tier.QUICK}


def test_a_quick_run_takes_about_five_minutes() -> None:
    quick = [scenario for scenario in ALL if scenario.tier is Tier.QUICK and not scenario.load.kind.alone]
    assert len(quick) * SECONDS * REPETITIONS < 200


def test_what_is_compared_lies_in_one_block() -> None:
    block = {scenario.name: scenario.block for scenario in ALL}
    for target in TARGETS:
        for other in filter(None, (target.theirs, target.without)):
            assert block[other] == block[target.ours[0]]


def test_a_pattern_that_names_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--only", "no-such-thing"]) == 2
    assert "--list" in capsys.readouterr().err
