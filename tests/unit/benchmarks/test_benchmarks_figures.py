"""The arithmetic of a comparison: medians, ranges, ratios, and what may be called different."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, compare, figure, fit_line


def test_a_figure_is_the_median_with_its_range() -> None:
    assert figure([3.0, 1.0, 10.0]) == Figure(median=3.0, lowest=1.0, highest=10.0)


def test_there_is_no_figure_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        figure([])


@pytest.mark.parametrize(
    ("ours", "theirs", "shared"),
    [
        ((1.0, 2.0), (3.0, 4.0), False),
        ((3.0, 4.0), (1.0, 2.0), False),
        ((1.0, 3.0), (3.0, 4.0), True),
        ((1.0, 9.0), (3.0, 4.0), True),
        ((3.5, 3.6), (3.0, 4.0), True),
    ],
)
def test_ranges_overlap_when_they_share_a_point(
    ours: tuple[float, float], theirs: tuple[float, float], shared: bool
) -> None:
    assert figure(ours).overlaps(figure(theirs)) is shared
    assert figure(theirs).overlaps(figure(ours)) is shared


def test_ratios_are_taken_round_by_round() -> None:
    """The second round was slow for both: the ratio of the medians would not see that it stayed the same."""
    comparison = compare([50.0, 100.0, 60.0], [100.0, 200.0, 120.0], more_is_better=True)
    assert comparison.ratio == Figure(median=0.5, lowest=0.5, highest=0.5)


def test_above_one_is_better_whatever_is_counted() -> None:
    assert compare([50.0], [100.0], more_is_better=False).ratio.median == 2.0
    assert compare([50.0], [100.0], more_is_better=True).ratio.median == 0.5


def test_figures_whose_ranges_overlap_are_not_told_apart() -> None:
    assert not compare([50.0, 70.0, 51.0], [69.0, 90.0, 91.0], more_is_better=False).told_apart
    assert compare([50.0, 68.0, 51.0], [69.0, 90.0, 91.0], more_is_better=False).told_apart


def test_one_round_tells_nothing_apart() -> None:
    assert not compare([50.0], [100.0], more_is_better=True).told_apart


@pytest.mark.parametrize(("ours", "theirs"), [([1.0, 2.0], [1.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([], [])])
def test_what_cannot_be_compared_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"round by round|above 0"):
        compare(ours, theirs, more_is_better=True)


def test_a_line_is_laid_through_points_and_says_how_far_they_lie_off() -> None:
    line = fit_line([(0, 1.0), (1, 2.0), (2, 3.0), (3, 8.0)])
    assert line.slope == pytest.approx(2.2)
    assert line.intercept == pytest.approx(0.2)
    assert line.farthest == pytest.approx(1.6)


@pytest.mark.parametrize("points", [[], [(1.0, 2.0)], [(1.0, 2.0), (1.0, 3.0)]])
def test_a_line_needs_two_places(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="two places"):
        fit_line(points)
