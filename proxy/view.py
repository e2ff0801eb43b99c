"""What pages and metrics show of the traffic: read from this process, or gathered from all workers.

A `Live` is numbers of the moment, a `View` also what pages list. Both are read whenever somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from proxy.admin import topics
from proxy.admin.words import Data
from proxy.runtime.registry import Entry
from proxy.sidecar import Sidecar
from proxy.telemetry.decisions_log import Decision

Explained = tuple[Data, str]
"""An explanation as JSON holds it, and as text."""


class Hop(NamedTuple):
    """The connections to one next hop; one that is being dialled is busy. A closed one takes no new request."""

    name: str
    idle: int
    busy: int
    waiting: int
    closed: bool


class Live(Protocol):
    """Numbers of the moment."""

    def ready(self) -> bool:
        """Say whether traffic is served."""

    def open_count(self, direction: str) -> int:
        """Count open connections."""

    def hops(self) -> Sequence[Hop]:
        """List the connections to next hops, each name once."""

    def jwks_up(self) -> Mapping[tuple[str, ...], float]:
        """Say for each jwksUri whether its last fetch gave keys: 1 or 0."""

    def records_lost(self) -> int:
        """Count access records that were lost."""


class View(Live, Protocol):
    """What pages list."""

    def facts(self) -> Data:
        """Give what stands beside the overview's own facts."""

    def connections(self, now: float) -> tuple[int, list[Data]]:
        """Count the open connections, and list the oldest ones first, as many as a page holds."""

    def decisions(self, now: float) -> list[Decision]:
        """Give the decisions of the last minutes, the newest first."""

    def explained(self, decision: Decision) -> Explained | None:
        """Explain a decision of `decisions`; None where there is nothing beyond the record."""


class LocalView:
    """The view of a process that carries its traffic itself."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def ready(self) -> bool:
        return self._sidecar.ready

    def open_count(self, direction: str) -> int:
        return self._sidecar.registry.count(direction)

    def hops(self) -> list[Hop]:
        return summed(
            Hop(pool.name, pool.idle, pool.total - pool.idle, pool.waiting, pool.closed) for pool in self._sidecar.pools
        )

    def jwks_up(self) -> Mapping[tuple[str, ...], float]:
        return self._sidecar.key_store.up()

    def records_lost(self) -> int:
        return self._sidecar.access_log.dropped

    def facts(self) -> Data:
        return {}

    def connections(self, now: float) -> tuple[int, list[Data]]:
        entries = sorted(self._sidecar.registry, key=lambda entry: entry.opened_at)
        return len(entries), [_connection(entry, now) for entry in entries[: topics.MAX_ROWS]]

    def decisions(self, now: float) -> list[Decision]:
        log = self._sidecar.decision_log
        return log.recent(now) if log is not None else []

    def explained(self, decision: Decision) -> Explained | None:
        # Imported when somebody asks: it is 0.7 MiB of an idle process.
        from proxy import explained
        from proxy.answers.told import as_json, as_text

        report = explained.of_decision(self._sidecar, decision)
        return (as_json(report), as_text(report)) if report is not None else None


def summed(hops: Iterable[Hop]) -> list[Hop]:
    """Add up what leads to one name: several workers, or a pool that ends beside the one in its place."""
    found: dict[str, Hop] = {}
    for name, idle, busy, waiting, closed in hops:
        other = found.get(name) or Hop(name, 0, 0, 0, closed=True)
        found[name] = Hop(name, other.idle + idle, other.busy + busy, other.waiting + waiting, other.closed and closed)
    return list(found.values())


def _connection(entry: Entry, now: float) -> Data:
    peer = entry.peer
    return {
        "direction": entry.direction,
        "by": entry.service,
        "remote": entry.remote,
        "peer": str(peer.spiffe_id) if peer is not None else None,
        "age_seconds": round(now - entry.opened_at, 1),
        "certificate_left_seconds": round(peer.not_after - now) if peer is not None else None,
        "serial": peer.serial if peer is not None else None,
    }
