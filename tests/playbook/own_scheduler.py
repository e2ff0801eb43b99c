"""A scheduler of its own for real tasks: what happens next is chosen by the play, step by step.

    loop.ready      what the loop would run, in its order; only the first of them can be next
    loop.gates      what tasks wait for from outside (a handshake, a dial, first bytes): any of them can open next

An event loop may let anything from outside happen between two of its steps. A play chooses one of all that may happen
now, again and again, until nothing is left. `every_order` plays all choices, `some_orders` as many as are asked for.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

Choose = Callable[[int], int]
"""Given how many things may happen next, says which one does."""


class StepLoop:
    """A loop that runs one step when told. Timers are kept and never come due."""

    def __init__(self) -> None:
        self.ready: list[asyncio.Handle] = []
        self.gates: list[asyncio.Future[None]] = []
        self.faults: list[dict[str, Any]] = []

    @property
    def face(self) -> asyncio.AbstractEventLoop:
        """This loop, as tasks and the code under test take it."""
        return cast(asyncio.AbstractEventLoop, self)

    async def gate(self) -> None:
        """Wait until the play opens this gate."""
        future: asyncio.Future[None] = self.create_future()
        self.gates.append(future)
        try:
            await future
        finally:
            self.gates.remove(future)

    def steps(self) -> list[Callable[[], object]]:
        """Everything that tasks can do next: the loop's first step, and each gate that may open."""
        opening = [functools.partial(gate.set_result, None) for gate in self.gates if not gate.done()]
        return [self._step, *opening] if self.ready else [*opening]

    def _step(self) -> None:
        handle = self.ready.pop(0)
        if not handle.cancelled():
            handle._run()

    # --- what tasks, futures and the code under test ask of a loop ---

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.face, context)
        self.ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        return asyncio.TimerHandle(delay, callback, args, self.face, context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Learn of a timer that would not have come due anyhow."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.face)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self.face, name=name)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.faults.append(context)

    def getaddrinfo(self, *_: object, **__: object) -> Any:
        raise AssertionError("nobody has a name to look up")

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False


def every_order(play: Callable[[Choose], None]) -> int:
    """Play every order of events there is; give their number."""
    taken: list[int] = []
    count = 0
    while True:
        widths: list[int] = []

        def choose(width: int, widths: list[int] = widths, taken: list[int] = taken) -> int:
            widths.append(width)
            if len(taken) < len(widths):
                taken.append(0)
            return taken[len(widths) - 1]

        play(choose)
        count += 1
        del taken[len(widths) :]
        while taken and taken[-1] + 1 == widths[len(taken) - 1]:
            taken.pop()
        if not taken:
            return count
        taken[-1] += 1


def some_orders(play: Callable[[Choose], None], count: int) -> None:
    """Play `count` orders of events, always the same ones."""
    for choose in _seeded(count):
        play(choose)


def _seeded(count: int) -> Iterator[Choose]:
    for seed in range(count):
        yield random.Random(seed).randrange
