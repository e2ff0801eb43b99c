"""The file of a run: what was written is read again, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.results import FORMAT, Percentile, Repetition, ResultsError, ScenarioResult, dumps, loads
from tests.benchmark_runs import run_of, scenario

WHOLE = run_of(
    scenario(
        "latency-2000rps-c16/mtls/both/10-rules/log/envoy",
        {"p50_us": [100.0, 101.5], "cpu_us": [70.0, 71.0]},
        denials=2,
        rate=2_000,
    ),
    ScenarioResult(
        **{
            **{name: getattr(scenario("capacity-c1-0B/x", {"rate": [1.0]}), name) for name in ScenarioResult.__slots__},
            "repetitions": (
                Repetition(round=1, figures={"rate": 5.0}, percentiles=(Percentile(percent=50.0, us=9.5),)),
            ),
        }
    ),
    absent={"haproxy": "haproxy is not installed"},
    warnings=("one", "two"),
    sections={"stages": {"read": [1, 2.5, None, "us"]}},
)


def test_what_was_written_is_read_again() -> None:
    assert loads(dumps(WHOLE)) == WHOLE
    assert dumps(loads(dumps(WHOLE))) == dumps(WHOLE)


def change(path: list[str | int], value: Any) -> str:
    document = json.loads(dumps(WHOLE))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "no JSON"),
        ("[]", "does not say its format"),
        ('{"benchmark": "hops"}', "does not say its format"),
        (change(["format"], FORMAT + 1), f"is not {FORMAT}"),
        (change(["remora"], 7), "results.remora is not str: 7"),
        (change(["more"], 1), "keys that are not known: more"),
        (change(["settings"], {"mode": "quick"}), "results.settings lacks repetitions, seconds"),
        (change(["machine", "processors"], True), "results.machine.processors is not int"),
        (change(["scenarios"], {}), "results.scenarios is not a list"),
        (change(["scenarios", 0, "repetitions"], []), "has no repetition"),
        (change(["scenarios", 0, "repetitions", 1, "figures"], {"speed": 1.0}), "not known: 'speed'"),
        (change(["scenarios", 0, "repetitions", 1, "figures"], {"rate": -1.0}), "rate is -1.0"),
        (change(["scenarios", 0, "repetitions", 1, "figures"], {"rate": "5"}), "repetitions[1].figures.rate is not"),
        (change(["scenarios", 1, "name"], "latency-2000rps-c16/mtls/both/10-rules/log/envoy"), "there twice"),
    ],
)
def test_anything_else_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(ResultsError) as failure:
        loads(text)
    assert complaint in str(failure.value)


def test_a_figure_that_is_no_number_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        dumps(run_of(scenario("capacity-c1-0B/x", {"rate": [float("nan")]})))


def test_a_scenario_gives_its_series_and_the_figures_of_all_rounds() -> None:
    first = WHOLE.maybe_scenario("latency-2000rps-c16/mtls/both/10-rules/log/envoy")
    assert first is not None
    assert first.series("p50_us") == [100.0, 101.5]
    assert first.metrics == ["cpu_us", "p50_us"]
    assert WHOLE.maybe_scenario("nothing") is None
