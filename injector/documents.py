"""Splits a manifest into its documents and writes it again: what nobody changed keeps every byte, comments too.

What is read is YAML as kubectl reads it, and JSON. Each document keeps its own text; one that was changed is written
anew from its values, in the form (YAML or JSON) that it had.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from injector.yaml_text import dump
from proxy.documents import quoted
from proxy.errors import ConfigError, Fault

MAX_BYTES: Final = 32 * 1024 * 1024
"""Of one manifest: a chart of many CustomResourceDefinitions has some megabytes."""
MAX_DEPTH: Final = 100
MAX_NODES: Final = 1_000_000
"""Values of one document after aliases were followed: a bomb of ten lines makes ten thousand million."""

_SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_DIRECTIVES = re.compile(r"\ufeff?(?:[ \t]*(?:#[^\n]*)?\n)*(?:%[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\n)*)+\Z")
"""Lines before the first separator that say something of YAML itself, `%YAML 1.1`; they belong to what follows."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_WHOLE: Final = 1e21
"""From here on JSON's writers put an exponent."""
_JSON_START = re.compile(r"\s*[\[{]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One document of a manifest: its text as it stood, what it says, the line where it begins (from 1).

    `value` is None for a part of comments alone. `opening` is what stood before it: the separator's line, or nothing.
    """

    opening: str
    text: str
    value: object
    line: int
    is_json: bool = False

    def rewritten(self, value: object) -> str:
        """Give its text with another value, in its own form."""
        if self.is_json:
            return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        return dump(value)


class _Loader(yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader):  # type: ignore[misc]
    """YAML as kubectl reads it: timestamps are text, a key stands once and is text."""

    merged = 0
    """Pairs that merge keys (`<<`) brought."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Follow the merge keys of a mapping, and bound what they multiply: 58 KB of them took 183 MB."""
        own = len(node.value)
        super().flatten_mapping(node)
        self.merged += len(node.value) - own
        if self.merged > MAX_NODES:
            problem = f"more than {MAX_NODES} values by merge keys (<<) are not read"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def split(data: bytes, source: str) -> list[Part]:
    """Read a manifest. Raises ConfigError with file, line and column of what cannot be read.

    >>> [part.value for part in split(b"a: 1\\n---\\n# nothing\\n---\\nb: 2\\n", "m.yaml")]
    [{'a': 1}, None, {'b': 2}]
    """
    if len(data) > MAX_BYTES:
        raise _error(source, 1, 1, f"the manifest has more than {MAX_BYTES} bytes", "split it into several files")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise _error(source, line, 1, "this is not UTF-8", "save the file as UTF-8") from None
    return list(_parts(text, source))


def join(parts: list[tuple[Part, object]]) -> str:
    """Write a manifest: parts with their new values, where a part whose value is its own keeps its text."""
    written: list[str] = []
    for part, value in parts:
        changed = value is not part.value
        opening = _between(part, after=written[-1] if written else None)
        if changed and opening.endswith("--- "):
            opening = opening[:-1] + "\n"  # a mapping in block style cannot begin on the separator's line
        written.append(opening + (part.rewritten(value) if changed else part.text))
    return "".join(written)


def _between(part: Part, *, after: str | None) -> str:
    """Give what opens a part that stands after another: the first of a file has no separator, and may have more."""
    if after is None:
        return part.opening
    # A mark of the byte order and a directive stand at the beginning alone, for kubectl as for us.
    lines = part.opening.removeprefix("\ufeff").splitlines(keepends=True)
    opening = "".join(line for line in lines if not line.startswith("%"))
    if not _SEPARATOR.search(opening):
        opening = "---\n" + opening
    return opening if after.endswith("\n") else "\n" + opening


def _parts(text: str, source: str) -> Iterator[Part]:
    marked = text.startswith("\ufeff")
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text) if match.start() > 0)]
    if text.startswith("---"):
        starts = [match.start() for match in _SEPARATOR.finditer(text)] or [0]
    elif len(starts) > 1 and _DIRECTIVES.match(text[: starts[1]]):
        del starts[1]
    for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
        piece = text[begin:end]
        line = text.count("\n", 0, begin) + 1
        opening, body = _opening(piece)
        if begin == 0 and marked:
            body = body.removeprefix("\ufeff")
            opening = "\ufeff" + opening.removeprefix("\ufeff")
        if body or opening:
            value, is_json = _value(body, source, line + opening.count("\n"))
            yield Part(opening=opening, text=body, value=value, line=line + opening.count("\n"), is_json=is_json)


def _opening(piece: str) -> tuple[str, str]:
    """Part the separator's line from what follows; a document that begins on that line stays whole."""
    separator = _SEPARATOR.search(piece)
    if separator is not None and separator.start() > 0:
        directives = piece[: separator.start()]
        if not _DIRECTIVES.match(directives):
            return "", piece
        opening, body = _opening(piece[separator.start() :])
        return directives + opening, body
    if separator is None:
        return "", piece
    line, newline, rest = piece.partition("\n")
    after = line[3:].strip()
    if not after or after.startswith("#"):
        return line + newline, rest
    return "--- ", piece[3:].lstrip(" \t")


