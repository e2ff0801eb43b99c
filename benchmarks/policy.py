"""Measures what a decision costs, and what a whole request costs, under policies of ten to a thousand rules.

Two measurements, each in rounds that go through the sizes one after the other, so that a slow minute hits all alike:

- decisions alone, in this process: a request that the last rule allows, and one that none allows, whose denial is
  explained as it is in the access log;
- whole requests through a sidecar with ten and one with a thousand rules, CPU by the scheduler. Every request has a
  path of its own, so that each is decided and none remembered.

What the first says of a kind of rules is set against a request of the second: a decision is a small part of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.alone import Alone, CoreWatch, launch
from benchmarks.figures import figure
from benchmarks.host import Machine
from benchmarks.peers import Line, application, tls_context
from benchmarks.processes import BenchError, Programs, bound_to, thread_nanoseconds
from benchmarks.rule_sets import KINDS, PREFIX, UNFILED, Call, Kind, as_text, compiled
from benchmarks.sheet import Row, Sheet
from certs.memory import MemoryAuthority
from proxy.policy import PolicySnapshot
from proxy.types import Permit

SIZES: Final = (10, 100, 1_000)
DECISIONS: Final = 1_000
"""Of one repetition: some milliseconds, a thousand times what a look at the clock takes."""
REQUESTS: Final = 1_500
"""Of one repetition: half a second of CPU, which the scheduler counts in nanoseconds."""
TARGET_RATIO: Final = 1.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """One repetition for one kind and size: nanoseconds of a decision."""

    kind: str
    rules: int
    allowed: float
    denied: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """One repetition through one sidecar: its CPU for a request, in nanoseconds."""

    rules: int
    allowed: float
    denied: float
    foreign_share: float


def run(machine: Machine, repetitions: int, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it cannot be done."""
    with bound_to(machine.cores.proxies):
        decisions = list(_decisions(repetitions, tell))
    requests = list(_requests(machine, repetitions, directory, tell))
    return sheet(machine, decisions, requests)


def sheet(machine: Machine, decisions: Sequence[Decisions], requests: Sequence[Requests]) -> Sheet:
    """Write down what decisions and requests cost, and a thousand rules against ten."""
    few, many = SIZES[0], SIZES[-1]
    rows = []
    for rules in (few, many):
        found = [item for item in requests if item.rules == rules]
        rows += [
            Row(name=f"request, {rules:,} rules: allowed", figure=figure([x.allowed for x in found]), unit="ns"),
            Row(name=f"request, {rules:,} rules: denied", figure=figure([x.denied for x in found]), unit="ns"),
        ]
    for verdict in ("allowed", "denied"):
        cost = {rules: [getattr(x, verdict) for x in requests if x.rules == rules] for rules in (few, many)}
        ratios = [b / a for a, b in zip(cost[few], cost[many], strict=True)]
        rows.append(
            Row(name=f"request, {verdict}, 1,000 : 10 rules", figure=figure(ratios), unit="x", target=TARGET_RATIO)
        )
    request = figure([item.allowed for item in requests if item.rules == few]).median
    for kind in KINDS:
        rows += _kind_rows(kind, [item for item in decisions if item.kind == kind.name], request)
    return Sheet(
        benchmark="policy",
        title="What a decision and a request cost under many rules",
        how=[
            f"decisions: {DECISIONS} in a row in this process; requests: {REQUESTS} one after the other on one mTLS",
            f'connection, each with a path of its own, under rules of the kind "{PREFIX.name}";',
            "of other kinds, a request is the median under ten rules, and what the decision takes more",
        ],
        machine=machine,
        rows=rows,
        foreign=[item.foreign_share for item in requests],
        repetitions=[*map(asdict, decisions), *map(asdict, requests)],
    )


