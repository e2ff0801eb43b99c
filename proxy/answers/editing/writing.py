"""How values are written into YAML and JSON: plain where that reads the same everywhere, in quotes elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z").match
_WORDS: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def scalar(text: str, quote: str) -> str:
    """Write a text; `quote` is what stands around those beside it: nothing, `'` or `"`.

    >>> scalar("GET", ""), scalar("8080", ""), scalar("/a", "'"), scalar("yes", "")
    ('GET', '"8080"', "'/a'", '"yes"')
    """
    if not quote and _PLAIN(text) and text.lower() not in _WORDS:
        return text
    if quote == "'" and text.isprintable() and "'" not in text:
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=not text.isprintable())


def flow(value: Any, quote: str) -> str:
    """Write a value between brackets.

    >>> flow({"to": [{"operation": {"paths": ["/a"]}}]}, "")
    '{to: [{operation: {paths: [/a]}}]}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key, quote)}: {flow(item, quote)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, quote) for item in value) + "]"
    return scalar(value, quote)


def block_lines(value: Mapping[str, Any]) -> list[str]:
    """Write a mapping in lines, lists of texts between brackets.

    >>> block_lines({"from": [{"source": {"principals": ["a/b"]}}]})
    ['from:', '- source:', '    principals: ["a/b"]']
    """
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            lines += [f"{scalar(key, '')}:", *(f"  {line}" for line in block_lines(item))]
        elif isinstance(item, list) and any(isinstance(each, Mapping) for each in item):
            lines.append(f"{scalar(key, '')}:")
            for each in item:
                first, *rest = block_lines(each)
                lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines.append(f"{scalar(key, '')}: {flow(item, chr(34))}" if isinstance(item, list) else _pair(key, item))
    return lines


def _pair(key: str, text: str) -> str:
    return f"{scalar(key, '')}: {scalar(text, '')}"
