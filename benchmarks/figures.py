"""The arithmetic of a comparison: middles, spreads, ratios, and when a difference may be called one. Pure.

A figure is the median of its repetitions with the lowest and the highest of them beside it. Two figures whose ranges
overlap are *not told apart*: whatever their medians say, another run might turn them round. Ratios are taken round by
round, because repetitions of one round lie seconds apart and share what the host did meanwhile.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A median and the range of the repetitions that it comes from."""

    median: float
    lowest: float
    highest: float

    def overlaps(self, other: Figure) -> bool:
        """Say whether the two ranges share a point.

        >>> Figure(median=2.0, lowest=1.0, highest=3.0).overlaps(Figure(median=4.0, lowest=3.0, highest=5.0))
        True
        """
        return self.lowest <= other.highest and other.lowest <= self.highest


def figure(values: Sequence[float]) -> Figure:
    """Sum up repetitions. Raises ValueError for none: there is no figure of nothing."""
    if not values:
        raise ValueError("a figure needs at least one repetition")
    return Figure(median=statistics.median(values), lowest=min(values), highest=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A straight line through points; `farthest` is how far the point that fits it least lies above or below."""

    slope: float
    intercept: float
    farthest: float


def fit_line(points: Sequence[tuple[float, float]]) -> Line:
    """Lay the line of least squares through points (x, y). Raises ValueError for fewer than two different x.

    >>> fit_line([(0, 10.0), (100, 30.0), (200, 50.0)])
    Line(slope=0.2, intercept=10.0, farthest=0.0)
    """
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs points at two places")
    slope, intercept = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    farthest = max(abs(y - slope * x - intercept) for x, y in points)
    return Line(slope=slope, intercept=intercept, farthest=farthest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How much better one contender is than another: above 1 is better, whatever the figure counts.

    `told_apart` is False when the ranges of the two figures overlap, and when there is one repetition only: a single
    number has no range.
    """

    ratio: Figure
    told_apart: bool


def compare(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> Comparison:
    """Compare two series of repetitions, the n-th of each taken in the same round.

    Raises ValueError when their lengths differ or a value is not above 0.

    >>> compare([50.0, 52.0], [100.0, 104.0], more_is_better=False).ratio.median
    2.0
    """
    if len(ours) != len(theirs):
        raise ValueError("repetitions are compared round by round: both need the same number")
    if min((*ours, *theirs), default=0.0) <= 0:
        raise ValueError("a ratio needs figures above 0")
    ratios = [a / b if more_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
    apart = len(ours) > 1 and not figure(ours).overlaps(figure(theirs))
    return Comparison(ratio=figure(ratios), told_apart=apart)
