"""How values read on a page: the same words in text, in HTML and in a terminal.

Data is what JSON can hold. A key says what its value is: `..._seconds` is a span of time, `..._bytes` a size; lists of
mappings are tables, and the texts of `LONG` stand below their row. Most text came from a peer, so whatever is shown is
escaped: control characters, and what turns the direction of writing, do nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from proxy.documents import shown

Data = dict[str, Any]
"""What JSON can hold: texts, numbers, booleans, None, lists and mappings of these."""

LONG: Final = ("explanation", "nearest_miss", "detail")
"""Sentences: too long for a column."""

_LONGEST: Final = 2_000
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def title(key: str) -> str:
    """Write a key as a heading.

    >>> title("age_seconds"), title("not_after")
    ('age', 'not after')
    """
    return shown(key.removesuffix("_seconds").replace("_", " "))


def word(key: str, value: Any) -> str:
    """Write a value that is neither a mapping nor a table.

    >>> word("age_seconds", 5_400), word("ready", True), word("hosts", ["a", "b"]), word("path", "/\\x1b[2J")
    ('1 h 30 min', 'yes', 'a, b', '/\\\\x1b[2J')
    """
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key.endswith("_seconds"):
            return duration(value)
        return size(value) if key.endswith("_bytes") else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(word(key, item) for item in value)
    return shown(str(value), _LONGEST)


def duration(seconds: float) -> str:
    """Write a span of time in its two largest units; what is over is said to be over.

    >>> duration(0.25), duration(59), duration(90_000), duration(-61)
    ('0.25 s', '59 s', '1 d 1 h', '1 min 1 s ago')
    """
    if seconds < 0:
        return f"{duration(-seconds)} ago"
    if seconds < 10:
        return f"{seconds:.2g} s"
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, name in _UNITS:
        count, left = divmod(left, unit)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count)


def size(count: float) -> str:
    """Write a number of bytes.

    >>> size(512), size(4_096), size(3_500_000)
    ('512 B', '4 KiB', '3.3 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 100 or count == int(count) else f"{count:.1f} {unit}"


def moment(epoch: float) -> str:
    """Write a point in time, in seconds since the epoch, as UTC.

    >>> moment(1_760_000_000.5)
    '2025-10-09T08:53:20Z'
    """
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of_day(epoch: float) -> str:
    """Write the time of a point that is minutes away, as UTC.

    >>> time_of_day(1_760_000_000.5)
    '08:53:20'
    """
    return moment(epoch)[11:19]


def is_table(value: Any) -> bool:
    """Say whether a value is a list of mappings."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the columns of a table in the order met, without sentences and without what is empty in every row."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key not in LONG and any(row.get(key) not in (None, "", []) for row in rows)]


def sentences(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Give the sentences of a row, each with its heading."""
    return [(title(key), word(key, row[key])) for key in LONG if row.get(key)]
