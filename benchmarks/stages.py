"""Measures where the microseconds of a hop go: stage timers in the process, held against the kernel's account of CPU.

    plain     two hops as they are             the kernel's account: what the sum of the stages must meet
    timed     the same with stage timers       the stages
    doubled   the same with every timer twice  what the timers cost there: doubled - timed
    without   no access log, no TLS, no rules  subtraction runs: what the hop no longer pays, with no timer at all

All are started once, and measured in turn (A B C, A B C), each pair of hops on one core as in `remora bench hops`.
Whether the sum is right is not assumed: it must meet the CPU of the *plain* hop, which has no timers, within a tenth.

OpenSSL reads and writes the descriptor itself, so a timer around SSL_write times encryption and the send call together.
They are parted by what the same records cost in memory, where nothing is sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import configs, policies
from benchmarks.contenders import application_command, maybe_program
from benchmarks.figures import figure
from benchmarks.host import Machine
from benchmarks.load import parse_wrk, wrk_command
from benchmarks.processes import BenchError, Programs, bound_to, free_ports, thread_nanoseconds, write_files
from benchmarks.stages_records import TlsCost, tls_in_memory
from benchmarks.stages_report import Decomposition, Plan, Stages, decomposition, per_request, timers_factor
from benchmarks.stages_sidecar import COUNTED, SELDOM, TLS_READ, TLS_WRITE, Readings, load
from benchmarks.stages_timers import Cost, Reading, measure_cost, share_out
from certs.memory import MemoryAuthority, write_set

WARM_UP_SECONDS: Final = 1.0
READ_SECONDS: Final = 2
"""A repetition is at least this long: two readings of the timers, half a second apart, must fall into it."""

HOPS: Final = ("inbound", "outbound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Two hops that differ from the usual in one thing; `layers` of timers, and what they do without."""

    name: str
    layers: int = 0
    log: bool = True
    mutual: bool = True
    rules: int = 2


