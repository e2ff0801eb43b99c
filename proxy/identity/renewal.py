"""Decides when our certificate is renewed, and when to try again where that failed.

    issued --half of the lifetime, +-1 %--> due --answer--> issued
                                             |
                                             '--failure--> 1 s, 2 s, 4 s ... 150 s --> due again

What holds:

1. A certificate that is there is used until it ends, whatever becomes of its renewal. At 24 h an authority that is away
   for an hour is noticed by nobody but the log.
2. Of every lifetime half is left when the first attempt is made: 12 h of 24 h, 8 of 16 minutes.
3. No clock makes us ask without end: between two certificates lies a sixtieth of a lifetime, or half a minute.
4. A clock that is a minute off changes nothing that anybody sees; beyond that the difference is named.

Source: the facts of the field (Istio renews at half of the lifetime +-1 %, ztunnel's back-off ends at 150 s). Pure:
times are arguments, in seconds since the epoch, and `jitter` is a random number in [0, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final

RENEW_AT: Final = 0.5
"""The part of a lifetime after which renewal begins. Later, and an authority has less time to come back; earlier, and
it works for nothing."""

JITTER: Final = 0.01
"""How far renewals are spread on either side, as a part of the lifetime: 14 minutes of 24 hours."""

FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 150.0
"""Seconds after a failure, doubled each time. Longer, and a certificate of 15 minutes has few attempts in its second
half; shorter, and an authority that comes back finds everybody at its door."""
SPREAD: Final = 0.2
"""The part of a wait by which retries are spread, always earlier."""

LONGEST_REST: Final = 30.0
_RESTS_IN_A_LIFETIME: Final = 60

CONFIRM_AFTER: Final = 5.0
"""Seconds from a new bundle to the poll that confirms it, and as many again of jitter: a rotation waits for that."""

TOLERATED_SKEW: Final = 60.0
"""Seconds by which two clocks may differ unnamed: authorities back-date certificates by as much."""

_ROUND: Final = 1.0
"""A Date header counts whole seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """What is known of our certificate's renewal. `due` is when the next attempt is made; all in seconds since the
    epoch, `not_before` and `not_after` as the certificate says, 0 before there is one.
    """

    not_before: float = 0.0
    not_after: float = 0.0
    due: float = 0.0
    failures: int = 0

    def issued(self, not_before: float, not_after: float, now: float, jitter: float) -> Renewal:
        """A certificate has come.

        >>> Renewal().issued(0.0, 86_400.0, now=60.0, jitter=0.5).due
        43200.0
        """
        lifetime = max(not_after - not_before, 0.0)
        half = not_before + lifetime * (RENEW_AT + JITTER * (2 * _within(jitter) - 1))
        rest = min(LONGEST_REST, lifetime / _RESTS_IN_A_LIFETIME)
        return Renewal(not_before=not_before, not_after=not_after, due=max(half, now + rest))

    def failed(self, now: float, jitter: float, asked: float = 0.0) -> Renewal:
        """An attempt came to nothing; `asked` are the seconds that the authority asked us to wait, 0 for none.

        Towards the end of the certificate attempts come closer: a quarter of what is left, and no less than a second.
        Those count for nothing afterwards: who has no certificate any more should not wait longest.

        >>> after = Renewal()
        >>> waits = []
        >>> for _ in range(9):
        ...     after = after.failed(0.0, jitter=0.0)
        ...     waits.append(after.due)
        >>> waits
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 150.0]
        """
        wait = min(FIRST_RETRY * 2 ** min(self.failures, 10), LONGEST_RETRY)
        left = self.not_after - now
        is_hurried = left > 0 and wait > max(left / 4, FIRST_RETRY)
        if is_hurried:
            wait = max(left / 4, FIRST_RETRY)
        wait = max(wait * (1 - SPREAD * _within(jitter)), min(max(asked, 0.0), LONGEST_RETRY))
        failures = max(self.failures, 1) if is_hurried else self.failures + 1
        return replace(self, due=now + wait, failures=failures)

    def at_once(self, now: float) -> Renewal:
        """Something made the certificate worthless before its time: renew now, unless retries are under way."""
        return self if self.failures else replace(self, due=min(self.due, now))

    def left(self, now: float) -> float:
        """Seconds that the certificate is still valid; 0 when it has ended, and before there is one."""
        return max(self.not_after - now, 0.0)


def confirmation_time(now: float, jitter: float) -> float:
    """Compute when to poll again after a new bundle was taken, to say that it is held."""
    return now + CONFIRM_AFTER * (1 + _within(jitter))


def clock_skew(date: str, sent: float, received: float) -> float | None:
    """Compute how far the authority's clock is ahead of ours, in seconds; negative: behind. None without a date.

    `date` is the Date header of an answer (RFC 9110 section 6.6.1) to a request that was sent at `sent`; whatever lies
    between the two ends of the exchange is no difference.

    >>> clock_skew("Tue, 01 Jan 2030 00:05:00 GMT", 1_893_456_000.0, 1_893_456_001.0)
    299.0
    """
    try:
        told = parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return difference(told, sent, received)


def difference(told: float, sent: float, received: float) -> float:
    """Compute how far a time that the authority told is outside of the exchange that it came with, in seconds.

    >>> difference(100.0, 99.5, 100.2), difference(40.0, 100.0, 101.0)
    (0.0, -59.0)
    """
    if told > received:
        return told - received
    return min(told + _ROUND - sent, 0.0)


def skew_words(skew: float) -> str:
    """Name a difference of the clocks that is larger than what is tolerated; "" otherwise.

    >>> skew_words(-59.0)
    ''
    >>> skew_words(-300.0)
    "this machine's clock is 300 s ahead of the authority's; set one of them right"
    """
    if abs(skew) <= TOLERATED_SKEW or not math.isfinite(skew):
        return ""
    where = "behind" if skew > 0 else "ahead of"
    return f"this machine's clock is {abs(skew):.0f} s {where} the authority's; set one of them right"


class NamedSkew:
    """Remembers which difference of the clocks was named: it is said once, and again when it is another one.

    >>> named = NamedSkew()
    >>> [bool(named.take(skew)) for skew in (3.0, 300.0, 301.0, 3_600.0, -3_600.0, 0.0, 300.0)]
    [False, True, False, True, True, False, True]
    """

    __slots__ = ("_said", "words")

    def __init__(self) -> None:
        self.words = ""
        self._said = 0.0

    def take(self, skew: float) -> str:
        """Take in a difference in seconds; give what is to be said now, "" for nothing. `words` names it as it is."""
        self.words = skew_words(skew)
        if not self.words:
            self._said = 0.0
        elif abs(skew - self._said) > TOLERATED_SKEW:
            self._said = skew
            return self.words
        return ""


def duration_words(seconds: float) -> str:
    """Write a duration for a person.

    >>> duration_words(43_200.0), duration_words(90.0), duration_words(2.4)
    ('12.0 h', '1.5 min', '2 s')
    """
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _within(jitter: float) -> float:
    return min(max(jitter, 0.0), 1.0)
