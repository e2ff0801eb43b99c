"""Memory per connection is the slope of a line, and the descriptors that connections need are asked for before."""

from __future__ import annotations

import json
import resource

import pytest

from benchmarks import memory, peers
from benchmarks.host import Build, Cores, Machine
from benchmarks.memory import INBOUND, OUTBOUND, PLAIN, Memory, Plan, Repetition, Step, parse_memory, step_sizes
from benchmarks.processes import BenchError
from benchmarks.sheet import as_json

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)
PLAN = Plan(repetitions=1, connections=400, steps=4)


def steps(per_connection: int, beginning: int, *, bend: int = 0) -> list[Step]:
    sizes = [100, 200, 300, 400]
    return [
        Step(
            connections=size,
            memory=Memory(rss=beginning + per_connection * size + (bend if size == 400 else 0), pss=20_480),
        )
        for size in sizes
    ]


def repetitions(*, bend: int = 0) -> list[Repetition]:
    idle = Memory(rss=40_960, pss=20_480)
    return [
        Repetition(idle=idle, steps={INBOUND: steps(35, 43_000, bend=bend)}, foreign_share=0.0),
        Repetition(idle=idle, steps={PLAIN: steps(5, 43_000), OUTBOUND: steps(45, 45_000)}, foreign_share=0.0),
    ]


def test_a_connection_costs_the_slope_and_not_what_the_first_one_brings() -> None:
    rows = {row.name: row for row in memory.sheet(MACHINE, PLAN, repetitions(), {"X25519MLKEM768"}).rows}
    assert rows["idle process, RSS"].figure.median == 40.0
    assert rows["idle process, RSS"].verdict == "met"
    assert rows[INBOUND].figure.median == pytest.approx(35.0)
    assert rows[INBOUND].verdict == "met"
    assert rows[OUTBOUND].figure.median == pytest.approx(45.0)
    assert rows[OUTBOUND].verdict == "missed"
    assert rows[PLAIN].figure.median == pytest.approx(5.0)
    assert rows[PLAIN].verdict == ""
    full = rows[f"{INBOUND}: process with 400 of them, RSS"]
    assert full.figure.median == pytest.approx((43_000 + 35 * 400) / 1024)


def test_every_step_and_every_line_is_in_the_json() -> None:
    document = json.loads(as_json(memory.sheet(MACHINE, PLAN, repetitions(), {"X25519"})))
    first, _ = document["repetitions"]
    assert [step["connections"] for step in first["steps"][INBOUND]] == [100, 200, 300, 400]
    assert first["lines_rss_kib"][INBOUND]["slope"] == pytest.approx(35.0)


def test_a_bent_line_is_told() -> None:
    straight = memory.sheet(MACHINE, PLAN, repetitions(bend=1_000), {"X25519"})
    assert not straight.warnings()
    [said] = memory.sheet(MACHINE, PLAN, repetitions(bend=3_000), {"X25519"}).warnings()
    assert "off its line" in said


@pytest.mark.parametrize("text", ["", "Rss: 12 kB\n", "Pss: 12 kB\n", "Pss_Dirty: 3 kB\nRss: 12 kB\n"])
def test_a_report_of_the_kernel_without_a_figure_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="lacks"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("connections", "count", "sizes"), [(10, 3, [3, 6, 10]), (2, 8, [1, 2]), (1000, 2, [500, 1000])]
)
def test_steps_end_at_all_connections(connections: int, count: int, sizes: list[int]) -> None:
    assert step_sizes(connections, count) == sizes


def test_metrics_that_do_not_count_connections_are_refused() -> None:
    page = b'remora_connections_active{direction="outbound"} 2.0\n'
    assert memory.open_connections(page, "outbound") == 2.0
    with pytest.raises(BenchError, match="inbound"):
        memory.open_connections(page, "inbound")


@pytest.mark.parametrize(
    ("limits", "connections", "raised"),
    [
        ((1_024, 20_000), 2_000, 2_256),
        ((20_000, 20_000), 2_000, None),
        ((1_024, resource.RLIM_INFINITY), 2_000, 2_256),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 2_000, None),
    ],
)
def test_the_soft_limit_of_descriptors_is_raised_as_far_as_needed(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], connections: int, raised: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    peers.reserve_descriptors(connections)
    assert asked == ([] if raised is None else [(raised, limits[1])])


def test_the_hard_limit_of_descriptors_is_never_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, 2_000))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("the limit was touched"))
    with pytest.raises(BenchError, match="the limit is 2000: ask for fewer"):
        peers.reserve_descriptors(2_000)
