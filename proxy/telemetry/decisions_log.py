"""What was decided in the last minutes, for a person who asks why: refusals, and the latest of what was permitted.

A caller that is denied gets a request id and nothing else; by that id whoever runs the mesh finds the decision here,
with its rule and its explanation. It is kept in memory only, and only where there is an admin listener.

Refusals are seldom and are copied at once, cut to a length that somebody reads. Of what is permitted the finished
record itself is kept, one append (0.2 µs), and read when somebody asks; one that holds long texts is cut like a
refusal, so that 200 of them are never megabytes.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.errors import Reason
from proxy.types import Asked

if TYPE_CHECKING:
    from proxy.telemetry.record import Record

WINDOW: Final = 600.0
"""Seconds that a decision is told of: longer than it takes to run to a shell, short enough to be about now."""
REFUSALS: Final = 1_000
"""With the lengths below, and those of `policy.kept`, at most 6 MiB."""
PERMITS: Final = 200

_TEXT: Final = 300
_SENTENCE: Final = 1_000
_SHORT: Final = 2_000
"""Bytes of texts from the wire up to which a permitted record is kept as it is."""

ORDINARY: Final = frozenset(
    {
        Reason.OK,
        Reason.DOWNSTREAM_CLOSED,
        Reason.DOWNSTREAM_RESET,
        Reason.UPSTREAM_CLOSED,
        Reason.IDLE_TIMEOUT,
        Reason.DRAINED,
        Reason.DRAIN_DEADLINE,
    }
)
"""How a connection ends of which nothing had to be decided: its requests were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision. `at` is seconds since the epoch, `decision` "allow", "deny" or "none" (refused before policy).

    `asked` is what policy judged, for an explanation when somebody asks for one.
    """

    at: float
    direction: str
    decision: str
    reason: str
    request_id: str
    source: str
    destination: str
    remote: str
    method: str
    path: str
    authority: str
    protocol: str
    status: int
    rule: str
    generation: int
    explanation: str
    nearest_miss: str
    detail: str
    asked: Asked | None = None


class DecisionLog:
    """The last decisions of this process."""

    __slots__ = ("_permits", "_refusals")

    def __init__(self) -> None:
        self._refusals: deque[Decision] = deque(maxlen=REFUSALS)
        self._permits: deque[Decision | tuple[Record, Reason, str, str]] = deque(maxlen=PERMITS)

    def add(self, record: Record, reason: Reason, detail: str) -> None:
        """Keep a finished record."""
        if record.decision == "allow":
            size = len(record.path) + len(record.user_agent) + len(record.forwarded_for) + len(record.authority)
            if record.method and size <= _SHORT:
                self._permits.append((record, reason, detail, record.scope.destination))
            else:
                self._permits.append(_decision(record, reason, detail, record.scope.destination))
        elif record.decision == "deny" or (reason not in ORDINARY and not _is_told(record, reason)):
            self._refusals.append(_decision(record, reason, detail, record.scope.destination))

    def recent(self, now: float | None = None) -> list[Decision]:
        """Give the decisions of the last minutes, the newest first."""
        since = (time.time() if now is None else now) - WINDOW
        permits = [kept if isinstance(kept, Decision) else _decision(*kept) for kept in self._permits]
        found = [kept for kept in (*self._refusals, *permits) if kept.at >= since]
        return sorted(found, key=lambda kept: kept.at, reverse=True)


def _is_told(record: Record, reason: Reason) -> bool:
    """Say whether the record is that of a connection which a malformed request ended: the request has its own."""
    return not record.method and reason.consequence.flags == "DPE"


def _decision(record: Record, reason: Reason, detail: str, destination: str) -> Decision:
    scope = record.scope
    known = scope.direction == "inbound" or record.decision == "allow"
    return Decision(
        at=record.started_at,
        direction=scope.direction,
        decision=record.decision,
        reason=reason.word,
        request_id=_cut(record.request_id),
        source=_text(scope.source),
        destination=_text(destination) if known else "",
        remote=_text(scope.remote),
        method=_cut(record.method),
        path=_cut(record.path),
        authority=_cut(record.authority),
        protocol=record.protocol,
        status=record.response_code,
        rule=record.rule,
        generation=record.generation,
        explanation=_cut(record.explanation, _SENTENCE),
        nearest_miss=_cut(record.nearest_miss, _SENTENCE),
        detail=_cut(detail, _SENTENCE),
        asked=record.asked,
    )


def _cut(text: str, limit: int = _TEXT) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _text(member: str) -> str:
    """Read a member that stands in records as JSON."""
    return _cut(str(json.loads(member) or ""))
