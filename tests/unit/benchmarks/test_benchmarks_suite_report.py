"""A run told to a person: ratios before absolutes, nobody called better without reason, and what weakens it."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks import tables
from benchmarks.compiled import CompiledForm
from benchmarks.matrix import COMPILED, Kind, Load, Setup, Tier, usual
from benchmarks.matrix import Scenario as Planned
from benchmarks.results import Repetition, RunSettings, dumps, loads
from benchmarks.suite import Measured, Outcome
from benchmarks.suite_alone import memories_of, starts_of
from benchmarks.suite_commands import results_of
from benchmarks.suite_report import as_text, warnings
from tests.benchmark_runs import MACHINE, run_of, scenario

US = scenario("capacity-c32-0B/mtls/both/10-rules/log/remora-http", {"cpu_us": [80.0, 82.0], "rate": [11.0, 12.0]})
NGINX = scenario("capacity-c32-0B/mtls/both/0-rules/log/nginx-json", {"cpu_us": [60.0, 61.5], "rate": [11.5, 13.0]})
FORM = CompiledForm(python="x", version="remora 0.1.0, byte path compiled by mypyc; CPython 3.11.2")
NOBODY = scenario("capacity-c32-0B/no-proxy", {"rate": [50.0, 52.0]}, sides="none")
RUN = run_of(NOBODY, US, NGINX, absent={"stunnel": "stunnel is not installed"}, warnings=["a warning"])


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_ratios_come_before_absolutes_and_overlaps_are_not_told_apart() -> None:
    told = lines(as_text(RUN, tables.as_text))
    ratio = told.index("mtls/both/10-rules/log/remora-http 0.75 x (0.75 to 0.75) 0.94 x (0.92 to 0.96), not told apart")
    assert "capacity-c32-0B: against mtls/both/0-rules/log/nginx-json, above 1 is better" in told[:ratio]
    absolute = "mtls/both/10-rules/log/remora-http 11.5 /s (11.0 to 12.0) 81.0 us (80.0 to 82.0) 99%"
    assert told.index(absolute) > ratio


def test_targets_absences_and_warnings_are_told() -> None:
    told = lines(as_text(RUN, tables.as_text))
    target = (
        "CPU per request, 32 connections, to nginx with a JSON log 0.75 x (0.75 to 0.75) at least 0.75 x, aim 1.00 x"
    )
    assert any(line.startswith(target) for line in told)
    assert "ABSENT: stunnel: stunnel is not installed" in told
    assert "WARNING: a warning" in told


def test_targets_that_a_chosen_run_is_not_about_are_left_out() -> None:
    assert "start to ready, s at most 0.6 not measured" in lines(as_text(RUN, tables.as_text))
    chosen = run_of(US, NGINX, settings=RunSettings(mode="only", seconds=1.0, repetitions=2))
    assert "not measured" not in as_text(chosen, tables.as_text)


def test_a_clean_run_has_no_warning() -> None:
    assert warnings(run_of(US, NGINX)) == []


def test_noise_an_idle_core_and_a_single_round_are_warned_of() -> None:
    noisy = scenario("capacity-c32-0B/mtls/both/0-rules/no-log/nginx", {"rate": [1.0]}, foreign_share=0.3)
    [noise, single] = warnings(run_of(noisy, US))
    assert "in 1 of 2 scenarios" in noise
    assert "no-log/nginx 30%" in noise
    assert "one round has no spread" in single
    idle = scenario("handshakes-c8/mtls/both/0-rules/no-log/nginx", {"rate": [1.0, 2.0]}, proxy_share=0.5)
    [said] = warnings(run_of(idle))
    assert "had time left (handshakes-c8/mtls/both/0-rules/no-log/nginx 50%)" in said


def test_a_table_is_drawn_with_rich_only_where_somebody_looks() -> None:
    table = tables.Table(title="T", headers=("a", "b"), rows=[("[1]", "2")])
    assert tables.render(table, terminal=False) == "T\n  a    b\n  [1]  2\n"
    drawn = tables.render(table, terminal=True)
    assert "[1]" in drawn
    assert (drawn == tables.as_text(table)) is (importlib.util.find_spec("rich") is None)


def test_an_outcome_is_written_down_with_what_failed_and_who_ran() -> None:
    planned = Planned(load=Load(kind=Kind.CAPACITY), setup=Setup(contender="uvloop", tls=False), tier=Tier.QUICK)
    measured = Measured(planned, [Repetition(round=1, figures={"rate": 5.0}, proxy_share=1.0)], denials=0)
    outcome = Outcome(measured=[measured], absent={"x": "y"}, failed={"latency/z": "it broke"})
    results = results_of(outcome, MACHINE, RunSettings(mode="only", seconds=1.0, repetitions=1), FORM)
    assert [item.name for item in results.scenarios] == [planned.name]
    assert results.scenarios[0].tls == "plain"
    assert results.machine.peers.keys() == {"uvloop"}
    assert results.absent == {"x": "y"}
    assert results.warnings[0] == "latency/z was not measured: it broke"
    assert "remora" in results.remora
    assert results.remora_compiled == ""


def test_both_forms_say_their_version_where_both_were_measured() -> None:
    planned = Planned(load=Load(kind=Kind.CAPACITY), setup=usual(COMPILED), tier=Tier.QUICK)
    measured = Measured(planned, [Repetition(round=1, figures={"rate": 5.0}, proxy_share=1.0)])
    settings = RunSettings(mode="only", seconds=1.0, repetitions=1)
    results = loads(dumps(results_of(Outcome(measured=[measured]), MACHINE, settings, FORM)))
    assert results.remora_compiled == FORM.version
    told = lines(as_text(results, tables.as_text))
    assert f"compiled {FORM.version}" in told
    assert any(line.startswith("remora remora ") for line in told)


def test_what_one_sidecar_costs_alone_takes_the_form_of_a_run() -> None:
    [start] = starts_of([{"ready": 0.25, "cpu": 0.2, "interpreter": 0.01, "foreign_share": 0.02}])
    assert start.figures == {"ready_s": 0.25, "ready_cpu_s": 0.2}

    def process(idle: int, **slopes: float) -> dict[str, object]:
        kinds = {f"{name} mTLS connection": {"slope": slope} for name, slope in slopes.items()}
        return {"idle": {"rss": idle}, "lines_rss_kib": kinds, "foreign_share": 0.0}

    [memory] = memories_of([process(46_080, inbound=39.5), process(47_104, outbound=41.0)])
    assert memory.figures == {"idle_rss_mib": 46.0, "inbound_kib": 39.5, "outbound_kib": 41.0}


@pytest.mark.parametrize("count", [0, 1])
def test_half_a_pair_is_no_measurement_of_memory(count: int) -> None:
    assert memories_of([{"idle": {"rss": 1}}] * count) == []
