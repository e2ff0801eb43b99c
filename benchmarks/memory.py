"""Measures what one sidecar keeps in memory: when nothing happens, and for each idle connection.

    inbound     callers == mutual TLS, kept open ==> sidecar --one connection--> application
    outbound    application --kept open--> sidecar == mutual TLS, pooled ==> service

Connections are opened in steps, each serves a request, and when all are idle again memory is read. The slope of a
straight line through the steps is what one more connection costs; what the first ones cost besides (code that runs for
the first time, buffers that all share) is the line's beginning and not charged to connections.

Outbound, a connection to the service is made only while all others are busy. So the application's connections are
opened first and counted for themselves, while one pooled connection serves them in turn; then more and more of them
ask at once, and the service answers nobody before everybody has asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import configs
from benchmarks.alone import ACCOUNT, Alone, CoreWatch, compile_code, launch
from benchmarks.figures import Line as Fit
from benchmarks.figures import figure, fit_line
from benchmarks.host import Machine
from benchmarks.peers import (
    REQUEST,
    Line,
    MeshServer,
    application,
    close_all,
    reserve_descriptors,
    tls_context,
)
from benchmarks.processes import BenchError, Programs, bound_to, cpu_seconds
from benchmarks.sheet import Row, Sheet
from certs.memory import MemoryAuthority

PROCESS_TARGET_MIB: Final = 48.0
CONNECTION_TARGET_KIB: Final = 40.0
STRAIGHT_KIB: Final = 512.0
"""How far a step may lie off the line: a page or a block of the allocator, not a second slope."""

_SETTLE_SECONDS: Final = 5.0
_STILL_KIB: Final = 16
_LIMITS: Final = {"pool_connections": 10_000, "mesh_idle_timeout": "1h", "http_idle_timeout": "1h"}
"""By default a pool keeps 1,024 connections to an endpoint, and each for a minute: here they must stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of a process in KiB: `pss` shares what others map as well among all of them."""

    rss: int
    pss: int


def parse_memory(text: str) -> Memory:
    """Read /proc/<pid>/smaps_rollup (proc(5)). Raises ValueError when a figure is missing.

    >>> parse_memory("55e0-7ffd ---p 0 00:00 0 [rollup]\\nRss:   1740 kB\\nPss:    334 kB\\nPss_Dirty: 1 kB\\n")
    Memory(rss=1740, pss=334)
    """
    found = {name: int(number) for name, number in re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.M)}
    if len(found) < 2:
        raise ValueError("smaps_rollup lacks Rss or Pss")
    return Memory(rss=found["Rss"], pss=found["Pss"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was resident while `connections` stood idle."""

    connections: int
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """One process: what it kept before anybody came, and at each step."""

    idle: Memory
    steps: Mapping[str, Sequence[Step]]
    foreign_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: fresh processes of each direction, the most connections, the steps up to there."""

    repetitions: int
    connections: int
    steps: int


INBOUND: Final = "inbound mTLS connection"
PLAIN: Final = "outbound plaintext connection"
OUTBOUND: Final = "outbound mTLS connection"


def step_sizes(connections: int, steps: int) -> list[int]:
    """Divide connections into equal steps, as far as whole numbers go.

    >>> step_sizes(1000, 4)
    [250, 500, 750, 1000]
    """
    return sorted({max(1, connections * number // steps) for number in range(1, steps + 1)})


def run(machine: Machine, plan: Plan, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it cannot be done."""
    reserve_descriptors(2 * plan.connections)
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    core, repetitions = machine.cores.proxies, []
    groups: set[str] = set()
    with bound_to(machine.cores.others):
        compile_code(memory, directory / "first", core)
    for number in range(1, plan.repetitions + 1):
        for measure in (_inbound, _outbound):
            tell(f"process {number} of {plan.repetitions}: {measure.__name__.strip('_')}")
            home = directory / f"{measure.__name__.strip('_')}-{number}"
            with Programs() as programs, bound_to(machine.cores.others):
                repetitions.append(measure(programs, memory, home, core, plan, groups))
    return sheet(machine, plan, repetitions, groups)


def sheet(machine: Machine, plan: Plan, repetitions: Sequence[Repetition], groups: set[str]) -> Sheet:
    """Lay lines through the steps and write down what a connection costs."""
    fits: dict[str, list[tuple[Fit, Memory]]] = {}
    for repetition in repetitions:
        for kind, steps in repetition.steps.items():
            fits.setdefault(kind, []).append((_fit(steps), steps[-1].memory))
    idle = [repetition.idle for repetition in repetitions]
    rows = [
        Row(
            name="idle process, RSS",
            figure=figure([item.rss / 1024 for item in idle]),
            unit="MiB",
            target=PROCESS_TARGET_MIB,
        ),
        Row(name="idle process, PSS", figure=figure([item.pss / 1024 for item in idle]), unit="MiB"),
    ]
    for kind, found in fits.items():
        target = None if kind == PLAIN else CONNECTION_TARGET_KIB
        rows.append(Row(name=kind, figure=figure([fit.slope for fit, _ in found]), unit="KiB", target=target))
        full = f"{kind}: process with {plan.connections:,} of them"
        rows += [
            Row(name=f"{full}, RSS", figure=figure([last.rss / 1024 for _, last in found]), unit="MiB"),
            Row(name=f"{full}, PSS", figure=figure([last.pss / 1024 for _, last in found]), unit="MiB"),
        ]
    crooked = max(fit.farthest for found in fits.values() for fit, _ in found)
    return Sheet(
        benchmark="memory",
        title="Resident memory of one sidecar, and of each idle connection after one request",
        how=[
            f"{plan.repetitions} fresh processes for each direction, {plan.connections:,} connections "
            f"in {plan.steps} steps; a connection is the slope of the line of least squares through RSS",
            f"key agreement {', '.join(sorted(groups))}; the kernel's socket buffers are not in it",
        ],
        machine=machine,
        rows=rows,
        foreign=[repetition.foreign_share for repetition in repetitions],
        repetitions=[_document(repetition) for repetition in repetitions],
        remarks=[f"a step lies {crooked:.0f} KiB off its line: the slope is not the whole story"]
        if crooked > STRAIGHT_KIB
        else [],
    )


