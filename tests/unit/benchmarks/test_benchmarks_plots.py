"""Plots: scales and ticks, escaping, well-formed SVG, every figure and every spread drawn where it belongs."""

from __future__ import annotations

import doctest
import math
import re
from itertools import pairwise
from types import ModuleType
from xml.etree import ElementTree

import pytest

from benchmarks import plots, report_markup, report_scales
from benchmarks.figures import Figure, figure
from benchmarks.plots import Axis, Bar, Mark, Plot, Point, Series, Stack
from benchmarks.report_markup import element, text
from benchmarks.report_scales import Kind, linear, logarithmic, nines, number_text, ordinal

SVG = "{http://www.w3.org/2000/svg}"
NASTY = '<script>alert("x")</script> & \x00\x1b\ud800'


@pytest.mark.parametrize("module", [plots, report_markup, report_scales], ids=lambda module: module.__name__)
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def parse(plot: Plot) -> ElementTree.Element:
    return ElementTree.fromstring(plot.svg)


def words(root: ElementTree.Element) -> list[str]:
    return [item.text or "" for item in root.iter(f"{SVG}text")]


# --- scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [0.0, 0.0003, 0.9, 1.0, 7.0, 99.0, 100.0, 12_345.0, 2e9])
def test_a_linear_axis_begins_at_0_and_ends_at_a_round_number_not_below(high: float) -> None:
    scale = linear(high, start=10, end=110)
    assert scale.low == 0
    assert high <= scale.high * (1 + 1e-9)
    assert scale.place(0) == 10
    assert scale.place(scale.high) == pytest.approx(110)
    steps = {round(b.value - a.value, 9) for a, b in pairwise(scale.ticks)}
    assert len(steps) == 1
    assert 2 <= len(scale.ticks) <= 8
    assert len({tick.label for tick in scale.ticks}) == len(scale.ticks)


def test_an_axis_that_goes_up_turns_places_round() -> None:
    scale = linear(100, start=300, end=0)
    assert scale.place(25) == 225
    assert scale.place(75) == 75


def test_what_lies_outside_an_axis_is_drawn_at_its_end() -> None:
    scale = logarithmic([10.0, 1_000.0], start=0, end=100)
    assert scale.place(1e9) == 100
    assert scale.place(0.0) == 0


def test_a_logarithmic_axis_gives_each_decade_as_much_room() -> None:
    scale = logarithmic([1.0, 950.0], start=0, end=300)
    assert (scale.low, scale.high) == (1, 1_000)
    assert [scale.place(value) for value in (1, 10, 100, 1_000)] == pytest.approx([0, 100, 200, 300])
    assert [tick.label for tick in scale.ticks if tick.label] == ["1", "10", "100", "1,000"]


def test_a_short_logarithmic_axis_names_twos_and_fives() -> None:
    scale = logarithmic([0.03, 0.4], start=0, end=300)
    assert [tick.label for tick in scale.ticks if tick.label] == ["0.02", "0.05", "0.1", "0.2", "0.5"]


@pytest.mark.parametrize("values", [[5.0], [10.0], [3.0, 3.0]])
def test_a_logarithmic_axis_of_one_value_has_room_around_it(values: list[float]) -> None:
    scale = logarithmic(values, start=0, end=100)
    assert 0 < scale.place(values[0]) < 100


def test_a_logarithmic_axis_may_be_written_at_its_values() -> None:
    scale = logarithmic([1, 8, 32, 64, 8], start=0, end=60, at_values=True)
    assert [tick.label for tick in scale.ticks] == ["1", "8", "32", "64"]
    assert [scale.place(value) for value in (1, 8, 32, 64)] == pytest.approx([0, 30, 50, 60])


@pytest.mark.parametrize("at_values", [True, False])
def test_a_logarithmic_axis_takes_no_0(at_values: bool) -> None:
    with pytest.raises(ValueError, match="above 0"):
        logarithmic([0.0, 5.0], start=0, end=1, at_values=at_values)


