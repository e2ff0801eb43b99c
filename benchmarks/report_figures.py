"""Makes the plots of a run: who is held against whom, and over what a cost is drawn. Pure.

Contenders are compared in their *usual* setup, all that they can do switched on. What a run measured besides (other
rules, without TLS, one side) is compared within one contender. Whatever a run lacks is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from benchmarks import growth_fit
from benchmarks.figures import Figure, compare, figure
from benchmarks.matrix import PAYLOADS, Kind, usual
from benchmarks.plots import Axis, Bar, Mark, Plot, Point, Series, Stack, bars, lines, spread_text, stacks
from benchmarks.report_scales import Kind as Scaling
from benchmarks.results import METRICS, Results, ScenarioResult
from benchmarks.targets import Verdict

NO_PROXY: Final = "no proxy"
_LOOKS: Final = {
    "remora-http": 0,
    "remora": 0,
    "remora-compiled": 9,
    "envoy": 1,
    "envoy-tcp": 1,
    "nginx-json": 2,
    "nginx-tcp": 2,
    "haproxy": 3,
    "haproxy-tcp": 3,
    "nginx": 4,
    "uvloop": 5,
    "asyncio": 6,
    "remora-tcp": 7,
    "none": 8,
    "stunnel": 9,
    "ghostunnel": 4,
}
_OURS: Final = ("remora-http", "remora-tcp", "remora")
_OTHERS_LOOK: Final = 8


def look(contender: str) -> int:
    """Give the look of a contender, the same in every plot."""
    return _LOOKS.get(contender, _OTHERS_LOOK)


def is_usual(scenario: ScenarioResult) -> bool:
    """Say whether a scenario is one in which contenders are held against each other."""
    if scenario.sides == "none":
        return True
    setup = usual(scenario.contender)
    tls = "mtls" if setup.tls else "plain"
    if scenario.load == Kind.HANDSHAKES.value:  # forwarders do mutual TLS there: a handshake is what is measured
        tls = "mtls"
    found = (scenario.tls, scenario.sides, scenario.rules, scenario.log)
    return found == (tls, setup.sides, setup.rules, setup.log)


def title_of(contender: str) -> str:
    """Name a contender for a reader."""
    return NO_PROXY if contender == "none" else contender


def unit_text(unit: str) -> str:
    """Write a unit of the results' file for a reader."""
    return "µs" if unit == "us" else unit


def paired(ours: ScenarioResult, theirs: ScenarioResult, metric: str) -> tuple[list[float], list[float]]:
    """Give a figure of both in the rounds in which both have it: these lie seconds apart and are compared."""
    one, other = (
        {item.round: item.figures[metric] for item in scenario.repetitions if metric in item.figures}
        for scenario in (ours, theirs)
    )
    rounds = sorted(one.keys() & other.keys())
    return [one[number] for number in rounds], [other[number] for number in rounds]


def axis_title(metric: str) -> str:
    """Name a figure with its unit, as an axis does."""
    unit = METRICS[metric].unit
    words = METRICS[metric].title
    return words if unit in ("/s", "MB/s") else f"{words} [{unit_text(unit)}]"


def _spread(scenario: ScenarioResult, metric: str) -> Figure:
    return figure(scenario.series(metric))


# --- contenders side by side -----------------------------------------------------------------------------------------


def contender_bars(found: Sequence[ScenarioResult], metric: str, title: str) -> Plot | None:
    """Draw a bar for each contender, the best first; None where fewer than two were measured.

    Without any proxy the figure is so much better that its bar would shrink all others: it is told in words.
    """
    shown = [scenario for scenario in found if scenario.series(metric) and scenario.sides != "none"]
    if len(shown) < 2:
        return None
    shown.sort(key=lambda scenario: _spread(scenario, metric).median, reverse=METRICS[metric].more_is_better)
    rows = [
        Bar(name=title_of(item.contender), figure=_spread(item, metric), look=look(item.contender)) for item in shown
    ]
    way = "longer is better" if METRICS[metric].more_is_better else "shorter is better"
    unit = unit_text(METRICS[metric].unit).removeprefix("/s")
    says = f"{way.capitalize()}; whiskers from the lowest to the highest round."
    for scenario in found:
        if scenario.sides == "none" and scenario.series(metric):
            says += f" Without any proxy: {spread_text(_spread(scenario, metric), unit)}."
    return bars(title, says, rows, f"{axis_title(metric)}, {way}", unit=unit)


