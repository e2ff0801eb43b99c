"""Bytes -> `Node` trees and faults, in bounded time and memory."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from proxy.documents.checker import Checker
from proxy.documents.node import Node, Position, quoted, shown
from proxy.errors import Fault

HAS_C_LOADER = bool(yaml.__with_libyaml__)
"""Whether PyYAML brings its C parser. Without it reading is about 8 times slower: worth a warning at start."""

MAX_BYTES = 1024 * 1024  # the largest object that Kubernetes stores is 1.5 MiB, a ConfigMap 1 MiB
MAX_DEPTH = 64  # a policy needs 9, kubectl's managedFields about 20; beyond it nobody writes by hand
MAX_NODES = 200_000  # a policy set of 1,000 rules has about 20,000
MAX_DOCUMENTS = 4096  # one document for each workload of a large namespace fits many times
MAX_DIGITS = 40  # above 19 no setting fits; far above, the conversion itself costs quadratic time


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_AMBIGUOUS = re.compile(r"[-+]?(?:0[0-9_]+|0o[0-7]+|0b[01_]+|0x[0-9a-fA-F_]+|[1-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?)\Z")
_CONFLICT = re.compile(r"^(?:<{7} |={7}$|>{7} )", re.MULTILINE)  # what git leaves in a file
_COMMENT = re.compile(r"(?:^|\s)(?://|/\*)\s", re.MULTILINE)  # of languages that are not read
_TEMPLATE = re.compile(r"\{\{|\{%")  # Helm's and Jinja's
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUES = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSES = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})

_SYNTAX_HINTS = (
    ("mapping values are not allowed", "check this line and the one above, and quote text that contains ': '"),
    ("did not find expected key", "check the indentation of this line and of the one above"),
    ("did not find expected '-' indicator", "items of one list begin in the same column"),
    ("expected <block end>", "check the indentation of this line and of the one above"),
    ("block sequence entries are not allowed", "begin the list on a line of its own"),
    ("could not find expected ':'", "a key is followed by a colon and a space"),
    ("unexpected end of stream", "a quote or a bracket is not closed"),
    ("did not find expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("expected ',' or", "a bracket is not closed, or a comma is missing"),
    ("exceeded maximum nesting depth", f"more than {MAX_DEPTH} levels are not read"),
    ("cannot start any token", "quote text that begins with a special character"),
    ("expected alphabetic or numeric character", "quote text that begins with a star or an ampersand"),
    ("expected <document start>", "check the indentation, or begin a further document with --- on a line of its own"),
    ("expected node content", "a value is missing, or a bracket is not closed, or a special character is not quoted"),
    ("expected whitespace or line break", "quote text that begins with an exclamation mark"),
    ("incompatible YAML document", "remove the %YAML line"),
    ("unknown escape character", "write two backslashes for one, or use single quotes"),
)


class _Abort(Exception):
    """Reading cannot go on: the fault says why."""

    def __init__(self, at: Position, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


def parse(data: bytes, file: str) -> tuple[list[Node], list[Fault]]:
    """Read every document of a YAML or JSON file.

    Returns the documents in order (an empty one has the value None) and the faults. With any fault the documents are
    what could be made out, good for finding further faults and for nothing else. A UTF-8 byte order mark and CRLF
    line ends are taken.

    >>> documents, faults = parse(b"kind: Pod\\nkind: Job\\n", "a.yaml")
    >>> print(faults[0])
    a.yaml:2:1: the key "kind" stands twice in this mapping (first in line 1); keep one of the two
    """
    checker = Checker(file)
    documents: list[Node] = []
    try:
        text = _decode(data)
        _Reader(checker, documents).read(text)
    except _Abort as abort:
        checker.fault(abort.at, str(abort), abort.hint)
    return documents, checker.faults


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Abort((1, 1), f"the file has more than {MAX_BYTES} bytes", "split it into several files")
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise _Abort((1, 1), "the file is UTF-32", "save it as UTF-8")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Abort((1, 1), "the file is UTF-16", "save it as UTF-8")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise _Abort(
            _end_of(before), f"the byte 0x{data[error.start]:02x} is not UTF-8", "save the file as UTF-8"
        ) from None
    text = text.removeprefix("\ufeff")
    if unprintable := _UNPRINTABLE.search(text):
        raise _Abort(
            _end_of(text[: unprintable.start()]),
            f"the character U+{ord(unprintable[0]):04X} may not stand in a YAML file",
            "the file is no text, or UTF-16: save it as UTF-8"
            if unprintable[0] == "\0"
            else "remove it, or write it as an escape in double quotes",
        )
    return text


def _end_of(text: str) -> Position:
    """Say the position of the character that follows `text`."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return len(lines), len(lines[-1]) + 1


