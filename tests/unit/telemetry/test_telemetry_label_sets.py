"""Label sets are bounded: what comes late shares a set, and nothing that was counted is lost."""

from __future__ import annotations

import logging

import pytest

from certs.spiffe import SpiffeId
from proxy.telemetry.label_sets import MAX_LABEL_SETS, LabelSets
from proxy.telemetry.naming import NOBODY

EDGE = NOBODY.edge("inbound", "inbound|8080")


def peer(number: int) -> SpiffeId:
    return SpiffeId.parse(f"spiffe://cluster.local/ns/demo/sa/w{number}")


def test_the_same_set_is_found_again() -> None:
    sets = LabelSets()
    first = sets.requests(EDGE, peer(1), status=200, flags="-")
    assert sets.requests(NOBODY.edge("inbound", "inbound|9"), peer(1), status=200, flags="-") is first
    others = [
        sets.requests(NOBODY.edge("outbound", "outbound|a"), peer(1), status=200, flags="-"),
        sets.requests(EDGE, peer(2), status=200, flags="-"),
        sets.requests(EDGE, peer(1), status=201, flags="-"),
        sets.requests(EDGE, peer(1), status=200, flags="DC"),
        sets.requests(EDGE, None, status=200, flags="-"),
    ]
    assert len({id(series) for series in (first, *others)}) == 6
    assert sets.count == 6


def test_beyond_the_bound_new_peers_share_a_set_and_old_ones_keep_theirs(caplog: pytest.LogCaptureFixture) -> None:
    sets = LabelSets(limit=10)
    old = [sets.requests(EDGE, peer(number), status=200, flags="-") for number in range(10)]
    for series in old:
        series.add(1, 1, 1)
    with caplog.at_level(logging.WARNING):
        for number in range(10, 1_000):
            sets.requests(EDGE, peer(number), status=200 + number % 7, flags="-").add(1, 1, 1)
    assert len(caplog.records) == 1
    assert sets.count == 11
    shared = sets.requests(EDGE, peer(5_000), status=204, flags="-")
    assert (shared.labels["source_principal"], shared.labels["response_code"]) == ("other", "200")
    assert (shared.count, sets.overflowed) == (990, 990)
    assert [sets.requests(EDGE, peer(number), status=200, flags="-") for number in range(10)] == old
    assert [series.count for series in old] == [1] * 10
    assert sum(series.count for series in sets.all_requests()) == 1_000


def test_statuses_that_a_server_invents_are_bounded_too() -> None:
    sets = LabelSets(limit=5)
    for status in range(100, 1_000):
        sets.requests(EDGE, peer(1), status=status, flags="-").add(1, 0, 0)
    assert sets.count == 5 + 9
    codes = {series.labels["response_code"] for series in sets.all_requests() if series.peer == "other"}
    assert codes == {f"{number}00" for number in range(1, 10)}


def test_connections_share_the_bound() -> None:
    sets = LabelSets(limit=2)
    sets.requests(EDGE, peer(1), status=200, flags="-")
    sets.connections(EDGE, peer(1), flags="-").opened += 1
    late = sets.connections(EDGE, peer(2), flags="-")
    late.opened += 1
    sets.connections(EDGE, peer(2), flags="UF").closed += 1
    assert late.labels["source_principal"] == "other"
    assert sets.overflowed == 1
    assert [series.labels["response_flags"] for series in sets.all_connections()] == ["-", "-", "UF"]
    assert sets.connections(EDGE, peer(1), flags="-").opened == 1


def test_the_bound() -> None:
    sets = LabelSets()
    for number in range(MAX_LABEL_SETS + 50):
        sets.requests(EDGE, peer(number), status=200, flags="-")
    assert sets.count == MAX_LABEL_SETS + 1
