"""A coarse clock: one loop timer for every deadline of every connection.

A timer per request costs 2 to 3 µs to set and cancel, and nearly all are cancelled. Here setting a deadline is one
attribute store: an entry sits in the slot of an earlier deadline and is looked at again when that slot comes round.
Only a deadline earlier than the slot that an entry sits in moves it. `now` is the time of the last tick, so a tick is
added to each deadline: it is kept late, by three ticks at most, and never early, which is what idle and answer
deadlines of seconds need.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final

from proxy.interfaces import Deadline

TICK: Final = 0.1
"""Seconds. Finer wakes an idle process more often; coarser makes a 1 s deadline noticeably late."""
_SLOTS: Final = 256
"""25.6 s in one turn. A later deadline is looked at once a turn, which costs an idle connection nothing to speak of."""
NEVER: Final = math.inf

_log = logging.getLogger("remora.runtime")


class CoarseClock:
    """Slots of deadlines on the loop's time. An entry sits in one slot at most, and in none once it is disarmed."""

    __slots__ = ("_handle", "_loop", "_next", "_slots", "_start", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[dict[Deadline, None]] = [{} for _ in range(_SLOTS)]
        self._start = self.now = loop.time()
        self._next = 1
        self._handle: asyncio.TimerHandle | None = loop.call_later(TICK, self._tick)

    def arm(self, entry: Deadline, seconds: float) -> None:
        """Let `entry.deadline_passed` be called `seconds` from now, in place of any earlier appointment."""
        entry.deadline = deadline = self.now + seconds + TICK
        if deadline < entry.slot:
            self._place(entry, deadline)

    def disarm(self, entry: Deadline) -> None:
        """Forget the appointment and the entry, which may be a closed connection with all that hangs on it."""
        entry.deadline = NEVER
        self._take_out(entry)

    def stop(self) -> None:
        """Stop the timer and drop every entry."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for slot in self._slots:
            slot.clear()

    def _place(self, entry: Deadline, deadline: float) -> None:
        self._take_out(entry)
        ticks = math.ceil((deadline - self._start) / TICK)
        # Never the slot that is being looked at, which is the one before `_next`.
        ticks = max(self._next, min(ticks, self._next + _SLOTS - 2))
        entry.slot = self._start + ticks * TICK
        self._slots[ticks % _SLOTS][entry] = None

    def _take_out(self, entry: Deadline) -> None:
        if entry.slot != NEVER:
            self._slots[round((entry.slot - self._start) / TICK) % _SLOTS].pop(entry, None)
            entry.slot = NEVER

    def _tick(self) -> None:
        self._handle = self._loop.call_later(TICK, self._tick)
        self.now = now = self._loop.time()
        while self._start + self._next * TICK <= now:
            slot = self._slots[self._next % _SLOTS]
            self._next += 1
            while slot:
                entry, _ = slot.popitem()
                entry.slot = NEVER
                if entry.deadline == NEVER:
                    continue
                if entry.deadline > now:
                    self._place(entry, entry.deadline)
                    continue
                entry.deadline = NEVER
                try:
                    entry.deadline_passed()
                except Exception:
                    _log.exception("a deadline of %r could not be kept", entry)
