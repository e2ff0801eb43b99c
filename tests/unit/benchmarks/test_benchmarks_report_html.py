"""The page of a report: targets judged, every spread and "not told apart" said, everything escaped, nothing loaded."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import cli
from benchmarks.growth_fit import read as curves
from benchmarks.matrix import NOBODY, Kind, Load, Setup, scenarios, usual
from benchmarks.report_figures import comparisons, contender_bars, growth_plot, is_usual, stage_plots
from benchmarks.report_html import page, read
from benchmarks.results import (
    MachineFacts,
    Percentile,
    Repetition,
    Results,
    ResultsError,
    RunSettings,
    ScenarioResult,
    dumps,
)
from benchmarks.targets import Verdict, judge

NASTY = "<script>alert('x')</script>\"&"
BUSY = Load(kind=Kind.CAPACITY, connections=32)
STEADY = Load(kind=Kind.LATENCY, connections=16, rate=2_000)


def scenario(
    load: Load, setup: Setup, rounds: Sequence[Mapping[str, float]], percentiles: Sequence[Percentile] = ()
) -> ScenarioResult:
    return ScenarioResult(
        name=f"{load.name}/{setup.name}",
        contender=setup.contender,
        protocol="http" if load.kind.http else "tcp",
        load=load.kind.value,
        tls="mtls" if setup.tls else "plain",
        sides=setup.sides,
        rules=setup.rules,
        log=setup.log,
        connections=load.connections,
        payload=load.payload,
        rate=load.rate,
        repetitions=tuple(
            Repetition(round=number, figures=figures, percentiles=tuple(percentiles))
            for number, figures in enumerate(rounds, 1)
        ),
    )


def run(
    found: Sequence[ScenarioResult],
    *,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    word: str = "a word",
    warnings: Sequence[str] = (),
) -> Results:
    return Results(
        taken_at="2026-01-01T00:00:00Z",
        remora=word,
        machine=MachineFacts(
            processor=word,
            processors=2,
            memory_mib=1_000,
            kernel=word,
            system=word,
            python=word,
            python_build=word,
            python_optimised=True,
            openssl=word,
            proxies_core=0,
            others_core=1,
            peers={"envoy": word, word: word},
        ),
        settings=RunSettings(mode="quick", seconds=3.0, repetitions=3, only=word),
        scenarios=tuple(found),
        absent={word: word},
        warnings=tuple(warnings),
        sections=sections or {},
    )


def capacity(setup: Setup, cpu: Sequence[float], load: Load = BUSY) -> ScenarioResult:
    rounds = [{"cpu_us": value, "rate": 1e6 / value, "p50_us": 2 * value, "p99_us": 5 * value} for value in cpu]
    return scenario(load, setup, rounds)


OURS = capacity(usual("remora-http"), [80, 82, 84])
ENVOY = capacity(usual("envoy"), [110, 112, 109])
NGINX = capacity(usual("nginx-json"), [81, 79, 85])


def as_page(results: Results) -> str:
    return page([read("run.json", dumps(results))])


# --- targets ---------------------------------------------------------------------------------------------------------


def test_a_row_says_target_spread_absolutes_and_verdict() -> None:
    written = as_page(run([OURS, ENVOY, NGINX]))
    rows = [re.sub(r"<[^>]*>", "|", row) for row in re.findall(r"<tr>.*?</tr>", written)]
    [row] = [row for row in rows if "CPU per request, 32 connections, to Envoy" in row]
    cells = [cell for cell in row.split("|") if cell]
    assert cells[1:] == ["at least 1.25 ×", "1.37 × (1.30 to 1.38)", "82.0 against 110 µs", "met"]


def test_every_target_is_among_the_scenarios_that_a_quick_run_measures() -> None:
    figures = dict.fromkeys(("cpu_us", "rate", "p50_us", "p99_us", "mb_per_s"), 1.0)
    alone = {"idle_rss_mib": 1.0, "inbound_kib": 1.0, "outbound_kib": 1.0, "ready_s": 0.1}
    found = []
    for item in scenarios():
        if item.tier == 0:
            more = 0.0 if item.setup.sides == "none" else 1.0
            rounds = [alone] * 2 if item.load.kind.alone else [{k: v + more for k, v in figures.items()}] * 2
            found.append(scenario(item.load, item.setup, rounds))
    assert Verdict.NOT_MEASURED not in {item.verdict for item in judge(run(found))}


# --- figures ---------------------------------------------------------------------------------------------------------


def test_overlapping_spreads_are_not_told_apart_in_words() -> None:
    said = list(comparisons([OURS, ENVOY, NGINX], "cpu_us"))
    assert said[0].startswith("remora-http is 1.37 × (1.30 to 1.38) as good as envoy")
    assert "not told apart" not in said[0]
    assert said[1].endswith("as good as nginx-json: not told apart, their spreads overlap")


def test_the_usual_setups_are_compared_and_no_others() -> None:
    assert is_usual(OURS)
    assert is_usual(capacity(NOBODY, [1.0]))
    assert not is_usual(capacity(Setup(contender="remora-http", rules=1_000, log=True), [1.0]))
    assert not is_usual(capacity(Setup(contender="remora-http", rules=10, log=True, sides="client"), [1.0]))


def test_bars_need_two_contenders() -> None:
    assert contender_bars([OURS, capacity(NOBODY, [1.0])], "cpu_us", "a") is None
    assert contender_bars([OURS, ENVOY], "cpu_us", "a") is not None


def figure(median: float) -> dict[str, float]:
    return {"median": median, "lowest": median - 1, "highest": median + 1}


def stages(*, holds: bool, name: str = "read") -> dict[str, Any]:
    return {
        "kind": "stages",
        "hops": [
            {
                "hop": "inbound",
                "stages": [{"name": name, **figure(10)}, {"name": "parse", **figure(20)}],
                "kernel": figure(31),
                "ratio": figure(0.97),
                "holds": holds,
                "without": [{"name": "access log", **figure(0.5)}],
            }
        ],
    }


def test_stages_that_do_not_add_up_are_not_to_be_trusted() -> None:
    _, good = stage_plots(stages(holds=True))
    _, bad = stage_plots(stages(holds=False))
    assert good[-1].endswith("within a tenth.")
    assert bad[-1].endswith("NOT within a tenth. Do not trust this decomposition.")
    assert "without access log +0.5 µs less (-0.5 to +1.5)" in good[0]


@pytest.mark.parametrize("section", [{}, {"hops": [{}]}, {"hops": 1}])
def test_what_holds_no_stages_is_refused(section: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no stages"):
        stage_plots(section)


def growth(name: str = "rules") -> dict[str, Any]:
    curve = {"name": name, "title": name, "axis": name, "unit": "us of CPU per request", "due": "flat"}
    return {
        "kind": "growth",
        "processor": name,
        "how": [name],
        "warnings": [name],
        "curves": [{**curve, "sizes": [1, 50, 100], "rounds": [[100.0, 150.0, 200.0]] * 6}],
    }


def micro(name: str) -> dict[str, Any]:
    return {"kind": "micro", "cases": [{"name": name, "figure": figure(800.0)}, {"name": "gate", "figure": figure(90)}]}


# --- the page --------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects what a browser would: elements with attributes, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def reader(written: str) -> Reader:
    found = Reader()
    found.feed(written)
    return found


def full_run(word: str = "a word") -> Results:
    percentiles = [Percentile(percent=percent, us=100.0 + percent) for percent in (0.0, 50.0, 99.0, 99.9, 100.0)]
    rounds = [{"p50_us": 100.0, "p99_us": 200.0, "cpu_us": 90.0}] * 3
    found = [OURS, ENVOY, NGINX]
    for load in (Load(kind=Kind.CAPACITY, connections=1), Load(kind=Kind.CAPACITY, connections=32, payload=1_024)):
        found += [capacity(usual(name), [90, 91, 95], load) for name in ("remora-http", "envoy")]
    for rules in (0, 1_000):
        found.append(capacity(Setup(contender="remora-http", rules=rules, log=True), [90, 91, 95]))
    found += [scenario(STEADY, usual(name), rounds, percentiles) for name in ("remora-http", "envoy")]
    alone = Setup(contender="remora", rules=2, log=True)
    found.append(
        scenario(Load(kind=Kind.IDLE, connections=400), alone, [{"inbound_kib": 39.0, "idle_rss_mib": 47.0}] * 2)
    )
    found.append(scenario(Load(kind=Kind.START), alone, [{"ready_s": 0.2}] * 2))
    found.append(dataclasses.replace(NGINX, contender=word, name=word))
    sections = {
        "stages": stages(holds=True, name=word),
        "growth": growth(word),
        "other": {"word": word},
        "micro": micro(word),
    }
    return run(found, sections=sections, word=word, warnings=[word])


def test_the_page_shows_every_chapter_with_its_plots() -> None:
    written = as_page(full_run())
    for title in (
        "Targets",
        "Latency at 2,000 requests/s over 16 connections",
        "Where the microseconds of a hop go",
        "CPU per request: HTTP/1.1, 32 connections",
        "CPU per request over connections: HTTP/1.1",
        "CPU per request over payload, 32 connections",
        "CPU per request over rules: HTTP/1.1, 32 connections, mTLS",
        "CPU per request of remora-http: HTTP/1.1, 32 connections, 0 B",
        "Memory of each idle mTLS connection",
        "Start to ready",
        "What each hot function costs",
        "linear: +100% over the range",
        "What weakens these figures",
        "not told apart",
        "Everything",
    ):
        assert title in written, title
    svgs = re.findall(r"<svg.*?</svg>", written, re.S)
    assert len(svgs) >= 12
    for svg in svgs:
        ElementTree.fromstring(svg)


def test_the_page_is_well_formed_and_its_links_lead_to_its_chapters() -> None:
    written = as_page(full_run())
    root = ElementTree.fromstring(written.removeprefix("<!DOCTYPE html>\n"))
    anchors = {item.get("id") for item in root.iter() if item.get("id")}
    links = [str(item.get("href")) for item in root.iter("a")]
    assert links
    assert {link.removeprefix("#") for link in links} == anchors


def test_nothing_of_a_file_becomes_markup() -> None:
    results = full_run(NASTY)
    clean = {tag for tag, _ in reader(as_page(full_run())).elements}
    found = reader(as_page(results))
    assert {tag for tag, _ in found.elements} == clean
    assert "script" not in clean
    assert NASTY in found.text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    written = as_page(full_run())
    for tag, attributes in reader(written).elements:
        assert tag not in ("script", "link", "img", "iframe", "object")
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
    assert "url(" not in written
    assert "@import" not in written
    assert [
        attributes["content"]
        for _, attributes in reader(written).elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ] == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    assert re.findall(r"https?://[^\"<]*", written) == ["http://www.w3.org/2000/svg"] * written.count("<svg")


def test_light_dark_and_paper_are_thought_of() -> None:
    written = as_page(run([OURS, ENVOY]))
    assert "prefers-color-scheme: dark" in written
    assert "@media print" in written
    for look in range(10):
        assert written.count(f"--look{look}:") == 3


def test_a_run_that_measured_little_has_a_page() -> None:
    written = as_page(run([OURS]))
    assert "not measured" in written
    assert "<figure>" not in written


def test_several_files_stand_one_after_the_other() -> None:
    parts = [read("first.json", dumps(run([OURS, ENVOY]))), read("growth.json", json.dumps(growth("headers")))]
    written = page(parts)
    places = [written.index(mark) for mark in (">first.json<", 'id="targets-1"', ">growth.json<", 'id="growth-2"')]
    assert places == sorted(places)
    anchors = re.findall(r'id="([^"]*)"', written)
    assert len(anchors) == len(set(anchors))
    assert "processor" in written


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{}", '{"kind": "other"}', '{"format": 99}', '{"format": 1}', '{"kind": "growth", "format": 1}'],
)
def test_other_files_are_refused_by_name(document: str) -> None:
    with pytest.raises(ResultsError, match=r"other\.json: "):
        read("other.json", document)


@pytest.mark.parametrize(("kind", "what"), [("stages", "stages"), ("growth", "curves"), ("micro", "cases")])
def test_a_broken_section_is_refused_by_name(kind: str, what: str) -> None:
    with pytest.raises(ResultsError, match=rf"broken\.json: these are no {what}"):
        page([read("broken.json", dumps(run([OURS], sections={kind: {"kind": kind}})))])


def test_a_verdict_of_a_curve_is_said_in_words() -> None:
    [curve] = curves(growth())
    _, verdict, said = growth_plot(curve)
    assert verdict is Verdict.MISSED
    assert said == "linear: +100% over the range (+100% to +100%). At most flat is due: missed."


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "run.json", tmp_path / "page.html"
    source.write_text(dumps(run([OURS, ENVOY])), "utf-8")
    assert cli.main(["report", str(source), "--out", str(target)]) == 0
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert str(target) in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{}", b"\xff", None])
def test_the_command_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    source = tmp_path / "run.json"
    if content is not None:
        source.write_bytes(content)
    assert cli.main(["report", str(source), "--out", str(tmp_path / "page.html")]) == 1
    assert "remora bench: " in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