def _kind_rows(kind: Kind, found: Sequence[Decisions], request: float) -> Iterator[Row]:
    by_size = {rules: [item for item in found if item.rules == rules] for rules in SIZES}
    for verdict in ("allowed", "denied"):
        for rules, items in by_size.items():
            name = f"{kind.name}, {rules:,} rules: {verdict}"
            yield Row(name=name, figure=figure([getattr(item, verdict) for item in items]), unit="ns")
    for verdict in ("allowed", "denied"):
        pairs = zip(by_size[SIZES[0]], by_size[SIZES[-1]], strict=True)
        ratios = [1 + (getattr(many, verdict) - getattr(few, verdict)) / request for few, many in pairs]
        yield Row(
            name=f"{kind.name}, {verdict} request, 1,000 : 10",
            figure=figure(ratios),
            unit="x",
            target=None if kind is UNFILED else TARGET_RATIO,
        )


# --- decisions -------------------------------------------------------------------------------------------------------


def _decisions(repetitions: int, tell: Callable[[str], None]) -> Iterator[Decisions]:
    for kind in KINDS:
        tell(f"decisions: {kind.name}")
        sets = [(rules, compiled(kind, rules)) for rules in SIZES]
        for _ in range(repetitions):
            for rules, snapshot in sets:
                yield Decisions(
                    kind=kind.name,
                    rules=rules,
                    allowed=_time(snapshot, kind.call(rules - 1), allowed=True),
                    denied=_time(snapshot, kind.call(SIZES[-1] + 1), allowed=False),
                )


def _time(snapshot: PolicySnapshot, call: Call, *, allowed: bool) -> float:
    """Decide again and again; nanoseconds of CPU for each. Raises BenchError when it decides otherwise than is due."""
    if isinstance(snapshot.request(*call), Permit) is not allowed:
        raise BenchError(f"{call[1].path} is decided otherwise than the rules say")
    decide = snapshot.request
    began = time.thread_time_ns()
    for _ in range(DECISIONS):
        decide(*call)
    return (time.thread_time_ns() - began) / DECISIONS


# --- requests --------------------------------------------------------------------------------------------------------


def _requests(machine: Machine, repetitions: int, directory: Path, tell: Callable[[str], None]) -> Iterator[Requests]:
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    context = tls_context(memory.svid(configs.NAMESPACE, configs.CALLER), memory.bundle, server=False)
    core = machine.cores.proxies
    numbers = itertools.count()
    with Programs() as programs, bound_to(machine.cores.others), application() as app:
        sidecars = {}
        for rules in (SIZES[0], SIZES[-1]):
            home = directory / f"rules-{rules}"
            policy = as_text(PREFIX, rules)
            alone = launch(programs, memory, home, core=core, app=app, endpoint=app, policy=policy)
            alone.wait_until_ready(pause=0.05)
            line = Line.call(alone.inbound, f"the sidecar with {rules} rules", context)
            sidecars[rules] = alone, line
            _send(alone, line, f"/api/v1/thing-{rules - 1}/warm", numbers, 200)
        for number in range(1, repetitions + 1):
            tell(f"requests, {number} of {repetitions}")
            for rules, (alone, line) in sidecars.items():
                watch = CoreWatch(core)
                allowed = _send(alone, line, f"/api/v1/thing-{rules - 1}", numbers, 200)
                denied = _send(alone, line, "/api/v1/nothing", numbers, 403)
                foreign = watch.foreign((allowed + denied) * REQUESTS / 1e9)
                yield Requests(rules=rules, allowed=allowed, denied=denied, foreign_share=foreign)


def _send(alone: Alone, line: Line, path: str, numbers: Iterator[int], status: int) -> float:
    """Send requests one after the other; the sidecar's CPU for each, in nanoseconds."""
    before = thread_nanoseconds(alone.pid)
    for number in itertools.islice(numbers, REQUESTS):
        line.send(b"GET %b/%d HTTP/1.1\r\nhost: orders:8080\r\naccept: */*\r\n\r\n" % (path.encode(), number))
        line.read_answer(status)
    return (thread_nanoseconds(alone.pid) - before) / REQUESTS