def _value(body: str, source: str, line: int) -> tuple[object, bool]:
    if _JSON_START.match(body):
        try:
            return _checked(json.loads(body, object_pairs_hook=_once), source, line), True
        except RecursionError:
            raise _error(source, line, 1, f"more than {MAX_DEPTH} levels are not read", "") from None
        except ValueError:
            pass  # YAML in flow style begins so too, and says better what is wrong
    loader = _Loader(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, False
        _check_keys(loader, node, source, line)
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        place = (line + mark.line, mark.column + 1) if mark is not None else (line, 1)
        raise _error(source, *place, str(fault.problem or fault.context), "check this line and the one above") from None
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as fault:
        raise _error(source, line, 1, _first_line(fault), "check the document that begins here") from None
    finally:
        loader.dispose()
    return _checked(value, source, line), False


def _check_keys(loader: _Loader, node: yaml.Node, source: str, line: int) -> None:
    """Refuse keys that stand twice: readers differ in which one they take. Makes a number or a boolean text.

    As text before they are looked up: 1 and true are one key for Python, and two for kubectl.
    """
    waiting, seen = [node], set[int]()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, yaml.MappingNode):
            known: set[str] = set()
            for key, value in current.value:
                place = (line + key.start_mark.line, key.start_mark.column + 1)
                if not isinstance(key, yaml.ScalarNode):
                    raise _error(source, *place, "a key is a list or a mapping", "write a word and a colon")
                if key.tag != "tag:yaml.org,2002:merge":
                    text = _key(loader.construct_object(key))
                    loader.constructed_objects.pop(key, None)  # or the mapping would get the value and not its text
                    if text is None:
                        raise _error(source, *place, "a key is null or of no plain type", "write it in quotes")
                    if text in known:
                        raise _error(
                            source,
                            *place,
                            f"the key {quoted(text)} stands twice in this mapping",
                            "keep one of the two",
                        )
                    known.add(text)
                    key.tag, key.value = "tag:yaml.org,2002:str", text
                waiting.append(value)
        elif isinstance(current, yaml.SequenceNode):
            waiting += current.value


def _checked(value: object, source: str, line: int) -> object:
    """Give the value as JSON could have it. Bounds depth and size, which aliases multiply."""
    count = 0

    def walk(item: Any, depth: int) -> object:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH:
            raise _error(source, line, 1, f"more than {MAX_DEPTH} levels are not read", "")
        if count > MAX_NODES:
            raise _error(source, line, 1, f"more than {MAX_NODES} values, aliases followed, are not read", "")
        if isinstance(item, Mapping):
            return {str(key): walk(each, depth + 1) for key, each in item.items()}
        if isinstance(item, list):
            return [walk(each, depth + 1) for each in item]
        if fault := _foreign(item):
            raise _error(source, line, 1, f"in the document that begins here is {fault}", "write it as text, in quotes")
        return item

    return walk(value, 0)


def _foreign(item: object) -> str | None:
    """Say what is wrong with a value that JSON cannot have, and so no API server can be given."""
    if isinstance(item, float) and not math.isfinite(item):
        return "a number that is infinite or none (.inf, .nan)"
    if isinstance(item, str) and not item.isascii() and _SURROGATE.search(item):
        return "half a character (a surrogate without its other half)"
    if item is None or isinstance(item, bool | int | float | str):
        return None
    return f"a value of a type that JSON does not have ({type(item).__name__})"


def _key(key: object) -> str | None:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, float) and key.is_integer() and abs(key) < _LONGEST_WHOLE:
        return str(int(key))
    return str(key) if isinstance(key, str | int | float) else None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")  # read again as YAML, which says where
    return made


def _first_line(fault: BaseException) -> str:
    return str(fault).splitlines()[0][:200] if str(fault) else type(fault).__name__


def _error(source: str, line: int, column: int, message: str, hint: str) -> ConfigError:
    return ConfigError([Fault(file=source, line=line, column=column, message=message, hint=hint)])


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


# A timestamp is text for JSON and so for Kubernetes; `=` is the default key of YAML 1.1, which nobody means.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
_Loader.add_constructor("tag:yaml.org,2002:value", _text)
# 1:30 is ninety for YAML 1.1 and text for everybody else, kubectl too; so are 0b and underscores.
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z")


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    text = str(node.value)
    if _SEXAGESIMAL.match(text):
        return text
    if _OCTAL.match(text):
        return int(text.lower().replace("0o", ""), 8)
    return int(text) if _NO_OCTAL.match(text) else loader.construct_yaml_int(node)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> object:
    return str(node.value) if _SEXAGESIMAL.match(node.value) else loader.construct_yaml_float(node)


# 1e3 is text for YAML 1.1, which wants a dot, and a thousand for kubectl.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)
# 0o644 is how people write the mode of a file: text for YAML 1.1, a number for kubectl; so is 09, which is no octal.
_OCTAL = re.compile(r"[-+]?0[oO][0-7]+\Z")
_NO_OCTAL = re.compile(r"[-+]?0[0-9]*[89][0-9]*\Z")
for _pattern in (_OCTAL, _NO_OCTAL):
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", _pattern, list("-+0"))
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
