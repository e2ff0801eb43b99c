"""Measures what capture costs: the same two hops between two pods, reached by rules and reached by ports.

    direct    wrk ------------------------------------------------> application      the cable alone
    ports     wrk -> sidecar (loopback) ==mutual TLS==> sidecar (15443) -> application
    capture   wrk -> rules -> sidecar (15001) ==mutual TLS==> rules -> sidecar (15006) -> application

With rules the kernel looks at the first packet of each connection and translates all others by what it remembers, and
the sidecar asks it once where a connection was going. So there are two loads: kept connections, where the translation
is all that there is, and a connection for each request, which the caller's sidecar takes up anew each time.
"""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import capture_pods
from benchmarks.capture_pods import Pair, Way
from benchmarks.contenders import maybe_program
from benchmarks.figures import Figure, figure
from benchmarks.hops import LOG_SECONDS, count_lines
from benchmarks.host import Machine, foreign_share
from benchmarks.load import LoadReport, parse_wrk, wrk_command
from benchmarks.processes import BenchError, Programs, bound_to, core_seconds, cpu_seconds
from benchmarks.sheet import Row, Sheet

WARM_UP_SECONDS: Final = 1.0
FRESH_CONNECTIONS: Final = 8
"""At once, where each serves one request: more only wait for the one core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: seconds of each repetition, rounds, kept connections."""

    seconds: float
    repetitions: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load: connections at once, and whether each serves one request alone."""

    name: str
    connections: int
    close: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What one way did under one load in one round. `cpu_us` is per request, of both sidecars; 0 without them."""

    way: str
    load: str
    requests: int
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    foreign_share: float


def loads(plan: Plan) -> tuple[Load, ...]:
    """List the loads in the order in which a round measures them."""
    return (
        Load(name="kept connections", connections=plan.connections),
        Load(name="a connection for each request", connections=FRESH_CONNECTIONS, close=True),
        Load(name="one kept connection", connections=1),
    )


def run(machine: Machine, plan: Plan, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when work was not done."""
    capture_pods.check_machine()
    wrk = maybe_program("wrk") or ""
    found: list[Repetition] = []
    with Programs() as programs, bound_to(machine.cores.others):
        pairs = []
        for way in Way:
            tell(f"start and warm up {way.value}")
            pair = capture_pods.start(programs, way, machine.cores, directory / way.value)
            _load(pair, loads(plan)[0], wrk, WARM_UP_SECONDS)
            pairs.append(pair)
        for number in range(1, plan.repetitions + 1):
            tell(f"round {number} of {plan.repetitions}")
            for load, pair in itertools.product(loads(plan), pairs):
                found.append(_repetition(pair, load, wrk, plan.seconds, machine.cores.proxies))
    return sheet(machine, plan, found)


def sheet(machine: Machine, plan: Plan, found: Sequence[Repetition]) -> Sheet:
    """Write down what was measured: ratios are taken within each round, capture over ports."""
    rows = []
    for load in loads(plan):
        taken = {way: [each for each in found if (each.way, each.load) == (way.value, load.name)] for way in Way}
        if load.connections > 1:
            rows += [_row(load, way, "CPU of both hops", taken, "cpu_us") for way in (Way.PORTS, Way.CAPTURE)]
            rows.append(_ratio(load, "CPU, capture over ports", taken, "cpu_us"))
        rows += [_row(load, way, "p50", taken, "p50_us") for way in Way]
        rows.append(_ratio(load, "p50, capture over ports", taken, "p50_us"))
    return Sheet(
        benchmark="capture",
        title="What capture costs: the same hops by rules and by ports",
        how=[
            "two network namespaces with a veth pair between them for each way; nftables; policy and JSON log on;",
            f"{plan.repetitions} rounds of {plan.seconds:g} s for each load and way, one after the other;",
            f"{plan.connections} kept connections; {FRESH_CONNECTIONS} at once that serve one request each; one alone;",
            "no answer failed, and each request left a line in both logs",
        ],
        machine=machine,
        rows=rows,
        foreign=[each.foreign_share for each in found if each.cpu_us],
        repetitions=[asdict(each) for each in found],
        measured="the sidecars",
    )


Taken = Mapping[Way, Sequence[Repetition]]


def _row(load: Load, way: Way, what: str, taken: Taken, field: str) -> Row:
    values = [getattr(each, field) for each in taken[way]]
    return Row(name=f"{load.name}: {what}, {way.value}", figure=figure(values), unit="us")


def _ratio(load: Load, what: str, taken: Taken, field: str) -> Row:
    return Row(name=f"{load.name}: {what}", figure=_ratios(taken, field), unit="x")


def _ratios(taken: Taken, field: str) -> Figure:
    rounds = zip(taken[Way.CAPTURE], taken[Way.PORTS], strict=True)
    return figure([getattr(ours, field) / getattr(theirs, field) for ours, theirs in rounds])


def _repetition(pair: Pair, load: Load, wrk: str, seconds: float, core: int) -> Repetition:
    for log in pair.logs:
        log.write_bytes(b"")
    busy, stolen = core_seconds(core)
    cpu = cpu_seconds(pair.pids)
    report = _load(pair, load, wrk, seconds)
    cpu = cpu_seconds(pair.pids) - cpu
    busy_after, stolen_after = core_seconds(core)
    if pair.pids and cpu <= 0:
        raise BenchError(f"{pair.way.value}: the sidecars used no CPU under {load.name}")
    _check_logs(pair, report.requests)
    return Repetition(
        way=pair.way.value,
        load=load.name,
        requests=report.requests,
        rate=report.rate,
        cpu_us=cpu / report.requests * 1e6,
        p50_us=report.p50_us,
        p99_us=report.p99_us,
        foreign_share=foreign_share(busy_after - busy, cpu, stolen_after - stolen, report.seconds),
    )


def _check_logs(pair: Pair, requests: int) -> None:
    """See that each request left a line in each sidecar's log, which is written at least every second."""
    deadline = time.monotonic() + LOG_SECONDS
    for log in pair.logs:
        while (lines := count_lines(log)) < requests:
            if time.monotonic() > deadline:
                raise BenchError(f"{pair.way.value}: {log} has {lines} lines for {requests} requests")
            time.sleep(0.1)


def _load(pair: Pair, load: Load, wrk: str, seconds: float) -> LoadReport:
    command = wrk_command(
        wrk, pair.port, host=pair.host, connections=load.connections, seconds=seconds, close=load.close
    )
    done = subprocess.run(  # noqa: S603
        [*pair.enter, *command], check=False, capture_output=True, text=True, timeout=seconds + 60
    )
    if done.returncode:
        raise BenchError(f"wrk ended with code {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}")
    report = parse_wrk(done.stdout)
    if report.refused or report.broken or not report.requests:
        raise BenchError(
            f"{pair.way.value}, {load.name}: {report.requests} requests, {report.refused} refused, "
            f"{report.broken} connections broken"
        )
    return report
