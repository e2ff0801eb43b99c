"""What is computed from the loads on an authority, and a small run against a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import authority
from benchmarks.authority_report import (
    LOADS,
    POLLS,
    RENEWALS,
    RENEWALS_ALONE,
    Fresh,
    Grown,
    Load,
    Start,
    percentile,
    remarks,
    sheet,
)
from benchmarks.host import Build, Cores, Machine
from benchmarks.sheet import as_json

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)


def load(*, asked: int = 400, cpu: float = 2.0) -> Load:
    return Load(asked=asked, seconds=2.0, cpu=cpu, callers_cpu=1.0, p50_ms=3.0, p99_ms=9.0, foreign_share=0.01)


def fresh(first: Load | None = None) -> Fresh:
    return Fresh(
        first=first or load(),
        before_mib=48.0,
        after_mib=60.0,
        loaded_mib=70.0,
        index_bytes=512.0,
        audit_bytes=1024.0,
        sync_ms=0.1,
    )


START = Start(ready=0.2, cpu=0.2, resident_mib=48.0, foreign_share=0.0)
GROWN = Grown(entries=10, empty=[START], grown=[START], reports=[(0.2, 0.1), (0.3, 0.2)], forget=[(1.0, 1.0)])


def test_replicas_come_from_renewals_polls_and_what_is_done_by_the_clock() -> None:
    # 5 ms a renewal, 2.3 of them a second; 1 ms a poll, 351 a second with the jitter; 10 ms a second by the clock.
    loads = {name: load() for name in LOADS} | {RENEWALS: load(asked=400, cpu=2.0), POLLS: load(asked=2_000, cpu=2.0)}
    rows = {row.name: row.figure.median for row in sheet(MACHINE, [], fresh(), [loads], GROWN).rows}
    assert rows["renewals"] == 200.0
    assert rows["renewals: CPU of the authority for one"] == 5.0
    assert rows["renewals: part of its core that was used"] == 1.0
    assert rows["cores for 100,000 sidecars"] == pytest.approx(0.0116 + 0.351 + 0.01, abs=0.001)
    assert rows["replicas for them, their cores used to 50%"] == 1


def test_a_core_that_was_not_full_is_named_unless_one_caller_asked_at_a_time() -> None:
    loads = {name: load() for name in LOADS}
    assert remarks(fresh(), [loads]) == []
    idle = load(cpu=1.0)
    assert remarks(fresh(), [loads | {RENEWALS_ALONE: idle}]) == []
    [said] = remarks(fresh(), [loads, loads | {POLLS: idle}])
    assert said.startswith("polls: the authority's core was used to 50% only")


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="at least one"):
        percentile([], 0.5)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="A SECOND CORE IS MISSING: the authority has one to itself")
def test_a_small_run_finds_every_certificate_where_it_must_stand(tmp_path: Path) -> None:
    plan = authority.Plan(sidecars=12, seconds=0.3, repetitions=1, entries=50)
    told: list[str] = []
    machine = Machine(python="", build=Build.OPTIMISED, openssl="", processor="", cores=Cores(proxies=0, others=1))
    found = authority.run(machine, plan, tmp_path, told.append)
    document = json.loads(as_json(found))
    [loads] = document["repetitions"][:1]
    assert set(loads) == set(LOADS)
    assert all(each["asked"] > 0 for each in loads.values())
    assert "12 sidecars" in told