def test_percentiles_lie_as_many_nines_apart() -> None:
    scale = nines(99.9, start=0, end=300)
    assert [scale.place(value) for value in (0, 90, 99, 99.9)] == pytest.approx([0, 100, 200, 300])
    assert scale.place(100) == pytest.approx(300)
    assert nines(100.0, start=0, end=1).ticks[-1].label == "99.99999 %"


def test_an_ordinal_axis_puts_values_side_by_side() -> None:
    scale = ordinal([0, 1_024, 10_000_000], ["0 B", "1 KiB", "10 MB"], start=0, end=300)
    assert [scale.place(tick.value) for tick in scale.ticks] == [50, 150, 250]


@pytest.mark.parametrize(("value", "said"), [(0, "0"), (1234.5, "1,234"), (99.94, "99.9"), (0.012345, "0.0123")])
def test_numbers_have_three_digits_that_matter(value: float, said: str) -> None:
    assert number_text(value) == said


# --- markup ----------------------------------------------------------------------------------------------------------


def test_text_and_attributes_are_escaped() -> None:
    written = element("p", text(NASTY), title=NASTY)
    assert "<script" not in written
    assert re.search(r"[\x00-\x08\x1b\ud800]", written) is None
    parsed = ElementTree.fromstring(written)
    assert parsed.text == '<script>alert("x")</script> & ���'
    assert parsed.get("title") == parsed.text


# --- lines -----------------------------------------------------------------------------------------------------------


def one(median: float, lowest: float, highest: float) -> Figure:
    return Figure(median=median, lowest=lowest, highest=highest)


def two_lines(name: str = "envoy") -> Plot:
    ours = [Point(x=1, figure=one(10, 8, 14)), Point(x=32, figure=one(20, 19, 26))]
    theirs = [Point(x=1, figure=one(12, 11, 13)), Point(x=32, figure=one(21, 20, 22))]
    return plots.lines(
        "Latency",
        "over connections",
        [Series(name="remora", points=ours, look=0), Series(name=name, points=theirs, look=1)],
        Axis(title="connections", kind=Kind.LOG, at_values=True),
        Axis(title="latency [µs]"),
        unit="µs",
    )


def test_lines_are_named_have_titles_of_axes_and_spreads() -> None:
    root = parse(two_lines())
    assert {"remora", "envoy", "connections", "latency [µs]", "1", "32"} <= set(words(root))
    assert len(root.findall(f".//{SVG}polygon[@class]")) >= 2
    assert len(root.findall(f".//{SVG}path[@class='whisker']")) == 4
    assert len(root.findall(f".//{SVG}polyline[@class='line']")) == 2
    assert "remora: 10.0 µs (8.0 to 14.0) (connections: 1)" in [item.text for item in root.iter(f"{SVG}title")]


def test_names_of_lines_that_end_together_do_not_cover_each_other() -> None:
    root = parse(two_lines())
    ends = [float(item.get("y", "")) for item in root.iter(f"{SVG}text") if item.get("class") == "name"]
    assert abs(ends[0] - ends[1]) >= 14


def test_looks_differ_without_colours() -> None:
    root = parse(two_lines())
    dashes = [item.get("stroke-dasharray") for item in root.findall(f".//{SVG}polyline[@class='line']")]
    assert dashes[0] != dashes[1]
    assert len(root.findall(f".//{SVG}circle[@class='mark']")) == 2
    assert len(root.findall(f".//{SVG}rect[@class='mark']")) == 2


def test_a_long_line_has_a_band_and_no_marks() -> None:
    points = [Point(x=float(number), figure=one(number + 2, number + 1, number + 3)) for number in range(40)]
    plot = plots.lines("a", "b", [Series(name="n", points=points, look=0)], Axis(title="x"), Axis(title="y"), unit="")
    root = parse(plot)
    assert root.findall(f".//{SVG}path[@class='whisker']") == []
    [band] = [item for item in root.iter(f"{SVG}polygon") if "band" in str(item.get("class"))]
    assert len(str(band.get("points")).split()) == 80


