"""Policy files that are refused, each with the faults that it is refused for, in their order.

`tests/corpus/policies/bad/NAME` holds one idea of a fault, as short as it can be shown; `malformed/NAME` a whole
document with one slip, as people and their tools make it. What is expected stands in the file itself, in comments at
its end (`# expect: line:column: message`), or a line each in `NAME.expect` where the content can carry no comment:
JSON, bytes that are no text, a quote that is never closed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

POLICIES = Path(__file__).parent / "corpus" / "policies"
DIRECTORIES = (POLICIES / "bad", POLICIES / "malformed")
SIDECAR = ".expect"


class BadFile(NamedTuple):
    """A file of the corpus; `expected` are its faults without the file's name."""

    name: str
    content: bytes
    expected: tuple[str, ...]

    def faults(self, name: str) -> list[str]:
        """Write the faults as they are told when the file is called `name`."""
        return [f"{name}:{fault}" for fault in self.expected]


def bad_files() -> list[BadFile]:
    """Read the corpus."""
    found: list[BadFile] = []
    for path in sorted(path for directory in DIRECTORIES for path in directory.iterdir()):
        if path.name.endswith(SIDECAR):
            continue
        content = path.read_bytes()
        sidecar = path.with_name(path.name + SIDECAR)
        if sidecar.exists():
            expected = sidecar.read_text(encoding="utf-8").splitlines()
        else:
            expected = re.findall(r"^# expect: (.*)$", content.decode("utf-8"), re.MULTILINE)
        found.append(BadFile(path.name, content, tuple(expected)))
    return found
