"""The clock of the tests: it moves when told."""

from __future__ import annotations

import math

from proxy.interfaces import Deadline


class FakeClock:
    """A clock that moves when told. `clock()` and `clock.now` give seconds; `arm` and `disarm` as `interfaces.Clock`.

    >>> clock = FakeClock(100.0)
    >>> clock.advance(1.5)
    >>> clock()
    101.5
    """

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self._armed: list[Deadline] = []

    def __call__(self) -> float:
        return self.now

    @property
    def armed(self) -> list[Deadline]:
        """What has an end before it, in the order in which it was armed."""
        return [entry for entry in self._armed if entry.deadline < math.inf]

    def arm(self, entry: Deadline, seconds: float) -> None:
        """End `entry` when `seconds` have gone by; a second call moves its end."""
        self.disarm(entry)
        entry.deadline = self.now + seconds
        self._armed.append(entry)

    def disarm(self, entry: Deadline) -> None:
        """Forget `entry`; one that is not armed is no mistake."""
        entry.deadline = math.inf
        self._armed = [other for other in self._armed if other is not entry]

    def advance(self, seconds: float) -> None:
        """Move on, and end in order what comes due on the way."""
        end = self.now + seconds
        while due := [entry for entry in self._armed if entry.deadline <= end]:
            first = min(due, key=lambda entry: entry.deadline)
            self.now = max(self.now, first.deadline)
            self.disarm(first)
            first.deadline_passed()
        self.now = end
