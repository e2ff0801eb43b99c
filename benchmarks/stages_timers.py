"""Stage timers: whose CPU time it is, moment by moment, as a stack of open stages.

A timed function charges the time since the last change to whatever stage was open, opens its own, and gives the rest
back when it returns; so times are *exclusive*, and nothing is counted twice. Functions that an event loop calls are
timed as *callbacks* besides: what lies between two of them is the stage LOOP.

Two clocks, each for what it can do. Stages last a microsecond, and only `perf_counter_ns` is cheap enough to part them
(60 ns; the CPU clock of a thread is a system call of 600 ns). It goes on while others run, though. So each callback
looks at the thread's CPU clock as it begins and ends: LOOP is the CPU between callbacks, waiting not counted, and a
callback that took much longer than its CPU was interrupted: its stages are dropped, its CPU is shared out in the
proportions of those that were not.

The timers' own cost is found by timing functions that do nothing, and is taken off: `inside`, what a timed call adds to
its own stage, and `outside`, what it adds to the stage around it. In a loop it is about half of what it is on a hop,
where caches are colder; by how much is found by a process that has every timer twice (`Cost.times`).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LOOP: Final = "event loop"
"""The stage that is open between callbacks: the loop, its system calls, and everything that has no timer."""

INTERRUPTED_NS: Final = 10_000
"""A callback whose clock ran this much longer than its CPU was not alone: twice what the two clocks disagree by."""

_FUNCTIONS: Final = 25
_ROUNDS: Final = 1_500

Function = Callable[..., Any]

# Each timed function has code of its own, with its own parameters and numbers in it: CPython specialises calls place by
# place, and one wrapper for all, of `*args`, made a timer twice as dear on the byte path as in a loop of its own.
_TIMED: Final = """
def made({parameters}):
    around = timers.open
    if around == {loop}:  # a task that sets a connection up: part of what lies between callbacks
        return function({arguments})
    counts = timers.counts
    counts[{within} + around] += 1
    timers.open = {number}
    now = clock()
    counts[around] += now - timers.since
    timers.since = now
    try:
        return function({arguments})
    finally:
        now = clock()
        counts[{number}] += now - timers.since
        timers.since = now
        counts[{calls}] += 1
        timers.open = around
