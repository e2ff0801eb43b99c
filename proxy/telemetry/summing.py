"""What several processes have counted, as one: each says what has grown, and the sum is only ever added to.

    worker:      metrics --Counted.news()--> {key: numbers}        what differs from last time, counted from its start
    supervisor:  {key: numbers} --Part.take()--> metrics           what differs from the last time is added

A process that has died needs no care: what it had said is in the sum, and the one in its place counts from 0 in a part
of its own. So no counter ever goes backwards. What is lost is what a process counted after it was last asked.

A key is the JSON text of a list: what kind of count it is, and its labels. Numbers are integers that only grow:
nanoseconds, bytes or occurrences.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any, Final

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import OTHER, Edge, End, Peer
from proxy.telemetry.series import RequestSeries, Stages

Numbers = dict[str, list[int]]
"""Key -> numbers since the process began."""

_END: Final = tuple(field.name for field in fields(End))


class Counted:
    """Reads what a `Metrics` has counted. `others` are counts that somebody else keeps, by name."""

    def __init__(self, metrics: Metrics, others: Mapping[str, Callable[[], int]]) -> None:
        self._metrics = metrics
        self._others = others
        self._told: Numbers = {}
        self._texts: dict[tuple[Any, ...], str] = {}

    def news(self) -> Numbers:
        """Give what differs from the last call."""
        news = {key: numbers for key, numbers in self._all() if self._told.get(key) != numbers}
        self._told |= news
        return news

    def _all(self) -> Iterator[tuple[str, list[int]]]:
        metrics = self._metrics
        for (direction, status, decision, reason), tally in metrics.requests.items():
            yield self._key("requests", direction, status, decision, reason.word), [tally.value]
        for direction, count in metrics.opened.items():
            yield self._key("opened", direction), [count]
        for (direction, decision, reason), count in metrics.ended.items():
            yield self._key("ended", direction, decision, reason.word), [count]
        for (direction, reason), count in metrics.handshakes.items():
            yield self._key("handshakes", direction, reason.word), [count]
        for reason, count in metrics.limits.items():
            yield self._key("limits", reason.word), [count]
        for cluster, count in metrics.detection_timeouts.items():
            yield self._key("detection_timeouts", cluster), [count]
        yield self._key("retries"), [metrics.retries]
        for direction, stages in metrics.stages.items():
            for stage in Stages.__slots__:
                times = getattr(stages, stage)
                yield self._key("stage", direction, stage), [*times.buckets, times.sum]
        for (edge, peer, status, flags), series in metrics.label_sets.keyed_requests():
            yield self._key("http", edge, peer, status, flags), _requests(series)
        for (edge, peer, flags), opaque in metrics.label_sets.keyed_connections():
            numbers = [opaque.opened, opaque.closed, opaque.received, opaque.sent]
            yield self._key("tcp", edge, peer, flags), numbers
        for name, read in self._others.items():
            yield self._key("other", name), [read()]

    def _key(self, *labels: Any) -> str:
        """Write a key; kept, since writing those of a thousand label sets anew costs 10 ms."""
        text = self._texts.get(labels)
        if text is None:
            text = self._texts[labels] = json.dumps([_plain(label) for label in labels])
        return text


class Sum:
    """Adds up the counts of several processes in one `Metrics`, where pages find them as if it were one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.others: dict[str, int] = {}
        """What `Counted` was given as `others`, by name."""

    def part(self) -> Part:
        """Begin to add the counts of one process."""
        return Part(self)

    def add(self, key: str, grown: Sequence[int]) -> None:
        """Add to what `key` names. Raises ValueError, TypeError or KeyError when no such thing is counted."""
        metrics = self._metrics
        match json.loads(key):
            case ["requests", direction, status, decision, word]:
                metrics.tally(direction, status, decision, Reason(word)).value += grown[0]
            case ["opened", direction]:
                metrics.opened[direction] = metrics.opened.get(direction, 0) + grown[0]
            case ["ended", direction, decision, word]:
                ended = direction, decision, Reason(word)
                metrics.ended[ended] = metrics.ended.get(ended, 0) + grown[0]
            case ["handshakes", direction, word]:
                handshake = direction, Reason(word)
                metrics.handshakes[handshake] = metrics.handshakes.get(handshake, 0) + grown[0]
            case ["limits", word]:
                metrics.limits[Reason(word)] = metrics.limits.get(Reason(word), 0) + grown[0]
            case ["detection_timeouts", cluster]:
                metrics.detection_timeouts[cluster] = metrics.detection_timeouts.get(cluster, 0) + grown[0]
            case ["retries"]:
                metrics.retries += grown[0]
            case ["stage", direction, stage] if stage in Stages.__slots__:
                times = getattr(metrics.stages[direction], stage)
                _add(times.buckets, grown[:-1])
                times.sum += grown[-1]
            case ["http", edge, peer, status, flags]:
                series = metrics.label_sets.requests(_edge(edge), _peer(peer), status=status, flags=flags)
                _add_requests(series, grown)
            case ["tcp", edge, peer, flags]:
                opened, closed, received, sent = grown
                opaque = metrics.label_sets.connections(_edge(edge), _peer(peer), flags=flags)
                opaque.add(opened, closed, received, sent)
            case ["other", name]:
                self.others[name] = self.others.get(name, 0) + grown[0]
            case _:
                raise ValueError(f"nothing is counted as {key}")


class Part:
    """One process of a sum."""

    __slots__ = ("_sum", "_taken")

    def __init__(self, into: Sum) -> None:
        self._sum = into
        self._taken: Numbers = {}

    def take(self, news: Mapping[str, Sequence[int]]) -> None:
        """Take what `Counted.news` gave. A number below the last one adds nothing: it would take away."""
        for key, numbers in news.items():
            before = self._taken.get(key) or [0] * len(numbers)
            grown = [max(number - old, 0) for number, old in zip(numbers, before, strict=True)]
            self._sum.add(key, grown)
            self._taken[key] = [old + more for old, more in zip(before, grown, strict=True)]


# --- keys ---


def _plain(label: Any) -> Any:
    if isinstance(label, Edge):
        return [label.reporter, list(astuple(label.own)), label.service, label.service_name, label.service_namespace]
    return str(label) if isinstance(label, SpiffeId) else label


def _edge(plain: Sequence[Any]) -> Edge:
    reporter, own, service, service_name, service_namespace = plain
    return Edge(
        reporter=reporter,
        own=End(**dict(zip(_END, own, strict=True))),
        service=service,
        service_name=service_name,
        service_namespace=service_namespace,
    )


def _peer(plain: str | None) -> Peer:
    if plain is None or plain == OTHER:
        return OTHER if plain else None
    return SpiffeId.parse(plain)


# --- numbers ---


def _requests(series: RequestSeries) -> list[int]:
    sums = series.duration_sum, series.received_sum, series.sent_sum
    return [*series.durations, *series.received, *series.sent, *sums]


def _add_requests(series: RequestSeries, grown: Sequence[int]) -> None:
    at = 0
    for buckets in (series.durations, series.received, series.sent):
        _add(buckets, grown[at : at + len(buckets)])
        at += len(buckets)
    duration_sum, received_sum, sent_sum = grown[at:]
    series.duration_sum += duration_sum
    series.received_sum += received_sum
    series.sent_sum += sent_sum


def _add(into: list[int], grown: Sequence[int]) -> None:
    for i, (number, more) in enumerate(zip(into, grown, strict=True)):
        into[i] = number + more
