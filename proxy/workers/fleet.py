"""All workers of a supervisor: each begun, given what is in force, replaced when it dies, asked, told and ended.

What holds:

1. Every worker is given every revision in order, one that begins the newest as a whole; it confirms what it holds.
2. One that dies is replaced: the first time at once, and then after a rest that doubles while it keeps dying.
3. Its sockets stay open here, so what waits in them is served by the one in its place.
4. Nobody waits for a worker without a deadline. One that has not answered for `_LOST_AFTER` is killed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from proxy.telemetry.summing import Sum
from proxy.workers.frames import files_to_json
from proxy.workers.member import Member
from proxy.workers.sharing import Look, Sets, Wanted
from proxy.workers.sockets import Sockets

ANSWER_WITHIN: Final = 1.0
"""Seconds that a page or a scrape waits for a worker: Prometheus gives up after 10. Below, one that judges a new policy
set seems stuck."""
PULSE: Final = 1.0
"""Seconds between two looks at every worker: what one counted since is lost when it dies."""
BEHIND_AFTER: Final = 2.0
"""Seconds until a worker that has not confirmed new sets is missed: so long a change may take to count everywhere."""
SILENT_AFTER: Final = 5.0
"""Seconds without an answer after which a worker is missed."""
_LOST_AFTER: Final = 30.0
"""Seconds without an answer after which a worker is killed. Shorter, and a machine that sleeps loses connections."""

FIRST_REST: Final = 0.2
LONGEST_REST: Final = 10.0
LIVED: Final = 30.0
"""Seconds after which a worker is taken to be well: when it dies, it is replaced at once."""

_log = logging.getLogger("remora.workers")


def rest_after(deaths: int) -> float:
    """Say how many seconds to wait before a worker is begun that has died `deaths` times in a row.

    >>> [rest_after(deaths) for deaths in (1, 2, 3, 9)]
    [0.0, 0.2, 0.4, 10.0]
    """
    return 0.0 if deaths <= 1 else min(FIRST_REST * 2 ** min(deaths - 2, 10), LONGEST_REST)


class Fleet:
    """`count` workers. `begin`, then `pulse` at every `PULSE`, and `end`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        *,
        sets: Sets,
        sockets: Sockets,
        file: str,
        counted: Sum,
        loop_name: str,
        changed: Callable[[], None],
    ) -> None:
        """`sets` holds what is in force whenever a worker begins; `changed` is called when `faults` may have."""
        self.count = count
        self.revision = 1
        self._first_whole = 0
        """The first revision with certificates and policies: who holds less serves nobody."""
        self.replaced = 0
        self._loop = loop
        self._sets = sets
        self._base = sets.config
        self._sockets = sockets
        self._file = file
        self._counted = counted
        self._loop_name = loop_name
        self._changed = changed
        self._members: dict[int, Member] = {}
        self._deaths = dict.fromkeys(range(1, count + 1), 0)
        self._resting: dict[int, asyncio.TimerHandle] = {}
        self._handed_at = loop.time()
        self._ending = False
        self._turn = os.memfd_create("remora-access-log-turn")
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []

    # --- life ---

    def begin(self) -> None:
        """Begin all workers. Raises OSError when a process cannot be had."""
        self._note_whole()
        self._handed_at = self._loop.time()
        for number in range(1, self.count + 1):
            self._begin_one(number)

    def _begin_one(self, number: int) -> None:
        self._resting.pop(number, None)
        level = logging.getLevelName(logging.getLogger("remora").getEffectiveLevel()).lower()
        member = Member(self._loop, number, self, self._counted.part(), level=level, loop_name=self._loop_name)
        self._members[number] = member
        config = files_to_json({"": self._base})[""]
        member.tell({"do": "begin", "file": self._file, "config": config, "workers": self.count}, [self._turn])
        self._give(member, self._sets, only_fresh=False)

    def _begin_again(self, number: int) -> None:
        try:
            self._begin_one(number)
        except OSError as failure:
            self._rest(number, f"worker {number} cannot begin: {failure.strerror}")

    def member_ended(self, member: Member, code: int) -> None:
        """Replace a worker that has ended, unless all of them end."""
        self._members.pop(member.number, None)
        if not self._ending:
            self.replaced += 1
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            if member.lived > LIVED:
                self._deaths[member.number] = 0
            self._rest(member.number, f"worker {member.number} (process {member.pid}) {how}")
        self._told()

    def _rest(self, number: int, what: str) -> None:
        self._deaths[number] += 1
        rest = rest_after(self._deaths[number])
        _log.error("%s; another begins %s", what, f"in {rest:g} s" if rest else "now")
        self._resting[number] = self._loop.call_later(rest, self._begin_again, number)

    # --- what is in force ---

    def hand_over(self, news: Sets) -> None:
        """Give every worker what is new, with the sockets that were opened for it."""
        self.revision += 1
        self._note_whole()
        self._handed_at = self._loop.time()
        for member in self._members.values():
            self._give(member, news, only_fresh=True)
        self._sockets.settle()
        self._changed()

    def _note_whole(self) -> None:
        if not self._first_whole and self._sets.is_whole:
            self._first_whole = self.revision

    def _give(self, member: Member, sets: Sets, *, only_fresh: bool) -> None:
        own = self._sockets.of(member.number - 1, only_fresh=only_fresh)
        keys = [list(key) for key, _ in own]
        message = {"do": "take", "revision": self.revision, "sets": sets.to_json(), "sockets": keys}
        member.tell(message, [fd for _, fd in own])

    def member_said(self, member: Member) -> None:
        """See who waits for this."""
        self._told()

    def _told(self) -> None:
        for holds, event in self._waiting:
            if holds():
                event.set()
        self._changed()

    def faults(self) -> list[str]:
        """Say of each worker why it does not serve as it should; nothing when all hold the newest revision."""
        is_late = self._loop.time() - self._handed_at > BEHIND_AFTER
        faults = []
        for number in range(1, self.count + 1):
            member = self._members.get(number)
            if member is None or member.holds < max(self._first_whole, 1):
                faults.append(f"worker {number} has not begun")
            elif member.silent_for > SILENT_AFTER:
                faults.append(f"worker {number} has not answered for {member.silent_for:.0f} s")
            elif member.holds < self.revision and is_late:
                faults.append(f"worker {number} does not hold the newest certificates, policies and configuration")
        return faults

    def pids(self) -> dict[int, int]:
        """Give the processes, by the number of the worker."""
        return {number: member.pid for number, member in sorted(self._members.items())}

    def ages(self) -> dict[tuple[str, ...], float]:
        """Say how old the numbers of each worker are, in seconds."""
        return {(str(number),): member.silent_for for number, member in sorted(self._members.items())}

    # --- asking ---

    async def looks(self, wanted: Wanted) -> tuple[dict[int, Look], list[int]]:
        """Look at every worker; give what each shows, and who did not answer in time."""
        asked = {number: member.ask(wanted) for number, member in sorted(self._members.items())}
        if asked:
            await asyncio.wait(asked.values(), timeout=ANSWER_WITHIN)
        found: dict[int, Look] = {}
        silent = [number for number in range(1, self.count + 1) if number not in asked]
        for number, future in asked.items():
            if future.done() and not future.cancelled():
                found[number] = future.result()
            else:
                future.cancel()
                silent.append(number)
        return found, sorted(silent)

    def last_looks(self) -> dict[int, Look]:
        """Give what each worker last showed."""
        return {number: member.look for number, member in self._members.items()}

    async def pulse(self) -> None:
        """Look at every worker again and again, and end one that is lost, until cancelled."""
        while True:
            await asyncio.sleep(PULSE)
            for member in list(self._members.values()):
                member.ask(Wanted())
                if member.silent_for > _LOST_AFTER:
                    _log.error("worker %d has not answered for %g s and is killed", member.number, _LOST_AFTER)
                    member.kill()
            self._changed()

    # --- telling ---

    def tell_all(self, **message: str) -> None:
        """Tell every worker something."""
        for member in self._members.values():
            member.tell(dict(message))

    def drain(self, direction: str) -> None:
        """Let all workers drain one direction, whose sockets are closed here first."""
        self._sockets.close(direction)
        self.tell_all(do="drain", direction=direction)

    def drained(self, direction: str) -> bool:
        """Say whether no worker has a connection of one direction left."""
        return all(direction in member.drained for member in self._members.values())

    def nobody_left(self) -> bool:
        """Say whether every process has ended."""
        return not self._members

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true of the workers; whoever waits does so with a deadline."""
        if holds():
            return
        waiting = holds, asyncio.Event()
        self._waiting.append(waiting)
        try:
            await waiting[1].wait()
        finally:
            self._waiting.remove(waiting)

    def end_in_order(self) -> None:
        """Begin no worker any more, and let those that run end."""
        self.replace_no_more()
        self.tell_all(do="end")

    def replace_no_more(self) -> None:
        """Leave the place of a worker that ends empty."""
        self._ending = True
        for handle in self._resting.values():
            handle.cancel()
        self._resting.clear()

    def kill(self) -> None:
        """End every worker now."""
        for member in self._members.values():
            member.kill()

    def close(self) -> None:
        """Close what is left when nobody is."""
        os.close(self._turn)
