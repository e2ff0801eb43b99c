"""The targets of the design: every row is there, and a run meets, misses or does not settle it."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.figures import figure
from benchmarks.matrix import scenarios
from benchmarks.results import METRICS
from benchmarks.targets import TARGETS, Target, Verdict, judge, verdict
from tests.benchmark_runs import run_of, scenario

US, ENVOY, NONE = (
    f"capacity-c1-0B/{rest}"
    for rest in ("mtls/both/10-rules/log/remora-http", "mtls/both/10-rules/log/envoy", "no-proxy")
)
ADDED = next(target for target in TARGETS if target.without == NONE and target.metric == "p50_us")


def test_targets_speak_of_scenarios_and_figures_that_there_are() -> None:
    names = {item.name for item in scenarios()}
    for target in TARGETS:
        assert {*target.ours, *filter(None, (target.theirs, target.without))} <= names
        assert target.metric in METRICS


@pytest.mark.parametrize(
    ("figure_", "limit"),
    [
        ("requests/s, 32 connections, to Envoy", 1.25),
        ("CPU per request, 32 connections, to Envoy", 1.25),
        ("requests/s, 32 connections, to nginx", 0.75),
        ("CPU per request, 32 connections, to nginx", 0.75),
        ("added p50, 1 connection", 1.0),
        ("added p99, 1 connection", 1.0),
        ("added p50 at 2,000 requests/s", 1.0),
        ("added p99 at 2,000 requests/s", 1.0),
        ("round trips/s", 1.0),
        ("bulk bytes/s", 0.8),
        ("handshakes/s", 0.8),
        ("memory idle", 48),
        ("idle inbound", 40),
        ("idle outbound", 40),
        ("start to ready", 0.6),
        ("10 rules to 1,000", pytest.approx(1 / 1.1)),
    ],
)
def test_every_row_of_the_design_is_a_target(figure_: str, limit: float) -> None:
    [found] = [target for target in TARGETS if figure_ in target.figure]
    assert found.limit == limit


RATIO = Target(figure="a", metric="rate", ours=("us",), theirs="them", limit=1.25)
CEILING = Target(figure="a", metric="ready_s", ours=("us",), limit=0.6)


@pytest.mark.parametrize(
    ("target", "values", "expected"),
    [
        (RATIO, [1.25, 1.5], Verdict.MET),
        (RATIO, [1.0, 1.24], Verdict.MISSED),
        (RATIO, [1.2, 1.3], Verdict.NOT_SETTLED),
        (RATIO, [1.5], Verdict.NOT_SETTLED),
        (CEILING, [0.5, 0.6], Verdict.MET),
        (CEILING, [0.61, 0.7], Verdict.MISSED),
        (CEILING, [0.5, 0.7], Verdict.NOT_SETTLED),
    ],
)
def test_the_whole_range_decides(target: Target, values: list[float], expected: Verdict) -> None:
    assert verdict(figure(values), target) is expected


def test_what_a_proxy_adds_is_compared_and_not_the_whole() -> None:
    results = run_of(
        scenario(US, {"p50_us": [120.0, 121.0, 122.0]}),
        scenario(ENVOY, {"p50_us": [220.0, 221.0, 222.0]}),
        scenario(NONE, {"p50_us": [19.0, 20.0, 40.0]}),
    )
    [found] = [item for item in judge(results) if item.target is ADDED]
    assert found.value is not None
    assert found.value.median == pytest.approx(201 / 101)
    assert found.verdict is Verdict.MET


def test_a_target_without_its_peer_or_its_baseline_is_not_measured() -> None:
    ours, peer = (scenario(name, {"p50_us": [120.0, 121.0]}) for name in (US, ENVOY))
    for results in (run_of(ours), run_of(peer), run_of(ours, peer)):
        assert {item.verdict for item in judge(results)} == {Verdict.NOT_MEASURED}
        assert len(judge(results)) == len(TARGETS)


def test_the_longer_measurement_of_memory_goes_first() -> None:
    idle = [target for target in TARGETS if target.metric == "inbound_kib"]
    short, long = (
        scenario(name, {"inbound_kib": [size, size + 1]})
        for name, size in zip(reversed(idle[0].ours), (30.0, 50.0), strict=True)
    )
    [found] = [item for item in judge(run_of(short, long)) if item.target is idle[0]]
    assert found.verdict is Verdict.MISSED
    [found] = [item for item in judge(run_of(short)) if item.target is idle[0]]
    assert found.verdict is Verdict.MET


def test_more_rules_may_cost_a_tenth_more() -> None:
    rules = TARGETS[-1]
    for many, expected in (([109.0, 109.5], Verdict.MET), ([111.0, 111.5], Verdict.MISSED)):
        results = run_of(scenario(rules.ours[0], {"cpu_us": many}), scenario(rules.theirs, {"cpu_us": [100.0, 100.0]}))
        [found] = [item for item in judge(results) if dataclasses.asdict(item.target) == dataclasses.asdict(rules)]
        assert found.verdict is expected
