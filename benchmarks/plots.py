"""Draws plots as SVG that stands within a page: no script, nothing loaded, colours by the page's style sheet. Pure.

Three kinds: lines over an axis, bars, and bars that are stacked. Every figure has its spread drawn, a band or a whisker
from the lowest to the highest repetition. Whoever is drawn has a look of his own, a number for which the style sheet
has a colour, and beside it a dash and a shape of the mark, so that a print without colours can be read, too. Lines are
named where they end; the reader need not match a legend. A mark says its figures when the pointer rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import Figure
from benchmarks.report_markup import Markup, element, join, text
from benchmarks.report_scales import Kind, Scale, linear, logarithmic, nines, number_text, ordinal

WIDTH: Final = 780.0
LOOKS: Final = 10
"""How many looks the style sheet has; an eleventh begins again with the first."""
STAGES: Final = 16
"""How many colours it has for parts of a bar, which are numbered besides."""
_CHARACTER: Final = 6.9
"""How wide a character of 12 px is in a wide font: too much room is better than words that are cut."""
_LINE: Final = 15.0
_HEIGHT: Final = 300.0
_FEW_POINTS: Final = 16
"""Up to so many points of a line carry a mark and a whisker; beyond, marks would hide the line and a band is drawn."""
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "3 3", "5 2 1 2 1 2", "14 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis shows, unit included, and how. `labels` are the names of the values of an ORDINAL one."""

    title: str
    kind: Kind = Kind.LINEAR
    at_values: bool = False
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A figure at a place."""

    x: float
    figure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line: its name, its points by ascending `x`, its look (from 0)."""

    name: str
    points: Sequence[Point]
    look: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar with its name; `heading` begins a group of bars."""

    name: str
    figure: Figure
    look: int
    heading: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Parts laid end to end, in the order of the plot's names, and the whole as somebody else counted it."""

    name: str
    parts: Sequence[float]
    whole: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A value on the axis that a line is drawn at: a target."""

    value: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot: `title` and `says` are for those who cannot see it, and for tables of contents."""

    title: str
    says: str
    svg: Markup = field(repr=False)


# --- lines -----------------------------------------------------------------------------------------------------------


def lines(title: str, says: str, series: Sequence[Series], x: Axis, y: Axis, *, unit: str) -> Plot:
    """Draw lines. `unit` is that of the figures, for the words of a mark. Raises ValueError for no point at all."""
    points = [point for item in series for point in item.points]
    if not points:
        raise ValueError(f"{title}: nothing to draw")
    top, bottom = 16.0, _HEIGHT
    upright = _y_scale(y, points, bottom, top)
    left = 34 + _CHARACTER * max(4, *(len(tick.label) for tick in upright.ticks))
    right = WIDTH - 16 - _CHARACTER * max(len(item.name) for item in series) - 12
    across = _x_scale(x, sorted({point.x for point in points}), left, right)
    drawn = [_grid(across, upright), *_axis_titles(x.title, y.title, left, right, bottom)]
    few = max(len(item.points) for item in series) <= _FEW_POINTS
    for item in series:
        drawn.append(_band(item, across, upright))
    drawn += [_one_line(item, across, upright, few=few, axis=x.title, unit=unit) for item in series]
    drawn += _end_names(series, across, upright, right, (top, bottom))
    return Plot(title=title, says=says, svg=_svg(title, says, _HEIGHT + 48, drawn))


def _x_scale(axis: Axis, values: Sequence[float], left: float, right: float) -> Scale:
    if axis.kind is Kind.NINES:
        return nines(max(values), start=left, end=right)
    if axis.kind is Kind.ORDINAL:
        return ordinal(values, axis.labels, start=left, end=right)
    if axis.kind is Kind.LOG:
        return logarithmic(values, start=left + 10, end=right, at_values=axis.at_values)
    return linear(max(values), start=left, end=right)


def _y_scale(axis: Axis, points: Sequence[Point], bottom: float, top: float) -> Scale:
    if axis.kind is Kind.LOG:
        values = [value for point in points for value in (point.figure.lowest, point.figure.highest)]
        return logarithmic(values, start=bottom, end=top)
    return linear(max(point.figure.highest for point in points), start=bottom, end=top)


