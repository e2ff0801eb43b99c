"""Measures each hot function of a hop by itself: nanoseconds of CPU per call, with their spread.

Every case is built once, from the sidecar's own parts, and called once to see that it does what it is for. Then rounds
go through all cases, one batch of some milliseconds each (A B C, A B C), so that a slow minute hits all alike. The
clock is the thread's CPU; what an empty call costs in the same round is taken off.

A function in a loop of its own finds its code and data in the caches, so it costs less here than on a hop, by up to a
half. These figures compare two forms of one function; what a hop pays is what `remora bench stages` says.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import micro_bytes, micro_cases, sheet
from benchmarks.figures import Figure, figure
from benchmarks.host import Machine
from benchmarks.micro_world import Case, Closing, World
from benchmarks.processes import BenchError, bound_to

BATCH_NS: Final = 4_000_000
"""CPU of one batch: some thousand calls, and short enough that a neighbour spoils one and not all."""
MIN_CALLS: Final = 10
HOW: Final = (
    f"interleaved rounds of about {BATCH_NS / 1e6:g} ms for each case, CPU time of the thread, the cost of an empty",
    "call taken off; caches are warm, so on a hop the same call costs more",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One case: nanoseconds of a call in each round, without those of an empty call."""

    name: str
    what: str
    rounds: Sequence[float]

    @property
    def figure(self) -> Figure:
        """Give the median and the range."""
        return figure(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Micro:
    """The whole result."""

    machine: Machine
    measured: Sequence[Measured]


def run(machine: Machine, repetitions: int, only: str, directory: Path, tell: Callable[[str], None]) -> Micro:
    """Measure the cases whose names match `only`, a pattern of the shell. Raises BenchError when none does."""
    with Closing() as closing, bound_to(machine.cores.proxies):
        world = World(directory, closing)
        wanted = choose([*micro_cases.cases(world), *micro_bytes.cases(world, closing)], only)
        return Micro(machine=machine, measured=measure(wanted, repetitions, tell))


def choose(known: Sequence[Case], only: str) -> list[Case]:
    """Take the cases whose names match a pattern; a word without `*` matches wherever it stands."""
    pattern = only if "*" in only else f"*{only}*"
    found = [case for case in known if fnmatch.fnmatchcase(case.name, pattern)]
    if not found:
        raise BenchError(f"no case is called {only!r}; there are {', '.join(case.name for case in known)}")
    return found


def measure(
    wanted: Sequence[Case],
    repetitions: int,
    tell: Callable[[str], None],
    clock: Callable[[], int] = time.thread_time_ns,
) -> list[Measured]:
    """Time each case once a round, in turn."""
    calls = {case.name: calls_of_a_batch(case.call, clock) for case in wanted}
    found: dict[str, list[float]] = {case.name: [] for case in wanted}
    for number in range(1, repetitions + 1):
        tell(f"round {number} of {repetitions}")
        empty = batch(_nothing, 20_000, clock)
        for case in wanted:
            found[case.name].append(max(0.0, batch(case.call, calls[case.name], clock) - empty))
    return [Measured(name=case.name, what=case.what, rounds=found[case.name]) for case in wanted]


def batch(call: Callable[[], object], count: int, clock: Callable[[], int]) -> float:
    """Call again and again; nanoseconds for each."""
    began = clock()
    for _ in itertools.repeat(None, count):
        call()
    return (clock() - began) / count


def calls_of_a_batch(call: Callable[[], object], clock: Callable[[], int]) -> int:
    """Find out how many calls a batch takes; they warm the case up."""
    count = MIN_CALLS
    while (each := batch(call, count, clock)) * count < BATCH_NS / 4:
        count *= 2
    return max(MIN_CALLS, round(BATCH_NS / each))


def as_text(micro: Micro) -> str:
    """Write what was measured for a person."""
    return sheet.as_text(
        sheet.Sheet(
            benchmark="micro",
            title="What a call of each hot function costs by itself",
            how=HOW,
            machine=micro.machine,
            rows=[sheet.Row(name=item.name, figure=item.figure, unit="ns") for item in micro.measured],
            foreign=[0.0] * len(micro.measured[0].rounds),
        )
    )


def as_json(micro: Micro) -> str:
    """Write everything, each round included, for programs."""
    return json.dumps(document(micro), indent=1) + "\n"


def document(micro: Micro) -> dict[str, Any]:
    """Write what was measured as a section of a run's results: each case with its rounds, nanoseconds of a call."""
    return {
        "kind": "micro",
        **micro.machine.document(),
        "how": list(HOW),
        "unit": "ns",
        "cases": [_document(item) for item in micro.measured],
        "warnings": micro.machine.warnings(),
    }


def _document(item: Measured) -> dict[str, Any]:
    return {**dataclasses.asdict(item), "figure": dataclasses.asdict(item.figure)}


def _nothing() -> None:
    """Cost what any call costs."""
