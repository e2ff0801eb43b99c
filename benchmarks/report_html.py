"""Writes the report of one or more runs as a single HTML page: nothing is loaded, nothing runs, everything is escaped.

    what was measured, on what, what weakens it
    targets      ratios first
    plots        latency, decomposition, capacity, over rules, connections and payload, one sidecar, growth
    everything   every scenario and every figure, for whoever trusts no plot

Whatever a run lacks is left out of the plots and stays in the tables. Runs are shown one after the other and never
mixed: figures of two runs say little of each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import growth_fit
from benchmarks import report_figures as figures
from benchmarks.figures import figure
from benchmarks.matrix import Kind
from benchmarks.plots import Axis, Plot, spread_text
from benchmarks.report_markup import Markup, element, join, text
from benchmarks.report_scales import Kind as Scaling
from benchmarks.report_scales import number_text
from benchmarks.results import METRICS, Results, ResultsError, ScenarioResult, loads
from benchmarks.targets import Standing, Target, Verdict, judge

_STYLE: Final = Path(__file__).with_name("report_page.css")
_ADDED: Final = ("stages", "growth", "micro")
"""Kinds of sections that are drawn; others are shown as they are, so that nothing that was measured is hidden."""
_STYLES: Final = {
    Verdict.MET: "met",
    Verdict.MISSED: "missed",
    Verdict.NOT_SETTLED: "unsettled",
    Verdict.NOT_MEASURED: "unmeasured",
}
_LONG: Final = 100
"""A fact of more characters than this has a row for itself."""
_MANY: Final = 3
"""More sentences than this stand in two columns."""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one file holds: a whole run, or one section by itself; `name` is that of the file."""

    name: str
    results: Results | None
    sections: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, str]
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chapter:
    """A part of the page with a heading; it is left out when it has nothing."""

    anchor: str
    title: str
    lead: str
    content: Sequence[Markup]


def read(name: str, document: str) -> Part:
    """Read a file of `remora bench run`, or what `stages`, `growth` or `micro` wrote as JSON.

    Raises ResultsError when it is neither.
    """
    try:
        found = json.loads(document)
    except ValueError as failure:
        raise ResultsError(f"{name}: this is no JSON: {failure}") from failure
    if isinstance(found, dict) and "format" not in found and found.get("kind") in _ADDED:
        warnings = [str(item) for item in found.get("warnings", ())]
        return Part(name=name, results=None, sections={found["kind"]: found}, facts=_facts_of(found), warnings=warnings)
    try:
        results = loads(document)
    except ResultsError as failure:
        raise ResultsError(f"{name}: {failure}") from failure
    return Part(name=name, results=results, sections=results.sections, facts=_facts(results), warnings=results.warnings)


def page(parts: Sequence[Part]) -> str:
    """Write the page. Raises ResultsError for no part, or for a section that does not hold what its kind says."""
    if not parts:
        raise ResultsError("there is nothing to report")
    bodies, contents = [], []
    for number, part in enumerate(parts, 1):
        try:
            chapters = [item for item in _chapters(part, number) if item.content]
        except ValueError as failure:
            raise ResultsError(f"{part.name}: {failure}") from failure
        bodies += [_head(part, several=len(parts) > 1), *map(_chapter, chapters)]
        contents += [element("a", text(item.title), href=f"#{item.anchor}") for item in chapters]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", text("Remora: what a hop costs")),
        # The style sheet is a file of ours and has no end tag in it; escaped, it would be none.
        element("style", Markup("\n" + _STYLE.read_text("utf-8"))),
    )
    top = join(
        element("h1", text("What a hop costs")),
        element("p", text(_LEAD), class_="lead"),
        element("nav", *contents, aria_label="contents"),
    )
    body = element("body", top, *bodies, element("footer", element("p", text(_FOOT))))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


_LEAD: Final = (
    "Two sidecars stand between load and application, as between two pods. This page says what they cost, beside other "
    "proxies that were measured in the same rounds on the same machine."
)
_FOOT: Final = (
    "How to read it: a figure is the median of its rounds, with the lowest and the highest of them. Where the ranges "
    "of two contenders overlap they are not told apart, whatever the medians say. A target is met or missed when every "
    "round says so, and else not settled. Compare figures of one run only. benchmarks/README.md says what was equal "
    "and what was not."
)


# --- the head of a part -----------------------------------------------------------------------------------------------


