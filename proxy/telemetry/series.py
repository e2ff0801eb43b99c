"""What the hot path counts in: plain integers, found once and then only added to.

A request of a known label set costs three searches in a short tuple and six additions, 0.5 µs; a prometheus-client
histogram costs 1 µs for each observation, and another 1 µs to find its child by labels. Bucket `i` of a histogram
counts what is at most `bounds[i]` and more than the bound before it, the last one what is beyond all bounds; they are
summed up when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, Protocol

from proxy.telemetry.naming import Edge, Peer

_MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""

_MILLISECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)
"""Envoy's bounds up to half a minute, and below its first, 500 µs, those that two hops on one machine need."""

_BYTES: Final = (256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 16_777_216)

_SECONDS: Final[tuple[float, ...]] = (
    *(50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0),
)
"""A decision costs 2 µs, a connection to the application 100, a handshake 800, and a deadline ends the worst."""

DURATION_BOUNDS: Final = tuple(round(bound * _MS) for bound in _MILLISECONDS)
SIZE_BOUNDS: Final = _BYTES
STAGE_BOUNDS: Final = tuple(round(bound * 1_000 * _MS) for bound in _SECONDS)


def _limits(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return *(str(int(bound)) if bound == int(bound) else repr(bound) for bound in bounds), "+Inf"


DURATION_LIMITS: Final = _limits(_MILLISECONDS)
"""The bounds as the label `le` has them."""
SIZE_LIMITS: Final = _limits(_BYTES)
STAGE_LIMITS: Final = _limits(_SECONDS)


class Tally:
    """One number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class RequestSeries:
    """The requests of one label set: durations in nanoseconds, bodies in bytes, each as buckets and a sum.

    `peer` is "other" in a series that many peers share.
    """

    __slots__ = (
        "duration_sum",
        "durations",
        "labels",
        "peer",
        "received",
        "received_sum",
        "sent",
        "sent_sum",
        "text",
    )

    def __init__(self, edge: Edge, peer: Peer, *, status: int, flags: str) -> None:
        self.peer = peer
        self.labels = edge.labels(peer, protocol="http", status=status, flags=flags)
        self.text = label_text(self.labels)
        self.durations = [0] * (len(DURATION_BOUNDS) + 1)
        self.received = [0] * (len(SIZE_BOUNDS) + 1)
        self.sent = [0] * (len(SIZE_BOUNDS) + 1)
        self.duration_sum = self.received_sum = self.sent_sum = 0

    @property
    def count(self) -> int:
        """Requests counted."""
        return sum(self.durations)

    def add(self, nanoseconds: int, received: int, sent: int) -> None:
        """Count a request that took `nanoseconds`, with `received` bytes of body and `sent` bytes of the answer's."""
        self.durations[bisect_left(DURATION_BOUNDS, nanoseconds)] += 1
        self.duration_sum += nanoseconds
        self.received[bisect_left(SIZE_BOUNDS, received)] += 1
        self.received_sum += received
        self.sent[bisect_left(SIZE_BOUNDS, sent)] += 1
        self.sent_sum += sent


class Metered(Protocol):
    """The downstream side of an opaque connection, which counts its own bytes."""

    bytes_read: int
    bytes_written: int


class ConnectionSeries:
    """The opaque connections of one label set. What is open is read when somebody scrapes: it may stay for days."""

    __slots__ = ("_ended_received", "_ended_sent", "_open", "closed", "labels", "opened", "peer", "text")

    def __init__(self, edge: Edge, peer: Peer, *, flags: str) -> None:
        self.peer = peer
        self.labels = edge.labels(peer, protocol="tcp", status=None, flags=flags)
        self.text = label_text(self.labels)
        self.opened = self.closed = 0
        self._ended_received = self._ended_sent = 0
        self._open: set[Metered] = set()

    def open(self, wire: Metered) -> None:
        """Count a connection, and from now on its bytes."""
        self.opened += 1
        self._open.add(wire)

    def settle(self, wire: Metered) -> None:
        """Keep the bytes of a connection that has ended."""
        self._open.remove(wire)
        self._ended_received += wire.bytes_read
        self._ended_sent += wire.bytes_written

    def add(self, opened: int, closed: int, received: int, sent: int) -> None:
        """Count what another process has counted."""
        self.opened += opened
        self.closed += closed
        self._ended_received += received
        self._ended_sent += sent

    @property
    def received(self) -> int:
        """Bytes that came from the downstream side."""
        return self._ended_received + sum(wire.bytes_read for wire in self._open)

    @property
    def sent(self) -> int:
        """Bytes that went to the downstream side."""
        return self._ended_sent + sum(wire.bytes_written for wire in self._open)


class StageTimes:
    """How long one stage took: buckets and a sum, in nanoseconds."""

    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(STAGE_BOUNDS) + 1)
        self.sum = 0

    def add(self, nanoseconds: int) -> None:
        """Count one passage."""
        self.buckets[bisect_left(STAGE_BOUNDS, nanoseconds)] += 1
        self.sum += nanoseconds


STAGES: Final = ("handshake", "policy", "upstream_connection", "upstream_response")
"""As access records name them."""


class Stages:
    """The stages of one direction."""

    __slots__ = STAGES

    def __init__(self) -> None:
        self.handshake = StageTimes()
        self.policy = StageTimes()
        self.upstream_connection = StageTimes()
        self.upstream_response = StageTimes()

    def add(self, policy: int, upstream_connection: int, upstream_response: int) -> None:
        """Count a request that went through all stages; one call, which costs 0.2 µs less than three."""
        times = self.policy
        times.buckets[bisect_left(STAGE_BOUNDS, policy)] += 1
        times.sum += policy
        times = self.upstream_connection
        times.buckets[bisect_left(STAGE_BOUNDS, upstream_connection)] += 1
        times.sum += upstream_connection
        times = self.upstream_response
        times.buckets[bisect_left(STAGE_BOUNDS, upstream_response)] += 1
        times.sum += upstream_response


def label_text(labels: dict[str, str]) -> str:
    """Write labels as they stand between the braces of a sample."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
