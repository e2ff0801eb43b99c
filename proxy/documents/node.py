"""A value of a document with its place, and the way in which foreign text is shown in messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Position = tuple[int, int]
"""Line and column, both from 1."""

_NO_KEYS: Mapping[str, Position] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document and where it stands; `line` and `column` count from 1.

    `text` is a scalar as written, without quotes ("" for lists and mappings); `key_positions` says where each key of
    a mapping stands. `is_faulty` says that reading already found a fault here: nothing more is said of the value.
    """

    value: bool | int | float | str | list[Node] | dict[str, Node] | None
    line: int
    column: int
    text: str = ""
    is_faulty: bool = False
    key_positions: Mapping[str, Position] = field(default_factory=lambda: _NO_KEYS, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Name the kind of the value in a person's words."""
        match self.value:
            case None:
                return "nothing"
            case bool():
                return f"the boolean {self.text}"
            case int() | float():
                return f"the number {shown(self.text)}"
            case str():
                return f"the text {quoted(self.value)}"
            case list():
                return "a list"
            case _:
                return "a mapping"

    def at(self, key: str) -> Position:
        """Say where `key` of this mapping stands, or the mapping itself when it has no such key."""
        return self.key_positions.get(key, (self.line, self.column))


def shown(text: str, limit: int = 80) -> str:
    """Escape what a terminal or a log could act upon, and cut text that is too long to read.

    >>> shown("a\\nb")
    'a\\\\nb'
    >>> shown("x" * 9, limit=4)
    'xxxx...'
    """
    cut = text if len(text) <= limit else text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)
    return cut if len(text) <= limit else cut + "..."


def quoted(text: str, limit: int = 80) -> str:
    """Put text in double quotes for a message, escaped and bounded.

    >>> quoted('say "hi"')
    '"say \\\\"hi\\\\""'
    """
    return '"' + shown(text.replace("\\", "\\\\").replace('"', '\\"'), limit) + '"'
