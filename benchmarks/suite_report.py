"""Tells a run of the suite to a person: targets, ratios, absolutes, and what weakens them. Pure.

Everything is taken from `results.Results`, so a run that was read from a file is told like one that has just ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from benchmarks.figures import Figure, compare, figure
from benchmarks.host import NOISY_SHARE
from benchmarks.matrix import Kind
from benchmarks.results import METRICS, Results, ScenarioResult
from benchmarks.tables import Table
from benchmarks.targets import Standing, judge

FULL_SHARE: Final = 0.9
"""Below this the proxies' core had time left, so requests/s says more of the load generator than of the proxies."""
_CAPACITIES: Final = (Kind.CAPACITY.value, Kind.HANDSHAKES.value, Kind.ROUNDTRIPS.value)
_REFERENCES: Final = ("nginx-json", "nginx", "envoy", "envoy-tcp", "uvloop")
"""Whom ratios are taken against: the first of these under the same load."""
_CELLS: Final = (
    "rate",
    "mb_per_s",
    "cpu_us",
    "cpu_us_per_mb",
    "p50_us",
    "p99_us",
    "p999_us",
    "rss_mib",
    "load_cpu_us",
    "idle_rss_mib",
    "inbound_kib",
    "outbound_kib",
    "ready_s",
)

_COMPARED: Final = ("cpu_us", "cpu_us_per_mb", "rate", "mb_per_s", "p50_us", "p99_us")
_WITHOUT_RANGE: Final = ("p999_us", "rss_mib", "load_cpu_us")
"""Beside the others they are context, and a terminal is only so wide."""

Render = Callable[[Table], str]


def as_text(results: Results, render: Render) -> str:
    """Write the report; `render` draws a table."""
    parts = ["\n".join(_head(results)) + "\n"]
    # A run of chosen scenarios is about these; a whole one names the targets that it did not come to as well.
    standings = [item for item in judge(results) if item.value is not None or results.settings.mode != "only"]
    if standings:
        parts.append(render(_targets_table(standings)))
    for load in dict.fromkeys(scenario.name.split("/")[0] for scenario in results.scenarios):
        found = [scenario for scenario in results.scenarios if scenario.name.split("/")[0] == load]
        parts += [render(table) for table in _load_tables(load, found)]
    parts.append("\n".join(_proof(results)) + "\n")
    return "\n".join(parts)


def warnings(results: Results) -> list[str]:
    """Say what makes the figures weaker than they look, from the figures themselves."""
    found = []
    noisy = [
        f"{scenario.name} {share:.0%}"
        for scenario in results.scenarios
        if (share := max(item.foreign_share for item in scenario.repetitions)) > NOISY_SHARE
    ]
    if noisy:
        found.append(
            f"the host was noisy: in {len(noisy)} of {len(results.scenarios)} scenarios others took more than "
            f"{NOISY_SHARE:.0%} of the proxies' core ({_some(noisy)}); CPU per request is the figure to read"
        )
    idle = [
        f"{scenario.name} {share:.0%}"
        for scenario in results.scenarios
        if scenario.load in _CAPACITIES and scenario.sides == "both" and scenario.connections > 1
        if (share := figure([item.proxy_share for item in scenario.repetitions]).median) < FULL_SHARE
    ]
    if idle:
        found.append(f"the proxies' core had time left ({_some(idle)}): requests/s was not theirs to decide")
    if any(len(scenario.repetitions) < 2 for scenario in results.scenarios):
        found.append("one round has no spread: nothing can be told apart")
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _head(results: Results) -> Iterator[str]:
    machine, settings = results.machine, results.settings
    yield f"remora bench run, {settings.mode}, {results.taken_at}"
    yield f"  remora      {results.remora}"
    if results.remora_compiled:
        yield f"  compiled    {results.remora_compiled}"
    yield f"  python      {machine.python}, {machine.python_build}"
    yield f"  openssl     {machine.openssl}"
    yield (
        f"  machine     {machine.processors} x {machine.processor}, {machine.memory_mib:,} MiB, {machine.kernel}, "
        f"{machine.system}; proxies on core {machine.proxies_core}, everything else on core {machine.others_core}"
    )
    yield f"  rounds      {settings.repetitions} interleaved, of {settings.seconds:g} s each"
    yield "  peers       " + (", ".join(f"{name} {version}" for name, version in machine.peers.items()) or "none")


