"""What a look at a cluster finds: a line each, with how bad it is and what to do.

Judging is apart from asking: the modules `check_cluster`, `check_rights`, `check_control` and `check_pods` take what
an API server answered and give findings, and `check_run` asks.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.documents import shown

SHOWN: Final = 5
"""Names in one line; a thousand pods without a sidecar are one finding, not a thousand."""


class Level(enum.Enum):
    """How bad: nothing to do, worth a look, or something does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was found, and what mends it. `check` is the stable name of what was looked at."""

    level: Level
    check: str
    what: str
    mend: str = ""

    @property
    def line(self) -> str:
        """Write it for a person.

        >>> Finding(level=Level.WARN, check="clock", what="8 s behind", mend="run a time service").line
        'warn  8 s behind  -> run a time service'
        """
        text = f"{self.level.value:<4}  {shown(self.what, 400)}"
        return f"{text}  -> {shown(self.mend, 400)}" if self.mend else text

    @property
    def document(self) -> dict[str, str]:
        """Give it for programs."""
        return {"level": self.level.value, "check": self.check, "what": self.what, "mend": self.mend}


def ok(check: str, what: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(level=Level.OK, check=check, what=what)


def warn(check: str, what: str, mend: str) -> Finding:
    """Say that something is worth a look."""
    return Finding(level=Level.WARN, check=check, what=what, mend=mend)


def fail(check: str, what: str, mend: str) -> Finding:
    """Say that something does not work."""
    return Finding(level=Level.FAIL, check=check, what=what, mend=mend)


def fails(findings: Iterable[Finding]) -> bool:
    """Say whether something does not work."""
    return any(finding.level is Level.FAIL for finding in findings)


def listed(names: Sequence[str]) -> str:
    """Write names for one line, the first of them and how many more.

    >>> listed(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    begin = ", ".join(names[:SHOWN])
    return begin if len(names) <= SHOWN else f"{begin} and {len(names) - SHOWN} more"


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun.

    >>> counted(1, "pod"), counted(2, "pod")
    ('1 pod', '2 pods')
    """
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"