def comparisons(found: Sequence[ScenarioResult], metric: str) -> Iterator[str]:
    """Say in words how ours stands against each other contender, round by round."""
    ours = next((item for name in _OURS for item in found if item.contender == name), None)
    if ours is None:
        return
    for other in found:
        if other is ours or other.sides == "none":
            continue
        a, b = paired(ours, other, metric)
        if not a or min(*a, *b) <= 0:
            continue
        result = compare(a, b, more_is_better=METRICS[metric].more_is_better)
        spread = f"{result.ratio.median:.2f} × ({result.ratio.lowest:.2f} to {result.ratio.highest:.2f})"
        apart = "" if result.told_apart else ": not told apart, their spreads overlap"
        if len(a) < 2:
            apart = ": not told apart, one round has no spread"
        yield f"{ours.contender} is {spread} as good as {other.contender}{apart}"


# --- over something --------------------------------------------------------------------------------------------------


def latency_lines(found: Sequence[ScenarioResult], title: str) -> Plot | None:
    """Draw latency percentiles, the median of the rounds at each, with the band of the rounds."""
    series = []
    for scenario in found:
        spectra = [{point.percent: point.us for point in item.percentiles} for item in scenario.repetitions]
        shared = sorted(set.intersection(*(set(one) for one in spectra))) if spectra else []
        points = [
            Point(x=percent, figure=figure([max(one[percent], 1.0) for one in spectra]))
            for percent in shared
            if percent < 100
        ]
        if points:
            series.append(Series(name=title_of(scenario.contender), points=points, look=look(scenario.contender)))
    if not series:
        return None
    return lines(
        title,
        "Lower is better. Time from when a request was due until its answer was there; bands: lowest to highest round.",
        series,
        Axis(title="share of the requests that took at most so long", kind=Scaling.NINES),
        Axis(title="latency [µs], logarithmic", kind=Scaling.LOG),
        unit="µs",
    )


def over(
    found: Sequence[ScenarioResult], metric: str, size: Callable[[ScenarioResult], int], title: str, axis: Axis
) -> Plot | None:
    """Draw a figure over a size, a line for each contender that has it at two sizes at least."""
    by_name: dict[str, list[ScenarioResult]] = {}
    for scenario in found:
        if scenario.series(metric):
            by_name.setdefault(scenario.contender, []).append(scenario)
    series = []
    for name, items in by_name.items():
        points = [Point(x=size(item), figure=_spread(item, metric)) for item in sorted(items, key=size)]
        if len({point.x for point in points}) > 1:
            series.append(Series(name=title_of(name), points=points, look=look(name)))
    if not series:
        return None
    values = [
        value for item in series for point in item.points for value in (point.figure.lowest, point.figure.highest)
    ]
    kind = Scaling.LOG if min(values) > 0 and max(values) > 30 * min(values) else Scaling.LINEAR
    if axis.kind is Scaling.ORDINAL:
        names = {number: name for name, number in PAYLOADS.items()}
        sizes = sorted({point.x for item in series for point in item.points})
        labels = [names.get(int(value), f"{value:,.0f} B") for value in sizes]
        axis = Axis(title=axis.title, kind=axis.kind, labels=labels)
    upright = axis_title(metric) + (", logarithmic" if kind is Scaling.LOG else "")
    says = f"{axis_title(metric)} over {axis.title}; whiskers and bands from the lowest to the highest round."
    return lines(title, says, series, axis, Axis(title=upright, kind=kind), unit=unit_text(METRICS[metric].unit))


def variant_bars(found: Sequence[ScenarioResult], contender: str, metric: str, title: str) -> Plot | None:
    """Draw every setup of one contender under one load: with and without TLS, rules, log, and of one side."""
    shown = [item for item in found if item.contender == contender and item.series(metric)]
    if len(shown) < 3:
        return None
    shown.sort(key=lambda item: (item.tls, ("both", "client", "server").index(item.sides), item.rules, not item.log))
    rows, before = [], ""
    for item in shown:
        sides = "both hops" if item.sides == "both" else f"{item.sides} side only"
        heading = f"{'mutual TLS' if item.tls == 'mtls' else 'no TLS'}, {sides}"
        rules = f"{item.rules:,} rules" if item.rules else "no policy"
        rows.append(
            Bar(
                name=f"{rules}, {'access log' if item.log else 'no log'}",
                figure=_spread(item, metric),
                look=look(contender),
                heading=heading if heading != before else "",
            )
        )
        before = heading
    says = f"{axis_title(metric)} of {contender} in each setup; whiskers from the lowest to the highest round."
    return bars(title, says, rows, axis_title(metric), unit=unit_text(METRICS[metric].unit))


# --- one sidecar, and what other benchmarks add ----------------------------------------------------------------------


