"""Measures what a second worker gives on two cores: one inbound hop with one worker and with two, beside other proxies.

    load generator -> caller's hop (nginx, the same for all) =mutual TLS=> inbound hop of 1 or 2 workers -> application

The hop may run on two cores. Where the machine has no others, everything else runs there too, and what that takes the
workers lack: so beside requests/s stand the hop's CPU per request, which tells whether a second worker makes a request
dearer, and what a core for each worker would serve at that price, which is a projection and called one.

All are started once and warmed up; then round after round measures each for a few seconds, one after the other. That
every worker served is read from the kernel's account of each of them: processes of Remora and nginx, threads of Envoy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import configs, probes, wiring
from benchmarks.compiled import CompiledForm
from benchmarks.configs import Hop
from benchmarks.contenders import REQUIRED, application_command, maybe_program
from benchmarks.drive import drive
from benchmarks.hops import make_identities
from benchmarks.host import Machine, foreign_share
from benchmarks.matrix import COMPILED, Kind, Load, Setup, usual
from benchmarks.processes import (
    TICKS_PER_SECOND,
    BenchError,
    Programs,
    bound_to,
    core_seconds,
    cpu_seconds,
    free_ports,
    parse_process_stat,
    process_stats,
    resident_mib,
    trees,
    write_files,
)
from benchmarks.suite import WARM_UP_SECONDS, wait_until_ready
from benchmarks.workers_report import (
    COUNTS,
    Measured,
    Place,
    Plan,
    Repetition,
    Run,
    choose_place,
    idle_workers,
    shares_of,
)

CONTENDERS: Final = ("remora-http", COMPILED, "envoy", "nginx-json")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all hops stand on: the application's port and process, identities, cores, a directory, the load."""

    app: int
    app_pid: int
    identities: dict[str, Path]
    place: Place
    directory: Path
    wrk: str
    load: Load
    compiled: CompiledForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A hop that runs with its caller's hop before it, where the load enters at port `entry`."""

    setup: Setup
    hop: Hop
    pid: int
    caller_pid: int
    entry: int
    measured: Measured


def run(machine: Machine, plan: Plan, compiled: CompiledForm, directory: Path, tell: Tell) -> Run:
    """Measure those that are installed. Raises BenchError: one core only, a program is missing, work was not done."""
    place = choose_place(sorted(os.sched_getaffinity(0)))
    if place is None:
        raise BenchError("workers are for more than one core, and this process may use one only")
    for name, why in REQUIRED.items():
        if maybe_program(name) is None:
            raise BenchError(f"{name} is not installed and {why}: apt-get install {name}")
    absent = {name: why for name in CONTENDERS if (why := wiring.absence(name, compiled))}
    for name, why in absent.items():
        tell(f"{name} is left out: {why}")
    with Programs() as programs, bound_to(place.others):
        ground = _lay_ground(programs, place, plan, compiled, directory)
        standings = []
        for name in CONTENDERS:
            for workers in COUNTS if name not in absent else ():
                setup = dataclasses.replace(usual(name), sides="server", workers=workers)
                tell(f"start and warm up {name} with {workers}")
                standing = _start(programs, setup, ground)
                drive(ground.load, standing.entry, WARM_UP_SECONDS, ground.wrk)
                standings.append(standing)
        for number in range(1, plan.repetitions + 1):
            for standing in standings:
                tell(f"round {number} of {plan.repetitions}: {standing.setup.contender} with {standing.setup.workers}")
                standing.measured.repetitions.append(_repetition(standing, plan.seconds, ground, number))
    return Run(
        machine=machine,
        place=place,
        plan=plan,
        measured=[standing.measured for standing in standings],
        absent=absent,
    )


# --- setting up -----------------------------------------------------------------------------------------------------


def _lay_ground(programs: Programs, place: Place, plan: Plan, compiled: CompiledForm, directory: Path) -> Ground:
    [port] = free_ports(1)
    home = directory / "application"
    write_files(home, {"nginx.conf": configs.application(port, home, as_root=os.geteuid() == 0, payloads=[0])})
    command = application_command(maybe_program("nginx") or "", str(home))
    pid = programs.start("the application", command, core=place.others, port=port, directory=home)
    return Ground(
        app=port,
        app_pid=pid,
        identities=make_identities(directory),
        place=place,
        directory=directory,
        wrk=maybe_program("wrk") or "",
        load=Load(kind=Kind.CAPACITY, connections=plan.connections),
        compiled=compiled,
    )


