"""A page as text for a terminal: names and values, tables, sentences below their row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from proxy.admin.words import Data, columns, is_table, sentences, title, word

_WIDEST: Final = 60
"""Characters that a column is widened to; a longer value takes its room and pushes its own row only."""


def as_text(data: Data) -> str:
    """Write a page.

    >>> print(as_text({"ready": True, "peers": [{"name": "web", "open": 2}, {"name": "batch", "open": 10}]}), end="")
    ready  yes
    <BLANKLINE>
    peers
      name   open
      web    2
      batch  10
    """
    return "".join(line.rstrip() + "\n" for line in _lines(data, "")).lstrip("\n")


def table(rows: Sequence[Mapping[str, Any]], indent: str = "") -> Iterator[str]:
    """Write the lines of a table, its heading first."""
    keys = columns(rows)
    cells = [[word(key, row.get(key)) for key in keys] for row in rows]
    widths = [
        max(len(title(key)), *(len(row[i]) for row in cells if len(row[i]) <= _WIDEST), 0) for i, key in enumerate(keys)
    ]

    def line(texts: Sequence[str]) -> str:
        return indent + "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True))

    yield line([title(key) for key in keys])
    for row, texts in zip(rows, cells, strict=True):
        yield line(texts)
        for name, sentence in sentences(row):
            yield f"{indent}    {name}: {sentence}"


def _lines(data: Mapping[str, Any], indent: str) -> Iterator[str]:
    plain = {key: value for key, value in data.items() if not isinstance(value, Mapping) and not is_table(value)}
    width = max((len(title(key)) for key in plain), default=0)
    for key, value in plain.items():
        yield f"{indent}{title(key):<{width}}  {word(key, value)}"
    for key, value in data.items():
        if key in plain:
            continue
        yield ""
        yield f"{indent}{title(key)}"
        if isinstance(value, Mapping):
            yield from _lines(value, indent + "  ") if value else [f"{indent}  -"]
        else:
            yield from table(value, indent + "  ")
