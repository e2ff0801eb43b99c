"""Where the values of a file stand in its text, and how a value is put in or taken out without touching the rest.

A change names its place by keys and indices, the first of which is the number of the document: it can be made both to
the text and to the data that the text means. A changed text counts only when it means exactly the changed data, so
whatever the layout of a file, a wrong guess about it is never offered to anybody.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from proxy.answers.editing.writing import block_lines, flow, scalar
from proxy.answers.reading import plain
from proxy.documents import HAS_C_LOADER, parse

Path = tuple[str | int, ...]
_BOM: Final = "\ufeff"
_ODD_BREAKS: Final = re.compile("\r(?!\n)|[\x85\u2028\u2029]").search


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Add `value` at the end of the list at `at`."""

    at: Path
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Add `key` to the mapping at `at`."""

    at: Path
    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Take the item `index` out of the list at `at`, which keeps others."""

    at: Path
    index: int


Change = Append | Put | Remove


def changed(content: bytes, change: Change) -> bytes | None:
    """Make a change to the text of a file; None when the text cannot be changed to mean just that."""
    text = content.decode("utf-8")
    bom = _BOM if text.startswith(_BOM) else ""
    text = text.removeprefix(_BOM)
    if _ODD_BREAKS(text):
        return None
    place = _walk(_places(text), change.at)
    if place is None:
        return None
    result = _changed_text(text, place, change)
    if result is None:
        return None
    encoded = (bom + result).encode("utf-8")
    return encoded if _means(encoded) == _changed_data(_means(content), change) else None


def _means(content: bytes) -> list[Any] | None:
    documents, faults = parse(content, "")
    return None if faults else [plain(document) for document in documents]


def _changed_data(documents: list[Any] | None, change: Change) -> list[Any]:
    data = copy.deepcopy(documents or [])
    target: Any = data
    for step in change.at:
        target = target[step]
    match change:
        case Append():
            target.append(change.value)
        case Put():
            target[change.key] = change.value
        case Remove():
            del target[change.index]
    return data