def alone_bars(results: Results, metrics: Mapping[str, float | None], title: str) -> Plot | None:
    """Draw figures of one sidecar, all of one unit, with the target that the first of them has."""
    rows = []
    for metric in metrics:
        for item in results.scenarios:
            if item.sides != "none" and item.load in (Kind.IDLE.value, Kind.START.value) and item.series(metric):
                rows.append(Bar(name=METRICS[metric].title, figure=_spread(item, metric), look=look(item.contender)))
    if not rows:
        return None
    [unit] = {METRICS[metric].unit for metric in metrics}
    limit = next((value for value in metrics.values() if value is not None), None)
    mark = Mark(value=limit, name=f"target: at most {limit:g} {unit}") if limit is not None else None
    says = "One sidecar by itself; whiskers from the lowest to the highest process."
    return bars(title, says, rows, f"[{unit}]", unit=unit, target=mark)


def stage_plots(section: Mapping[str, Any]) -> tuple[list[Plot], list[str]]:
    """Draw the stages of a hop, laid end to end and each by itself, and say whether they add up.

    Raises ValueError when this is no section of `remora bench stages`.
    """
    try:
        hops = [
            (
                str(hop["hop"]),
                {str(item["name"]): _figure(item) for item in hop["stages"]},
                _figure(hop["kernel"]),
                _figure(hop["ratio"]),
                bool(hop["holds"]),
                {str(item["name"]): _figure(item) for item in hop.get("without", ())},
            )
            for hop in section["hops"]
        ]
    except (KeyError, TypeError) as failure:
        raise ValueError(f"these are no stages of `remora bench stages`: {failure!r}") from failure
    names = list(dict.fromkeys(name for _, stages, *_ in hops for name in stages))
    rows = [
        Stack(name=hop, parts=[stages[name].median if name in stages else 0.0 for name in names], whole=kernel)
        for hop, stages, kernel, *_ in hops
    ]
    unit = "CPU per request [µs]"
    says = "Median of each stage, laid end to end; above it the kernel's account of the same hop without timers."
    plots = [stacks("Where the microseconds of a hop go", says, names, rows, unit, unit="µs")]
    said = []
    for hop, stages, _, ratio, holds, without in hops:
        single = [Bar(name=name, figure=value, look=0) for name, value in stages.items()]
        plots.append(
            bars(f"Stages of the {hop} hop", "Each stage by itself; whiskers: the rounds.", single, unit, unit="µs")
        )
        if without:
            less = [Bar(name=f"without {name}", figure=value, look=5) for name, value in without.items()]
            if min(one.figure.lowest for one in less) >= 0:
                words = "What the hop costs less without it, with no timer anywhere; whiskers: the rounds."
                plots.append(bars(f"Subtraction runs of the {hop} hop", words, less, unit, unit="µs"))
            else:
                said.append(
                    f"{hop}: "
                    + ", ".join(
                        f"without {name} {value.median:+.1f} µs less ({value.lowest:+.1f} to {value.highest:+.1f})"
                        for name, value in without.items()
                    )
                )
        said.append(
            f"{hop}: the stages add up to {ratio.median:.2f} of the kernel's account "
            f"({ratio.lowest:.2f} to {ratio.highest:.2f})"
            + (", within a tenth." if holds else ": NOT within a tenth. Do not trust this decomposition.")
        )
    return plots, said


def micro_plot(section: Mapping[str, Any]) -> Plot:
    """Draw what each hot function costs. Raises ValueError when this is no section of `remora bench micro`."""
    try:
        rows = [Bar(name=str(case["name"]), figure=_figure(case["figure"]), look=0) for case in section["cases"]]
    except (KeyError, TypeError) as failure:
        raise ValueError(f"these are no cases of `remora bench micro`: {failure!r}") from failure
    says = "Nanoseconds of a call, without those of an empty one; whiskers from the lowest to the highest round."
    return bars("What each hot function costs", says, rows, "CPU of a call [ns]", unit="ns")


def _figure(item: Mapping[str, Any]) -> Figure:
    return Figure(median=float(item["median"]), lowest=float(item["lowest"]), highest=float(item["highest"]))


def growth_plot(curve: growth_fit.Curve) -> tuple[Plot, Verdict, str]:
    """Draw a curve of `remora bench growth`, and give its verdict: against what is due, and in words."""
    found = growth_fit.judge(curve)
    points = [Point(x=size, figure=one) for size, one in zip(curve.sizes, curve.figures(), strict=True)]
    unit = curve.unit.replace("us of", "µs of")
    plot = lines(
        curve.title,
        f"{unit} over {curve.axis}; whiskers and band from the lowest to the highest round.",
        [Series(name="remora", points=points, look=0)],
        Axis(title=curve.axis),
        Axis(title=unit),
        unit="µs",
    )
    verdict = {True: Verdict.MET, False: Verdict.MISSED, None: Verdict.NOT_SETTLED}[found.verdict.meets(curve.due)]
    return plot, verdict, f"{found.words()}. At most {curve.due.value} is due: {verdict.value}."
