"""Axes: from values to places, and the round numbers that are written along them. Pure.

Four kinds. LINEAR begins at 0, because the length of a bar is what the eye reads. LOG has its decades. NINES is the
axis of latency percentiles: 90, 99 and 99.9 % lie equally far apart, so that the tail takes as much room as it matters.
ORDINAL puts the values that were measured side by side, and says nothing of the distance between them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MOST_NINES: Final = 7.0
"""Where the axis of percentiles ends: beyond one request in ten million no run of minutes tells anything."""


class Kind(enum.Enum):
    """How values become places."""

    LINEAR = "linear"
    LOG = "log"
    NINES = "nines"
    ORDINAL = "ordinal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A value on an axis and what is written there, "" for a line without words."""

    value: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis from `low` to `high`, drawn from `start` to `end`; `values` are those of an ORDINAL one."""

    kind: Kind
    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[Tick]
    values: Sequence[float] = ()

    def place(self, value: float) -> float:
        """Tell where a value is drawn; one outside is drawn at the end that it lies beyond."""
        if self.kind is Kind.ORDINAL:
            step = (self.end - self.start) / len(self.values)
            return self.start + step * (self.values.index(value) + 0.5)
        low, high, here = (_straight(self.kind, item) for item in (self.low, self.high, value))
        part = (here - low) / (high - low)
        return self.start + min(1.0, max(0.0, part)) * (self.end - self.start)


def linear(high: float, *, start: float, end: float, count: int = 6) -> Scale:
    """Make an axis from 0 to a round number that is not below `high`."""
    step = nice_step(high / count if high > 0 else 1.0)
    steps = max(1, math.ceil(high / step - 1e-9))
    ticks = [Tick(value=number * step, label=number_text(number * step, step)) for number in range(steps + 1)]
    return Scale(kind=Kind.LINEAR, low=0.0, high=steps * step, start=start, end=end, ticks=ticks)


def logarithmic(values: Sequence[float], *, start: float, end: float, at_values: bool = False) -> Scale:
    """Make an axis of decades around `values`, which are above 0.

    `at_values` writes the values themselves along it and ends there, as fits what was chosen (1, 8, 32 connections).
    Raises ValueError for a value that has no logarithm.
    """
    if min(values) <= 0:
        raise ValueError("a logarithmic axis needs values above 0")
    if at_values:
        chosen = sorted(set(values))
        ticks = [Tick(value=value, label=number_text(value, value)) for value in chosen]
        low, high = chosen[0], chosen[-1] if len(chosen) > 1 else chosen[0] * 10
        return Scale(kind=Kind.LOG, low=low, high=high, start=start, end=end, ticks=ticks)
    low, high = log_step(min(values), up=False), log_step(max(values), up=True)
    if low == high:
        low, high = log_step(low * 0.9, up=False), log_step(high * 1.1, up=True)
    wide = math.log10(high / low) > 2.5
    ticks, decade = [], math.floor(math.log10(low))
    while 10.0**decade <= high * 1.001:
        for digit in range(1, 10):
            value = digit * 10.0**decade
            if low * 0.999 <= value <= high * 1.001:
                named = digit == 1 or (not wide and digit in (2, 5))
                ticks.append(Tick(value=value, label=number_text(value, value) if named else ""))
        decade += 1
    return Scale(kind=Kind.LOG, low=low, high=high, start=start, end=end, ticks=ticks)


def nines(highest: float, *, start: float, end: float) -> Scale:
    """Make an axis of percentiles from 0 to `highest`, below 100.

    >>> [tick.label for tick in nines(99.95, start=0, end=100).ticks]
    ['0 %', '50 %', '90 %', '99 %', '99.9 %']
    """
    limit = max(_straight(Kind.NINES, highest), 1.0)
    chosen = [0.0, 50.0, *(100 - 100 / 10.0**number for number in range(1, int(MOST_NINES) + 1))]
    ticks = [
        Tick(value=value, label=f"{value:.10g} %") for value in chosen if _straight(Kind.NINES, value) <= limit + 1e-6
    ]
    return Scale(kind=Kind.NINES, low=0.0, high=100 - 100 / 10.0**limit, start=start, end=end, ticks=ticks)


def ordinal(values: Sequence[float], labels: Sequence[str], *, start: float, end: float) -> Scale:
    """Put `values` side by side with a label each."""
    ticks = [Tick(value=value, label=label) for value, label in zip(values, labels, strict=True)]
    return Scale(
        kind=Kind.ORDINAL, low=min(values), high=max(values), start=start, end=end, ticks=ticks, values=tuple(values)
    )


def nice_step(size: float) -> float:
    """Round a step up to 1, 2 or 5 times a power of ten.

    >>> nice_step(3.2), nice_step(0.11), nice_step(50)
    (5.0, 0.2, 50.0)
    """
    return log_step(size, up=True)


def log_step(value: float, *, up: bool) -> float:
    """Give the next of 1, 2, 5, 10, 20, ... that is not below (or not above) a value."""
    decade = math.floor(math.log10(value))
    chosen = [digit * 10.0 ** (decade + shift) for shift in (-1, 0, 1) for digit in (1, 2, 5)]
    fitting = [item for item in chosen if (item >= value * (1 - 1e-9) if up else item <= value * (1 + 1e-9))]
    # Powers of ten below 1 are not exact in binary: written and read again they are the nearest to what is meant.
    return float(f"{min(fitting) if up else max(fitting):.6g}")


def number_text(value: float, step: float | None = None) -> str:
    """Write a number for a person: three digits that matter, or as many as a step along an axis needs.

    >>> number_text(12345.6), number_text(99.94), number_text(0.01234), number_text(0.5, 0.25)
    ('12,346', '99.9', '0.0123', '0.50')
    """
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    if step is not None:
        digits = _decimals(step)
    return f"{value:,.{max(0, digits)}f}"


def _decimals(step: float) -> int:
    words = f"{step:.6f}".rstrip("0")
    return len(words.partition(".")[2])


def _straight(kind: Kind, value: float) -> float:
    if kind is Kind.LOG:
        return math.log10(max(value, 1e-12))
    if kind is Kind.NINES:
        return min(MOST_NINES, -math.log10(max(1 - value / 100, 10**-MOST_NINES)))
    return value