class _Open:
    """A list or a mapping whose end has not been seen."""

    __slots__ = ("at", "is_mapping", "items", "key", "keys", "keys_at")

    def __init__(self, at: Position, is_mapping: bool) -> None:
        self.at = at
        self.is_mapping = is_mapping
        self.items: list[Node] = []
        self.keys: dict[str, Node] = {}
        self.keys_at: dict[str, Position] = {}
        self.key: str | None = None


class _Reader:
    """Builds nodes from parser events with a stack of its own, so that nesting costs no recursion."""

    def __init__(self, checker: Checker, documents: list[Node]) -> None:
        self._checker = checker
        self._documents = documents
        self._open: list[_Open] = []
        self._skipped_keys = 0
        self._nodes = 0

    def read(self, text: str) -> None:
        loader = yaml.CSafeLoader if HAS_C_LOADER else yaml.SafeLoader
        if not HAS_C_LOADER and "\t" in text and _is_json(text):
            # The Python parser takes no tab between tokens. JSON has none inside its strings, so none is lost here.
            text = text.replace("\t", " ")
        try:
            for event in yaml.parse(text, Loader=loader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error, text) from None
        except yaml.YAMLError as error:
            raise _Abort((1, 1), f"not YAML: {shown(str(error))}") from None

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> _Abort:
        problem = (error.problem or "cannot be read").strip()
        # A key without its colon is noticed a line later; the context is where the key begins.
        mark = error.context_mark if "expected ':'" in problem else error.problem_mark
        mark = mark or error.problem_mark or error.context_mark
        if "<document start>" in problem or not isinstance(self._last, dict | list):
            del self._documents[-1:]  # it ended where the fault is: what it lacks may stand behind
        if mark is None:
            return _Abort((1, 1), f"not YAML: {shown(problem)}")
        at = (mark.line + 1, mark.column + 1)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if conflict := _CONFLICT.search(text):
            return _Abort(_end_of(text[: conflict.start()]), "git left a conflict here", "keep one of the two sides")
        lines = text.split("\n")
        line = lines[mark.line] if mark.line < len(lines) else ""
        indent = line[: len(line) - len(line.lstrip())]
        if "\t" in indent:
            return _Abort(
                (at[0], indent.index("\t") + 1), "a tab indents this line", "YAML is indented with spaces only"
            )
        hint = next((hint for part, hint in _SYNTAX_HINTS if part in problem), "")
        near = "\n".join(lines[max(0, mark.line - 1) : mark.line + 1])
        if _TEMPLATE.search(near):
            hint = "a template such as {{ ... }} is left in the file: render it first"
        elif _COMMENT.search(near):
            hint = "a comment begins with #, in JSON there is none"
        elif "expected key" in problem and line[: mark.column].rstrip().endswith(('"', "'")):
            hint = "nothing may stand behind the closing quote"
        return _Abort(at, f"not YAML: {shown(problem)}", hint)

    @property
    def _last(self) -> object:
        return self._documents[-1].value if self._documents else []

    def _take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._add(self._scalar(event))
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._begin(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                at = _start(event)
                self._checker.fault(at, f"an alias (*{shown(str(event.anchor))}) is not read", "write the value out")
                self._add(Node(None, *at, is_faulty=True))

    def _begin(self, event: Any) -> None:
        at = _start(event)
        self._plain_only(event, at)
        if len(self._open) >= MAX_DEPTH:
            raise _Abort(at, f"nested deeper than {MAX_DEPTH} levels", "flatten the document")
        self._open.append(_Open(at, isinstance(event, yaml.MappingStartEvent)))

    def _end(self) -> None:
        done = self._open.pop()
        value = done.keys if done.is_mapping else done.items
        self._add(Node(value, *done.at, key_positions=done.keys_at))

    def _plain_only(self, event: Any, at: Position) -> None:
        if event.anchor is not None:
            hint = "write the value out, or quote text that begins with `&`"
            self._checker.fault(at, f"an anchor (&{shown(event.anchor)}) is not read", hint)
        if event.tag is not None:
            hint = "remove it, or quote text that begins with `!`"
            self._checker.fault(at, f"a tag ({shown(event.tag)}) is not read", hint)

    def _scalar(self, event: Any) -> Node:
        at = _start(event)
        self._plain_only(event, at)
        text: str = event.value
        if event.anchor is not None or event.tag is not None:
            return Node(text, *at, text=text, is_faulty=True)
        if event.style:  # quoted or a block: text, whatever it looks like
            return Node(text, *at, text=text)
        if text in _NULLS:
            return Node(None, *at, text=text)
        if text in _TRUES:
            return Node(True, *at, text=text)
        if text in _FALSES:
            return Node(False, *at, text=text)
        if text[0] not in "+-.0123456789":
            return Node(text, *at, text=text)
        return self._number(text, at)

    def _number(self, text: str, at: Position) -> Node:
        if text.lower() in (".inf", "+.inf", "-.inf", ".nan"):
            return Node(float(text.replace(".", "")), *at, text=text)
        is_integer = _INTEGER.match(text) is not None
        if (is_integer or _AMBIGUOUS.match(text)) and len(text) > MAX_DIGITS:
            self._checker.fault(at, f"the number {shown(text, 20)} is too long", "quote it if it is meant as text")
            return Node(0, *at, text=text, is_faulty=True)
        if is_integer:
            return Node(int(text, 16) if text.startswith("0x") else int(text), *at, text=text)
        if _AMBIGUOUS.match(text):
            self._checker.fault(
                at,
                f"versions of YAML read {shown(text)} as different numbers",
                f'write "{text}" if it is text, or the plain decimal number',
            )
            return Node(0, *at, text=text, is_faulty=True)
        if _FLOAT.match(text):
            return Node(float(text), *at, text=text)
        return Node(text, *at, text=text)

    def _add(self, node: Node) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Abort((node.line, node.column), f"more than {MAX_NODES} values in one file", "split the file")
        if not self._open:
            if len(self._documents) >= MAX_DOCUMENTS:
                raise _Abort((node.line, node.column), f"more than {MAX_DOCUMENTS} documents", "split the file")
            self._documents.append(node)
            return
        top = self._open[-1]
        if not top.is_mapping:
            top.items.append(node)
        elif top.key is None:
            top.key = self._key(node, top)
        else:
            top.keys[top.key] = node
            top.key = None

    def _key(self, node: Node, mapping: _Open) -> str:
        """Check a key. A faulty one gets a name that no check knows, so that reading can go on."""
        at = (node.line, node.column)
        key: str | None = None
        if isinstance(node.value, str):
            key = node.value
        elif isinstance(node.value, int) and not isinstance(node.value, bool) and node.text.isdigit():
            key = node.text
        if key is None:
            braces = "quote text that begins with a brace, and render a template such as {{ ... }} first"
            hint = braces if isinstance(node.value, dict) else "write it in quotes"
            self._checker.fault(node, f"a key is {node.kind}, not text", hint)
        elif key.startswith("\0"):
            self._checker.fault(at, "a key begins with a NUL character", "remove it")
        elif key == "<<":
            self._checker.fault(at, "a merge key (<<) is not read", "write the keys out")
        elif key in mapping.keys_at:
            first = mapping.keys_at[key][0]
            message = f"the key {quoted(key)} stands twice in this mapping (first in line {first})"
            self._checker.fault(at, message, "keep one of the two")
        else:
            mapping.keys_at[key] = at
            return key
        self._skipped_keys += 1
        return f"\0{self._skipped_keys}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _start(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