def _grid(across: Scale, upright: Scale) -> Markup:
    parts = []
    for tick in upright.ticks:
        here = upright.place(tick.value)
        weight = "grid" if tick.label else "grid fine"
        parts.append(element("line", class_=weight, x1=across.start, x2=across.end, y1=here, y2=here))
        if tick.label:
            parts.append(_words(tick.label, across.start - 8, here + 4, "tick end"))
    for tick in across.ticks:
        here = across.place(tick.value)
        weight = "grid" if tick.label else "grid fine"
        parts.append(element("line", class_=weight, x1=here, x2=here, y1=upright.start, y2=upright.end))
        if tick.label:
            parts.append(_words(tick.label, here, upright.start + 17, "tick middle"))
    parts.append(element("line", class_="axis", x1=across.start, x2=across.end, y1=upright.start, y2=upright.start))
    return join(*parts)


def _axis_titles(x: str, y: str, left: float, right: float, bottom: float) -> Iterator[Markup]:
    yield _words(x, (left + right) / 2, bottom + 38, "title middle")
    middle = (16 + bottom) / 2
    yield element("text", text(y), class_="title middle", x=13.0, y=middle, transform=f"rotate(-90 13 {middle:g})")


def _band(series: Series, across: Scale, upright: Scale) -> Markup:
    """Shade what lies between the lowest and the highest repetition."""
    high = [(across.place(point.x), upright.place(point.figure.highest)) for point in series.points]
    low = [(across.place(point.x), upright.place(point.figure.lowest)) for point in reversed(series.points)]
    return element("polygon", class_=f"band {_look(series.look)}", points=_places([*high, *low]))


def _one_line(series: Series, across: Scale, upright: Scale, *, few: bool, axis: str, unit: str) -> Markup:
    places = [(across.place(point.x), upright.place(point.figure.median)) for point in series.points]
    dash = _DASHES[series.look % len(_DASHES)]
    path = element("polyline", class_="line", points=_places(places), **({"stroke_dasharray": dash} if dash else {}))
    parts = [path]
    if few:
        for point, (x, y) in zip(series.points, places, strict=True):
            said = f"{series.name}: {spread_text(point.figure, unit)} ({axis}: {number_text(point.x, point.x)})"
            whisker = _whisker(x, upright.place(point.figure.lowest), upright.place(point.figure.highest))
            parts.append(element("g", element("title", text(said)), whisker, _shape(series.look, x, y)))
    return element("g", *parts, class_=_look(series.look))


def _end_names(
    series: Sequence[Series], across: Scale, upright: Scale, right: float, within: tuple[float, float]
) -> Iterator[Markup]:
    """Write each name beside the end of its line, moved apart where lines end together."""
    ends = sorted(
        ((upright.place(item.points[-1].figure.median), item) for item in series if item.points),
        key=lambda end: end[0],
    )
    for (y, item), at in zip(ends, apart([y for y, _ in ends], _LINE, within), strict=True):
        x = across.place(item.points[-1].x)
        yield element(
            "g",
            element("polyline", class_="lead", points=_places([(x + 5, y), (right + 8, at)])),
            _words(item.name, right + 12, at + 4, "name"),
            class_=_look(item.look),
        )


def apart(places: Sequence[float], least: float, within: tuple[float, float]) -> list[float]:
    """Move ascending places so that neighbours lie at least `least` apart, as near to where they were as is simple.

    >>> apart([10.0, 12.0, 100.0], 15.0, (0.0, 200.0))
    [10.0, 25.0, 100.0]
    >>> apart([190.0, 199.0], 15.0, (0.0, 200.0))
    [185.0, 200.0]
    """
    low, high = within
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + least if found else low))
    limit = high
    for number in range(len(found) - 1, -1, -1):
        found[number] = min(found[number], limit)
        limit = found[number] - least
    return found


# --- bars ------------------------------------------------------------------------------------------------------------


