"""Runs scenarios: starts who stands between, measures in rounds, checks that the work was done, ends everybody.

    block   scenarios that are compared with each other: same hops, both protocols' own loads
      start every setup of it once, warm it up
      round 1   scenario A, B, C, ...        one after the other, so that a slow minute of the host hits all alike
      round 2   scenario A, B, C, ...
      end every setup of it

Whoever cannot be started, or does not do its work in a round, is left out from then on and named in the warnings; the
others go on. What is measured of a repetition is in `results.METRICS`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import configs, probes, wiring
from benchmarks.compiled import CompiledForm
from benchmarks.configs import Hop
from benchmarks.contenders import REQUIRED, application_command, maybe_program
from benchmarks.drive import cost, drive
from benchmarks.hops import get, make_identities
from benchmarks.host import Machine, foreign_share
from benchmarks.load import LoadError
from benchmarks.matrix import PAYLOADS, Kind, Load, Scenario, Setup
from benchmarks.processes import (
    START_SECONDS,
    BenchError,
    Programs,
    bound_to,
    core_seconds,
    cpu_seconds,
    free_ports,
    resident_mib,
    write_files,
)
from benchmarks.results import Repetition
from benchmarks.suite_alone import measure_alone

WARM_UP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: seconds of a repetition, rounds, processes and starts where one sidecar is measured alone.

    `compiled` is the environment in which the compiled form was looked for.
    """

    seconds: float
    repetitions: int
    processes: int
    starts: int
    compiled: CompiledForm


@dataclass(slots=True)
class Measured:
    """What came of one scenario."""

    scenario: Scenario
    repetitions: list[Repetition] = field(default_factory=list)
    denials: int = 0


@dataclass(slots=True)
class Outcome:
    """What came of a run: what was measured, and why the rest was not, by scenario or contender."""

    measured: list[Measured] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all setups stand on: ports of the applications, identities by account, the cores, a directory."""

    http: int
    tcp: int
    identities: dict[str, Path]
    machine: Machine
    directory: Path
    wrk: str
    compiled: CompiledForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A setup that runs: its measured hops and their processes, and where a load of each protocol enters."""

    setup: Setup
    hops: tuple[Hop, ...]
    pids: tuple[int, ...]
    entry: int

    @property
    def inbound(self) -> Hop | None:
        """The measured inbound hop, if there is one."""
        return next((hop for hop in self.hops if hop.inbound), None)


Tell = Callable[[str], None]


def run(chosen: Sequence[Scenario], plan: Plan, machine: Machine, directory: Path, tell: Tell) -> Outcome:
    """Measure scenarios. Raises BenchError when nothing can be: a program is missing that every load needs."""
    for name, why in REQUIRED.items():
        if maybe_program(name) is None:
            raise BenchError(f"{name} is not installed and {why}: apt-get install {name}")
    outcome = Outcome()
    possible = list(_possible(chosen, plan.compiled, outcome, tell))
    blocks: dict[tuple[bool, str, bool], list[Measured]] = {}
    for scenario in possible:
        measured = Measured(scenario)
        outcome.measured.append(measured)
        if not scenario.load.kind.alone:
            blocks.setdefault(scenario.block, []).append(measured)
    with Programs() as programs, bound_to(machine.cores.others):
        ground = _lay_ground(programs, machine, directory, plan.compiled)
        for number, block in enumerate(blocks.values(), 1):
            tell(f"block {number} of {len(blocks)}: {len(block)} scenarios")
            _run_block(block, plan, ground, outcome, tell)
    for measured in outcome.measured:
        if measured.scenario.load.kind.alone:
            tell(measured.scenario.name)
            try:
                measured.repetitions = measure_alone(
                    measured.scenario.load, plan.processes, plan.starts, machine, directory, tell
                )
            except BenchError as failure:
                outcome.failed[measured.scenario.name] = str(failure)
    outcome.measured = [measured for measured in outcome.measured if measured.repetitions]
    return outcome


