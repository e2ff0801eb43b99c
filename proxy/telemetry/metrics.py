"""Everything counted: Istio's metrics about the traffic, and our own (`remora_*`) about the sidecar.

On the hot path a count is an addition to a plain integer that was looked up before; a prometheus-client child costs
0.3 µs and its `labels()` 1 µs. Families are made of it at scrape time; `collector` gives them to prometheus-client.
Labels of our own metrics are closed sets, or names of the configuration; those of Istio's metrics, in which peers have
a word, are bounded by `label_sets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from proxy.errors import Reason
from proxy.telemetry import istio
from proxy.telemetry.families import Family, Histogram, Numbers
from proxy.telemetry.label_sets import LabelSets
from proxy.telemetry.naming import NOBODY, Naming
from proxy.telemetry.series import STAGE_LIMITS, STAGES, Stages, StageTimes, Tally

_NANOSECONDS: Final = 1_000_000_000

_ON_RECORD: Final = frozenset(
    {Reason.HEAD_TOO_LARGE, Reason.TOO_MANY_HEADERS, Reason.HEAD_TIMEOUT, Reason.BUFFER_LIMIT, Reason.POOL_LIMIT}
)
"""Limits that a request or an opaque connection can reach; the others are counted by whoever keeps them."""

_Labelled = Callable[[], Mapping[tuple[str, ...], float]]


class Metrics:
    """What this process has counted since it started, and gauges that are read when somebody looks."""

    def __init__(self, naming: Naming = NOBODY, label_sets: LabelSets | None = None) -> None:
        """`naming` says how the ends of the traffic are called; it is replaced when the configuration changes."""
        self.naming = naming
        self.label_sets = LabelSets() if label_sets is None else label_sets
        self.requests: dict[tuple[str, int, str, Reason], Tally] = {}
        self.opened: dict[str, int] = {}
        self.ended: dict[tuple[str, str, Reason], int] = {}
        self.handshakes: dict[tuple[str, Reason], int] = {}
        self.limits: dict[Reason, int] = {}
        self.detection_timeouts: dict[str, int] = {}
        self.stages = {"inbound": Stages(), "outbound": Stages()}
        self.retries = 0
        self.config_rejected: dict[str, bool] = {}
        """Kind of what is mounted -> whether its content is rejected and an older one serves."""
        self._gauges: list[tuple[str, str, tuple[str, ...], _Labelled]] = []
        self._counters: list[tuple[str, str, Callable[[], float]]] = []

    # --- counting ---

    def tally(self, direction: str, status: int, decision: str, reason: Reason) -> Tally:
        """Find the count of requests that ended so; whoever holds it adds to it."""
        key = direction, status, decision, reason
        found = self.requests.get(key)
        if found is None:
            found = self.requests[key] = Tally()
        return found

    def connection_opened(self, direction: str) -> None:
        """Count an accepted connection."""
        self.opened[direction] = self.opened.get(direction, 0) + 1

    def connection_ended(self, direction: str, decision: str, reason: Reason) -> None:
        """Count the end of a connection."""
        key = (direction, decision, reason)
        self.ended[key] = self.ended.get(key, 0) + 1

    def opaque_ended(self, reason: Reason) -> None:
        """Count the limit that an opaque connection ended by, if it was one."""
        if reason in _ON_RECORD:
            self.limit(reason)

    def handshake(self, direction: str, reason: Reason, nanoseconds: int = 0) -> None:
        """Count a handshake by its result, and the time of one that succeeded."""
        key = (direction, reason)
        self.handshakes[key] = self.handshakes.get(key, 0) + 1
        if reason is Reason.OK:
            self.stages[direction].handshake.add(nanoseconds)

    def limit(self, reason: Reason) -> None:
        """Count a limit that was reached."""
        self.limits[reason] = self.limits.get(reason, 0) + 1

    def detection_timeout(self, cluster: str) -> None:
        """Count a connection that said nothing before its protocol was decided."""
        self.detection_timeouts[cluster] = self.detection_timeouts.get(cluster, 0) + 1

    # --- what others count, read at scrape time ---

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Publish what `read` returns at scrape time as the gauge `name`."""
        self._gauges.append((name, documentation, (), lambda: {(): read()}))

    def gauges(self, name: str, documentation: str, labels: Sequence[str], read: _Labelled) -> None:
        """Publish a gauge with labels: `read` gives the value for each tuple of label values."""
        self._gauges.append((name, documentation, tuple(labels), read))

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Publish a number that somebody else counts as `name`_total."""
        self._counters.append((name, documentation, read))

    # --- writing ---

    def exposition(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return b"".join(self.exposition_parts())

    def exposition_parts(self) -> Iterator[bytes]:
        """Write the same in parts, between which traffic may go on: each family at once, and Istio's in pieces."""
        from proxy.telemetry import collector  # 2.4 MiB of a process that nobody scrapes

        for family in self.own():
            yield collector.text(family)
        yield from istio.text(self.label_sets)

    def own(self) -> Iterator[Family]:
        """Yield what is not Istio's."""
        yield _counter(
            "remora_requests",
            "Finished HTTP requests.",
            ("direction", "response_code", "decision", "reason"),
            {
                (direction, str(status), decision, reason.word): tally.value
                for (direction, status, decision, reason), tally in self.requests.items()
            },
        )
        yield _counter(
            "remora_connections_opened",
            "Accepted connections.",
            ("direction",),
            {(direction,): count for direction, count in self.opened.items()},
        )
        yield _counter(
            "remora_connections_ended",
            "Connections that ended, whatever they carried.",
            ("direction", "decision", "reason"),
            {(direction, decision, reason.word): count for (direction, decision, reason), count in self.ended.items()},
        )
        yield _counter(
            "remora_handshakes",
            "TLS handshakes by result; inbound as server, outbound as client.",
            ("direction", "reason"),
            {(direction, reason.word): count for (direction, reason), count in self.handshakes.items()},
        )
        yield _counter(
            "remora_limits_reached",
            "Limits that were reached.",
            ("reason",),
            {(reason.word,): count for reason, count in self._limits_reached().items()},
        )
        yield _counter(
            "remora_detection_timeouts",
            "Connections that were silent until they were taken for opaque, by port or service.",
            ("upstream_cluster",),
            {(cluster,): count for cluster, count in self.detection_timeouts.items()},
        )
        yield _counter("remora_retries", "Requests sent again on a fresh connection.", (), {(): self.retries})
        yield self._stage_times()
        yield _gauge(
            "remora_config_rejected",
            "1 while what is mounted is not valid and the last valid content serves.",
            ("kind",),
            {(kind,): float(rejected) for kind, rejected in self.config_rejected.items()},
        )
        yield _gauge("remora_label_sets", "Label sets of the istio_* metrics in use.", (), {(): self.label_sets.count})
        yield _counter(
            "remora_label_sets_overflowed",
            "Requests and opaque connections whose peer was counted as `other`: too many label sets were in use.",
            (),
            {(): self.label_sets.overflowed},
        )
        for name, documentation, count in self._counters:
            yield _counter(name, documentation, (), {(): count()})
        for name, documentation, labels, read in self._gauges:
            yield _gauge(name, documentation, labels, read())

    def _limits_reached(self) -> dict[Reason, int]:
        limits = dict(self.limits)
        for (_, _, _, reason), tally in self.requests.items():
            if reason in _ON_RECORD:
                limits[reason] = limits.get(reason, 0) + tally.value
        return limits

    def _stage_times(self) -> Family:
        values: dict[tuple[str, ...], tuple[list[tuple[str, int]], float]] = {}
        for direction, stages in self.stages.items():
            for stage in STAGES:
                times: StageTimes = getattr(stages, stage)
                buckets = list(zip(STAGE_LIMITS, accumulate(times.buckets), strict=True))
                values[direction, stage] = buckets, times.sum / _NANOSECONDS
        return Histogram(
            "remora_stage_duration_seconds",
            "Time that a stage took; transfer of bodies is none.",
            values,
            ("direction", "stage"),
        )


def _counter(name: str, documentation: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Family:
    return Numbers("counter", name, documentation, values, labels)


def _gauge(name: str, documentation: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Family:
    return Numbers("gauge", name, documentation, values, labels)
