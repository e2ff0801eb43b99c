"""`Node` -> plain values, with a fault for everything that is not as it must be."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

from proxy.documents.node import Node, Position, quoted, shown
from proxy.errors import Fault

MAX_FAULTS = 100  # nobody reads more at once; bounds the cost of hostile files
_NO_HOMES: Mapping[str, str] = MappingProxyType({})


class Checker:
    """Takes plain values out of nodes and collects a fault for each that is not as it must be.

    Every method takes `node` (None: the key is absent) and `where`, the name of the value in messages, for example
    `inbound.ports[0].listen`. An absent or faulty value gives the default, so that checking goes on and finds
    everything; a caller uses the result only when `faults` is empty.

    >>> from proxy.documents import parse
    >>> documents, _ = parse(b"port: http\\n", "remora.yaml")
    >>> checker = Checker("remora.yaml")
    >>> fields = checker.mapping(documents[0], "inbound", ("port",))
    >>> checker.integer(fields.get("port"), "inbound.port", minimum=1, maximum=65535)
    0
    >>> print(checker.faults[0])
    remora.yaml:1:7: `inbound.port` must be an integer, not the text "http"
    """

    def __init__(self, file: str, homes: Mapping[str, str] = _NO_HOMES) -> None:
        """Check values of `file`; `homes` says of keys where they belong, for those who wrote one elsewhere."""
        self.file = file
        self._homes = homes
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []

    @property
    def is_full(self) -> bool:
        """Say whether further faults are dropped."""
        return len(self.faults) >= MAX_FAULTS

    def fault(self, at: Node | Position, message: str, hint: str = "") -> None:
        """Record something wrong; the file cannot be taken."""
        if not self.is_full and not (isinstance(at, Node) and at.is_faulty):
            self.faults.append(self._place(at, message, hint))

    def warning(self, at: Node | Position, message: str, hint: str = "", code: str = "") -> None:
        """Record something that is allowed and probably not meant; `code` is its stable id."""
        if len(self.warnings) < MAX_FAULTS:
            self.warnings.append(self._place(at, message, hint, code))

    def _place(self, at: Node | Position, message: str, hint: str, code: str = "") -> Fault:
        line, column = (at.line, at.column) if isinstance(at, Node) else at
        return Fault(file=self.file, line=line, column=column, message=message, hint=hint, code=code)

    def _wrong(self, node: Node, where: str, wanted: str, hint: str = "") -> None:
        if node.value is None:
            write = "write its keys below it, indented further," if wanted == "a mapping" else f"write {wanted},"
            left_out = "item" if where.endswith("]") else "key"
            self.fault(node, f"`{where}` has no value", f"{write} or leave the {left_out} out")
        else:
            self.fault(node, f"`{where}` must be {wanted}, not {node.kind}", hint)

    def mapping(
        self, node: Node | None, where: str, known: Collection[str], *, required: Iterable[str] = ()
    ) -> dict[str, Node]:
        """Take a mapping whose keys are all in `known`; keys outside are faults and are left out of the result."""
        fields = self.any_mapping(node, where)
        if node is None or not isinstance(node.value, dict):
            return fields
        for key in [key for key in fields if key not in known]:
            if not self.is_full:
                self.fault(node.at(key), f"unknown key {quoted(key)} in `{where}`", self._mend_key(key, known))
            del fields[key]
        for key in required:
            if key not in fields:
                self.fault(node, f"`{where}` lacks the key `{key}`")
        return fields

    def _mend_key(self, key: str, known: Collection[str]) -> str:
        """Say what to do with an unknown key; one that belongs elsewhere is no slip of the pen, unless nearly right."""
        if key in self._homes and not nearest(key, known):
            return f"`{key}` belongs in {self._homes[key]}"
        return did_you_mean(key, known)

    def any_mapping(self, node: Node | None, where: str) -> dict[str, Node]:
        """Take a mapping whose keys are the writer's own (labels, for example)."""
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            is_list = isinstance(node.value, list)
            hint = "write its keys without a dash" if is_list else "write `key: value` below it, indented further"
            self._wrong(node, where, "a mapping", hint)
            return {}
        return {key: value for key, value in node.value.items() if not key.startswith("\0")}

    def string_mapping(self, node: Node | None, where: str) -> dict[str, str]:
        """Take a mapping from text to text; empty text is allowed as a value."""
        fields = self.any_mapping(node, where)
        return {key: self.string(value, f"{where}.{shown(key)}", may_be_empty=True) for key, value in fields.items()}

    def sequence(self, node: Node | None, where: str, *, of_text: bool = False) -> list[Node]:
        """Take a list; its items are unchecked. `of_text` says that they should be texts."""
        if node is None:
            return []
        if not isinstance(node.value, list):
            is_word = of_text and 0 < len(node.text) <= 64 and node.text.isprintable()
            items = ", ".join(quoted(part.strip()) for part in node.text.split(","))
            hint = f"write [{items}]" if is_word else "begin each item with '- '"
            self._wrong(node, where, "a list", hint)
            return []
        return node.value

    def string_list(self, node: Node | None, where: str) -> list[str]:
        """Take a list of texts that are not empty."""
        return [self.string(item, f"{where}[{i}]") for i, item in enumerate(self.sequence(node, where, of_text=True))]

    def string(self, node: Node | None, where: str, default: str = "", *, may_be_empty: bool = False) -> str:
        """Take text. A plain `yes`, `on`, `8080` or `1.5` is a fault: quotes make it text."""
        if node is None:
            return default
        if isinstance(node.value, str):
            if node.value or may_be_empty:
                return node.value
            self.fault(node, f"`{where}` is empty text", "write a value, or leave it out")
            return default
        match node.value:
            case list():
                hint = "write the text alone, without a dash or brackets"
            case dict():
                hint = "quote text that has braces or a colon and a space"
            case _:
                hint = f'write "{shown(node.text)}" with the quotes'
        self._wrong(node, where, "text", hint)
        return default

    def integer(
        self,
        node: Node | None,
        where: str,
        default: int = 0,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> int:
        """Take an integer between `minimum` and `maximum`, both included."""
        if node is None:
            return default
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            quotes = isinstance(node.value, str) and node.value.lstrip("+-").isdecimal()
            self._wrong(node, where, "an integer", "remove the quotes" if quotes else "")
            return default
        return int(node.value) if self._in_range(node, where, node.value, minimum, maximum) else default

    def number(
        self,
        node: Node | None,
        where: str,
        default: float = 0.0,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float:
        """Take a finite number between `minimum` and `maximum`, both included."""
        if node is None:
            return default
        value = node.value
        if not isinstance(value, int | float) or isinstance(value, bool) or value - value != 0:
            quotes = isinstance(value, str) and value.replace(".", "", 1).isdecimal()
            self._wrong(node, where, "a number", "remove the quotes" if quotes else "")
            return default
        return float(value) if self._in_range(node, where, value, minimum, maximum) else default

    def _in_range(self, node: Node, where: str, value: float, minimum: float | None, maximum: float | None) -> bool:
        if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
            return True
        if maximum is None:
            wanted = f"at least {minimum}"
        elif minimum is None:
            wanted = f"at most {maximum}"
        else:
            wanted = f"between {minimum} and {maximum}"
        self.fault(node, f"`{where}` must be {wanted}, not {shown(node.text)}")
        return False

    def boolean(self, node: Node | None, where: str, default: bool = False) -> bool:
        """Take a boolean."""
        if node is None:
            return default
        if isinstance(node.value, bool):
            return node.value
        quotes = isinstance(node.value, str) and node.value in ("true", "false")
        self._wrong(node, where, "true or false", "remove the quotes" if quotes else "")
        return default

    def choice(self, node: Node | None, where: str, choices: Sequence[str], default: str = "") -> str:
        """Take one of several words."""
        if node is None:
            return default
        written = node.text if isinstance(node.value, bool) else node.value  # `off` may be a word of the list
        if isinstance(written, str) and written in choices:
            return written
        near = nearest(written, choices) if isinstance(written, str) else ""
        self._wrong(node, where, f"one of {', '.join(choices)}", f"did you mean `{near}`?" if near else "")
        return default


def did_you_mean(word: str, known: Collection[str], cutoff: float = 0.7) -> str:
    """Write the hint that names the known word nearest to `word`, or all of them when none is near.

    `cutoff` is how alike two words must be, from 0 to 1 (equal); raise it where all known words are much alike.

    >>> did_you_mean("namespace", ("namespaces", "ports"))
    'did you mean `namespaces`?'
    >>> did_you_mean("zebra", ("namespaces", "ports"))
    'known here: namespaces, ports'
    """
    near = nearest(word, known, cutoff)
    if near:
        return f"did you mean `{near}`?"
    names = sorted(known)
    return f"known here: {', '.join(names)}" if names else ""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Find the known word most like `word`, "" when none is alike; case, `-` and `_` do not count."""
    by_lower: dict[str, str] = {}
    for name in known:
        by_lower.setdefault(_squeezed(name), name)
    near = difflib.get_close_matches(_squeezed(word[:64]), by_lower, n=1, cutoff=cutoff)
    return by_lower[near[0]] if near else ""


def _squeezed(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
