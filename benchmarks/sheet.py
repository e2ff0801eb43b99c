"""Writes what was measured of a single sidecar: a table with targets for a person, everything for a program. Pure.

Remora is not compared with anybody here, so there are no ratios: each row is a figure of several repetitions, and some
have a target of the design. A target is met when the whole range keeps it and missed when the whole range does not;
in between it is not settled, for another run might turn it round.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.figures import Figure
from benchmarks.host import NOISY_SHARE, Machine

_DIGITS: Final = {"s": 3, "ms": 2, "KiB": 1, "MiB": 1, "us": 0, "ns": 0, "x": 2, "/s": 0, "": 0}
_NAME_WIDTH: Final = 66
_FIGURE_WIDTH: Final = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: its name, its unit ("" for a count), and the most that it should be, if that was decided."""

    name: str
    figure: Figure
    unit: str
    target: float | None = None

    @property
    def verdict(self) -> str:
        """Say how the figure stands to its target: "met", "missed", "not settled"; "" without one."""
        if self.target is None:
            return ""
        if self.figure.highest <= self.target:
            return "met"
        return "missed" if self.figure.lowest > self.target else "not settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The result of one benchmark. `how` says how it was taken, `repetitions` holds each one as JSON takes it.

    `foreign` are the parts of the core that others took, one for each repetition; `remarks` are warnings besides those
    that machine and noise give; `measured` names what had that core.
    """

    benchmark: str
    title: str
    how: Sequence[str]
    machine: Machine
    rows: Sequence[Row]
    foreign: Sequence[float]
    repetitions: Sequence[Mapping[str, Any]] = ()
    remarks: Sequence[str] = field(default=())
    measured: str = "the sidecar"

    def warnings(self) -> list[str]:
        """Say what makes the figures weaker than they look."""
        found = self.machine.warnings()
        if (share := max(self.foreign, default=0.0)) > NOISY_SHARE:
            found.append(f"the host was noisy: others took up to {share:.0%} of {self.measured}'s core")
        if len(self.foreign) < 2:
            found.append("one repetition has no spread: no target is settled by it")
        return [*found, *self.remarks]


def as_text(sheet: Sheet) -> str:
    """Write the sheet for a person."""
    lines = [sheet.title, *sheet.machine.lines(sheet.measured)]
    lines += [f"  {'how' if not number else '':<12}{line}" for number, line in enumerate(sheet.how)]
    lines += ["", f"  {'':<{_NAME_WIDTH}}{'median (lowest to highest)':<{_FIGURE_WIDTH}}target"]
    for row in sheet.rows:
        target = "" if row.target is None else f"at most {row.target:g} {row.unit}: {row.verdict}"
        lines.append(f"  {row.name:<{_NAME_WIDTH}}{_cell(row):<{_FIGURE_WIDTH}}{target}".rstrip())
    warnings = [f"WARNING: {warning}" for warning in sheet.warnings()]
    return "\n".join([*lines, *([""] if warnings else []), *warnings]) + "\n"


def as_json(sheet: Sheet) -> str:
    """Write everything, each repetition included, for programs."""
    document = {
        "benchmark": sheet.benchmark,
        **sheet.machine.document(),
        "how": list(sheet.how),
        "figures": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in sheet.rows],
        "repetitions": list(sheet.repetitions),
        "foreign_share": list(sheet.foreign),
        "warnings": sheet.warnings(),
    }
    return json.dumps(document, indent=2) + "\n"


def _cell(row: Row) -> str:
    digits, figure = _DIGITS[row.unit], row.figure
    median, lowest, highest = (f"{value:,.{digits}f}" for value in (figure.median, figure.lowest, figure.highest))
    return f"{median} {row.unit}".rstrip() + f" ({lowest} to {highest})"