def _possible(chosen: Sequence[Scenario], compiled: CompiledForm, outcome: Outcome, tell: Tell) -> Iterator[Scenario]:
    for scenario in chosen:
        contender = scenario.setup.contender
        if why := outcome.absent.get(contender) or wiring.absence(contender, compiled):
            if contender not in outcome.absent:
                tell(f"{contender} is left out: {why}")
            outcome.absent[contender] = why
        elif scenario.load.kind is Kind.LATENCY and (why := wiring.maybe_histogram()):
            outcome.failed[scenario.name] = why
        else:
            yield scenario


# --- setting up -----------------------------------------------------------------------------------------------------


def _lay_ground(programs: Programs, machine: Machine, directory: Path, compiled: CompiledForm) -> Ground:
    http, tcp = free_ports(2)
    home, core = directory / "application", machine.cores.others
    text = configs.application(http, home, as_root=os.geteuid() == 0, payloads=list(PAYLOADS.values()))
    write_files(home, {"nginx.conf": text, **{f"payload-{size}": "x" * size for size in PAYLOADS.values()}})
    nginx = maybe_program("nginx") or ""
    programs.start("the application", application_command(nginx, str(home)), core=core, port=http, directory=home)
    echo = directory / "echo"
    echo.mkdir()
    command = [sys.executable, "-m", "benchmarks.tcp_load", "serve", str(tcp)]
    programs.start("the echo", command, core=core, port=tcp, directory=echo)
    return Ground(
        http=http,
        tcp=tcp,
        identities=make_identities(directory),
        machine=machine,
        directory=directory,
        wrk=maybe_program("wrk") or "",
        compiled=compiled,
    )


def start(programs: Programs, setup: Setup, ground: Ground, app: int, home: Path) -> Standing:
    """Start a setup before the application at port `app`. Raises BenchError when a hop does not come up."""
    if setup.sides == "none":
        return Standing(setup=setup, hops=(), pids=(), entry=app)
    home.mkdir()
    hops, pids, after = [], [], app
    for inbound in (True, False):
        measured = setup.sides in ("both", "server" if inbound else "client")
        if not measured and not setup.tls:
            continue  # in plaintext the application, or the load, speaks for itself
        where = "inbound" if inbound else "outbound"
        listen, health = free_ports(2)
        hop = Hop(
            inbound=inbound,
            listen=listen,
            next=after,
            health=health,
            directory=home / where,
            identity=ground.identities[configs.CALLED if inbound else configs.CALLER],
        )
        helper = wiring.Wired(files={}, command=wiring.forwarder(hop))
        wired = wiring.wire(setup, hop, ground.compiled) if measured else helper
        write_files(hop.directory, wired.files)
        pid = programs.start(
            f"{setup.contender}'s {where} hop",
            wired.command,
            core=ground.machine.cores.proxies if measured else ground.machine.cores.others,
            port=listen,
            directory=hop.directory,
            stdout=hop.log if wired.log_on_stdout else None,
        )
        if measured:
            if setup.contender.startswith("remora"):
                wait_until_ready(hop, f"{setup.contender}'s {where} hop")
            hops.append(hop)
            pids.append(pid)
        after = listen
    return Standing(setup=setup, hops=tuple(hops), pids=tuple(pids), entry=after)