"""
_CALLBACK: Final = """
def made({parameters}):
    if timers.open != {loop}:
        return nested({arguments})
    entered = cpu_clock()
    timers.gaps += entered - timers.left
    timers.callbacks += 1
    before = timers.counts.copy()
    timers.open = {number}
    timers.since = began = clock()
    try:
        return function({arguments})
    finally:
        ended = clock()
        timers.counts[{number}] += ended - timers.since
        timers.counts[{calls}] += 1
        timers.open = {loop}
        timers.left = left = cpu_clock()
        if ended - began - (left - entered) > {interrupted}:
            timers.counts = before
            timers.dropped += left - entered
        else:
            timers.clean += left - entered
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one timed call costs, in nanoseconds: of its own stage and of the one around it.

    `callback_inside` is what a callback adds to its CPU beyond that, `callback_outside` what falls between callbacks.
    """

    inside: float
    outside: float
    callback_inside: float
    callback_outside: float

    def times(self, factor: float) -> Cost:
        """Give the cost where a timed call takes `factor` as long: on a hop caches are not as warm as in a loop.

        What a callback adds is two system calls, which do not depend on that.
        """
        return dataclasses.replace(self, inside=factor * self.inside, outside=factor * self.outside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The timers at one moment, all counted since they were made, times in nanoseconds.

    `spent`, `calls` and `within` are of each stage, in the order of the stages: exclusive time with the timers' own,
    timed calls of the stage, timed calls of others that it was open around. `clean_ns` is the CPU of callbacks whose
    stages count, `dropped_ns` that of callbacks that were interrupted, `gaps_ns` that between callbacks.
    `at_ns` is CLOCK_MONOTONIC, `process_ns` the kernel's account of the whole process, user and system.
    """

    at_ns: int
    process_ns: int
    thread_ns: int
    spent: Sequence[int]
    calls: Sequence[int]
    within: Sequence[int]
    callbacks: int
    clean_ns: int
    dropped_ns: int
    gaps_ns: int

    def since(self, before: Reading) -> Reading:
        """Give what was counted between two readings; `at_ns` is then how long that took."""
        return Reading(
            at_ns=self.at_ns - before.at_ns,
            process_ns=self.process_ns - before.process_ns,
            thread_ns=self.thread_ns - before.thread_ns,
            spent=[a - b for a, b in zip(self.spent, before.spent, strict=True)],
            calls=[a - b for a, b in zip(self.calls, before.calls, strict=True)],
            within=[a - b for a, b in zip(self.within, before.within, strict=True)],
            callbacks=self.callbacks - before.callbacks,
            clean_ns=self.clean_ns - before.clean_ns,
            dropped_ns=self.dropped_ns - before.dropped_ns,
            gaps_ns=self.gaps_ns - before.gaps_ns,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """CPU of one stretch in nanoseconds: of each stage and of other threads.

    `calls` and `callbacks` are what the timers themselves took: of timed calls, and of callbacks besides.
    """

    stages: Mapping[str, float]
    threads: float
    calls: float
    callbacks: float

    @property
    def total(self) -> float:
        """All of it without the timers: what the same work should cost a process that has none."""
        return sum(self.stages.values()) + self.threads


def share_out(stretch: Reading, stages: Sequence[str], cost: Cost) -> Shares:
    """Take the timers' cost off each stage, and share out the callbacks that were interrupted.

    `stretch` is a difference of two readings, `stages` names its columns, LOOP not among them.
    """
    whole = (stretch.clean_ns + stretch.dropped_ns) / stretch.clean_ns if stretch.clean_ns else 1.0
    net = {}
    calls = 0.0
    for number, name in enumerate(stages):
        own = (stretch.calls[number] * cost.inside + stretch.within[number] * cost.outside) * whole
        net[name] = stretch.spent[number] * whole - own
        calls += own
    net[LOOP] = stretch.gaps_ns - stretch.callbacks * cost.callback_outside
    return Shares(
        stages=net,
        threads=float(stretch.process_ns - stretch.thread_ns),
        calls=calls,
        callbacks=stretch.callbacks * (cost.callback_inside + cost.callback_outside),
    )


class StageTimers:
    """The timers of one thread. `stages` are their names; the stage LOOP is added, and open at first."""

    __slots__ = ("callbacks", "clean", "count", "counts", "dropped", "gaps", "left", "open", "since", "stages")

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages: Final = (*stages, LOOP)
        self.count: Final = len(self.stages)
        # Three columns in one list, so that a callback that was interrupted is undone by one assignment.
        self.counts = [0] * (3 * self.count)
        self.open = self.count - 1
        self.since = 0
        self.callbacks = self.clean = self.dropped = self.gaps = 0
        self.left = time.thread_time_ns()

    def timed(self, function: Function, stage: str) -> Function:
        """Make a function of the same parameters whose time is charged to `stage`."""
        return self._made(_TIMED, function, stage)

    def callback(self, function: Function, stage: str) -> Function:
        """The same for a function that the loop calls; called from within another one it is timed as any other."""
        return self._made(_CALLBACK, function, stage, nested=self.timed(function, stage))

    def _made(self, template: str, function: Function, stage: str, **names: object) -> Function:
        number = self.stages.index(stage)
        parameters, arguments = signature_text(function)
        source = template.format(
            parameters=parameters,
            arguments=arguments,
            number=number,
            calls=self.count + number,
            within=2 * self.count,
            loop=self.count - 1,
            interrupted=INTERRUPTED_NS,
        )
        scope = {
            "timers": self,
            "function": function,
            "clock": time.perf_counter_ns,
            "cpu_clock": time.thread_time_ns,
            **names,
            **_defaults(function),
        }
        exec(compile(source, f"<timer of {function.__qualname__}>", "exec"), scope)  # noqa: S102
        return functools.wraps(function)(scope["made"])  # type: ignore[arg-type]

    def read(self) -> Reading:
        """Read everything; to be asked between callbacks."""
        count = self.count
        return Reading(
            at_ns=time.monotonic_ns(),
            process_ns=time.process_time_ns(),
            thread_ns=time.thread_time_ns(),
            spent=self.counts[:count],
            calls=self.counts[count : 2 * count],
            within=self.counts[2 * count :],
            callbacks=self.callbacks,
            clean_ns=self.clean,
            dropped_ns=self.dropped,
            gaps_ns=self.gaps,
        )


def signature_text(function: Function) -> tuple[str, str]:
    """Write the parameters of a function, as a definition has them, and the arguments that hand them on.

    >>> signature_text(lambda a, b=1, *, c: None)
    ('a, b=default_b, *, c', 'a, b, c=c')
    """
    parameters, arguments, star = [], [], False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ValueError(f"{function.__qualname__} takes {parameter}: no timer can be made for it")
        only = parameter.kind is parameter.KEYWORD_ONLY
        if only and not star:
            parameters.append("*")
            star = True
        parameters.append(name if parameter.default is parameter.empty else f"{name}=default_{name}")
        arguments.append(f"{name}={name}" if only else name)
    return ", ".join(parameters), ", ".join(arguments)


def _defaults(function: Function) -> dict[str, object]:
    return {
        f"default_{name}": parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }


def measure_cost() -> Cost:
    """Find out what a timed call costs in a loop: of many short rounds each part's quietest, 0.3 s in all."""
    timers = StageTimers(["around", "inner"])
    inner = timers.stages.index("inner")
    bare = [_nothing() for _ in range(_FUNCTIONS)]
    timed = [timers.timed(function, "inner") for function in bare]
    around = timers.callback(_call_all, "around")
    once = timers.callback(_nothing(), "around")
    quiet = _Quietest()
    for _ in range(_ROUNDS):
        quiet.take("bare", _call_all(bare))
        before = timers.read()
        wrapped = around(timed)
        stretch = timers.read().since(before)
        if not stretch.dropped_ns:
            quiet.take("wrapped", wrapped)
            quiet.take("inside", stretch.spent[inner] / _FUNCTIONS)
        before = timers.read()
        began = time.thread_time_ns()
        for _ in range(_FUNCTIONS):
            once(timers, began)
        whole = time.thread_time_ns() - began
        stretch = timers.read().since(before)
        quiet.take("gaps", stretch.gaps_ns / _FUNCTIONS)
        quiet.take("callback", (whole - stretch.gaps_ns - stretch.spent[0]) / _FUNCTIONS)
    # The call of the function itself, 30 ns, moves from the stage around to its own; the sum is what must be right.
    return Cost(
        inside=quiet["inside"],
        outside=quiet["wrapped"] - quiet["bare"] - quiet["inside"],
        callback_inside=max(0.0, quiet["callback"]),
        callback_outside=quiet["gaps"],
    )


class _Quietest(dict[str, float]):
    """The least that was seen of each figure: neighbours make figures greater, never less."""

    def take(self, name: str, value: float) -> None:
        self[name] = min(value, self.get(name, value))


def _call_all(functions: Sequence[Function]) -> float:
    """Call functions of two parameters; nanoseconds of each call."""
    began = time.perf_counter_ns()
    for function in functions:
        function(began, began)
    return (time.perf_counter_ns() - began) / len(functions)


def _nothing() -> Function:
    def nothing(one: object, two: object) -> None:
        """Stand for a function that takes no time."""

    return nothing
