"""Measures where the microseconds of a hop go: stage timers in the process, held against the kernel's account of CPU.

    plain     two hops as they are             the kernel's account: what the sum of the stages must meet
    timed     the same with stage timers       the stages, and what the timers cost there
    gaps      the same, timed between calls    the event loop
    without   no access log, no TLS, no rules  subtraction runs: what the hop no longer pays, with no timer at all

All are started once. `plain`, `timed` and `gaps` take their load *at the same time*, on one core: a host changes by
more than a tenth from one second to the next, and so what is compared shares every millisecond of it. Then `plain` and
`without` do. Whether the sum is right is not assumed: it must meet the CPU of the *plain* hop, which has no timers,
within a tenth; none of its parts is what the kernel's account leaves.

OpenSSL reads and writes the descriptor itself, so a timer around SSL_write times encryption and the send call together.
They are parted by what the same records cost in memory, where nothing is sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Final

from benchmarks import configs, policies
from benchmarks.contenders import application_command, maybe_program
from benchmarks.host import Machine
from benchmarks.load import parse_wrk, wrk_command
from benchmarks.processes import BenchError, Programs, bound_to, free_ports, thread_nanoseconds, write_files
from benchmarks.stages_records import TlsCost, tls_in_memory
from benchmarks.stages_report import Decomposition, Plan, Stages, decomposition, per_request
from benchmarks.stages_sidecar import COUNTED, GAPS, SELDOM, SPANS, TLS_READ, TLS_WRITE, load
from benchmarks.stages_timers import LOOP, PROBE, Cost, Reading, call_cost, gap, share_out
from certs.memory import MemoryAuthority, write_set

WARM_UP_SECONDS: Final = 1.0
READ_SECONDS: Final = 2
"""A repetition is at least this long: twenty ticks, at half of which the probes are on."""
MOST_DROPPED: Final = 0.2
"""Of all callbacks. Where more are interrupted, those that are left are the short ones, and not a fair sample."""

HOPS: Final = ("inbound", "outbound")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Two hops that differ from the usual in one thing: what is `timed`, and what they do without."""

    name: str
    timed: str = ""
    log: bool = True
    mutual: bool = True
    rules: int = 2


PLAIN: Final = Variant(name="plain")
TIMED: Final = Variant(name="timed", timed=SPANS)
BETWEEN: Final = Variant(name="gaps", timed=GAPS)
WITHOUT: Final = {
    "access log": Variant(name="no-log", log=False),
    "mutual TLS": Variant(name="no-tls", mutual=False),
    "policy rules": Variant(name="no-rules", rules=0),
}
TOGETHER: Final = ((PLAIN, TIMED, BETWEEN), (PLAIN, *WITHOUT.values()))
"""What takes its load at the same time, in turn."""


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
    taken: dict[int, list[Taken]] = field(default_factory=dict)
    """Round by round, by the number in TOGETHER."""

    def cpu(self, hop: str, together: int) -> list[float]:
        """Give the kernel's CPU of a hop for a request, round by round."""
        return [item.cpu_us[hop] for item in self.taken[together]]


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
        pairs: dict[Variant, Pair] = {}
        for variant in dict.fromkeys(item for group in TOGETHER for item in group):
            tell(f"start and warm up: {variant.name}")
            pairs[variant] = pair = _start(programs, variant, app, identities, directory, machine.cores.proxies)
            _load(pair, wrk, plan, WARM_UP_SECONDS)
        for number in range(1, plan.repetitions + 1):
            for together, group in enumerate(TOGETHER):
                tell(f"round {number} of {plan.repetitions}: {', '.join(variant.name for variant in group)}")
                _repetitions([pairs[variant] for variant in group], together, wrk, plan)
    with bound_to(machine.cores.proxies):
        tls = tls_in_memory(memory)
    timed = {hop: _timed(hop, pairs[TIMED]) for hop in HOPS}
    # Timers are the same in each hop, and the mean of two is steadier than either.
    costs = [call_cost(*item.whole, item.stages) for item in timed.values()]
    cost = Cost(inside=fmean(item.inside for item in costs), outside=fmean(item.outside for item in costs))
    found = [_decompose(hop, timed[hop], pairs, tls, cost) for hop in HOPS]
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
        if variant.timed:
            config = str(home / configs.CONFIG_FILE)
            ours = [sys.executable, "-m", "benchmarks.stages_sidecar"]
            command = [*ours, str(_readings(home)), variant.timed, "--config", config]
        name = f"the {hop} hop ({variant.name})"
        pair.pids[hop] = programs.start(name, command, core=core, port=listen, directory=home)
    return pair