def wait_until_ready(hop: Hop, name: str) -> None:
    """Wait for a sidecar's /readyz: it listens before its policy is loaded, and refuses until then."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(BenchError):
            if get(hop.health, "/readyz")[0] == 200:
                return
        time.sleep(0.05)
    raise BenchError(f"{name} does not become ready")


# --- a block --------------------------------------------------------------------------------------------------------


def _run_block(block: Sequence[Measured], plan: Plan, ground: Ground, outcome: Outcome, tell: Tell) -> None:
    with Programs() as programs:
        standings = dict(_start_all(programs, block, ground, outcome, tell))
        for number in range(1, plan.repetitions + 1):
            for measured in block:
                scenario = measured.scenario
                standing = standings.get(scenario.setup)
                if standing is None or scenario.name in outcome.failed:
                    continue
                tell(f"round {number} of {plan.repetitions}: {scenario.name}")
                try:
                    repetition = _repetition(scenario.load, standing, plan.seconds, ground, number)
                except (BenchError, LoadError) as failure:
                    outcome.failed[scenario.name] = str(failure)
                    tell(f"{scenario.name} failed: {failure}")
                    continue
                measured.repetitions.append(repetition)
                measured.denials += wiring.judges(scenario.setup)
    for measured in block:
        # Rounds are compared with each other: a scenario that missed one is not a smaller result but none.
        if measured.scenario.name in outcome.failed:
            measured.repetitions.clear()


def _start_all(
    programs: Programs, block: Sequence[Measured], ground: Ground, outcome: Outcome, tell: Tell
) -> Iterator[tuple[Setup, Standing]]:
    first: dict[Setup, Load] = {}
    for measured in block:
        first.setdefault(measured.scenario.setup, measured.scenario.load)
    for setup, load in first.items():
        tell(f"start and warm up {setup.name}")
        number = sum(1 for _ in ground.directory.iterdir())
        try:
            app = ground.http if load.kind.http else ground.tcp
            standing = start(programs, setup, ground, app, ground.directory / f"{number:03}-{setup.contender}")
            drive(load, standing.entry, WARM_UP_SECONDS, ground.wrk)
        except (BenchError, LoadError) as failure:
            tell(f"{setup.name} failed: {failure}")
            for measured in block:
                if measured.scenario.setup == setup:
                    outcome.failed[measured.scenario.name] = str(failure)
            continue
        yield setup, standing


def _repetition(load: Load, standing: Standing, seconds: float, ground: Ground, number: int) -> Repetition:
    setup, core = standing.setup, ground.machine.cores.proxies
    if setup.log:
        _empty_logs(standing)
    busy, stolen = core_seconds(core)
    cpu, began = cpu_seconds(standing.pids), time.monotonic()
    driven = drive(load, standing.entry, seconds, ground.wrk, _maybe_probe(standing, ground, number))
    cpu, elapsed = cpu_seconds(standing.pids) - cpu, time.monotonic() - began
    busy_after, stolen_after = core_seconds(core)
    figures = dict(driven.figures)
    if standing.pids:
        if not cpu:
            raise BenchError("the hops used no CPU that could be measured")
        figures |= {**cost(load, cpu, driven.total), "rss_mib": resident_mib(standing.pids)}
    if setup.log:
        _check_logs(load, standing, driven.total, number)
        _empty_logs(standing)
    return Repetition(
        round=number,
        figures=figures,
        proxy_share=min(1.0, cpu / elapsed),
        foreign_share=foreign_share(busy_after - busy, cpu, stolen_after - stolen, elapsed),
        percentiles=driven.percentiles,
    )


def _maybe_probe(standing: Standing, ground: Ground, number: int) -> Callable[[], None] | None:
    if not wiring.judges(standing.setup) or standing.inbound is None:
        return None
    if wiring.reads_http(standing.setup):
        return partial(probes.expect_denied_request, standing.entry, number)
    identity = ground.identities[configs.CALLER] if standing.setup.tls else None
    return partial(probes.expect_denied_connection, standing.inbound.listen, identity)


def _check_logs(load: Load, standing: Standing, total: int, number: int) -> None:
    http = wiring.reads_http(standing.setup)
    # What passes bytes on writes a line for each connection, and those of a load end with it.
    due = total if http or load.kind is Kind.HANDSHAKES else load.connections
    for hop in standing.hops:
        probes.await_lines(hop.log, due, f"the {'inbound' if hop.inbound else 'outbound'} hop")
    if standing.inbound is not None and wiring.judges(standing.setup):
        probes.await_denial(standing.inbound.log, number, http=http)


def _empty_logs(standing: Standing) -> None:
    for hop in standing.hops:
        if hop.log.exists():
            os.truncate(hop.log, 0)
