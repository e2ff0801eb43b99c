"""Limits how often one caller may ask: a token bucket each, in bounded memory. The clock is an argument.

A bucket holds at most `burst` grants and gets `per_second` new ones a second; each request takes one. A sidecar that
renews twice a day never feels it; one that is stuck in a loop gets its burst and then the rate.

Memory is bounded: the `callers` that asked last are remembered, about 200 bytes each, and the one that has been
silent for longest is forgotten first. Who is forgotten begins again with a full bucket. That gives nothing away: to
push a name out one needs more than `callers` other names, and with so many each brings a full bucket of its own.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MAX_CALLERS: Final = 10_000
"""Two megabytes. Far fewer, and a restart of a large cluster forgets who asked a moment ago."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often a caller may ask: `burst` at once, `per_second` in the long run. Raises ValueError unless positive."""

    per_second: float = 0.2
    burst: int = 5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and self.per_second > 0 and self.burst >= 1):
            raise ValueError("a rate needs per_second above 0 and a burst of at least 1; zero would refuse everybody")


class RateLimiter:
    """Remembers the buckets of the callers that asked last.

    A caller is any text: a SPIFFE ID once it is proved, an address before. `now` is in seconds, best of a
    monotonic clock: one that goes back gives nothing until it goes on.

    >>> limiter = RateLimiter(Rate(per_second=0.5, burst=2))
    >>> [limiter.wait("orders", now) for now in (0.0, 0.0, 0.0, 2.0)]
    [0.0, 0.0, 2.0, 0.0]
    """

    __slots__ = ("_buckets", "_max_callers", "_rate")

    def __init__(self, rate: Rate, *, max_callers: int = MAX_CALLERS) -> None:
        if max_callers < 1:
            raise ValueError("max_callers is below 1: nobody would be remembered, and nobody limited; raise it")
        self._rate = rate
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> (grants left, as of when)

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, caller: str, now: float) -> float:
        """Takes one grant and returns 0.0, or returns the seconds until there is one and takes nothing."""
        rate = self._rate
        left, since = self._buckets.pop(caller, (float(rate.burst), now))
        left = min(float(rate.burst), left + max(0.0, now - since) * rate.per_second)
        granted = left >= 1.0
        self._buckets[caller] = (left - 1.0 if granted else left, now)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1.0 - left) / rate.per_second


def source_of(remote_address: str) -> str:
    """Names whoever shares the grants of an address, which comes with its port as audit lines have it.

    That is an IPv4 address, and of IPv6 the network of 64 bits that one machine has to itself.

    >>> source_of("192.0.2.7:4711"), source_of("[2001:db8::7]:4711")
    ('192.0.2.7', '2001:db8::/64')
    """
    host = remote_address.rpartition(":")[0] or remote_address
    try:
        return str(ipaddress.IPv6Network((host.strip("[]"), 64), strict=False))
    except ValueError:
        return host