# --- places ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A value: offsets of its first character and behind its last one, and the column of the first, from 0.

    `style` is the quote of a text; `is_flow` tells `[...]` and `{...}` from lines.
    """

    start: int
    end: int
    column: int
    is_flow: bool = False
    style: str = ""
    value: str | list[_Place] | dict[str, tuple[_Place, _Place]]


def _places(text: str) -> list[_Place]:
    loader = yaml.CSafeLoader if HAS_C_LOADER else yaml.SafeLoader
    if not HAS_C_LOADER:
        text = text.replace("\t", " ")  # the Python parser takes no tab between tokens; the offsets stay
    events = iter(yaml.parse(text, Loader=loader))
    skipped = yaml.StreamStartEvent, yaml.StreamEndEvent, yaml.DocumentStartEvent, yaml.DocumentEndEvent
    return [_place(event, events) for event in events if not isinstance(event, skipped)]


def _place(event: Any, events: Iterator[Any]) -> _Place:
    """Build a value from its events; nesting is bounded, because the file has been loaded."""
    mark = event.start_mark
    if isinstance(event, yaml.MappingStartEvent):
        keys: dict[str, tuple[_Place, _Place]] = {}
        last = mark.index
        while not isinstance(following := next(events), yaml.MappingEndEvent):
            key = _place(following, events)
            value = _place(next(events), events)
            keys[str(key.value)] = key, value
            last = max(key.end, value.end)
        return _collection(event, following, last, keys)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[_Place] = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(_place(following, events))
        return _collection(event, following, items[-1].end if items else mark.index, items)
    style = event.style or ""
    return _Place(start=mark.index, end=event.end_mark.index, column=mark.column, style=style, value=event.value)


def _collection(first: Any, last: Any, end: int, value: list[_Place] | dict[str, tuple[_Place, _Place]]) -> _Place:
    # The parser lets a block end where the next token begins, behind blank lines and comments.
    is_flow = bool(first.flow_style)
    return _Place(
        start=first.start_mark.index,
        end=last.end_mark.index if is_flow else end,
        column=first.start_mark.column,
        is_flow=is_flow,
        value=value,
    )


def _walk(documents: list[_Place], at: Path) -> _Place | None:
    number, *rest = at
    place = documents[number] if isinstance(number, int) and number < len(documents) else None
    for step in rest:
        if place is None:
            return None
        if isinstance(place.value, dict) and isinstance(step, str):
            found = place.value.get(step)
            place = found[1] if found is not None else None
        elif isinstance(place.value, list) and isinstance(step, int) and step < len(place.value):
            place = place.value[step]
        else:
            return None
    return place


# --- text ---


def _changed_text(text: str, place: _Place, change: Change) -> str | None:
    match change, place.value:
        case Append(), list() as items:
            if place.is_flow:
                return _into_flow(text, place, items[-1:], flow(change.value, _quote_of(text, items)))
            return _new_lines(text, place, _item_lines(change.value))
        case Put(), dict() as keys:
            if place.is_flow:
                quote = _quote_of(text, [key for key, _ in keys.values()])
                written = f"{scalar(change.key, quote)}: {flow(change.value, quote)}"
                return _into_flow(text, place, list(keys.values())[-1:], written)
            return _new_lines(text, place, block_lines({change.key: change.value}))
        case Remove(), list() as items if len(items) > 1:
            return _without(text, place, items, change.index)
    return None


def _quote_of(text: str, siblings: list[_Place]) -> str:
    """Say how text is quoted here: as the last one beside it, in JSON everywhere."""
    if text.lstrip().startswith(("{", "[")):
        return '"'
    return siblings[-1].style if siblings and isinstance(siblings[-1].value, str) else ""


def _into_flow(text: str, place: _Place, last: list[_Place] | list[tuple[_Place, _Place]], written: str) -> str:
    """Write behind the last one between the brackets, on a line of its own where that one has its own."""
    if not last:
        return text[: place.start + 1] + written + text[place.start + 1 :]
    first, behind = (last[0], last[0]) if isinstance(last[0], _Place) else last[0]
    begin = _line_start(text, first.start)
    indent = text[begin : first.start]
    gap = f"{_newline(text)}{indent}" if not indent.strip() and begin > place.start else " "
    return f"{text[: behind.end]},{gap}{written}{text[behind.end :]}"


def _item_lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return [f"- {scalar(value, '')}"]
    first, *rest = block_lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _new_lines(text: str, place: _Place, lines: list[str]) -> str | None:
    """Write lines below a block, in its column."""
    if place.end == place.start:
        return None
    newline = _newline(text)
    indented = newline.join(" " * place.column + line for line in lines)
    at = text.find("\n", place.end)
    if at < 0:
        return text + newline + indented
    return text[: at + 1] + indented + newline + text[at + 1 :]


def _without(text: str, place: _Place, items: list[_Place], index: int) -> str:
    if not place.is_flow:
        begin, end = _line_start(text, items[index].start), text.find("\n", items[index].end)
        return text[:begin].removesuffix("\n") if end < 0 else text[:begin] + text[end + 1 :]
    if index == 0:
        return text[: items[0].start] + text[items[1].start :]
    return text[: items[index - 1].end] + text[items[index].end :]


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


# --- where policies stand ---


def policy_path(content: bytes, document: int, position: tuple[int, int]) -> Path | None:
    """Find the way to the mapping that stands at `position` in a document: the document itself or an item of a List."""
    documents, faults = parse(content, "")
    if faults or document >= len(documents):
        return None
    node = documents[document]
    if (node.line, node.column) == position:
        return (document,)
    items = node.value.get("items") if isinstance(node.value, Mapping) else None
    for i, item in enumerate(items.value if items is not None and isinstance(items.value, list) else []):
        if (item.line, item.column) == position:
            return document, "items", i
    return None


def value_at(content: bytes, at: Path) -> Any:
    """Read the data at a place, None where there is none."""
    value: Any = _means(content)
    for step in at:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
