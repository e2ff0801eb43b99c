"""Series: which bucket a value falls in, sums, and the bytes of connections that are still open."""

from __future__ import annotations

import pytest

from certs.spiffe import SpiffeId
from proxy.telemetry.naming import NOBODY
from proxy.telemetry.series import (
    DURATION_BOUNDS,
    DURATION_LIMITS,
    SIZE_BOUNDS,
    SIZE_LIMITS,
    STAGE_BOUNDS,
    STAGE_LIMITS,
    STAGES,
    ConnectionSeries,
    RequestSeries,
    Stages,
    StageTimes,
    label_text,
)

EDGE = NOBODY.edge("inbound", "inbound|8080")
PEER = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web")


class Wire:
    def __init__(self) -> None:
        self.bytes_read = self.bytes_written = 0


@pytest.mark.parametrize("bounds", [DURATION_BOUNDS, SIZE_BOUNDS, STAGE_BOUNDS])
def test_bounds_grow(bounds: tuple[int, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@pytest.mark.parametrize(
    ("bounds", "limits", "unit"),
    [(DURATION_BOUNDS, DURATION_LIMITS, 1e6), (SIZE_BOUNDS, SIZE_LIMITS, 1), (STAGE_BOUNDS, STAGE_LIMITS, 1e9)],
)
def test_labels_of_buckets_say_the_bounds(bounds: tuple[int, ...], limits: tuple[str, ...], unit: float) -> None:
    assert limits[-1] == "+Inf"
    assert [float(limit) * unit for limit in limits[:-1]] == pytest.approx(bounds)


def test_buckets_begin_at_50_microseconds() -> None:
    assert (DURATION_LIMITS[0], DURATION_LIMITS[4]) == ("0.05", "1")
    assert STAGE_BOUNDS[0] == 50_000


def test_a_request_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    series = RequestSeries(EDGE, PEER, status=200, flags="-")
    series.add(50_000, 0, 256)
    series.add(50_001, 257, 10**12)
    series.add(10**15, 0, 0)
    assert (series.durations[0], series.durations[1], series.durations[-1]) == (1, 1, 1)
    assert (series.received[0], series.received[1], sum(series.received)) == (2, 1, 3)
    assert (series.sent[0], series.sent[-1]) == (2, 1)
    assert (series.duration_sum, series.received_sum, series.sent_sum) == (10**15 + 100_001, 257, 10**12 + 256)
    assert series.count == 3


def test_a_stage_alone_and_all_three_at_once_count_alike() -> None:
    together, alone = Stages(), Stages()
    for times in ((10_000, 60_000, 900_000), (0, 2_500_000, 60_000_000_000)):
        together.add(*times)
        for name, nanoseconds in zip(("policy", "upstream_connection", "upstream_response"), times, strict=True):
            stage: StageTimes = getattr(alone, name)
            stage.add(nanoseconds)
    for name in STAGES:
        one, other = getattr(together, name), getattr(alone, name)
        assert (one.buckets, one.sum) == (other.buckets, other.sum)
    assert (together.policy.buckets[0], together.upstream_response.buckets[-1]) == (2, 1)


def test_an_open_connection_counts_while_it_is_open_and_never_goes_back() -> None:
    series, first, second = ConnectionSeries(EDGE, PEER, flags="-"), Wire(), Wire()
    series.open(first)
    series.open(second)
    first.bytes_read, first.bytes_written, second.bytes_read = 10, 5, 7
    assert (series.opened, series.received, series.sent) == (2, 17, 5)
    series.settle(first)
    assert (series.received, series.sent) == (17, 5)
    second.bytes_written = 100
    assert (series.received, series.sent) == (17, 105)
    series.settle(second)
    assert (series.opened, series.received, series.sent) == (2, 17, 105)


def test_label_values_are_escaped() -> None:
    assert label_text({"a": 'one "two"', "b": "back\\slash\nline"}) == r'a="one \"two\"",b="back\\slash\nline"'
