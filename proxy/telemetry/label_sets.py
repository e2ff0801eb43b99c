"""Every label set that was ever counted in, and the bound on those that peers can make.

Whoever holds a certificate can come, and whoever answers can invent a status: both are in labels. A label set costs
3 KiB here and 36 KiB in each scrape, so their number is bounded. When it is reached, the sets that exist go on, and
what would need another one is counted with the peer `other` and the class of the status (RFC 9110 section 15: an
unknown code means what the x00 of its class means). Nothing is ever taken away: a counter that vanishes looks like
a restart.
"""

from __future__ import annotations

import logging
from typing import Final

from proxy.telemetry.naming import OTHER, Edge, Peer
from proxy.telemetry.series import ConnectionSeries, RequestSeries

MAX_LABEL_SETS: Final = 1_000
"""A workload with 100 callers that sees ten statuses of each. Below, ordinary workloads lose detail; above, a scrape
is tens of megabytes and Prometheus, which keeps 44 series for each set, feels a single sidecar."""

_log = logging.getLogger("remora.telemetry")


class LabelSets:
    """Finds the series of a label set, and makes it as long as there is room."""

    __slots__ = ("_connections", "_limit", "_requests", "_warned")

    def __init__(self, limit: int = MAX_LABEL_SETS) -> None:
        self._limit = limit
        self._requests: dict[tuple[Edge, Peer, int, str], RequestSeries] = {}
        self._connections: dict[tuple[Edge, Peer, str], ConnectionSeries] = {}
        self._warned = False

    def requests(self, edge: Edge, peer: Peer, *, status: int, flags: str) -> RequestSeries:
        """Find where a request with this end is counted."""
        key = edge, peer, status, flags
        series = self._requests.get(key)
        if series is None:
            if peer != OTHER and self._is_full():
                return self.requests(edge, OTHER, status=status - status % 100, flags=flags)
            series = self._requests[key] = RequestSeries(edge, peer, status=status, flags=flags)
        return series

    def connections(self, edge: Edge, peer: Peer, *, flags: str) -> ConnectionSeries:
        """Find where an opaque connection is counted; "-" are the flags of one that is open."""
        key = edge, peer, flags
        series = self._connections.get(key)
        if series is None:
            if peer != OTHER and self._is_full():
                return self.connections(edge, OTHER, flags=flags)
            series = self._connections[key] = ConnectionSeries(edge, peer, flags=flags)
        return series

    def all_requests(self) -> list[RequestSeries]:
        """Give every series of requests there is now."""
        return list(self._requests.values())

    def all_connections(self) -> list[ConnectionSeries]:
        """Give every series of connections there is now."""
        return list(self._connections.values())

    def keyed_requests(self) -> list[tuple[tuple[Edge, Peer, int, str], RequestSeries]]:
        """Give the same with what `requests` finds each by: edge, peer, status, flags."""
        return list(self._requests.items())

    def keyed_connections(self) -> list[tuple[tuple[Edge, Peer, str], ConnectionSeries]]:
        """Give the same with what `connections` finds each by: edge, peer, flags."""
        return list(self._connections.items())

    @property
    def count(self) -> int:
        """Label sets in use."""
        return len(self._requests) + len(self._connections)

    @property
    def overflowed(self) -> int:
        """Requests and connections that were counted as those of `other`."""
        requests = sum(series.count for series in self._requests.values() if series.peer == OTHER)
        return requests + sum(series.opened for series in self._connections.values() if series.peer == OTHER)

    def _is_full(self) -> bool:
        if self.count < self._limit:
            return False
        if not self._warned:
            self._warned = True
            _log.warning(
                "%d label sets are in use: metrics count what is new with the principal `%s` from here on; "
                "access records name everybody as before",
                self._limit,
                OTHER,
            )
        return True