def _head(part: Part, *, several: bool) -> Markup:
    found = []
    if several:
        found.append(element("h2", text(part.name)))
    rows = [
        element(
            "div", element("dt", text(name)), element("dd", text(said)), class_="long" if len(said) > _LONG else "short"
        )
        for name, said in part.facts.items()
    ]
    if rows:
        found.append(element("dl", *rows, class_="facts"))
    if part.warnings:
        items = [element("li", text(warning)) for warning in part.warnings]
        found.append(
            element(
                "section", element("h3", text("What weakens these figures")), element("ul", *items), class_="warnings"
            )
        )
    return join(*found)


def _facts(results: Results) -> dict[str, str]:
    machine, settings = results.machine, results.settings
    facts = {
        "taken at": results.taken_at,
        "Remora": results.remora,
        "processor": f"{machine.processor}, {machine.processors} in all",
        "memory": f"{machine.memory_mib:,} MiB",
        "system": f"{machine.system}, kernel {machine.kernel}",
        "interpreter": f"{machine.python}, {machine.python_build}",
        "OpenSSL of Remora": machine.openssl,
        "cores": f"proxies on {machine.proxies_core}, load and application on {machine.others_core}",
        "run": f"{settings.mode}: {settings.repetitions} interleaved rounds, {settings.seconds:g} s each"
        + (f", only {settings.only}" if settings.only else ""),
    }
    if results.remora_compiled:
        facts["compiled form"] = results.remora_compiled
    facts |= {f"peer: {name}": version for name, version in machine.peers.items() if version}
    return facts | {f"absent: {name}": why for name, why in results.absent.items()}


