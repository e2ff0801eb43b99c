"""Values -> YAML, so that every reader (PyYAML, kubectl, Helm) gets the same values back.

Block style, keys in their order, no aliases, text of several lines as a block. What one version of YAML reads as
something else than text stands in quotes.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

_WIDTH: Final = 1 << 30
"""Lines are not folded: a folded text is one that two readers may put together differently."""

# PyYAML quotes what it would itself read as another type (YAML 1.1). Go's reader, which kubectl has, takes more for
# numbers (1e3, 0o17), and y and n for booleans in some versions.
_AMBIGUOUS = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?0[oOxXbB][0-9a-fA-F_]+|[yYnN]|[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)"
)
_BLOCK = re.compile(r"[^\t\r\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]+\Z")

_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")
"""Ends of lines for YAML 1.1 that PyYAML writes as they are without double quotes, and readers make spaces of them."""


class _Dumper(yaml.SafeDumper):
    """Writes without aliases: two equal lists are two lists."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text and _BLOCK.match(text) and not text.startswith((" ", "\n")) and not _has_trailing_space(text):
        style = "|"
    elif _AMBIGUOUS.fullmatch(text) or _BREAKS.search(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _has_trailing_space(text: str) -> bool:
    # A block with a space at the end of a line is a trap for editors, and PyYAML would not write one.
    return any(line.endswith(" ") for line in text.split("\n"))


_Dumper.add_representer(str, _text)


def dump(value: object) -> str:
    r"""Write one document, without `---`.

    >>> dump({"list": [{"a": "x\ny\n"}], "n": "1e3"})
    'list:\n- a: |\n    x\n    y\n"n": "1e3"\n'
    """
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=_WIDTH
    )
    return text