def _readings(home: Path) -> Path:
    return home / "readings.json"


def _repetitions(pairs: Sequence[Pair], together: int, wrk: str, plan: Plan) -> None:
    with ThreadPoolExecutor(len(pairs)) as threads:
        for pair, taken in zip(pairs, threads.map(lambda pair: _repetition(pair, wrk, plan), pairs), strict=True):
            pair.taken.setdefault(together, []).append(taken)


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
class Counted:
    """What the timers of a hop counted, round by round: without probes, and with them."""

    stages: Sequence[str]
    without: Sequence[Reading]
    probed: Sequence[Reading]

    @property
    def whole(self) -> tuple[Reading, Reading]:
        """All rounds together."""
        return reduce(Reading.plus, self.without), reduce(Reading.plus, self.probed)


def _counted(hop: str, pair: Pair) -> Counted:
    path = _readings(pair.homes[hop])
    if not path.exists():
        raise BenchError(f"the {hop} hop ({pair.variant.name}) left no readings; its output.log may say why")
    readings = load(path.read_text("ascii"))
    without: list[Reading] = []
    probed: list[Reading] = []
    for item in pair.taken[0]:
        slices = readings.slices(item.began_ns, item.ended_ns)
        for found, probing in ((without, False), (probed, True)):
            some = [each for each in slices if each.probing is probing]
            if not sum(each.kept for each in some):
                raise BenchError(f"the {hop} hop ({pair.variant.name}) was too busy to read its timers")
            found.append(reduce(Reading.plus, some))
    return Counted(stages=readings.stages, without=without, probed=probed)


def silent_stages(stretch: Reading, stages: Sequence[str]) -> list[str]:
    """Name the stages that most requests never entered, of those that each must enter."""
    requests = stretch.calls[stages.index(COUNTED)]
    return [
        name
        for name, calls in zip(stages, stretch.calls, strict=True)
        if name not in {*SELDOM, PROBE, LOOP} and calls < requests / 2
    ]


def _timed(hop: str, pair: Pair) -> Counted:
    timed = _counted(hop, pair)
    whole, _ = timed.whole
    if whole.dropped > MOST_DROPPED * whole.callbacks:
        raise BenchError(
            f"{whole.dropped / whole.callbacks:.0%} of what the {hop} hop did was interrupted: "
            "measure on a quieter machine"
        )
    if silent := silent_stages(whole, timed.stages):
        raise BenchError(
            f"the {hop} hop never entered {', '.join(silent)}: functions of the byte path have changed, and the table "
            "in stages_sidecar.py must follow"
        )
    return timed


def _decompose(hop: str, timed: Counted, pairs: Mapping[Variant, Pair], tls: TlsCost, cost: Cost) -> Decomposition:
    between = _counted(hop, pairs[BETWEEN])
    whole, _ = timed.whole
    rounds, timers = [], 0.0
    for stretch, plain, probed in zip(timed.without, between.without, between.probed, strict=True):
        count = dict(zip(timed.stages, stretch.calls, strict=True))
        if not count[COUNTED]:
            raise BenchError(f"the {hop} hop with timers counted no request in a round")
        shares = share_out(stretch, timed.stages, cost, gap(plain, probed))
        rounds.append(per_request(shares, count[COUNTED], {name: count[name] for name in (TLS_READ, TLS_WRITE)}, tls))
        timers += shares.timers
    return decomposition(
        hop,
        rounds,
        pairs[PLAIN].cpu(hop, 0),
        {what: (pairs[PLAIN].cpu(hop, 1), pairs[variant].cpu(hop, 1)) for what, variant in WITHOUT.items()},
        timers=timers / whole.calls[timed.stages.index(COUNTED)] / 1e3,
        cost=cost,
        dropped=whole.dropped / whole.callbacks,
    )