def test_a_band_reaches_from_the_lowest_to_the_highest() -> None:
    root = parse(two_lines())
    [band, _] = [item for item in root.iter(f"{SVG}polygon") if "band" in str(item.get("class"))]
    heights = [float(place.split(",")[1]) for place in str(band.get("points")).split()]
    whiskers = [str(item.get("d")) for item in root.findall(f".//{SVG}path[@class='whisker']")][:2]
    ends = [tuple(map(float, re.findall(r"[\d.]+", path)[1:3])) for path in whiskers]
    # The band goes along the highest ones and comes back along the lowest; 0 is at 300 and 30 at 16.
    assert heights == [ends[0][1], ends[1][1], ends[1][0], ends[0][0]]
    assert heights == pytest.approx([300 - 284 * value / 30 for value in (14, 26, 19, 8)], abs=0.06)


def test_nothing_escapes_into_a_plot() -> None:
    assert "<script" not in two_lines(NASTY).svg
    assert parse(two_lines(NASTY)) is not None


def test_places_of_names_stay_within() -> None:
    found = plots.apart([5, 6, 7, 290, 299, 300], 15, (0, 300))
    assert all(b - a >= 15 - 1e-9 for a, b in pairwise(found))
    assert found[-1] <= 300


# --- bars ------------------------------------------------------------------------------------------------------------


def test_bars_begin_at_0_and_are_as_long_as_their_figures() -> None:
    rows = [Bar(name="a", figure=figure([90, 100, 120]), look=0), Bar(name="b", figure=figure([50, 50, 50]), look=1)]
    root = parse(plots.bars("t", "s", rows, "CPU [µs]", unit="µs"))
    long, short = (float(item.get("width", "")) for item in root.findall(f".//{SVG}rect[@class='bar']"))
    assert long == pytest.approx(2 * short, abs=0.3)
    assert {"a", "b", "CPU [µs]", "100 µs (90 to 120)"} <= set(words(root))
    assert len(root.findall(f".//{SVG}path[@class='whisker']")) == 2


def test_a_target_beyond_all_bars_is_in_the_plot() -> None:
    rows = [Bar(name="a", figure=figure([30.0, 31.0]), look=0, heading="one")]
    root = parse(plots.bars("t", "s", rows, "x", unit="KiB", target=Mark(value=40.0, name="at most 40 KiB")))
    [line] = root.findall(f".//{SVG}g[@class='target']/{SVG}line")
    [bar] = root.findall(f".//{SVG}rect[@class='bar']")
    at = float(line.get("x1", ""))
    begin, width = float(bar.get("x", "")), float(bar.get("width", ""))
    assert (at - begin) / width == pytest.approx(40 / 30.5, abs=0.01)
    assert {"at most 40 KiB", "one"} <= set(words(root))


def test_stacked_parts_meet_and_are_numbered_as_in_the_legend() -> None:
    rows = [Stack(name="inbound", parts=[10, 30, 20], whole=figure([58, 61, 66]))]
    root = parse(plots.stacks("t", "s", ["read", "parse", "write"], rows, "CPU [µs]", unit="µs"))
    parts = [
        (float(item.get("x", "")), float(item.get("width", "")))
        for item in root.findall(f".//{SVG}rect[@class='part']")
        if item.get("height") == "26"
    ]
    assert [width / parts[0][1] for _, width in parts] == pytest.approx([1, 3, 2], abs=0.01)
    assert parts[1][0] == pytest.approx(parts[0][0] + parts[0][1], abs=0.11)
    said = words(root)
    assert {"read", "parse", "write", "kernel's account: 61.0 µs (58.0 to 66.0)", "60.0"} <= set(said)
    assert sorted(word for word in said if word in ("1", "2", "3")) == ["1", "1", "2", "2", "3", "3"]


def test_a_bar_with_other_parts_than_names_is_refused() -> None:
    with pytest.raises(ValueError, match="2 parts"):
        plots.stacks("t", "s", ["a", "b"], [Stack(name="x", parts=[1.0])], "y", unit="")


def test_an_empty_plot_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.bars("t", "s", [], "x", unit="")
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.lines("t", "s", [], Axis(title="x"), Axis(title="y"), unit="")


def test_no_place_of_a_plot_is_undefined() -> None:
    assert "nan" not in two_lines().svg
    assert math.isfinite(linear(0, start=0, end=1).place(0))