def _facts_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Give the facts of a section that stands by itself, as far as it tells them."""
    interpreter = document.get("interpreter")
    facts = {name: str(document[name]) for name in ("processor", "openssl") if name in document}
    if isinstance(interpreter, dict):
        facts["interpreter"] = f"{interpreter.get('version')}, {interpreter.get('build')}"
    if isinstance(how := document.get("how"), list):
        facts["how"] = " ".join(map(str, how))
    return facts


# --- chapters ---------------------------------------------------------------------------------------------------------


def _chapter(chapter: _Chapter) -> Markup:
    heading = element("h2", text(chapter.title), id=chapter.anchor)
    return element("section", heading, element("p", text(chapter.lead), class_="soft"), *chapter.content)


def _chapters(part: Part, number: int) -> Iterator[_Chapter]:
    def chapter(name: str, title: str, lead: str, content: Sequence[Markup]) -> _Chapter:
        return _Chapter(anchor=f"{name}-{number}", title=title, lead=lead, content=content)

    results = part.results
    if results:
        usually = [item for item in results.scenarios if figures.is_usual(item)]
        lead = "Ratios are taken round by round; above 1 Remora is better, whatever is counted. Absolutes are medians."
        yield chapter("targets", "Targets", lead, [_target_table(results)])
        lead = "Requests come at a fixed rate and are timed from when they were due, so that a stall is not hidden."
        yield chapter("latency", "Latency", lead, list(_latency(usually)))
    for kind, section in part.sections.items():
        if kind == "stages":
            lead = "Timers in the process, less what they cost themselves, held against the kernel's account of CPU."
            yield chapter("stages", "Where the microseconds go", lead, list(_stages(section)))
    if results:
        lead = "As fast as it goes, proxies on one core. CPU is that of all hops, from the kernel's account."
        yield chapter("capacity", "Capacity", lead, list(_capacity(usually)))
        lead = "The same contenders under other loads, and Remora under other policies."
        yield chapter("over", "Cost over connections, payload and rules", lead, list(_over(results, usually)))
        lead = "One contender in each setup: what mutual TLS, policy and access log cost, and each side by itself."
        yield chapter("switched", "What is switched on", lead, list(_variants(results)))
        lead = "Resident memory and start of one process; a connection is the slope over many."
        yield chapter("alone", "One sidecar by itself", lead, list(_alone(results)))
    for kind, section in part.sections.items():
        if kind == "growth":
            lead = "CPU of one sidecar. A verdict is given when all of its 95 % interval agrees with it."
            yield chapter("growth", "Cost that grows", lead, list(_growth(section)))
        if kind == "micro":
            lead = "Each function by itself, in a loop, and so with warmer caches than within a sidecar."
            yield chapter("micro", "Hot functions", lead, list(_figure(figures.micro_plot(section))))
    others = [_raw(kind, section) for kind, section in part.sections.items() if kind not in _ADDED]
    yield chapter("others", "Measured besides", "Sections without a plot, as they were written.", others)
    if results:
        lead = "Every scenario of the run; medians of the rounds, lowest to highest."
        yield chapter("everything", "Everything", lead, list(_everything(results)))


def _target_table(results: Results) -> Markup:
    return _table(
        ("figure", "target", "measured", "ours against theirs", ""),
        [_target_row(standing, results) for standing in judge(results)],
    )


def _target_row(standing: Standing, results: Results) -> Markup:
    target, unit = standing.target, "×" if standing.target.theirs else ""
    limit = f"{'at least' if target.theirs else 'at most'} {target.limit:.3g} {unit}".rstrip()
    if target.aim is not None:
        limit += f", aim {target.aim:g}"
    measured = spread_text(standing.value, unit) if standing.value else "–"
    return element(
        "tr",
        element("td", text(target.figure)),
        element("td", text(limit)),
        element("td", text(measured), class_="number"),
        element("td", text(_absolutes(target, results)), class_="number soft"),
        element("td", text(standing.verdict.value), class_=f"verdict {_STYLES[standing.verdict]}"),
    )


def _absolutes(target: Target, results: Results) -> str:
    """Write the medians that a ratio is made of, "" for what is no ratio or was not measured."""
    ours = next((found for name in target.ours if (found := results.maybe_scenario(name))), None)
    theirs = results.maybe_scenario(target.theirs) if target.theirs else None
    if ours is None or theirs is None or not ours.series(target.metric) or not theirs.series(target.metric):
        return ""
    one, other = (number_text(figure(item.series(target.metric)).median) for item in (ours, theirs))
    return f"{one} against {other} {figures.unit_text(METRICS[target.metric].unit)}"


def _latency(usually: Sequence[ScenarioResult]) -> Iterator[Markup]:
    for load, found in _by(usually, lambda item: (item.load, item.connections, item.rate, item.payload)).items():
        if load[0] == Kind.LATENCY.value:
            title = f"Latency at {load[2]:,} requests/s over {load[1]} connections"
            said = [f"p99: {line}" for line in figures.comparisons(found, "p99_us")]
            yield from _figure(figures.latency_lines(found, title), said)


def _stages(section: Mapping[str, Any]) -> Iterator[Markup]:
    plots, said = figures.stage_plots(section)
    for number, plot in enumerate(plots):
        yield from _figure(plot, said if number == 0 else ())


_LOADS: Final = {
    Kind.CAPACITY.value: "HTTP/1.1",
    Kind.LATENCY.value: "HTTP/1.1 at a fixed rate",
    Kind.HANDSHAKES.value: "a new connection for each request",
    Kind.ROUNDTRIPS.value: "TCP round trips of small messages",
    Kind.BULK.value: "TCP bulk",
}
_CAPACITY: Final = (
    (Kind.CAPACITY, 32, ("cpu_us", "rate")),
    (Kind.HANDSHAKES, 8, ("rate", "cpu_us")),
    (Kind.ROUNDTRIPS, 32, ("cpu_us", "rate")),
    (Kind.BULK, 1, ("mb_per_s", "cpu_us_per_mb")),
)
"""What is drawn of each kind of load, and with how many connections; others are in the curves and in the table."""


def _capacity(usually: Sequence[ScenarioResult]) -> Iterator[Markup]:
    by_load = _by(usually, lambda item: (item.load, item.connections))
    for kind, connections, metrics in _CAPACITY:
        found = by_load.get((kind.value, connections), [])
        if kind is Kind.CAPACITY:
            found = [item for item in found if not item.payload]
        where = f"{_LOADS[kind.value]}, {connections} connection{'s' if connections > 1 else ''}"
        for metric in metrics:
            plot = figures.contender_bars(found, metric, f"{METRICS[metric].title}: {where}")
            yield from _figure(plot, list(figures.comparisons(found, metric)))


def _over(results: Results, usually: Sequence[ScenarioResult]) -> Iterator[Markup]:
    over_connections = Axis(title="connections", kind=Scaling.LOG, at_values=True)
    for (load, payload), found in _by(usually, lambda item: (item.load, item.payload)).items():
        if (load == Kind.CAPACITY.value and not payload) or load == Kind.ROUNDTRIPS.value:
            for metric in ("cpu_us", "p99_us"):
                title = f"{METRICS[metric].title} over connections: {_LOADS[load]}"
                yield from _figure(figures.over(found, metric, lambda item: item.connections, title, over_connections))
    by_payload = Axis(title="payload of each answer", kind=Scaling.ORDINAL)
    for (load, connections), found in _by(usually, lambda item: (item.load, item.connections)).items():
        if load == Kind.CAPACITY.value and connections in (1, 32):
            title = f"CPU per request over payload, {connections} connection{'s' if connections > 1 else ''}"
            yield from _figure(figures.over(found, "cpu_us", lambda item: item.payload, title, by_payload))
    judged = [
        item for item in results.scenarios if item.rules and item.sides == "both" and item.log and item.load in _LOADS
    ]
    over_rules = Axis(title="policy rules", kind=Scaling.LOG, at_values=True)
    for key, found in _by(judged, lambda item: (item.load, item.tls, item.connections, item.payload)).items():
        tls = "mTLS" if key[1] == "mtls" else "no TLS"
        title = f"CPU per request over rules: {_LOADS[key[0]]}, {key[2]} connections, {tls}"
        yield from _figure(figures.over(found, "cpu_us", lambda item: item.rules, title, over_rules))


def _variants(results: Results) -> Iterator[Markup]:
    by_load = _by(results.scenarios, lambda item: (item.load, item.connections, item.payload))
    for (load, connections, payload), found in by_load.items():
        if load in (Kind.CAPACITY.value, Kind.ROUNDTRIPS.value, Kind.LATENCY.value):
            metric = "p99_us" if load == Kind.LATENCY.value else "cpu_us"
            for contender in dict.fromkeys(item.contender for item in found if item.sides != "none"):
                title = (
                    f"{METRICS[metric].title} of {contender}: {_LOADS[load]}, {connections} connections, {payload:,} B"
                )
                yield from _figure(figures.variant_bars(found, contender, metric, title))


def _alone(results: Results) -> Iterator[Markup]:
    yield from _figure(
        figures.alone_bars(results, {"inbound_kib": 40.0, "outbound_kib": 40.0}, "Memory of each idle mTLS connection")
    )
    yield from _figure(figures.alone_bars(results, {"idle_rss_mib": 48.0}, "Memory of an idle sidecar"))
    yield from _figure(figures.alone_bars(results, {"ready_s": 0.6, "ready_cpu_s": None}, "Start to ready"))


def _growth(section: Mapping[str, Any]) -> Iterator[Markup]:
    for curve in growth_fit.read(section):
        plot, verdict, said = figures.growth_plot(curve)
        yield from _figure(plot, badge=element("p", text(said), class_=f"badge {_STYLES[verdict]}"))


def _raw(kind: str, section: Mapping[str, Any]) -> Markup:
    written = element("pre", text(json.dumps(section, indent=1)))
    return element("details", element("summary", text(kind)), element("div", written, class_="wide"))


def _everything(results: Results) -> Iterator[Markup]:
    for load, found in _by(results.scenarios, lambda item: item.load).items():
        metrics = [name for name in METRICS if any(name in item.metrics for item in found)]
        rows = []
        for item in found:
            cells = [element("td", text(item.name))]
            for metric in metrics:
                values = item.series(metric)
                said = spread_text(figure(values), "") if values else "–"
                cells.append(element("td", text(said), class_="number"))
            share = max(repetition.foreign_share for repetition in item.repetitions)
            cells.append(element("td", text(f"{share:.0%}"), class_="number"))
            rows.append(element("tr", *cells))
        columns = ("scenario", *map(figures.axis_title, metrics), "taken by others, at most")
        yield element(
            "details",
            element("summary", text(f"{_LOADS.get(load, load)}: {len(found)} scenarios")),
            _table(columns, rows),
        )


# --- what all of them use ---------------------------------------------------------------------------------------------


def _figure(plot: Plot | None, said: Sequence[str] = (), *, badge: Markup | None = None) -> Iterator[Markup]:
    if plot is None:
        return
    found = [element("h3", text(plot.title)), element("figcaption", text(plot.says))]
    if badge:
        found.append(badge)
    found.append(element("div", plot.svg, class_="wide"))
    if said:
        items = (element("li", text(line)) for line in said)
        found.append(element("ul", *items, class_="said many" if len(said) > _MANY else "said"))
    yield element("figure", *found)


def _table(columns: Sequence[str], rows: Sequence[Markup]) -> Markup:
    head = element("tr", *(element("th", text(name), scope="col") for name in columns))
    return element("div", element("table", element("thead", head), element("tbody", *rows)), class_="wide")


def _by(found: Sequence[ScenarioResult], key: Callable[[ScenarioResult], Any]) -> dict[Any, list[ScenarioResult]]:
    groups: dict[Any, list[ScenarioResult]] = {}
    for item in found:
        groups.setdefault(key(item), []).append(item)
    return groups