def _targets_table(standings: Sequence[Standing]) -> Table:
    rows = []
    for standing in standings:
        target, value = standing.target, standing.value
        ratio = " x" if target.theirs else ""
        limit = f"at least {target.limit:.2f} x" if target.theirs else f"at most {target.limit:g}"
        if target.aim is not None:
            limit += f", aim {target.aim:.2f} x"
        measured = "" if value is None else _range(value, 2, ratio)
        rows.append((target.figure, measured, limit, standing.verdict.value))
    headers = ("Remora", "median (lowest to highest)", "target", "")
    return Table(title="Targets: ratios in the same run, above 1 is better for Remora", headers=headers, rows=rows)


def _load_tables(load: str, found: Sequence[ScenarioResult]) -> Iterator[Table]:
    reference = next((item for name in _REFERENCES for item in found if item.contender == name), None)
    if reference is not None and len(found) > 1:
        metrics = [metric for metric in _COMPARED if metric in reference.metrics]
        others = [item for item in found if item is not reference]
        yield Table(
            title=f"{load}: against {_setup(reference)}, above 1 is better",
            headers=("", *(METRICS[metric].title for metric in metrics)),
            rows=[(_setup(item), *(_ratio(item, reference, metric) for metric in metrics)) for item in others],
        )
    columns = [metric for metric in _CELLS if any(metric in item.metrics for item in found)]
    yield Table(
        title=f"{load}: medians (lowest to highest)",
        headers=("", *(METRICS[metric].title for metric in columns), "core used"),
        rows=[(_setup(item), *(_absolute(item, metric) for metric in columns), _share(item)) for item in found],
    )


def _setup(item: ScenarioResult) -> str:
    return item.name.partition("/")[2]


def _ratio(item: ScenarioResult, reference: ScenarioResult, metric: str) -> str:
    ours, theirs = item.series(metric), reference.series(metric)
    if not ours or len(ours) != len(theirs) or min(*ours, *theirs) <= 0:
        return ""
    compared = compare(ours, theirs, more_is_better=METRICS[metric].more_is_better)
    cell = _range(compared.ratio, 2, " x")
    return cell if compared.told_apart else f"{cell}, not told apart"


def _absolute(item: ScenarioResult, metric: str) -> str:
    if metric not in item.metrics:
        return ""
    values = figure(item.series(metric))
    digits = 0 if values.median >= 100 else 1 if values.median >= 10 else 2
    unit = f" {METRICS[metric].unit}"
    return f"{values.median:,.{digits}f}{unit}" if metric in _WITHOUT_RANGE else _range(values, digits, unit)


def _share(item: ScenarioResult) -> str:
    share = figure([repetition.proxy_share for repetition in item.repetitions]).median
    return f"{share:.0%}" if share else ""


def _range(value: Figure, digits: int, unit: str) -> str:
    return f"{value.median:,.{digits}f}{unit} ({value.lowest:,.{digits}f} to {value.highest:,.{digits}f})"


def _proof(results: Results) -> Iterator[str]:
    judged = [scenario for scenario in results.scenarios if scenario.denials]
    asked = sum(len(scenario.repetitions) for scenario in judged)
    yield (
        "Checked: no answer failed; a line in each hop's log for each request where there is a log; forbidden "
        f"requests amid the load were refused and are on record, {sum(item.denials for item in judged)} of {asked}"
    )
    yield from (f"ABSENT: {name}: {why}" for name, why in results.absent.items())
    yield from (f"WARNING: {warning}" for warning in results.warnings)
