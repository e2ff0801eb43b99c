"""Writes tables for a terminal: with rich where it is installed and somebody looks, in plain text everywhere else."""

from __future__ import annotations

import importlib
import importlib.util
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A title, the heads of the columns, and as many cells in every row."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(table: Table) -> str:
    """Write a table in plain text: columns as wide as their longest cell.

    >>> print(as_text(Table(title="Hops", headers=("who", "us"), rows=[("remora", "73")])), end="")
    Hops
      who     us
      remora  73
    """
    widths = [max(map(len, column)) for column in zip(table.headers, *table.rows, strict=True)]
    lines = [table.title]
    for row in (table.headers, *table.rows):
        lines.append("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines) + "\n"


def render(table: Table, *, terminal: bool) -> str:
    """Write a table for whoever reads it; without rich, or into a file, in plain text."""
    if not terminal or importlib.util.find_spec("rich") is None:
        return as_text(table)
    drawing: Any = importlib.import_module("rich.table")
    console: Any = importlib.import_module("rich.console")
    text: Any = importlib.import_module("rich.text")
    made = drawing.Table(title=table.title, title_justify="left", box=importlib.import_module("rich.box").SIMPLE)
    for header in table.headers:
        made.add_column(header)
    for row in table.rows:
        made.add_row(*(text.Text(cell) for cell in row))
    out = io.StringIO()
    width = max(shutil.get_terminal_size().columns, 100)
    console.Console(file=out, force_terminal=True, width=width).print(made)
    return out.getvalue()
