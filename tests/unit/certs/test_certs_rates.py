"""A caller gets its burst and then its rate; memory stays bounded; the clock may do what it likes."""

from __future__ import annotations

import pytest

from certs.rates import Rate, RateLimiter


def test_the_burst_and_then_the_rate() -> None:
    limiter = RateLimiter(Rate(per_second=0.5, burst=3))
    assert [limiter.wait("a", 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    assert limiter.wait("a", 11.0) == 1.0
    assert limiter.wait("a", 12.0) == 0.0
    assert limiter.wait("a", 12.0) == 2.0


def test_a_bucket_never_holds_more_than_the_burst() -> None:
    limiter = RateLimiter(Rate(per_second=1.0, burst=2))
    limiter.wait("a", 0.0)
    assert [limiter.wait("a", 1e9) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_callers_do_not_share() -> None:
    limiter = RateLimiter(Rate(per_second=1.0, burst=1))
    assert limiter.wait("a", 0.0) == 0.0
    assert limiter.wait("b", 0.0) == 0.0
    assert limiter.wait("a", 0.0) == 1.0


def test_asking_while_limited_costs_nothing() -> None:
    limiter = RateLimiter(Rate(per_second=1.0, burst=1))
    limiter.wait("a", 0.0)
    for tenth in range(1, 10):
        assert limiter.wait("a", tenth / 10) > 0.0
    assert limiter.wait("a", 1.001) == 0.0


def test_who_was_silent_longest_is_forgotten_first() -> None:
    limiter = RateLimiter(Rate(per_second=0.001, burst=1), max_callers=2)
    for caller in ("a", "b", "a", "c"):  # b is now the one that has been silent for longest
        limiter.wait(caller, 0.0)
    assert len(limiter) == 2
    assert limiter.wait("a", 0.0) > 0.0
    assert limiter.wait("b", 0.0) == 0.0


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(Rate(), max_callers=100)
    for number in range(1000):
        limiter.wait(str(number), float(number))
    assert len(limiter) == 100


def test_a_clock_that_goes_back_gives_nothing() -> None:
    limiter = RateLimiter(Rate(per_second=1.0, burst=1))
    limiter.wait("a", 3600.0)
    assert limiter.wait("a", 0.0) == 1.0
    assert limiter.wait("a", 1.0) == 0.0


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (float("inf"), 1), (1.0, 0)])
def test_a_rate_that_would_refuse_or_allow_all_is_an_error(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rate(per_second=per_second, burst=burst)


def test_a_limiter_that_remembers_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_callers"):
        RateLimiter(Rate(), max_callers=0)