PLAIN: Final = Variant(name="plain")
TIMED: Final = Variant(name="timed", layers=1)
DOUBLED: Final = Variant(name="doubled", layers=2)
WITHOUT: Final = {
    "access log": Variant(name="no-log", log=False),
    "mutual TLS": Variant(name="no-tls", mutual=False),
    "policy rules": Variant(name="no-rules", rules=0),
}
VARIANTS: Final = (PLAIN, TIMED, DOUBLED, *WITHOUT.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One repetition: when (CLOCK_MONOTONIC), and the kernel's CPU of each hop for a request, in microseconds."""

    began_ns: int
    ended_ns: int
    requests: int
    cpu_us: Mapping[str, float]


@dataclass(slots=True)
class Pair:
    """Two hops that run: the port that requests go to, their processes and directories, what they did so far."""

    variant: Variant
    entry: int
    pids: dict[str, int]
    homes: dict[str, Path]
    taken: list[Taken] = field(default_factory=list)

    def cpu(self, hop: str) -> list[float]:
        """Give the kernel's CPU of a hop for a request, round by round."""
        return [item.cpu_us[hop] for item in self.taken]


def run(machine: Machine, plan: Plan, directory: Path, tell: Callable[[str], None]) -> Stages:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it cannot be done."""
    wrk, nginx = maybe_program("wrk"), maybe_program("nginx")
    if wrk is None or nginx is None:
        raise BenchError("wrk is the load generator and nginx the application: apt-get install wrk nginx")
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    identities = {}
    for account in (configs.CALLER, configs.CALLED):
        identities[account] = directory / f"identity-{account}"
        write_set(memory.svid(configs.NAMESPACE, account), {memory.trust_domain: memory.bundle}, identities[account])
    with Programs() as programs, bound_to(machine.cores.others):
        [app] = free_ports(1)
        home = directory / "application"
        write_files(home, {"nginx.conf": configs.application(app, home, as_root=os.geteuid() == 0)})
        command = application_command(nginx, str(home))
        programs.start("the application", command, core=machine.cores.others, port=app, directory=home)
        pairs = {}
        for variant in VARIANTS:
            tell(f"start and warm up: {variant.name}")
            pairs[variant] = pair = _start(programs, variant, app, identities, directory, machine.cores.proxies)
            _load(pair, wrk, plan, WARM_UP_SECONDS)
        for number in range(1, plan.repetitions + 1):
            for pair in pairs.values():
                tell(f"round {number} of {plan.repetitions}: {pair.variant.name}")
                pair.taken.append(_repetition(pair, wrk, plan))
    with bound_to(machine.cores.proxies):
        tls, cost = tls_in_memory(memory), measure_cost()
    timed = {hop: _timed_hop(hop, pairs[TIMED], cost) for hop in HOPS}
    factor = _factor(pairs, timed)
    found = [_decompose(hop, timed[hop], pairs, tls, cost.times(factor), factor) for hop in HOPS]
    return Stages(machine=machine, plan=plan, tls=tls, hops=found)


# --- the hops ---------------------------------------------------------------------------------------------------------


def _start(
    programs: Programs, variant: Variant, app: int, identities: Mapping[str, Path], directory: Path, core: int
) -> Pair:
    inbound, outbound, *health = free_ports(4)
    pair = Pair(variant=variant, entry=outbound, pids={}, homes={})
    for hop, listen, after, page in (("inbound", inbound, app, health[0]), ("outbound", outbound, inbound, health[1])):
        pair.homes[hop] = home = directory / f"{variant.name}-{hop}"
        legs = (listen, after)
        account = configs.CALLED if hop == "inbound" else configs.CALLER
        files = configs.sidecar(
            home,
            identities[account],
            account=account,
            health=page,
            inbound=legs if hop == "inbound" else None,
            outbound=legs if hop == "outbound" else None,
            policy=policies.documents(rules=variant.rules, http=True, mutual=variant.mutual),
            mutual=variant.mutual,
            default="deny" if variant.rules else "allow-all",
            log=variant.log,
        )
        write_files(home, files)
        command = configs.sidecar_command(home)
        if variant.layers:
            config = str(home / configs.CONFIG_FILE)
            ours = [sys.executable, "-m", "benchmarks.stages_sidecar"]
            command = [*ours, str(_readings(home)), str(variant.layers), "--config", config]
        name = f"the {hop} hop ({variant.name})"
        pair.pids[hop] = programs.start(name, command, core=core, port=listen, directory=home)
    return pair


def _readings(home: Path) -> Path:
    return home / "readings.json"


def _repetition(pair: Pair, wrk: str, plan: Plan) -> Taken:
    before, began = {hop: thread_nanoseconds(pid) for hop, pid in pair.pids.items()}, time.monotonic_ns()
    requests = _load(pair, wrk, plan, plan.seconds)
    ended = time.monotonic_ns()
    cpu = {hop: (thread_nanoseconds(pid) - before[hop]) / requests / 1e3 for hop, pid in pair.pids.items()}
    return Taken(began_ns=began, ended_ns=ended, requests=requests, cpu_us=cpu)


def _load(pair: Pair, wrk: str, plan: Plan, seconds: float) -> int:
    command = wrk_command(wrk, pair.entry, connections=plan.connections, seconds=seconds)
    for name, value in plan.client.fields:
        command += ["--header", f"{name}: {value}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)  # noqa: S603
    if said.returncode:
        raise BenchError(f"wrk ended with code {said.returncode}: {said.stderr.strip()[:300]}")
    # wrk pads the unit of whole seconds with a blank.
    report = parse_wrk("\n".join(line.rstrip() for line in said.stdout.splitlines()))
    if report.refused or report.broken or not report.requests:
        raise BenchError(f"{pair.variant.name}: {report.refused} requests refused, {report.broken} connections broken")
    return report.requests


# --- what it means ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedHop:
    """What the timers of one hop counted, a stretch for each round, and what they cost in a loop, us for a request."""

    readings: Readings
    stretches: Sequence[Reading]
    calls_us: float
    callbacks_us: float

    def count(self, stretch: Reading, stage: str) -> int:
        """Count the timed calls of a stage."""
        return stretch.calls[self.readings.stages.index(stage)]


def _timed_hop(hop: str, timed: Pair, cost: Cost) -> TimedHop:
    path = _readings(timed.homes[hop])
    if not path.exists():
        raise BenchError(f"the {hop} hop with timers left no readings; its output.log may say why")
    readings = load(path.read_text("ascii"))
    try:
        stretches = [readings.stretch(item.began_ns, item.ended_ns) for item in timed.taken]
    except ValueError as failure:
        raise BenchError(f"the {hop} hop with timers was too busy to read them: {failure}") from failure
    found = TimedHop(readings=readings, stretches=stretches, calls_us=0.0, callbacks_us=0.0)
    costs = [
        (shares.calls / requests, shares.callbacks / requests)
        for item in stretches
        if (requests := found.count(item, COUNTED))
        for shares in (share_out(item, readings.stages, cost),)
    ]
    if len(costs) < len(stretches):
        raise BenchError(f"the {hop} hop with timers counted no request in a round")
    if silent := silent_stages(stretches[0], readings.stages):
        raise BenchError(
            f"the {hop} hop never entered {', '.join(silent)}: functions of the byte path have changed, and the table "
            "in stages_sidecar.py must follow"
        )
    calls, callbacks = (figure([item[number] for item in costs]).median / 1e3 for number in (0, 1))
    return TimedHop(readings=readings, stretches=stretches, calls_us=calls, callbacks_us=callbacks)


def silent_stages(stretch: Reading, stages: Sequence[str]) -> list[str]:
    """Name the stages that most requests never entered, of those that each must enter."""
    requests = stretch.calls[stages.index(COUNTED)]
    return [
        name for name, calls in zip(stages, stretch.calls, strict=False) if name not in SELDOM and calls < requests / 2
    ]


def _factor(pairs: Mapping[Variant, Pair], hops: Mapping[str, TimedHop]) -> float:
    layers = [
        sum(twice - once for once, twice in zip(one.values(), two.values(), strict=True))
        for one, two in zip(_costs(pairs[TIMED]), _costs(pairs[DOUBLED]), strict=True)
    ]
    return timers_factor(
        layers, sum(item.calls_us for item in hops.values()), sum(item.callbacks_us for item in hops.values())
    )


def _costs(pair: Pair) -> list[Mapping[str, float]]:
    return [item.cpu_us for item in pair.taken]


def _decompose(
    hop: str, timed: TimedHop, pairs: Mapping[Variant, Pair], tls: TlsCost, cost: Cost, factor: float
) -> Decomposition:
    rounds = []
    for stretch in timed.stretches:
        shares = share_out(stretch, timed.readings.stages, cost)
        records = {name: timed.count(stretch, name) for name in (TLS_READ, TLS_WRITE)}
        rounds.append(per_request(shares, timed.count(stretch, COUNTED), records, tls))
    dropped = sum(item.dropped_ns for item in timed.stretches)
    return decomposition(
        hop,
        rounds,
        pairs[PLAIN].cpu(hop),
        {what: pairs[variant].cpu(hop) for what, variant in WITHOUT.items()},
        timers=timed.calls_us * factor + timed.callbacks_us,
        factor=factor,
        dropped=dropped / (dropped + sum(item.clean_ns for item in timed.stretches)),
    )
