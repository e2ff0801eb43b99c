"""Compares two runs of the suite, scenario by scenario and figure by figure, and says what got better or worse. Pure.

The ratio is that of the medians, after to before, turned so that above 1 is better. Its interval comes from drawing the
rounds of both runs again and again, with replacement ("bootstrap"), and keeping the middle 95 % of the ratios. Where
the interval holds 1, the two are not told apart. The drawing is seeded by the figure's own name: two files always give
the same words. Three rounds are few, and then the interval is nearly the whole range: it errs towards "not told apart".

Two runs are two days of a machine. `relative_to` divides every figure by that of a peer under the same load in the same
round, which takes out what both had to bear.
"""

from __future__ import annotations

import enum
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.results import METRICS, Results, ScenarioResult
from benchmarks.tables import Table

DRAWS: Final = 2_000
"""The ends of the interval then move by less than a hundredth of its width."""
CONFIDENCE: Final = 0.95
COMPARED: Final = tuple(name for name in METRICS if name not in ("load_cpu_us", "max_us", "ready_cpu_s"))
"""What the load generator costs is no merit of a proxy, and the longest of a run is a matter of luck."""


class Change(enum.Enum):
    """What became of a figure."""

    BETTER = "better"
    WORSE = "worse"
    NOT_APART = "not told apart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio, above 1 is better, and between which bounds it lies with 95 % confidence."""

    ratio: float
    low: float
    high: float

    @property
    def change(self) -> Change:
        """Say what may be said."""
        if self.low > 1:
            return Change.BETTER
        return Change.WORSE if self.high < 1 else Change.NOT_APART


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of one scenario in both runs; `before` and `after` are medians in the unit of the metric."""

    scenario: str
    metric: str
    before: float
    after: float
    interval: Interval

    @property
    def change(self) -> Change:
        """Say what became of it."""
        return self.interval.change

    def is_worse_than(self, threshold: float) -> bool:
        """Say whether it is worse, and by more than a factor of `threshold` (1.05: by more than 5 %)."""
        return self.change is Change.WORSE and 1 / self.interval.ratio > threshold


def bootstrap(before: Sequence[float], after: Sequence[float], *, more_is_better: bool, seed: str) -> Interval:
    """Find the ratio of two medians and its interval. Raises ValueError for no repetition or a figure not above 0.

    One repetition has no spread, so its interval is open: nothing is told apart by it.

    >>> bootstrap([100.0, 101.0, 99.0], [50.0, 50.5, 49.5], more_is_better=False, seed="cpu").change
    <Change.BETTER: 'better'>
    """
    if not before or not after or min(*before, *after, float("inf")) <= 0:
        raise ValueError("a ratio needs repetitions of figures above 0")
    ratio = _ratio(before, after, more_is_better)
    if len(before) < 2 or len(after) < 2:
        return Interval(ratio=ratio, low=0.0, high=float("inf"))
    chance = random.Random(seed)  # noqa: S311 - nothing is kept secret with it
    drawn = sorted(
        _ratio(chance.choices(before, k=len(before)), chance.choices(after, k=len(after)), more_is_better)
        for _ in range(DRAWS)
    )
    outside = round(DRAWS * (1 - CONFIDENCE) / 2)
    return Interval(ratio=ratio, low=drawn[outside], high=drawn[-1 - outside])


def compare(
    before: Results, after: Results, *, metrics: Sequence[str] = COMPARED, relative_to: str = ""
) -> list[Compared]:
    """Compare every figure that both runs have, in the order of the second.

    With `relative_to`, the name of a contender, scenarios under whose load it was not run in both are left out, and its
    own, too.
    """
    found = []
    for scenario in after.scenarios:
        earlier = before.maybe_scenario(scenario.name)
        if earlier is None:
            continue
        for metric in metrics:
            old, new = _series(before, earlier, metric, relative_to), _series(after, scenario, metric, relative_to)
            if not old or not new or min(*old, *new, float("inf")) <= 0:
                continue
            more = METRICS[metric].more_is_better
            found.append(
                Compared(
                    scenario=scenario.name,
                    metric=metric,
                    before=statistics.median(old),
                    after=statistics.median(new),
                    interval=bootstrap(old, new, more_is_better=more, seed=f"{scenario.name} {metric}"),
                )
            )
    return found


def as_table(found: Sequence[Compared], *, relative_to: str = "") -> Table:
    """Write the comparison as a table."""
    rows = []
    for item in found:
        metric, interval = METRICS[item.metric], item.interval
        unit = "" if relative_to else f" {metric.unit}"
        # An interval that ends nowhere comes from a run of one round.
        bounds = f"({interval.low:.2f} to {interval.high:.2f})" if interval.low else "(one round has no spread)"
        digits = 0 if item.before >= 1_000 else 1 if item.before >= 10 else 3
        values = f"{item.before:,.{digits}f}{unit} -> {item.after:,.{digits}f}{unit}"
        rows.append((item.scenario, metric.title, f"{interval.ratio:.2f} x {bounds}", item.change.value, values))
    title = "After to before, above 1 is better, with 95 % confidence"
    if relative_to:
        title += f"; each figure relative to {relative_to} in the same round"
    return Table(title=title, headers=("scenario", "figure", "ratio", "", "medians"), rows=rows)


def _ratio(before: Sequence[float], after: Sequence[float], more_is_better: bool) -> float:
    old, new = statistics.median(before), statistics.median(after)
    return new / old if more_is_better else old / new


def _series(results: Results, scenario: ScenarioResult, metric: str, relative_to: str) -> list[float]:
    own = scenario.series(metric)
    if not relative_to:
        return own
    peer = next((item for item in results.scenarios if is_peer(item, scenario, relative_to)), None)
    theirs = peer.series(metric) if peer is not None else []
    if len(theirs) != len(own) or min(theirs, default=0.0) <= 0:
        return []
    return [a / b for a, b in zip(own, theirs, strict=True)]


def is_peer(item: ScenarioResult, scenario: ScenarioResult, contender: str) -> bool:
    """Say whether `item` is the named contender under the load of `scenario`, and another than that."""
    same = item.name.split("/")[0] == scenario.name.split("/")[0]
    return same and item.contender == contender and item.name != scenario.name
