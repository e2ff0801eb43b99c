"""When a certificate is renewed: at half of its lifetime, patiently after failures, and by no clock without end."""

from __future__ import annotations

import doctest

import pytest

from proxy.identity import renewal
from proxy.identity.renewal import (
    LONGEST_RETRY,
    Renewal,
    clock_skew,
    confirmation_time,
    difference,
    duration_words,
    skew_words,
)

NOW = 1_893_456_000.0
HOUR = 3600.0
BACK = 60.0


def issued(lifetime: float, jitter: float = 0.5, now: float = NOW, ahead: float = 0.0) -> Renewal:
    """A certificate that an authority whose clock is `ahead` gave just now, back-dated by a minute."""
    return Renewal().issued(now + ahead - BACK, now + ahead + lifetime, now, jitter)


def test_the_examples_hold() -> None:
    assert doctest.testmod(renewal).failed == 0


@pytest.mark.parametrize("lifetime", [900.0, HOUR, 24 * HOUR])
def test_half_of_the_lifetime_is_left(lifetime: float) -> None:
    early, late = issued(lifetime, 0.0).due, issued(lifetime, 1.0).due
    middle = NOW - BACK + (lifetime + BACK) / 2
    assert early < middle < late
    assert late - early == pytest.approx(0.02 * (lifetime + BACK))


@pytest.mark.parametrize("ahead", [-HOUR, -900.0, -60.0])
def test_a_clock_that_is_ahead_makes_nobody_ask_without_end(ahead: float) -> None:
    assert issued(900.0, ahead=ahead).due - NOW >= 15


def test_a_minute_more_or_less_leaves_a_certificate_of_15_minutes_its_half() -> None:
    for ahead in (-60.0, 60.0):
        found = issued(900.0, ahead=ahead)
        assert 300 < found.due - NOW < 540
        assert found.left(NOW) > 800


def test_an_hour_of_absence_ends_long_before_a_certificate_of_24_hours_does() -> None:
    found = issued(24 * HOUR)
    now = away_since = found.due
    attempts = 0
    while now < away_since + HOUR:
        found = found.failed(now, 1.0)
        now = found.due
        attempts += 1
    assert 20 < attempts < 45
    assert found.left(now) > 10 * HOUR
    assert now - away_since - HOUR <= LONGEST_RETRY


def test_attempts_come_closer_towards_the_end() -> None:
    found = Renewal(not_before=NOW - 900, not_after=NOW + 60, due=NOW, failures=12)
    assert found.failed(NOW, 0.0).due == NOW + 15
    assert found.failed(NOW + 58, 0.0).due == NOW + 59
    assert found.failed(NOW + 61, 0.0).due == NOW + 61 + LONGEST_RETRY


@pytest.mark.parametrize(("asked", "wait"), [(0.0, 1.0), (30.0, 30.0), (1e9, LONGEST_RETRY), (-5.0, 1.0)])
def test_the_authority_may_ask_for_patience(asked: float, wait: float) -> None:
    assert Renewal().failed(NOW, 0.0, asked).due == NOW + wait


def test_retries_are_spread_earlier() -> None:
    many = Renewal(failures=20)
    assert many.failed(NOW, 0.0).due == NOW + LONGEST_RETRY
    assert many.failed(NOW, 1.0).due == pytest.approx(NOW + 0.8 * LONGEST_RETRY)


def test_a_success_forgets_the_failures() -> None:
    assert Renewal(failures=5).issued(NOW, NOW + HOUR, NOW, 0.5).failures == 0


def test_at_once_leaves_retries_alone() -> None:
    assert issued(HOUR).at_once(NOW).due == NOW
    waiting = Renewal().failed(NOW, 0.0)
    assert waiting.at_once(NOW) is waiting


def test_what_has_ended_has_nothing_left() -> None:
    assert Renewal().left(NOW) == 0
    assert issued(HOUR).left(NOW + 2 * HOUR) == 0


def test_a_new_bundle_is_confirmed_within_ten_seconds() -> None:
    assert confirmation_time(NOW, 0.0) == NOW + 5
    assert confirmation_time(NOW, 1.0) == NOW + 10


@pytest.mark.parametrize(
    ("date", "skew"),
    [
        ("Tue, 01 Jan 2030 00:00:00 GMT", 0.0),
        ("Tue, 01 Jan 2030 00:00:02 GMT", 0.0),
        ("Tue, 01 Jan 2030 00:02:02 GMT", 120.0),
        ("Mon, 31 Dec 2029 23:00:00 GMT", -3599.0),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_date_says_how_far_the_clocks_are_apart(date: str, skew: float | None) -> None:
    assert clock_skew(date, NOW, NOW + 2) == skew


def test_what_lies_within_the_exchange_is_no_difference() -> None:
    assert difference(NOW + 1, NOW, NOW + 2) == 0


@pytest.mark.parametrize("skew", [0.0, 60.0, -60.0, float("inf"), float("nan")])
def test_a_minute_is_not_named(skew: float) -> None:
    assert skew_words(skew) == ""


def test_more_is_named_with_its_direction() -> None:
    assert skew_words(61.0).startswith("this machine's clock is 61 s behind the authority's")
    assert skew_words(-61.0).startswith("this machine's clock is 61 s ahead of the authority's")


def test_durations_read_well() -> None:
    assert [duration_words(seconds) for seconds in (3600.0, 61.0, 59.4, 0.0)] == ["1.0 h", "1.0 min", "59 s", "0 s"]


def test_attempts_before_the_end_do_not_make_the_first_one_after_it_late() -> None:
    renewal, now = Renewal().issued(0.0, 60.0, 0.0, 0.5), 30.0
    while now < 60.0:
        renewal = renewal.failed(now, 0.0)
        now = renewal.due
    assert renewal.failed(now, 0.0).due - now <= 16.0
