"""One address of a service, and how it has done: what fails is left alone for a while, and for longer each time.

in use --a dial fails or takes too long, answers stay away--> ejected, for 1 s, 2 s, 4 s, ... 30 s
ejected --a connection stands (after failed dials) or its time is over (after silence)--> in use
in use --an answer--> as if nothing had been
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from proxy.config import Address
from proxy.errors import RemoraError
from proxy.forward.pool import Pool

if TYPE_CHECKING:
    from proxy.forward.balance import Balancer

EJECTION: Final = 1.0
"""Seconds of a first ejection; each further one is twice as long. A process that restarts is back within a few."""
LONGEST_EJECTION: Final = 30.0
"""Seconds. Longer, and an endpoint that came back stays idle; shorter, and a dead one is dialled for nothing."""
JITTER: Final = 0.1
"""Part by which an ejection is longer at random, so that many sidecars do not come back to an endpoint at once."""
UNANSWERED: Final = 5
"""Requests in a row without a byte of an answer that eject an endpoint (Envoy's number for its outlier detection)."""

_log = logging.getLogger("remora.forward")


class Endpoint:
    """One address of a service: the pool of its connections, and how it has done."""

    __slots__ = ("_balancer", "_by_dial", "_unanswered", "address", "ejected", "ejected_until", "ejections", "pool")

    def __init__(self, balancer: Balancer, address: Address, pool: Pool) -> None:
        """`ejected_until` is in the clock's time; `ejections` counts those since the last success."""
        self._balancer = balancer
        self.address = address
        self.pool = pool
        self.ejected = False
        self.ejected_until = -math.inf
        self.ejections = 0
        self._by_dial = False
        self._unanswered = 0
        pool.owner = self

    @property
    def active(self) -> int:
        """Requests under way or waiting, and opaque connections."""
        return self.pool.load

    def eject(self, now: float, jitter: float, *, by_dial: bool) -> float:
        """Leave it alone for a while; give the seconds, 0 when it is being left alone already."""
        if self.ejected and now < self.ejected_until:
            return 0.0
        seconds = min(EJECTION * 2.0 ** min(self.ejections, 16), LONGEST_EJECTION) * (1.0 + JITTER * jitter)
        self.ejections += 1
        self.ejected = self.pool.troubled = True
        self.ejected_until = now + seconds
        self._by_dial = by_dial
        return seconds

    def connected(self, now: float) -> None:
        """Use it again: a connection stands. Silence is not mended by that before its time is over."""
        if self.ejected and (self._by_dial or now >= self.ejected_until):
            self.ejected = False
            _log.info("endpoint %s takes connections again", self.address)

    def succeeded(self) -> None:
        """Forget what was wrong."""
        self._unanswered = 0
        self.ejections = 0
        self.ejected = False

    # --- what its pool tells ---

    def dial_ended(self, failure: RemoraError | None) -> None:
        self._balancer.dial_ended(self, failure)

    def unanswered(self, *, refused: bool) -> None:
        self._unanswered += 1
        self.pool.troubled = True
        if refused or self._unanswered >= UNANSWERED:
            self._balancer.eject(self, f"{self._unanswered} requests in a row got no answer", by_dial=refused)

    def answered(self) -> None:
        if self.ejected and self._by_dial:
            self.pool.troubled = True  # an older connection still carries; that says nothing of new ones
        else:
            self.succeeded()
