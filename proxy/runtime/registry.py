"""Every open connection, from before it is judged until it is closed.

The registry is the one way back from what changes (policy, trust, a drain) to what runs: whoever wants a connection to
be judged again, or to end, finds it here. An entry stands before the first handshake byte and before the first
judgement, so no connection is ever open and unknown, and no change can fall between a judgement and its entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from proxy.errors import Reason
from proxy.types import PeerIdentity


class Handler(Protocol):
    """What runs a connection: first what sets it up, then what forwards."""

    def drain(self) -> None:
        """Finish what runs, then end."""

    def break_off(self, reason: Reason) -> None:
        """End now."""

    def revoke(self, reason: Reason) -> None:
        """End what is no longer allowed, in the way that the configuration wants."""

    def judge_again(self) -> None:
        """Judge what runs inside the connection by the newest policy."""


class Entry:
    """One open connection. `opened_at` is seconds since the epoch.

    `judge` says by the newest policy and trust why the connection must end, None if it may stay; it is set as soon as
    it is known who the peer is, or that it has no identity.
    """

    __slots__ = (
        "_draining",
        "_ended_by",
        "_handler",
        "_is_revoked",
        "direction",
        "judge",
        "opened_at",
        "peer",
        "remote",
        "service",
    )

    def __init__(self, direction: str, service: str, remote: str, opened_at: float) -> None:
        self.direction = direction
        self.service = service
        self.remote = remote
        self.opened_at = opened_at
        self.peer: PeerIdentity | None = None
        self.judge: Callable[[], Reason | None] | None = None
        self._handler: Handler | None = None
        self._draining = False
        self._ended_by: Reason | None = None
        self._is_revoked = False

    def attach(self, handler: Handler) -> None:
        """Hand the connection to what runs it; an end or a drain that came meanwhile reaches it now."""
        self._handler = handler
        if self._ended_by is not None:
            (handler.revoke if self._is_revoked else handler.break_off)(self._ended_by)
        elif self._draining:
            handler.drain()

    def drain(self) -> None:
        """Ask for an end when what runs is finished."""
        self._draining = True
        if self._handler is not None:
            self._handler.drain()

    def break_off(self, reason: Reason) -> None:
        """End now, or as soon as somebody runs the connection."""
        self._ended_by, self._is_revoked = reason, False
        if self._handler is not None:
            self._handler.break_off(reason)

    def revoke(self, reason: Reason) -> None:
        """End what is no longer allowed, now or as soon as somebody runs the connection."""
        self._ended_by, self._is_revoked = reason, True
        if self._handler is not None:
            self._handler.revoke(reason)

    def judge_again(self) -> bool:
        """Judge by what is in force now; True when the connection must end for it."""
        reason = self.judge() if self.judge is not None else None
        if reason is not None:
            self.revoke(reason)
            return True
        if self._handler is not None:
            self._handler.judge_again()
        return False


class SettingUp:
    """Runs a connection while a task sets it up: an end cancels the task, wherever it waits.

    `ended_by` tells a task that was cancelled which end that was, `is_revoked` whether it is one of what is no longer
    allowed.
    """

    __slots__ = ("_task", "ended_by", "is_revoked")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.ended_by: Reason | None = None
        self.is_revoked = False

    def drain(self) -> None:
        """Go on: the entry tells who takes the connection over."""

    def judge_again(self) -> None:
        """Nothing runs yet that could be judged."""

    def break_off(self, reason: Reason) -> None:
        self.ended_by = reason
        self._task.cancel()

    def revoke(self, reason: Reason) -> None:
        self.is_revoked = True
        self.break_off(reason)


class Registry:
    """The open connections of this process, by direction."""

    __slots__ = ("_entries", "_on_empty")

    def __init__(self) -> None:
        self._entries: dict[str, set[Entry]] = {"inbound": set(), "outbound": set()}
        self._on_empty: dict[str, Callable[[], None]] = {}

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            yield from list(entries)

    def count(self, direction: str) -> int:
        """Count the open connections of one direction."""
        return len(self._entries[direction])

    def add(self, entry: Entry) -> None:
        """Enter a connection."""
        self._entries[entry.direction].add(entry)

    def remove(self, entry: Entry) -> None:
        """Forget a connection that has ended."""
        entries = self._entries[entry.direction]
        entries.discard(entry)
        if not entries and (told := self._on_empty.pop(entry.direction, None)) is not None:
            told()

    def when_empty(self, direction: str, tell: Callable[[], None]) -> None:
        """Call `tell` once, when no connection of `direction` is left: now, if there is none."""
        if self._entries[direction]:
            self._on_empty[direction] = tell
        else:
            tell()

    def drain(self, direction: str, service: str | None = None) -> None:
        """Drain every connection of one direction, or those of one port or service."""
        for entry in list(self._entries[direction]):
            if service is None or entry.service == service:
                entry.drain()

    def judge_again(self) -> int:
        """Judge every connection again; give the number of those that end for it."""
        return sum(entry.judge_again() for entry in self)

    def break_off(self, reason: Reason) -> None:
        """End every connection now."""
        for entry in self:
            entry.break_off(reason)