def bars(title: str, says: str, rows: Sequence[Bar], axis: str, *, unit: str, target: Mark | None = None) -> Plot:
    """Draw bars from 0, each with its whisker and its figures in words. Raises ValueError for no bar at all."""
    if not rows:
        raise ValueError(f"{title}: nothing to draw")
    left = min(300.0, 16 + _CHARACTER * max(len(row.name) for row in rows))
    said = [spread_text(row.figure, unit) for row in rows]
    right = WIDTH - 20 - _CHARACTER * max(len(words) for words in said)
    highest = max([row.figure.highest for row in rows] + ([target.value] if target else []))
    across = linear(highest, start=left, end=right, count=5)
    top = 26.0 if target else 8.0
    y, drawn = top, list[Markup]()
    for row, words in zip(rows, said, strict=True):
        if row.heading:
            y += 24 if y > top else 12
            drawn.append(_words(row.heading, left, y - 3, "heading"))
            y += 4
        drawn.append(_bar(row, words, across, y))
        y += 24
    grid = _upright_grid(across, top, y, axis)
    if target:
        grid = join(grid, _target(target, across, top, y))
    return Plot(title=title, says=says, svg=_svg(title, says, y + 44, [grid, *drawn]))


def _bar(row: Bar, words: str, across: Scale, y: float) -> Markup:
    end = across.place(row.figure.median)
    low, high = across.place(row.figure.lowest), across.place(row.figure.highest)
    return element(
        "g",
        element("title", text(f"{row.name}: {words}")),
        _words(_short(row.name, across.start - 12), across.start - 8, y + 14, "tick end"),
        element("rect", class_="bar", x=across.start, y=y + 2, width=max(0.5, end - across.start), height=17.0, rx=2.0),
        element(
            "path",
            class_="whisker",
            d=f"M{low:.1f} {y + 10.5:.1f}H{high:.1f}M{low:.1f} {y + 6.5:.1f}v8M{high:.1f} {y + 6.5:.1f}v8",
        ),
        _words(words, max(end, high) + 7, y + 14.5, "value"),
        class_=_look(row.look),
    )


def stacks(title: str, says: str, names: Sequence[str], rows: Sequence[Stack], axis: str, *, unit: str) -> Plot:
    """Draw parts laid end to end, numbered as in the legend, and above each the whole as it was counted otherwise.

    Raises ValueError when a row has another number of parts than there are names, or when there is nothing to draw.
    """
    if not rows or not names or any(len(row.parts) != len(names) for row in rows):
        raise ValueError(f"{title}: every bar needs {len(names)} parts")
    left = min(300.0, 16 + _CHARACTER * max(len(row.name) for row in rows))
    highest = max(max(sum(row.parts), row.whole.highest if row.whole else 0.0) for row in rows)
    across = linear(highest, start=left, end=WIDTH - 60, count=6)
    drawn, top = list[Markup](), 8.0
    y = top
    for row in rows:
        drawn.append(_stack(row, names, across, y, unit))
        y += 58
    grid = _upright_grid(across, top, y, axis)
    legend, height = _legend(names, y + 50)
    return Plot(title=title, says=says, svg=_svg(title, says, height, [grid, *drawn, legend]))


def _stack(row: Stack, names: Sequence[str], across: Scale, y: float, unit: str) -> Markup:
    parts, reached = [_words(_short(row.name, across.start - 12), across.start - 8, y + 33, "tick end")], 0.0
    for number, (name, value) in enumerate(zip(names, row.parts, strict=True), 1):
        begin, end = across.place(reached), across.place(reached + value)
        reached += value
        said = f"{name}: {number_text(value)} {unit}"
        inside = [element("title", text(said))]
        inside.append(element("rect", class_="part", x=begin, y=y + 16, width=max(0.0, end - begin), height=26.0))
        if end - begin > 6 + _CHARACTER * len(str(number)):
            inside.append(_words(str(number), (begin + end) / 2, y + 33.5, "number middle"))
        parts.append(element("g", *inside, class_=f"stage{(number - 1) % STAGES}"))
    parts.append(_words(number_text(reached), across.place(reached) + 7, y + 33.5, "value"))
    if row.whole:
        low, high = across.place(row.whole.lowest), across.place(row.whole.highest)
        here, words = across.place(row.whole.median), f"kernel's account: {spread_text(row.whole, unit)}"
        parts.append(element("g", element("title", text(words)), _across_whisker(low, here, high, y + 8)))
        parts.append(_words(words, low - 8, y + 12, "value end"))
    return element("g", *parts)


