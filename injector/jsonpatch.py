"""What is different between two JSON documents, as a JSON Patch (RFC 6902), and the patch applied again.

A webhook answers with such a patch. It names only what changed: other webhooks and the API server change the same pod,
and a patch that replaced whole lists would undo their work. Elements of lists are the same element when they have the
same `name` (containers, volumes, ports, variables), as Kubernetes itself merges them; others when they are equal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MAX_PAIRS: Final = 250_000
"""Pairs of elements compared to align two lists: 500 changed by 500. Longer ones are compared place by place, which
gives a longer patch with the same effect; the work for a hostile pod would grow with the square of its lists."""

Operation = dict[str, object]


class PatchError(ValueError):
    """A patch that does not fit the document: the number of the operation, its path and what is missing there."""


def difference(old: object, new: object) -> list[Operation]:
    """Give the operations (add, remove, replace) that make `old` into `new`; none when they are the same.

    1, 1.0 and true are three values. The order of keys is no difference.

    >>> difference({"a/b": [1, 2], "c": 1}, {"a/b": [0, 1, 2]})
    [{'op': 'remove', 'path': '/c'}, {'op': 'add', 'path': '/a~1b/0', 'value': 0}]
    """
    return list(_between(old, new, ""))


def is_same(one: object, other: object) -> bool:
    """Say whether two JSON values are the same, types included.

    >>> is_same([1], [1]), is_same([1], [True]), is_same([1], [1.0])
    (True, False, False)
    """
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return type(one) is type(other) and one == other


def apply(document: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """Give a document with the operations of `difference` performed in their order; the document itself stays.

    Raises PatchError.

    >>> apply({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}])
    {'a': [1, 2]}
    """
    for number, operation in enumerate(patch):
        try:
            document = _performed(document, _steps(str(operation["path"])), operation)
        except (LookupError, TypeError, ValueError) as fault:
            place = f"operation {number} ({operation.get('op')} {operation.get('path')!r})"
            raise PatchError(f"{place} does not fit the document: {fault}") from None
    return document


def _between(old: object, new: object, path: str) -> Iterator[Operation]:
    if old is new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if path and old and new and old.keys().isdisjoint(new):
            yield {"op": "replace", "path": path, "value": new}
        else:
            yield from _between_mappings(old, new, path)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _between_lists(old, new, path)
    elif not is_same(old, new):
        yield {"op": "replace", "path": path, "value": new}


def _between_mappings(old: Mapping[str, object], new: Mapping[str, object], path: str) -> Iterator[Operation]:
    for key in old:
        if key not in new:
            yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
    for key, value in new.items():
        place = f"{path}/{_escaped(key)}"
        if key in old:
            yield from _between(old[key], value, place)
        else:
            yield {"op": "add", "path": place, "value": value}


def _between_lists(old: list[object], new: list[object], path: str) -> Iterator[Operation]:
    """Walk both lists from the front; each index is that of the list as the operations so far have left it."""
    index = 0
    for before, after in _gaps(old, new):
        shared = min(len(before), len(after))
        for one, other in zip(before, after, strict=False):
            yield from _between(one, other, f"{path}/{index}")
            index += 1
        for _ in before[shared:]:
            yield {"op": "remove", "path": f"{path}/{index}"}
        for value in after[shared:]:
            yield {"op": "add", "path": f"{path}/{index}", "value": value}
            index += 1


def _gaps(old: list[object], new: list[object]) -> Iterator[tuple[list[object], list[object]]]:
    """Part two lists into pieces that belong together: one element of each, or what stands between such pairs."""
    begin_old = begin_new = 0
    for at_old, at_new in _aligned([_identity(each) for each in old], [_identity(each) for each in new]):
        yield old[begin_old:at_old], new[begin_new:at_new]
        yield [old[at_old]], [new[at_new]]
        begin_old, begin_new = at_old + 1, at_new + 1
    yield old[begin_old:], new[begin_new:]


def _aligned(old: list[str], new: list[str]) -> list[tuple[int, int]]:
    """Give the pairs of a longest common subsequence, by their indices."""
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    rows, columns = len(old) - first - last, len(new) - first - last
    pairs = [(each, each) for each in range(first)]
    if rows * columns <= MAX_PAIRS:
        inner = _longest(old[first : first + rows], new[first : first + columns])
        pairs += [(first + row, first + column) for row, column in inner]
    pairs += [(len(old) - each, len(new) - each) for each in range(last, 0, -1)]
    return pairs


def _longest(old: list[str], new: list[str]) -> list[tuple[int, int]]:
    lengths = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for row in reversed(range(len(old))):
        for column in reversed(range(len(new))):
            lengths[row][column] = (
                lengths[row + 1][column + 1] + 1
                if old[row] == new[column]
                else max(lengths[row + 1][column], lengths[row][column + 1])
            )
    found, row, column = [], 0, 0
    while row < len(old) and column < len(new):
        if old[row] == new[column]:
            found.append((row, column))
            row, column = row + 1, column + 1
        elif lengths[row + 1][column] >= lengths[row][column + 1]:
            row += 1
        else:
            column += 1
    return found


def _identity(element: object) -> str:
    """Give what makes an element of a list the same one: its name, or else its value, written so that types differ."""
    if isinstance(element, Mapping):
        name = element.get("name")
        if isinstance(name, str):
            return f"name {name}"
    return f"value {json.dumps(element, sort_keys=True)}"


def _performed(value: Any, steps: list[str], operation: Mapping[str, Any]) -> Any:
    kind = operation["op"]
    if kind not in ("add", "remove", "replace"):
        raise ValueError("only add, remove and replace are performed")
    if not steps:
        if kind == "remove":
            raise ValueError("the whole document cannot be removed")
        return operation["value"]
    step, rest = steps[0], steps[1:]
    made: Any
    key: Any
    if isinstance(value, Mapping):
        made, key = dict(value), step
    elif isinstance(value, list):
        made, key = list(value), _index(step, len(value), may_be_end=kind == "add" and not rest)
    else:
        raise ValueError(f"{step!r} is looked for in what is no list and no mapping")
    if rest:
        made[key] = _performed(made[key], rest, operation)
    elif kind == "add" and isinstance(made, list):
        made.insert(key, operation["value"])
    elif kind == "remove":
        del made[key]
    else:
        if kind == "replace" and isinstance(made, dict) and key not in made:
            raise KeyError(f"there is no {key!r}")  # RFC 6902, 4.3
        made[key] = operation["value"]
    return made


def _index(step: str, length: int, *, may_be_end: bool) -> int:
    if step == "-" and may_be_end:
        return length
    # RFC 6901, 4: digits without a zero in front; int() would take more.
    if not (step.isascii() and step.isdigit()) or (step != "0" and step.startswith("0")):
        raise ValueError(f"{step!r} is no index of a list")
    index = int(step)
    if index > length or (index == length and not may_be_end):
        raise IndexError(f"the list has {length} elements")
    return index


def _steps(pointer: str) -> list[str]:
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise ValueError("a path begins with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
