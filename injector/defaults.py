"""The defaults file: what pods get where no annotation says otherwise. YAML, the keys of annotations without prefix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from injector.annotations import BY_KEY, conflicts, value_text
from injector.readers import MAX_TEXT
from injector.settings import Settings
from proxy.documents import Checker, Node, parse, shown
from proxy.errors import ConfigError


def read_defaults(data: bytes, source: str) -> Settings:
    """Read a defaults file. An empty one gives the built-in values.

    Raises ConfigError with every fault, each with line and column.

    >>> read_defaults(b"log-level: debug\\n", "defaults.yaml").log_level
    'debug'
    >>> read_defaults(b"log-levle: debug\\n", "defaults.yaml")
    Traceback (most recent call last):
    proxy.errors.ConfigError: defaults.yaml:1:1: unknown key "log-levle" in `the defaults`; did you mean `log-level`?
    """
    documents, faults = parse(data, source)
    checker = Checker(source)
    checker.faults += faults
    if len(documents) > 1:
        checker.fault(documents[1], "a defaults file has one document", "join the documents")
    root = documents[0] if documents and documents[0].value is not None else None
    values: dict[str, Any] = {}
    fields = checker.mapping(root, "the defaults", tuple(BY_KEY))
    for key, node in fields.items():
        _read(checker, key, node, values)
    settings = replace(Settings(), **values)
    if not checker.faults:
        for keys, message in conflicts(settings):
            place = next((fields[key] for key in keys if key in fields), root)
            checker.fault(place if place is not None else (1, 1), message)
    if checker.faults:
        raise ConfigError(checker.faults)
    return settings


def as_document(settings: Settings) -> dict[str, str]:
    """Give the lines of a defaults file that differ from the built-in values."""
    built_in = Settings()
    return {
        row.key: value_text(getattr(settings, row.field))
        for row in BY_KEY.values()
        if getattr(settings, row.field) != getattr(built_in, row.field)
    }


def _read(checker: Checker, key: str, node: Node, values: dict[str, Any]) -> None:
    row = BY_KEY[key]
    where = f"`{key}`"
    if isinstance(node.value, (list, dict)) or node.value is None:
        checker.fault(node, f"{where} must be text, not {node.kind}", f"write {row.kind}")
        return
    # `true`, `8080` and `0.5` need no quotes here: what was written is read as an annotation's text is.
    text = node.value if isinstance(node.value, str) else node.text
    if len(text) > MAX_TEXT:
        checker.fault(node, f"{where} has more than {MAX_TEXT} characters")
        return
    try:
        values[row.field] = row.read(text.strip())
    except ValueError as fault:
        checker.fault(node, f"{where} is {shown(text)}: {fault}")
