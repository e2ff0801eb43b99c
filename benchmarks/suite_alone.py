"""Measures one sidecar by itself, as `remora bench memory` and `start` do, and gives it in the form of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import memory, start
from benchmarks.host import Machine
from benchmarks.matrix import Kind, Load
from benchmarks.results import Repetition

_STEPS: Final = 4


def measure_alone(
    load: Load, processes: int, starts: int, machine: Machine, directory: Path, tell: Callable[[str], None]
) -> list[Repetition]:
    """Measure memory in fresh processes, or starts. Raises BenchError when it cannot be done."""
    home = directory / load.name
    home.mkdir()
    if load.kind is Kind.START:
        return starts_of(start.run(machine, starts, home, tell).repetitions)
    plan = memory.Plan(repetitions=processes, connections=load.connections, steps=_STEPS)
    return memories_of(memory.run(machine, plan, home, tell).repetitions)


def starts_of(found: Sequence[Any]) -> list[Repetition]:
    """Make repetitions of a run's of the starts of `benchmarks.start`."""
    return [
        Repetition(
            round=number,
            figures={"ready_s": item["ready"], "ready_cpu_s": item["cpu"]},
            foreign_share=item["foreign_share"],
        )
        for number, item in enumerate(found, 1)
    ]


def memories_of(found: Sequence[Any]) -> list[Repetition]:
    """Make repetitions of a run's of those of `benchmarks.memory`, which takes inbound and outbound in turns."""
    made = []
    for number in range(0, len(found) - 1, 2):
        pair = found[number : number + 2]
        lines = {kind: line for item in pair for kind, line in item["lines_rss_kib"].items()}
        idle = max(item["idle"]["rss"] for item in pair)
        figures = {
            "idle_rss_mib": idle / 1024,
            "inbound_kib": max(0.0, lines[memory.INBOUND]["slope"]),
            "outbound_kib": max(0.0, lines[memory.OUTBOUND]["slope"]),
        }
        share = max(item["foreign_share"] for item in pair)
        made.append(Repetition(round=number // 2 + 1, figures=figures, foreign_share=share))
    return made
