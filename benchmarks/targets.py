"""The targets of the design, as data, and how a run stands to each. Pure.

A target is either a ratio to a peer in the same run, taken round by round, where above 1 is better whatever the figure
counts, or a figure that must not be exceeded. It is *met* when the whole range of the rounds keeps it, *missed* when
the whole range does not, and else *not settled*: another run might turn it round.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure, figure
from benchmarks.results import METRICS, Results


class Verdict(enum.Enum):
    """How a run stands to a target."""

    MET = "met"
    MISSED = "missed"
    NOT_SETTLED = "not settled"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One row of the design's table.

    `ours`, `theirs` and `without` are names of scenarios. With `theirs`, the ratio must be at least `limit` (and `aim`
    is what is hoped for); `without` names the load without any proxy, and then what is compared is what each adds to
    it. Without `theirs`, `metric` of `ours` must be at most `limit`. Of several names the first that was run counts.
    """

    figure: str
    metric: str
    ours: Sequence[str]
    limit: float
    theirs: str = ""
    without: str = ""
    aim: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A target and how it was met. `value` is the ratio or the figure, None when a scenario was not run."""

    target: Target
    value: Figure | None
    verdict: Verdict


_C1: Final = "capacity-c1-0B"
_C32: Final = "capacity-c32-0B"
_FIXED: Final = "latency-2000rps-c16"
_US: Final = "mtls/both/10-rules/log/remora-http"
_US_TCP: Final = "mtls/both/10-rules/log/remora-tcp"
_ENVOY: Final = "mtls/both/10-rules/log/envoy"
_ENVOY_TCP: Final = "mtls/both/10-rules/log/envoy-tcp"
_NGINX_JSON: Final = "mtls/both/0-rules/log/nginx-json"
_ALONE: Final = "mtls/both/2-rules/log/remora"
_IDLE: Final = (f"idle-2000/{_ALONE}", f"idle-400/{_ALONE}")


def _against(figure_: str, metric: str, load: str, peer: str, limit: float, aim: float | None = None) -> Target:
    return Target(figure=figure_, metric=metric, ours=(f"{load}/{_US}",), theirs=f"{load}/{peer}", limit=limit, aim=aim)


def _added(figure_: str, metric: str, load: str) -> Target:
    return Target(
        figure=figure_,
        metric=metric,
        ours=(f"{load}/{_US}",),
        theirs=f"{load}/{_ENVOY}",
        without=f"{load}/no-proxy",
        limit=1.0,
    )


def _tcp(figure_: str, metric: str, load: str, limit: float) -> Target:
    return Target(
        figure=figure_, metric=metric, ours=(f"{load}/{_US_TCP}",), theirs=f"{load}/{_ENVOY_TCP}", limit=limit
    )


TARGETS: Final[Sequence[Target]] = (
    _against("HTTP/1.1 requests/s, 32 connections, to Envoy", "rate", _C32, _ENVOY, 1.25),
    _against("CPU per request, 32 connections, to Envoy", "cpu_us", _C32, _ENVOY, 1.25),
    _against("HTTP/1.1 requests/s, 32 connections, to nginx with a JSON log", "rate", _C32, _NGINX_JSON, 0.75, 1.0),
    _against("CPU per request, 32 connections, to nginx with a JSON log", "cpu_us", _C32, _NGINX_JSON, 0.75, 1.0),
    _added("added p50, 1 connection, to Envoy", "p50_us", _C1),
    _added("added p99, 1 connection, to Envoy", "p99_us", _C1),
    _added("added p50 at 2,000 requests/s, to Envoy", "p50_us", _FIXED),
    _added("added p99 at 2,000 requests/s, to Envoy", "p99_us", _FIXED),
    _tcp("TCP round trips/s, to Envoy's TCP proxy", "rate", "roundtrips-c32", 1.0),
    _tcp("TCP bulk bytes/s, to Envoy's TCP proxy", "mb_per_s", "bulk-c1", 0.8),
    Target(
        figure="mTLS handshakes/s, to nginx",
        metric="rate",
        ours=(f"handshakes-c8/{_US_TCP}",),
        theirs="handshakes-c8/mtls/both/0-rules/no-log/nginx",
        limit=0.8,
    ),
    Target(figure="resident memory idle, MiB", metric="idle_rss_mib", ours=_IDLE, limit=48),
    Target(figure="per idle inbound mTLS connection, KiB", metric="inbound_kib", ours=_IDLE, limit=40),
    Target(figure="per idle outbound mTLS connection, KiB", metric="outbound_kib", ours=_IDLE, limit=40),
    Target(figure="start to ready, s", metric="ready_s", ours=(f"start/{_ALONE}",), limit=0.6),
    Target(
        figure="CPU per request, 10 rules to 1,000 rules",
        metric="cpu_us",
        ours=(f"{_C32}/mtls/both/1000-rules/log/remora-http",),
        theirs=f"{_C32}/{_US}",
        # At most 1.10 times the cost is at least this part of the speed.
        limit=1 / 1.10,
    ),
)


def judge(results: Results) -> list[Standing]:
    """Hold a run against every target, in the order of the table."""
    standings = []
    for target in TARGETS:
        values = _values(target, results)
        if not values:
            standings.append(Standing(target=target, value=None, verdict=Verdict.NOT_MEASURED))
            continue
        value = figure(values)
        standings.append(Standing(target=target, value=value, verdict=verdict(value, target)))
    return standings


def verdict(value: Figure, target: Target) -> Verdict:
    """Say how a range stands to a target's limit. One repetition settles nothing."""
    kept = [value.lowest >= target.limit, value.highest >= target.limit]
    if not target.theirs:
        kept = [value.highest <= target.limit, value.lowest <= target.limit]
    if value.lowest == value.highest or kept[0] is not kept[1]:
        return Verdict.NOT_SETTLED
    return Verdict.MET if kept[0] else Verdict.MISSED


def _values(target: Target, results: Results) -> list[float]:
    ours = next((found for name in target.ours if (found := _series(results, name, target.metric))), [])
    if not target.theirs or not ours:
        return ours
    theirs = _series(results, target.theirs, target.metric)
    if target.without:
        without = _series(results, target.without, target.metric)
        if not without:
            return []
        # A proxy that adds nothing, or less, cannot be divided by: a microsecond, which wrk resolves, stands for it.
        floor = statistics.median(without)
        ours, theirs = ([max(value - floor, 1.0) for value in series] for series in (ours, theirs))
    more = METRICS[target.metric].more_is_better
    return [a / b if more else b / a for a, b in zip(ours, theirs, strict=False) if a > 0 and b > 0]


def _series(results: Results, name: str, metric: str) -> list[float]:
    scenario = results.maybe_scenario(name)
    return scenario.series(metric) if scenario is not None else []
