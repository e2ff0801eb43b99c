"""An event loop for units that only ask it when: time, timers and readers move when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast


class HandTimer:
    """A timer of the loop."""

    def __init__(self, at: float, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.at = at
        self.call = call
        self.arguments = arguments
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """Readers, writers, timers and calls, each let go by hand."""

    def __init__(self) -> None:
        self.now = 50.0
        self.timers: list[HandTimer] = []
        self.readers: dict[int, Callable[[], Any]] = {}
        self.writers: dict[int, Callable[[], Any]] = {}
        self.soon: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    @property
    def face(self) -> asyncio.AbstractEventLoop:
        """This loop, as the code under test takes it."""
        return cast(asyncio.AbstractEventLoop, self)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., Any], *arguments: Any) -> HandTimer:
        timer = HandTimer(self.now + delay, call, arguments)
        self.timers.append(timer)
        return timer

    def call_soon(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.soon.append((call, arguments))

    def add_reader(self, descriptor: int, call: Callable[[], Any]) -> None:
        self.readers[descriptor] = call

    def remove_reader(self, descriptor: int) -> bool:
        return self.readers.pop(descriptor, None) is not None

    def add_writer(self, descriptor: int, call: Callable[[], Any]) -> None:
        self.writers[descriptor] = call

    def remove_writer(self, descriptor: int) -> bool:
        return self.writers.pop(descriptor, None) is not None

    def run_soon(self) -> None:
        """Make the calls that were asked for, and those that they ask for."""
        while self.soon:
            call, arguments = self.soon.pop(0)
            call(*arguments)

    def advance(self, seconds: float, *, late: float = 0.0) -> None:
        """Let time go by, and every timer that comes due, each `late` seconds after its time."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.at + late <= end]:
            first = min(due, key=lambda timer: timer.at)
            self.timers.remove(first)
            self.now = max(self.now, first.at + late)
            first.call(*first.arguments)
        self.now = end
