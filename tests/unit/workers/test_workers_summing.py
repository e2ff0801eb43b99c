"""Counts of several processes as one: equal to counting in one process, and never less than before."""

from __future__ import annotations

import json
import random

import pytest

from certs.spiffe import SpiffeId
from proxy.config import load_config
from proxy.errors import Reason
from proxy.telemetry.label_sets import LabelSets
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import OTHER, Naming, Peer
from proxy.telemetry.summing import Counted, Numbers, Sum

CONFIG = load_config(
    b"workload: {namespace: demo, service_account: orders, labels: {app: orders}}\n"
    b"identity: {files: {directory: /identity}}\npolicy: {directory: /policy}\n"
    b'outbound: {services: [{name: ledger, endpoints: ["127.0.0.1:1"], tls: none}]}\n',
    "sidecar.yaml",
)
EDGE = Naming.of(CONFIG).edge("inbound", "inbound|8080")
PEERS: tuple[Peer, ...] = (None, OTHER, SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web"))


class Wire:
    """An opaque connection that is open."""

    def __init__(self, carried: int) -> None:
        self.bytes_read = self.bytes_written = carried


def count_something(metrics: Metrics, chance: random.Random) -> None:
    direction = chance.choice(["inbound", "outbound"])
    reason = chance.choice([Reason.OK, Reason.HEAD_TOO_LARGE, Reason.UPSTREAM_RESET])
    edge, peer = EDGE, chance.choice(PEERS)
    number = chance.randrange(1, 10**9)
    match chance.randrange(9):
        case 0:
            metrics.tally(direction, 200, "allow", reason).value += 1
        case 1:
            metrics.connection_opened(direction)
        case 2:
            metrics.connection_ended(direction, "deny", reason)
        case 3:
            metrics.handshake(direction, reason, number)
        case 4:
            metrics.limit(reason)
        case 5:
            metrics.detection_timeout("inbound|8080")
        case 6:
            metrics.stages[direction].add(number, 5, 7)
        case 7:
            metrics.label_sets.requests(edge, peer, status=200, flags="-").add(number, number, 3)
        case _:
            series = metrics.label_sets.connections(edge, peer, flags="-")
            wire = Wire(number)
            series.open(wire)
            if number % 2:
                series.settle(wire)
                series.closed += 1
            metrics.retries += 1


def carried(numbers: Numbers) -> Numbers:
    """What a channel makes of it."""
    return dict(json.loads(json.dumps(numbers)))


def samples(metrics: Metrics) -> list[str]:
    return sorted(metrics.exposition().decode().splitlines())


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_of_processes_is_what_one_would_have_counted(seed: int) -> None:
    chance = random.Random(seed)
    alone, total = Metrics(), Metrics()
    into = Sum(total)
    workers = [(metrics := Metrics(), Counted(metrics, {}), into.part()) for _ in range(3)]
    for step in range(300):
        metrics, counted, part = chance.choice(workers)
        again = random.Random(step)
        count_something(metrics, random.Random(step))
        count_something(alone, again)
        if chance.random() < 0.2:
            part.take(carried(counted.news()))
    for _, counted, part in workers:
        part.take(carried(counted.news()))
    assert samples(total) == samples(alone)


def test_only_what_has_grown_is_told_again() -> None:
    metrics = Metrics()
    counted = Counted(metrics, {"records_lost": lambda: 3})
    assert counted.news()['["other", "records_lost"]'] == [3]
    assert counted.news() == {}
    metrics.connection_opened("inbound")
    assert counted.news() == {'["opened", "inbound"]': [1]}


def test_a_process_that_died_stays_in_the_sum_and_the_one_in_its_place_is_added() -> None:
    total = Metrics()
    into = Sum(total)
    into.part().take({'["opened", "inbound"]': [5], '["other", "records_lost"]': [2]})
    successor = into.part()
    for opened, expected in ((0, 5), (1, 6), (4, 9)):
        successor.take({'["opened", "inbound"]': [opened]})
        assert total.opened == {"inbound": expected}
    assert into.others == {"records_lost": 2}


def test_a_number_that_goes_back_takes_nothing_away() -> None:
    total = Metrics()
    part = Sum(total).part()
    for told, expected in ((5, 5), (3, 5), (6, 6)):
        part.take({'["retries"]': [told]})
        assert total.retries == expected


def test_bytes_of_a_connection_that_is_open_grow_in_the_sum() -> None:
    metrics, total = Metrics(), Metrics()
    counted, part = Counted(metrics, {}), Sum(total).part()
    wire = Wire(10)
    metrics.label_sets.connections(EDGE, None, flags="-").open(wire)
    part.take(counted.news())
    wire.bytes_read = 25
    part.take(counted.news())
    [series] = total.label_sets.all_connections()
    assert (series.opened, series.received, series.sent) == (1, 25, 10)


def test_a_sum_has_a_bound_of_its_own_on_label_sets() -> None:
    metrics, total = Metrics(), Metrics(label_sets=LabelSets(2))
    counted, part = Counted(metrics, {}), Sum(total).part()
    for i in range(5):
        peer = SpiffeId.parse(f"spiffe://cluster.local/ns/demo/sa/web-{i}")
        metrics.label_sets.requests(EDGE, peer, status=200, flags="-").add(1, 1, 1)
    part.take(counted.news())
    assert total.label_sets.overflowed == 3
    assert sum(series.count for series in total.label_sets.all_requests()) == 5


@pytest.mark.parametrize(
    "key",
    ["", "[]", "{}", '["nothing"]', '["limits", "no such reason"]', '["stage", "inbound", "buckets"]', '["opened"]'],
)
def test_what_nobody_counts_is_refused(key: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Sum(Metrics()).part().take({key: [1]})
