"""The command `remora bench report`: files of results in, one HTML page out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchError
from benchmarks.report_html import page, read
from benchmarks.results import ResultsError


def add_command(commands: Any, tell: Callable[[str], None]) -> None:
    """Add the command to those of `remora bench`; `tell` hears where the page lies."""
    words = "a self-contained HTML page with plots, of files that `run`, `stages`, `growth` or `micro` wrote as JSON"
    command = commands.add_parser("report", help=words, description=words)
    command.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    command.add_argument("--out", type=Path, required=True, metavar="PAGE.html", help="where the page is written")
    command.set_defaults(handle=lambda options: write(options, tell))


def write(options: argparse.Namespace, tell: Callable[[str], None]) -> int:
    """Write the page. Raises BenchError when a file cannot be read, is no result, or the page cannot be written."""
    try:
        parts = [read(file.name, file.read_text("utf-8")) for file in options.files]
        options.out.write_text(page(parts), "utf-8")
    except (ResultsError, OSError, UnicodeDecodeError) as failure:
        raise BenchError(str(failure)) from failure
    tell(f"the report is {options.out}")
    return 0