def _document(repetition: Repetition) -> dict[str, Any]:
    document = asdict(repetition)
    document["lines_rss_kib"] = {kind: asdict(_fit(steps)) for kind, steps in repetition.steps.items()}
    return document


def _fit(steps: Sequence[Step]) -> Fit:
    return fit_line([(step.connections, float(step.memory.rss)) for step in steps])


# --- one process ----------------------------------------------------------------------------------------------------


def _inbound(
    programs: Programs, memory: MemoryAuthority, home: Path, core: int, plan: Plan, groups: set[str]
) -> Repetition:
    caller = tls_context(memory.svid(configs.NAMESPACE, configs.CALLER), memory.bundle, server=False)
    watch, lines, steps = CoreWatch(core), list[Line](), []
    with ExitStack() as held:
        app = held.enter_context(application())
        held.callback(close_all, lines)
        alone, idle = _start(programs, memory, home, core, app=app, endpoint=app)
        for size in step_sizes(plan.connections, plan.steps):
            while len(lines) < size:
                line = Line.call(alone.inbound, f"inbound connection {len(lines) + 1}", caller)
                lines.append(line)
                line.send(REQUEST)
                line.read_answer()
            steps.append(_settled_step(alone, len(lines)))
        groups.add(lines[0].group)
        _check_open(alone, "inbound", len(lines))
        return Repetition(idle=idle, steps={INBOUND: steps}, foreign_share=watch.foreign(cpu_seconds([alone.pid])))


def _outbound(
    programs: Programs, memory: MemoryAuthority, home: Path, core: int, plan: Plan, groups: set[str]
) -> Repetition:
    service = tls_context(memory.svid(configs.NAMESPACE, ACCOUNT), memory.bundle, server=True)
    watch, lines, plain, mesh = CoreWatch(core), list[Line](), [], []
    sizes = step_sizes(plan.connections, plan.steps)
    with ExitStack() as held:
        server = held.enter_context(closing(MeshServer(service)))
        held.callback(close_all, lines)
        alone, idle = _start(programs, memory, home, core, app=server.port, endpoint=server.port)
        for size in sizes:
            while len(lines) < size:
                line = Line.call(alone.outbound, f"the application's connection {len(lines) + 1}")
                lines.append(line)
                _ask([line], server)
            plain.append(_settled_step(alone, len(lines)))
        for size in sizes:
            _ask(lines[:size], server)
            mesh.append(_settled_step(alone, len(server.lines)))
        groups.add(server.lines[0].group)
        _check_open(alone, "outbound", len(lines))
        if len(server.lines) != len(lines):
            raise BenchError(f"{len(lines)} requests at once went out on {len(server.lines)} connections")
        return Repetition(
            idle=idle, steps={PLAIN: plain, OUTBOUND: mesh}, foreign_share=watch.foreign(cpu_seconds([alone.pid]))
        )


def _ask(lines: Sequence[Line], server: MeshServer) -> None:
    """Send a request on each line, and have all answered once the service holds all of them."""
    for line in lines:
        line.send(REQUEST)
    server.read_requests(len(lines))
    server.answer_all()
    for line in lines:
        line.read_answer()


def _start(
    programs: Programs, memory: MemoryAuthority, home: Path, core: int, *, app: int, endpoint: int
) -> tuple[Alone, Memory]:
    alone = launch(programs, memory, home, core=core, app=app, endpoint=endpoint, limits=_LIMITS)
    alone.wait_until_ready(pause=0.05)
    return alone, _settled(alone.pid)


def _settled_step(alone: Alone, connections: int) -> Step:
    return Step(connections=connections, memory=_settled(alone.pid))


def _settled(pid: int) -> Memory:
    """Read memory when it stands still: what a request leaves is freed within the second."""
    path = Path(f"/proc/{pid}/smaps_rollup")
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = parse_memory(path.read_text("ascii"))
    while True:
        time.sleep(0.3)
        now = parse_memory(path.read_text("ascii"))
        if abs(now.rss - before.rss) <= _STILL_KIB or time.monotonic() > deadline:
            return now
        before = now


def _check_open(alone: Alone, direction: str, count: int) -> None:
    """See that the sidecar itself counts as many open connections as we hold."""
    counted = open_connections(alone.metrics(), direction)
    if counted != count:
        raise BenchError(f"{count} {direction} connections were opened and the sidecar counts {counted:g} open")


def open_connections(page: bytes, direction: str) -> float:
    """Find how many connections are open in a page of metrics. Raises BenchError when it does not say.

    >>> open_connections(b'remora_connections_active{direction="inbound"} 12.0\\n', "inbound")
    12.0
    """
    found = re.search(rf'^remora_connections_active{{direction="{direction}"}} (\S+)$', page.decode("utf-8"), re.M)
    if found is None:
        raise BenchError(f"the sidecar's metrics do not count open {direction} connections")
    return float(found[1])
