"""What a sidecar holds in force, as it says itself: a set of certificates or of policies, and its generation.

Whoever mounts new files learns here that they were taken. The sidecar looks at its files twice a second by default
(`runtime.watch_interval`), and a set that is broken never comes into force.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from demo.layout import WORKLOADS, Layout

PROMISED: Final = 2.0
"""Seconds in which a valid set that was mounted is in force; a fault of the tour beyond."""
_BETWEEN_LOOKS: Final = 0.03
_FOR_THE_OTHERS: Final = 1.0
"""Two looks of a sidecar at its files: a fault is told at the second."""
_SAID: Final = re.compile(r" (certificates|policy) generation (\d+) in force: (?:serial|digest) ([0-9a-f]+)")

_NEWS: Final = re.compile(
    r" remora: ((?:policy|config) generation \d+ in force"
    r"|(?:policy|certificates|config)"
    r"(?: rejected, the last valid ones stay in force: .*|: what is mounted is again .*))"
    r"| remora\.enrolment: (our certificate cannot be renewed, .*)"
)
"""A renewal is none: each sidecar has one or two a minute."""
_ROTATES: Final = re.compile(r" remora\.authority: (rotation: .*)")

Kind = Literal["certificates", "policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A set in force: `generation` counts from 1, `name` is the serial of the certificate or begins the digest."""

    generation: int
    name: str


def last_in_force(log: str, kind: Kind) -> InForce:
    """Find in the log of a sidecar what it took last; generation 0 when it took nothing.

    >>> last_in_force("I remora: certificates generation 2 in force: serial 5f, 24.0 h left", "certificates")
    InForce(generation=2, name='5f')
    """
    last = InForce(generation=0, name="")
    for found in _SAID.finditer(log):
        if found[1] == kind:
            last = InForce(generation=int(found[2]), name=found[3])
    return last


def in_force(layout: Layout, workload: str, kind: Kind) -> InForce:
    """Look up what the sidecar of a workload took last."""
    return last_in_force(layout.sidecar_log(workload).read_text(errors="replace"), kind)


class SidecarLogs:
    """Follows the logs of all sidecars from now on.

    All of them read the same policies, each at its own moments, and say the same about them: what one says waits a
    second for the others.
    """

    def __init__(self, layout: Layout) -> None:
        self._waiting: dict[str, tuple[float, list[str]]] = {}
        self._tails = {name: _Tail(layout.sidecar_log(name)) for name in WORKLOADS}

    def news(self, now: float) -> dict[str, list[str]]:
        """Give what was taken or rejected -> the workloads whose sidecars say so; `now` in seconds of any clock."""
        for workload in WORKLOADS:
            for found in filter(None, map(_NEWS.search, self._tails[workload].lines())):
                self._waiting.setdefault(found[1] or found[2], (now, []))[1].append(workload)
        told = {
            text: sorted(workloads, key=WORKLOADS.index)
            for text, (since, workloads) in self._waiting.items()
            if len(workloads) == len(WORKLOADS) or now - since >= _FOR_THE_OTHERS
        }
        for text in told:
            del self._waiting[text]
        return told


class AuthorityLogs:
    """Follows the log and the audit log of the authority from now on: steps of a rotation, and whom it refuses."""

    def __init__(self, layout: Layout) -> None:
        self._log, self._audit = _Tail(layout.authority_log), _Tail(layout.audit_log)

    def news(self) -> list[str]:
        """Give what the authority did and refused since the last call."""
        told = [found[1] for line in self._log.lines() if (found := _ROTATES.search(line))]
        for line in map(json.loads, self._audit.lines()):
            if line["event"] == "refused":
                told.append(
                    f"refused {line['caller'] or line['presented_unverified'] or 'somebody'}: {line['message']}"
                )
        return told


class _Tail:
    """The lines that are added to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size

    def lines(self) -> list[str]:
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = b"".join(file.read().rpartition(b"\n")[0:2])
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()


def eventually(holds: Callable[[], bool], seconds: float = PROMISED) -> bool:
    """Look again and again until something holds; False when it does not in the end."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_BETWEEN_LOOKS)
    return True
