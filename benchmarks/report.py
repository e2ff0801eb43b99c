"""Tells what was measured: ratios first, absolutes second, and what the reader must know to believe them. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.contenders import BASELINE, Contender
from benchmarks.figures import Comparison, Figure, compare, figure
from benchmarks.hops import Plan, Repetition, Standing
from benchmarks.host import NOISY_SHARE, Machine

FULL_SHARE: Final = 0.9
"""Below this the proxies' core had time left, so requests/s says more of the load generator than of the proxies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how a run was made."""

    machine: Machine
    plan: Plan


def as_json(setting: Setting, standings: Sequence[Standing], absent: Sequence[Contender]) -> str:
    """Write everything, each repetition included, for programs."""
    base = _baseline(standings)
    document = {
        "benchmark": "hops",
        **setting.machine.document(),
        "plan": dataclasses.asdict(setting.plan),
        "baseline": BASELINE,
        "contenders": [_entry(standing, base) for standing in standings],
        "absent": {contender.name: contender.absent for contender in absent},
        "warnings": warnings(setting, standings),
    }
    return json.dumps(document, indent=2) + "\n"


def _entry(standing: Standing, base: Standing) -> dict[str, Any]:
    contender = standing.contender
    entry: dict[str, Any] = {
        "name": contender.name,
        "does": contender.does,
        "version": contender.version,
        "denied_and_on_record": standing.denials,
        "repetitions": [dataclasses.asdict(repetition) for repetition in standing.repetitions],
    }
    if standing is not base:
        entry["against_baseline"] = {
            "cpu": dataclasses.asdict(_cpu(standing, base)),
            "rate": dataclasses.asdict(_rate(standing, base)),
        }
    return entry


def as_text(setting: Setting, standings: Sequence[Standing], absent: Sequence[Contender]) -> str:
    """Write the report for a person."""
    plan, base = setting.plan, _baseline(standings)
    lines = [
        "Two hops in two processes: load generator -> outbound -> inbound -> application",
        *setting.machine.lines("proxies"),
        f"  load        {plan.connections} connections, {plan.repetitions} interleaved rounds of {plan.seconds:g} s",
        "",
        f"Against {BASELINE} ({base.contender.does}): median of the rounds, lowest to highest; above 1 is better",
        f"  {'':<17}{'CPU per request':<40}{'requests/s'}",
    ]
    for standing in standings:
        if standing is not base:
            cells = (_ratio_cell(comparison) for comparison in (_cpu(standing, base), _rate(standing, base)))
            lines.append(f"  {standing.contender.name:<17}" + "".join(f"{cell:<40}" for cell in cells).rstrip())
    lines += _against_peer(standings)
    lines += [
        "",
        "Absolutes (median, lowest to highest; CPU is that of both hops)",
        f"  {'':<17}{'CPU per request':<24}{'requests/s':<28}{'p50':>8}{'p99':>10}   core used",
    ]
    lines += [_absolute_line(standing) for standing in standings]
    lines += ["", "What each does for a request"]
    for standing in standings:
        contender = standing.contender
        version = f" [{contender.version}]" if contender.version else ""
        lines.append(f"  {contender.name:<17}{contender.does}{version}")
    lines += [f"  {contender.name:<17}ABSENT: {contender.absent}" for contender in absent]
    lines += ["", *_proof(standings)]
    lines += [f"WARNING: {warning}" for warning in warnings(setting, standings)]
    return "\n".join(lines) + "\n"


def warnings(setting: Setting, standings: Sequence[Standing]) -> list[str]:
    """Say what makes the figures weaker than they look."""
    found = setting.machine.warnings()
    noisy = [
        f"{standing.contender.name} {share:.0%}"
        for standing in standings
        if (share := max(item.foreign_share for item in standing.repetitions)) > NOISY_SHARE
    ]
    if noisy:
        found.append(
            f"the host was noisy: others took up to this much of the proxies' core ({', '.join(noisy)}); "
            "CPU per request is the figure to read, requests/s is not"
        )
    idle = [
        f"{standing.contender.name} {share:.0%}"
        for standing in standings
        if (share := _median(standing.repetitions, "proxy_share")) < FULL_SHARE
    ]
    if idle and not noisy:
        found.append(f"the proxies' core had time left ({', '.join(idle)}): requests/s was not theirs to decide")
    if setting.plan.repetitions < 2:
        found.append("one round has no spread: nothing can be told apart")
    return found


def _against_peer(standings: Sequence[Standing]) -> list[str]:
    """Compare Remora with the peer that does the same work, where it was measured."""
    named = {standing.contender.name: standing for standing in standings}
    ours, peer = named.get("remora"), named.get("envoy")
    if ours is None or peer is None:
        return []
    cells = (_ratio_cell(comparison) for comparison in (_cpu(ours, peer), _rate(ours, peer)))
    line = f"  {'remora':<17}" + "".join(f"{cell:<40}" for cell in cells).rstrip()
    return ["", "Against envoy, which does the same work", line]


def _proof(standings: Sequence[Standing]) -> list[str]:
    logged = [standing for standing in standings if standing.contender.logs]
    lines = ["Done as it should be: every answer was the application's 200"]
    if logged:
        lines[0] += f"; one line in each hop's log per request ({', '.join(item.contender.name for item in logged)})"
    for standing in standings:
        if standing.contender.judges:
            times = f"{standing.denials} of {len(standing.repetitions)}"
            lines.append(
                f"  {standing.contender.name}: a forbidden request amid the load got 403 and is on record, {times}"
            )
    return lines


def _baseline(standings: Sequence[Standing]) -> Standing:
    return next(standing for standing in standings if standing.contender.name == BASELINE)


def _series(standing: Standing, name: str) -> list[float]:
    return [float(getattr(repetition, name)) for repetition in standing.repetitions]


def _median(repetitions: Sequence[Repetition], name: str) -> float:
    return figure([float(getattr(repetition, name)) for repetition in repetitions]).median


def _cpu(standing: Standing, base: Standing) -> Comparison:
    return compare(_series(standing, "cpu_us"), _series(base, "cpu_us"), more_is_better=False)


def _rate(standing: Standing, base: Standing) -> Comparison:
    return compare(_series(standing, "rate"), _series(base, "rate"), more_is_better=True)


def _ratio_cell(comparison: Comparison) -> str:
    ratio = comparison.ratio
    cell = f"{ratio.median:.2f} x ({ratio.lowest:.2f} to {ratio.highest:.2f})"
    return cell if comparison.told_apart else cell + ", not told apart"


def _absolute_line(standing: Standing) -> str:
    cpu, rate = figure(_series(standing, "cpu_us")), figure(_series(standing, "rate"))
    p50, p99 = _median(standing.repetitions, "p50_us"), _median(standing.repetitions, "p99_us")
    used = _median(standing.repetitions, "proxy_share")
    return (
        f"  {standing.contender.name:<17}{_range(cpu, ' us'):<24}{_range(rate, ''):<28}"
        f"{p50 / 1000:>5.1f} ms{p99 / 1000:>7.1f} ms   {used:.0%}"
    )


def _range(value: Figure, unit: str) -> str:
    return f"{value.median:.0f}{unit} ({value.lowest:.0f} to {value.highest:.0f})"
