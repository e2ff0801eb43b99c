"""Measures how long a sidecar takes from the start of its process until /readyz answers 200.

Each start is a fresh process with a whole configuration: one inbound port, one outbound service, two policies, an
identity of three files. Everything lies in the page cache and is compiled, as it is on a node that ran a pod before:
the first start is not counted. The time of the interpreter alone stands beside it, because nobody here can change it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.alone import CoreWatch, compile_code, launch
from benchmarks.figures import figure
from benchmarks.host import Machine
from benchmarks.processes import Programs, bound_to, free_ports, thread_nanoseconds
from benchmarks.sheet import Row, Sheet
from certs.memory import MemoryAuthority

TARGET_SECONDS: Final = 0.6
PAUSE: Final = 0.002
"""Between two questions whether it is ready: half a hundredth of the figure; they come from the other core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """One start, in seconds: the time until it was ready, the CPU used by then, and the interpreter alone."""

    ready: float
    cpu: float
    interpreter: float
    foreign_share: float


def run(machine: Machine, repetitions: int, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it does not start."""
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    found = []
    with bound_to(machine.cores.others):
        tell("a first start, which is not counted")
        compile_code(memory, directory / "first", machine.cores.proxies)
        for number in range(1, repetitions + 1):
            tell(f"start {number} of {repetitions}")
            found.append(_start(memory, directory / f"start-{number}", machine.cores.proxies))
    return sheet(machine, found)


def sheet(machine: Machine, repetitions: Sequence[Repetition]) -> Sheet:
    """Write down what starts took."""
    return Sheet(
        benchmark="start",
        title="From the start of a sidecar's process until it is ready",
        how=[f"{len(repetitions)} starts after one that is not counted; asked every {PAUSE * 1000:g} ms"],
        machine=machine,
        rows=[
            Row(
                name="start to ready",
                figure=figure([item.ready for item in repetitions]),
                unit="s",
                target=TARGET_SECONDS,
            ),
            Row(name="start to ready: CPU used by then", figure=figure([item.cpu for item in repetitions]), unit="s"),
            Row(
                name="the interpreter alone (-c pass)",
                figure=figure([item.interpreter for item in repetitions]),
                unit="s",
            ),
        ],
        foreign=[item.foreign_share for item in repetitions],
        repetitions=[asdict(item) for item in repetitions],
    )


def _start(memory: MemoryAuthority, home: Path, core: int) -> Repetition:
    watch = CoreWatch(core)
    interpreter = _interpreter_alone(core)
    [nobody] = free_ports(1)
    with Programs() as programs:
        alone = launch(programs, memory, home, core=core, app=nobody, endpoint=nobody)
        alone.wait_until_ready(pause=PAUSE)
        ready = time.monotonic() - alone.launched_at
        cpu = thread_nanoseconds(alone.pid) / 1e9
        return Repetition(ready=ready, cpu=cpu, interpreter=interpreter, foreign_share=watch.foreign(cpu + interpreter))


def _interpreter_alone(core: int) -> float:
    with bound_to(core):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return time.monotonic() - began
