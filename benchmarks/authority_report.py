"""Says how many replicas of an authority a cluster needs, and writes down what was measured of one. Pure.

Round            five loads, one after the other, each a Load: how many, how long, at what CPU of the authority
Grown            the authority with the certificates and sidecars of a large cluster: its start, its bookkeeping
cores_needed     what a cluster asks of authorities, as a part of one core
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.host import Machine
from benchmarks.sheet import Row, Sheet
from certs.bundle_feed import JITTER
from certs.confirmations import FLUSH_SECONDS

CLUSTER: Final = 100_000
"""Sidecars of the cluster that the replicas are computed for; an authority remembers no more of them."""
LIFETIME: Final = 24 * 3600.0
REFRESH_HINT: Final = 300.0
UTILISATION: Final = 0.5
"""The part of its core that a replica may use: the other half is for a rollout, and for a replica that is away."""
SATURATED: Final = 0.9
"""A core that was used less had time left: then the rate tells of the callers and not of the authority."""

RENEWALS, RENEWALS_ALONE, RENEWALS_KEPT, POLLS, POLLS_KEPT = LOADS = (
    "renewals",
    "renewals, one at a time",
    "renewals on kept connections",
    "polls",
    "polls on kept connections",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load: how often it was asked in how many seconds, what CPU that took of the authority and of the callers.

    `p50_ms` and `p99_ms` are what a caller waited; `foreign_share` the part of the authority's core that others took.
    """

    asked: int
    seconds: float
    cpu: float
    callers_cpu: float
    p50_ms: float
    p99_ms: float
    foreign_share: float

    @property
    def rate(self) -> float:
        """How often each second."""
        return self.asked / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU of the authority for one, in milliseconds."""
        return self.cpu * 1000 / self.asked

    @property
    def share(self) -> float:
        """The part of its core that the authority used."""
        return self.cpu / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A new authority and its first certificates: memory before and after them and after all loads, in MiB.

    `index_bytes` and `audit_bytes` are what one certificate added to those files; `sync_ms` is how long one line took
    to be on the authority's disk.
    """

    first: Load
    before_mib: float
    after_mib: float
    loaded_mib: float
    index_bytes: float
    audit_bytes: float
    sync_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start: seconds until ready, the CPU used by then, memory in MiB, the part of the core that others took."""

    ready: float
    cpu: float
    resident_mib: float
    foreign_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """An authority that knows a large cluster: starts empty and grown, and what it does by the clock, in seconds.

    `reports` takes in what sidecars said in ten seconds, `forget` drops what has ended from the index once an hour;
    both are (seconds, seconds of CPU).
    """

    entries: int
    empty: Sequence[Start]
    grown: Sequence[Start]
    reports: Sequence[tuple[float, float]]
    forget: Sequence[tuple[float, float]]


def cores_needed(
    *,
    renewal_cpu: float,
    poll_cpu: float,
    standing: float = 0.0,
    sidecars: int = CLUSTER,
    lifetime: float = LIFETIME,
    refresh_hint: float = REFRESH_HINT,
) -> float:
    """Tell what part of one core a cluster asks of its authorities together.

    A sidecar renews at half of `lifetime` and polls a little sooner than each `refresh_hint` (both in seconds), which
    costs the given seconds of CPU; `standing` is what is used whoever asks.

    >>> round(cores_needed(renewal_cpu=0.006, poll_cpu=0.003), 3)
    1.067
    >>> round(cores_needed(renewal_cpu=0.006, poll_cpu=0.003, lifetime=900.0), 3)
    2.386
    """
    renewals = sidecars / (lifetime / 2)
    polls = sidecars / (refresh_hint * (1 - JITTER / 2))
    return renewals * renewal_cpu + polls * poll_cpu + standing


def replicas(cores: float, utilisation: float = UTILISATION) -> int:
    """Tell how many replicas of one core each carry a load, each used to `utilisation` at most; there is always one.

    >>> replicas(1.067), replicas(0.2), replicas(1.0)
    (3, 1, 2)
    """
    return max(1, math.ceil(cores / utilisation))


def percentile(ordered: Sequence[float], part: float) -> float:
    """Give the value that `part` of the ascending values do not exceed (nearest rank). Raises ValueError for none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    return ordered[max(math.ceil(part * len(ordered)), 1) - 1]


