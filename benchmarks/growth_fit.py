"""Says of a cost that was measured at several sizes whether it is flat, grows linearly, or worse. Pure.

Each round gives a value at every size, seconds apart, and so an answer of its own to two questions:

- *growth*: how much dearer is the largest size than the smallest, by the line of least squares, as a share of the
  cost at the smallest;
- *bend*: how far does the cost at the largest size lie above a straight growth, by the square that is laid through the
  rounds beside the line, as a share of the cost at the smallest.

The rounds' answers are summed up by their median and an interval that holds the true median in 95 of 100 cases,
whatever the noise is distributed like: it is made of order statistics. A verdict is given when the whole interval
agrees with it; otherwise it is not settled, and that is said.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.figures import Figure, figure, fit_line

FLAT_SHARE: Final = 0.10
"""What costs at most a tenth more over the whole range is called flat: as much as a thousand rules may cost."""
BEND_SHARE: Final = 0.10
"""The part of the growth that may bend upwards and still be called linear. n squared bends by the whole of it, n log n
from 1 to 10,000 by 0.16, a straight line by nothing but noise, and what levels off downwards."""
CONFIDENCE: Final = 0.95


class Verdict(enum.Enum):
    """How a cost grows."""

    FLAT = "flat"
    LINEAR = "linear"
    WORSE = "worse than linear"
    UNSETTLED = "not settled"

    def meets(self, due: Verdict) -> bool | None:
        """Say whether a cost that should grow as `due` at most does so; None when nothing is settled."""
        if self is Verdict.UNSETTLED:
            return None
        order = (Verdict.FLAT, Verdict.LINEAR, Verdict.WORSE)
        return order.index(self) <= order.index(due)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A cost over sizes. `rounds[i][k]` is that of round i at `sizes[k]`, in `unit`; `due` is the most it may grow."""

    name: str
    title: str
    axis: str
    unit: str
    due: Verdict
    sizes: Sequence[int]
    rounds: Sequence[Sequence[float]]

    def figures(self) -> list[Figure]:
        """Sum up the rounds at each size."""
        return [figure(values) for values in zip(*self.rounds, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What was found of a curve; `growth` and `bend` are shares of the cost at the smallest size."""

    growth: Figure
    bend: Figure
    verdict: Verdict

    def words(self) -> str:
        """Say it in a sentence."""
        grown = f"{self.growth.median:+.0%} over the range ({self.growth.lowest:+.0%} to {self.growth.highest:+.0%})"
        return f"{self.verdict.value}: {grown}"


def judge(curve: Curve) -> Growth:
    """Judge a curve. Raises ValueError for fewer than three sizes, or without a round."""
    if len(set(curve.sizes)) < 3 or len(set(curve.sizes)) != len(curve.sizes):
        raise ValueError(f"{curve.name}: a bend needs three different sizes")
    shares = [_shares(curve.sizes, values) for values in curve.rounds]
    growth = median_interval([share for share, _ in shares])
    bend = median_interval([share for _, share in shares])
    return Growth(growth=growth, bend=bend, verdict=_verdict(growth, bend, len(shares)))


def _verdict(growth: Figure, bend: Figure, rounds: int) -> Verdict:
    if rounds < 2:
        return Verdict.UNSETTLED
    if growth.highest <= FLAT_SHARE:
        return Verdict.FLAT
    if growth.lowest <= FLAT_SHARE:
        return Verdict.UNSETTLED
    allowed = BEND_SHARE * growth.median
    if bend.highest <= allowed:
        return Verdict.LINEAR
    return Verdict.WORSE if bend.lowest > allowed else Verdict.UNSETTLED


def _shares(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Give growth and bend of one round."""
    low, span = min(sizes), max(sizes) - min(sizes)
    places = [(size - low) / span for size in sizes]
    straight = fit_line(list(zip(places, values, strict=True)))
    # What is left of the square when a line has taken its part of it; along this rest the values bend, or do not.
    rest = fit_line([(place, place**2) for place in places])
    square = [place**2 - rest.slope * place - rest.intercept for place in places]
    bend = sum(a * b for a, b in zip(square, values, strict=True)) / sum(a * a for a in square)
    # A line through a steep bend may cross zero at the smallest size; what was measured there does not.
    base = straight.intercept if straight.intercept > 0 else values[sizes.index(low)]
    return straight.slope / base, bend / base


def median_interval(values: Sequence[float]) -> Figure:
    """Give the median and the narrowest pair of order statistics that holds the true one with 95 % confidence.

    Fewer than six values cannot give so much: then it is their whole range. Raises ValueError for none.

    >>> median_interval([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 80.0])
    Figure(median=5.0, lowest=2.0, highest=9.0)
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("an interval needs at least one value")
    count, drop, outside = len(ordered), 0, 0.0
    # The true median lies below the k-th smallest with the probability that fewer than k coins of n show heads.
    while drop < (count - 1) // 2:
        outside += 2 * math.comb(count, drop) / 2**count
        if outside + 2 * math.comb(count, drop + 1) / 2**count > 1 - CONFIDENCE:
            break
        drop += 1
    return Figure(median=statistics.median(ordered), lowest=ordered[drop], highest=ordered[count - 1 - drop])


# --- as text and as JSON ----------------------------------------------------------------------------------------------


def as_lines(curves: Sequence[Curve]) -> list[str]:
    """Write curves for a person: the verdict first, then each size."""
    lines = []
    for curve in curves:
        found = judge(curve)
        kept = {True: "kept", False: "NOT KEPT", None: "not settled"}[found.verdict.meets(curve.due)]
        lines.append(f"{curve.title}: {found.words()}; at most {curve.due.value} was due: {kept}")
        for size, one in zip(curve.sizes, curve.figures(), strict=True):
            spread = f"({one.lowest:,.1f} to {one.highest:,.1f})"
            lines.append(f"  {size:>8,} {curve.axis:<36}{one.median:>10,.1f} {curve.unit} {spread}")
        lines.append("")
    return lines


def documents(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Write curves for programs, each round and the verdict included."""
    return [_document(curve) for curve in curves]


def _document(curve: Curve) -> dict[str, Any]:
    found = judge(curve)
    intervals = {
        name: {"median": one.median, "lowest": one.lowest, "highest": one.highest}
        for name, one in (("growth", found.growth), ("bend", found.bend))
    }
    return {
        "name": curve.name,
        "title": curve.title,
        "axis": curve.axis,
        "unit": curve.unit,
        "due": curve.due.value,
        "sizes": list(curve.sizes),
        "rounds": [list(values) for values in curve.rounds],
        **intervals,
        "verdict": found.verdict.value,
    }


def read(document: Mapping[str, Any]) -> list[Curve]:
    """Read the curves of a document that holds them as `curves`; verdicts are found anew.

    Raises ValueError when it does not hold what `documents` writes.
    """
    try:
        return [
            Curve(
                name=str(item["name"]),
                title=str(item["title"]),
                axis=str(item["axis"]),
                unit=str(item["unit"]),
                due=Verdict(item["due"]),
                sizes=[int(size) for size in item["sizes"]],
                rounds=[[float(value) for value in values] for values in item["rounds"]],
            )
            for item in document["curves"]
        ]
    except (KeyError, TypeError) as failure:
        raise ValueError(f"these are no curves of `remora bench growth`: {failure!r}") from failure