def _across_whisker(low: float, here: float, high: float, y: float) -> Markup:
    return join(
        element(
            "path",
            class_="whisker",
            d=f"M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8",
        ),
        element("path", class_="arrow", d=f"M{here:.1f} {y + 7:.1f}l-5 -9h10z"),
    )


def _legend(names: Sequence[str], top: float) -> tuple[Markup, float]:
    x, y, parts = 16.0, top, list[Markup]()
    for number, name in enumerate(names, 1):
        width = 36 + _CHARACTER * (len(name) + len(str(number)) + 1)
        if x + width > WIDTH:
            x, y = 16.0, y + 22
        swatch = element("rect", class_="part", x=x, y=y, width=18.0, height=15.0, rx=2.0)
        label = _words(str(number), x + 9, y + 12, "number middle")
        parts.append(element("g", swatch, label, class_=f"stage{(number - 1) % STAGES}"))
        parts.append(_words(name, x + 24, y + 12, "tick"))
        x += width
    return join(*parts), y + 24


def _upright_grid(across: Scale, top: float, bottom: float, title: str) -> Markup:
    parts = []
    for tick in across.ticks:
        here = across.place(tick.value)
        parts.append(element("line", class_="grid", x1=here, x2=here, y1=top, y2=bottom))
        parts.append(_words(tick.label, here, bottom + 16, "tick middle"))
    parts.append(element("line", class_="axis", x1=across.start, x2=across.start, y1=top, y2=bottom))
    parts.append(_words(title, (across.start + across.end) / 2, bottom + 36, "title middle"))
    return join(*parts)


def _target(target: Mark, across: Scale, top: float, bottom: float) -> Markup:
    here = across.place(target.value)
    return element(
        "g",
        element("line", x1=here, x2=here, y1=top - 6, y2=bottom),
        _words(target.name, here, top - 10, "middle"),
        class_="target",
    )


# --- what all of them use --------------------------------------------------------------------------------------------


def spread_text(figure: Figure, unit: str) -> str:
    """Write a figure with its spread, all with as many decimals as the median needs.

    >>> spread_text(Figure(median=2.0, lowest=1.5, highest=2.25), "ms")
    '2.00 ms (1.50 to 2.25)'
    """
    step = _last_digit(figure.median)
    low, middle, high = (number_text(value, step) for value in (figure.lowest, figure.median, figure.highest))
    return f"{middle} {unit}".rstrip() + f" ({low} to {high})"


def _last_digit(value: float) -> float:
    return 10.0 ** -max(0, len(number_text(value).partition(".")[2]))


def _svg(title: str, says: str, height: float, drawn: Sequence[Markup]) -> Markup:
    return element(
        "svg",
        element("title", text(title)),
        element("desc", text(says)),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
        aria_label=f"{title}. {says}",
    )


def _look(number: int) -> str:
    return f"look{number % LOOKS}"


def _words(words: str, x: float, y: float, style: str) -> Markup:
    return element("text", text(words), class_=style, x=x, y=y)


def _short(name: str, room: float) -> str:
    most = max(1, int(room / _CHARACTER))
    return name if len(name) <= most else name[: most - 1] + "…"


def _places(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _whisker(x: float, low: float, high: float) -> Markup:
    return element(
        "path", class_="whisker", d=f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    )


def _shape(look: int, x: float, y: float) -> Markup:
    kind = look % 4
    if kind == 0:
        return element("circle", class_="mark", cx=x, cy=y, r=4.0)
    if kind == 1:
        return element("rect", class_="mark", x=x - 3.7, y=y - 3.7, width=7.4, height=7.4)
    corners = [(x, y - 5), (x + 4.8, y + 3.6), (x - 4.8, y + 3.6)]
    if kind == 3:
        corners = [(x, y - 5.2), (x + 5.2, y), (x, y + 5.2), (x - 5.2, y)]
    return element("polygon", class_="mark", points=_places(corners))