def sheet(
    machine: Machine, how: Sequence[str], fresh: Fresh, rounds: Sequence[Mapping[str, Load]], grown: Grown
) -> Sheet:
    """Write down what was measured; each round holds every one of LOADS."""
    rows = [
        _row("first certificates", [fresh.first.rate], "/s"),
        _row("first certificate: CPU of the authority", [fresh.first.cpu_ms], "ms"),
    ]
    for name in LOADS:
        rows += _of_load(name, [found[name] for found in rounds])
    needed = [
        cores_needed(
            renewal_cpu=found[RENEWALS].cpu_ms / 1000,
            poll_cpu=found[POLLS].cpu_ms / 1000,
            standing=min(cpu for _, cpu in grown.reports) / FLUSH_SECONDS,
        )
        for found in rounds
    ]
    rows += [
        _row(f"cores for {CLUSTER:,} sidecars", needed, "x"),
        _row(f"replicas for them, their cores used to {UTILISATION:.0%}", [replicas(each) for each in needed], ""),
        _row("one line on the authority's disk (fsync)", [fresh.sync_ms], "ms"),
        _row("memory of a new authority", [fresh.before_mib], "MiB"),
        _row("memory after the first certificates", [fresh.after_mib], "MiB"),
        _row("memory after all loads", [fresh.loaded_mib], "MiB"),
        _row("a certificate in the index", [fresh.index_bytes / 1024], "KiB"),
        _row("a certificate in the audit log", [fresh.audit_bytes / 1024], "KiB"),
        *_of_starts("start with nothing", grown.empty),
        *_of_starts(f"start with {grown.entries:,} certificates and sidecars", grown.grown),
        _row("taking in the reports of ten seconds", [wall * 1000 for wall, _ in grown.reports], "ms"),
        _row("writing the index anew, once an hour", [wall * 1000 for wall, _ in grown.forget], "ms"),
    ]
    repetitions: list[Mapping[str, object]] = [{name: asdict(found[name]) for name in LOADS} for found in rounds]
    return Sheet(
        benchmark="authority",
        title="What an authority on one core can carry",
        how=how,
        machine=machine,
        rows=rows,
        foreign=[max(load.foreign_share for load in found.values()) for found in rounds],
        repetitions=[*repetitions, {"fresh": asdict(fresh)}, {"grown": asdict(grown)}],
        remarks=remarks(fresh, rounds),
        measured="the authority",
    )


def remarks(fresh: Fresh, rounds: Sequence[Mapping[str, Load]]) -> list[str]:
    """Say of each load that was to fill the authority's core and did not that its rate is a lower bound."""
    loads = {"first certificates": [fresh.first]} | {
        name: [found[name] for found in rounds] for name in LOADS if name != RENEWALS_ALONE
    }
    return [
        f"{name}: the authority's core was used to {lowest:.0%} only, so it can do more than this rate"
        for name, found in loads.items()
        if (lowest := min(load.share for load in found)) < SATURATED
    ]


def _of_load(name: str, found: Sequence[Load]) -> list[Row]:
    def over(value: Callable[[Load], float]) -> list[float]:
        return [value(load) for load in found]

    return [
        _row(name, over(lambda load: load.rate), "/s"),
        _row(f"{name}: CPU of the authority for one", over(lambda load: load.cpu_ms), "ms"),
        _row(f"{name}: part of its core that was used", over(lambda load: load.share), "x"),
        _row(f"{name}: p50", over(lambda load: load.p50_ms), "ms"),
        _row(f"{name}: p99", over(lambda load: load.p99_ms), "ms"),
    ]


def _of_starts(name: str, found: Sequence[Start]) -> list[Row]:
    return [
        _row(f"{name}: until ready", [start.ready for start in found], "s"),
        _row(f"{name}: memory", [start.resident_mib for start in found], "MiB"),
    ]


def _row(name: str, values: Sequence[float], unit: str) -> Row:
    return Row(name=name, figure=_figure(values), unit=unit)


def _figure(values: Sequence[float]) -> Figure:
    return figure(list(values))
