"""What a run of `remora bench workers` means and how it is told: shares, projection, tables, JSON. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import Figure, compare, figure
from benchmarks.host import NOISY_SHARE, Machine
from benchmarks.tables import Table
from benchmarks.tables import as_text as table_text

COUNTS: Final = (1, 2)
"""How many workers are held against each other."""
PEER: Final = "envoy"
"""Whom others are held against: it does the same work."""
SERVED_SHARE: Final = 0.1
"""A worker that took less of its hop's CPU did not serve; with 64 connections the kernel's hash gives each a third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: seconds of each repetition, rounds, connections of the load generator."""

    seconds: float
    repetitions: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The two cores of the hop, and those of all else: the same two where there are no more."""

    hop: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Say whether the hop's cores carry everything else, too."""
        return self.hop == self.others


def choose_place(available: Sequence[int]) -> Place | None:
    """Give the hop two cores and everything else two others, or the same where there are fewer than four.

    None where there is one core only.

    >>> choose_place([0, 1]) == Place(hop=(0, 1), others=(0, 1))
    True
    """
    ordered = tuple(sorted(available))
    if len(ordered) < 2:
        return None
    return Place(hop=ordered[:2], others=ordered[2:] if len(ordered) >= 4 else ordered[:2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What a hop did in one round.

    `cpu_us` is the hop's CPU per request, `others_us` that of load generator, caller's hop and application. `cores` is
    how many cores the hop used in the middle, `shares` what its busiest workers took of its CPU, as many as it has.
    `rss_mib` is the memory of all its processes; `foreign_share` the part of the hop's cores that strangers took.
    """

    rate: float
    cpu_us: float
    others_us: float
    cores: float
    shares: Sequence[float]
    rss_mib: float
    foreign_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A contender with a number of workers; `judges`: a forbidden request was asked for in each of its rounds."""

    contender: str
    workers: int
    judges: bool
    repetitions: list[Repetition] = field(default_factory=list)

    def series(self, name: str) -> list[float]:
        """Give a figure of every round; "projected" is what its workers would serve with a core for each."""
        if name == "projected":
            return [projected(item.cpu_us, self.workers) for item in self.repetitions]
        return [float(getattr(item, name)) for item in self.repetitions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A whole run; `absent` says of each contender that was left out why."""

    machine: Machine
    place: Place
    plan: Plan
    measured: Sequence[Measured]
    absent: Mapping[str, str]


def projected(cpu_us: float, workers: int) -> float:
    """Project requests per second: what a second of CPU serves, for each of `workers` cores.

    >>> projected(50.0, 2)
    40000.0
    """
    return workers * 1e6 / cpu_us


def shares_of(before: Mapping[int, int], after: Mapping[int, int], workers: int) -> tuple[float, ...]:
    """Tell what the busiest `workers` processes (or threads) took of the CPU of all, from their ticks; largest first.

    >>> shares_of({1: 10, 2: 0, 3: 5}, {1: 11, 2: 54, 3: 50}, 2)
    (0.54, 0.45)
    """
    spent = sorted((ticks - before.get(unit, 0) for unit, ticks in after.items()), reverse=True)
    total = sum(spent)
    return tuple(ticks / total if total else 0.0 for ticks in (*spent, *[0] * workers)[:workers])


def idle_workers(shares: Sequence[float]) -> int:
    """Count the workers that did not serve.

    >>> idle_workers([0.93, 0.04])
    1
    """
    return sum(share < SERVED_SHARE for share in shares)


# --- told -------------------------------------------------------------------------------------------------------------


def as_json(run: Run) -> str:
    """Write everything, each repetition included, for programs."""
    document = {
        "benchmark": "workers",
        **run.machine.document(),
        "cores": {"hop": run.place.hop, "others": run.place.others},
        "plan": dataclasses.asdict(run.plan),
        "contenders": [
            {
                "name": item.contender,
                "workers": item.workers,
                "repetitions": [dataclasses.asdict(repetition) for repetition in item.repetitions],
                "projected_per_second": item.series("projected"),
            }
            for item in run.measured
        ],
        "absent": dict(run.absent),
        "warnings": list(warnings(run)),
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(run: Run) -> str:
    """Write the report for a person."""
    parts = ["\n".join(_head(run)) + "\n", *(table_text(table) for table in _tables(run))]
    parts.append("\n".join(_end(run)) + "\n")
    return "\n".join(parts)


def warnings(run: Run) -> Iterator[str]:
    """Say what makes the figures weaker than they look."""
    if not run.machine.build.optimised:
        yield f"the interpreter is {run.machine.build.value}"
    noisy = [
        f"{_name(item)} {share:.0%}"
        for item in run.measured
        if (share := max(item.series("foreign_share"))) > NOISY_SHARE
    ]
    if noisy:
        yield f"the host was noisy: strangers took up to this much of the cores ({', '.join(noisy)}); read the CPU"
    if run.plan.repetitions < 2:
        yield "one round has no spread: nothing can be told apart"


def _head(run: Run) -> Iterator[str]:
    hop, plan = " and ".join(map(str, run.place.hop)), run.plan
    yield "One inbound hop of 1 and of 2 workers: load generator -> caller's hop (nginx) =mTLS=> hop -> application"
    yield f"  python      {run.machine.python}, {run.machine.build.value}"
    yield f"  openssl     {run.machine.openssl}"
    yield f"  processor   {run.machine.processor}"
    if run.place.shared:
        yield f"  cores       {hop} carry everything: the hop, and load generator, caller's hop and application"
        yield "              besides. So requests/s cannot double: a second worker has what these leave. Read the CPU"
        yield "              per request, and the projection: a core for each worker, and the others elsewhere"
    else:
        yield f"  cores       hop on {hop}, everything else on {', '.join(map(str, run.place.others))}"
    yield f"  load        {plan.connections} connections, {plan.repetitions} interleaved rounds of {plan.seconds:g} s"


def _tables(run: Run) -> Iterator[Table]:
    found = {(item.contender, item.workers): item for item in run.measured}
    names = list(dict.fromkeys(item.contender for item in run.measured))
    few, many = COUNTS
    yield Table(
        title=f"{many} workers against {few} of the same: median of the rounds, lowest to highest; above 1 is better",
        headers=("", "CPU per request", "requests/s", "PROJECTION: requests/s"),
        rows=[
            (name, *(_ratio(found[name, many], found[name, few], metric) for metric in ("cpu_us", "rate", "projected")))
            for name in names
            if (name, many) in found and (name, few) in found
        ],
    )
    compared = [item for item in run.measured if item.contender != PEER and (PEER, item.workers) in found]
    if compared:
        yield Table(
            title=f"Against {PEER} with as many workers: above 1 is better",
            headers=("", "CPU per request", "requests/s"),
            rows=[
                (_name(item), *(_ratio(item, found[PEER, item.workers], metric) for metric in ("cpu_us", "rate")))
                for item in compared
            ],
        )
    yield Table(
        title="Absolutes: median (lowest to highest)",
        headers=(
            *("", "requests/s", "CPU per request", "CPU of all else", "cores used by the hop", "shares of its workers"),
            *("memory", "PROJECTION: requests/s, a core for each worker"),
        ),
        rows=[_absolutes(item) for item in run.measured],
    )


def _absolutes(item: Measured) -> tuple[str, ...]:
    shares = [
        figure([repetition.shares[number] for repetition in item.repetitions]).median for number in range(item.workers)
    ]
    return (
        _name(item),
        _range(item.series("rate"), 0),
        _range(item.series("cpu_us"), 1, " us"),
        f"{figure(item.series('others_us')).median:.1f} us",
        _range(item.series("cores"), 2),
        ", ".join(f"{share:.0%}" for share in shares),
        f"{figure(item.series('rss_mib')).median:.0f} MiB",
        _range(item.series("projected"), 0),
    )


def _end(run: Run) -> Iterator[str]:
    judged = [item for item in run.measured if item.judges]
    asked = sum(len(item.repetitions) for item in judged)
    yield (
        f"Checked in each round: no answer failed; each worker took at least {SERVED_SHARE:.0%} of its hop's CPU; a "
        "line in the log for each request; a forbidden request amid the load got 403 and is on record, "
        f"{asked} of {asked}"
    )
    yield from (f"ABSENT: {name}: {why}" for name, why in run.absent.items())
    yield from (f"WARNING: {warning}" for warning in warnings(run))


def _name(item: Measured) -> str:
    return f"{item.contender}, {item.workers} worker{'s' if item.workers > 1 else ''}"


def _ratio(ours: Measured, theirs: Measured, metric: str) -> str:
    compared = compare(ours.series(metric), theirs.series(metric), more_is_better=metric != "cpu_us")
    ratio: Figure = compared.ratio
    cell = f"{ratio.median:.2f} x ({ratio.lowest:.2f} to {ratio.highest:.2f})"
    return cell if compared.told_apart else f"{cell}, not told apart"


def _range(values: Sequence[float], digits: int, unit: str = "") -> str:
    found = figure(values)
    return f"{found.median:,.{digits}f}{unit} ({found.lowest:,.{digits}f} to {found.highest:,.{digits}f})"