def _start(programs: Programs, setup: Setup, ground: Ground) -> Standing:
    home = ground.directory / f"{setup.contender}-{setup.workers}"
    home.mkdir()
    listen, health, entry, unused = free_ports(4)
    hop = Hop(
        inbound=True,
        listen=listen,
        next=ground.app,
        health=health,
        directory=home / "inbound",
        identity=ground.identities[configs.CALLED],
    )
    wired = wiring.wire(setup, hop, ground.compiled)
    write_files(hop.directory, wired.files)
    pid = programs.start(setup.contender, wired.command, core=ground.place.hop, port=listen, directory=hop.directory)
    if setup.contender.startswith("remora"):
        wait_until_ready(hop, setup.contender)
    caller = Hop(
        inbound=False,
        listen=entry,
        next=listen,
        health=unused,
        directory=home / "caller",
        identity=ground.identities[configs.CALLER],
    )
    write_files(caller.directory, configs.nginx(caller, log=False, as_root=os.geteuid() == 0))
    command = application_command(maybe_program("nginx") or "", str(caller.directory))
    caller_pid = programs.start("the caller's hop", command, core=ground.place.others, port=entry, directory=home)
    measured = Measured(contender=setup.contender, workers=setup.workers, judges=wiring.judges(setup))
    return Standing(setup=setup, hop=hop, pid=pid, caller_pid=caller_pid, entry=entry, measured=measured)


# --- a repetition ---------------------------------------------------------------------------------------------------


def _repetition(standing: Standing, seconds: float, ground: Ground, number: int) -> Repetition:
    setup, hop, cores = standing.setup, standing.hop, ground.place.hop
    name = f"{setup.contender} with {setup.workers}"
    os.truncate(hop.log, 0)
    probe = partial(probes.expect_denied_request, standing.entry, number) if standing.measured.judges else None
    threads = setup.contender == "envoy"
    before, busy = worker_ticks(standing.pid, threads=threads), [core_seconds(core) for core in cores]
    clock = os.times()
    others = cpu_seconds([ground.app_pid, standing.caller_pid])
    driven = drive(ground.load, standing.entry, seconds, ground.wrk, probe)
    others = cpu_seconds([ground.app_pid, standing.caller_pid]) - others
    elapsed = os.times().elapsed - clock.elapsed
    after, busy_after = worker_ticks(standing.pid, threads=threads), [core_seconds(core) for core in cores]
    others += driven.figures["load_cpu_us"] * driven.total / 1e6
    cpu = (sum(after.values()) - sum(before.values())) / TICKS_PER_SECOND
    if cpu <= 0:
        raise BenchError(f"{name} used no CPU that could be measured")
    shares = shares_of(before, after, setup.workers)
    if idle := idle_workers(shares):
        raise BenchError(f"{name}: {idle} of its workers did not serve; their shares of its CPU are {shares}")
    probes.await_lines(hop.log, driven.total, name)
    if standing.measured.judges:
        probes.await_denial(hop.log, number, http=True)
    ran = sum(now[0] - then[0] for now, then in zip(busy_after, busy, strict=True))
    stolen = sum(now[1] - then[1] for now, then in zip(busy_after, busy, strict=True))
    return Repetition(
        rate=driven.figures["rate"],
        cpu_us=cpu / driven.total * 1e6,
        others_us=others / driven.total * 1e6,
        cores=cpu / elapsed,
        shares=shares,
        rss_mib=resident_mib([standing.pid]),
        foreign_share=foreign_share(
            ran, cpu + (others if ground.place.shared else 0.0), stolen, elapsed * len(ground.place.hop)
        ),
    )


def worker_ticks(root: int, *, threads: bool) -> dict[int, int]:
    """Read the ticks of each process of a hop, of which `root` is the first, or of each of their threads."""
    stats = process_stats()
    pids = trees(stats, [root])
    if not threads:
        return {pid: stats[pid].ticks for pid in pids}
    return dict(_thread_ticks(pids))


def _thread_ticks(pids: Sequence[int]) -> Iterator[tuple[int, int]]:
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended since
            for task in os.scandir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    yield int(task.name), parse_process_stat(Path(task.path, "stat").read_text("latin-1")).ticks
