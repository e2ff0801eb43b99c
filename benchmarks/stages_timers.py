"""Stage timers: whose CPU time it is, moment by moment, as a stack of open stages.

A timed function charges the time since the last change to whatever stage was open, opens its own, and gives the rest
back when it returns; so times are *exclusive*, and nothing is counted twice. Functions that an event loop calls are
timed as *callbacks* besides: what lies between two of them is the stage LOOP.

Two clocks, each for what it can do. Stages last a microsecond, and only `perf_counter_ns` is cheap enough to part them
(50 ns; the CPU clock of a thread is a system call of 600 ns, after which all that follows is slower). It goes on while
others run, though, so a callback that took far too long was interrupted and is dropped: requests are counted in those
that are left. LOOP cannot be measured like that, since a loop also waits. A process of its own looks at the CPU clock
between callbacks (`gap`), and times nothing else.

The timers' own cost is taken off, in two parts: `inside`, what a timed call adds to its own stage, and `outside`, what
it adds to the stage around it. Both are measured where they are paid (together 0.36 us; in a loop, where caches are
warm, 0.29). *Probes* do it: timed calls of nothing, each with code of its own, one before and one after each timed
function. They are switched on and off a tenth of a second apart, so that the two differ in nothing else:

    inside    what the stage PROBE counts for each probe
    outside   what the other stages count more while probes are on, for each probe
"""

from __future__ import annotations

import functools
import inspect
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Final

Function = Callable[..., Any]

LOOP: Final = "event loop"
"""The stage that is open between callbacks: the loop, its system calls, and everything that has no timer."""

PROBE: Final = "probe"
"""The stage of the probes. What it counts is no part of a hop."""

INTERRUPTED_NS: Final = 80_000
"""A callback that took longer was not alone: one takes 20 to 30 us, and a turn of another process a millisecond."""

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
        {work}
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
    timers.callbacks += 1
    before = timers.counts.copy()
    timers.open = {number}
    timers.since = began = clock()
    try:
        {work}
    finally:
        ended = clock()
        timers.counts[{number}] += ended - timers.since
        timers.counts[{calls}] += 1
        timers.open = {loop}
        if ended - began > {interrupted}:
            timers.counts = before
            timers.dropped += 1
"""
_GAP: Final = """
def made({parameters}):
    if timers.open != {loop}:
        return function({arguments})
    {first}
    timers.gaps += cpu_clock() - timers.left
    timers.callbacks += 1
    timers.open = {number}
    try:
        return function({arguments})
    finally:
        timers.open = {loop}
        timers.left = cpu_clock()
"""
_WORK: Final = "return function({arguments})"
_PROBED_WORK: Final = "probe_before(); result = function({arguments}); probe_after(); return result"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one timed call costs on a hop, in nanoseconds: of its own stage and of the one around it."""

    inside: float
    outside: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The timers at one moment, all counted since they were made, times in nanoseconds.

    `spent`, `calls` and `within` are of each stage, in the order of the stages: exclusive time with the timers' own,
    timed calls of the stage, timed calls of others that it was open around; all without the callbacks that were
    `dropped`. `gaps_ns` is the CPU between `callbacks`. `at_ns` is CLOCK_MONOTONIC, `process_ns` the kernel's account
    of the whole process, user and system; `probing` says whether the probes were on.
    """

    at_ns: int
    process_ns: int
    thread_ns: int
    spent: Sequence[int]
    calls: Sequence[int]
    within: Sequence[int]
    callbacks: int
    dropped: int
    gaps_ns: int
    probing: bool

    @property
    def kept(self) -> int:
        """Callbacks whose stages count."""
        return self.callbacks - self.dropped

    def since(self, before: Reading) -> Reading:
        """Give what was counted between two readings; `at_ns` is then how long that took."""
        return self._with(before, operator.sub)

    def plus(self, other: Reading) -> Reading:
        """Give what was counted in two stretches together."""
        return self._with(other, operator.add)

    def _with(self, other: Reading, how: Callable[[int, int], int]) -> Reading:
        return Reading(
            at_ns=how(self.at_ns, other.at_ns),
            process_ns=how(self.process_ns, other.process_ns),
            thread_ns=how(self.thread_ns, other.thread_ns),
            spent=list(map(how, self.spent, other.spent)),
            calls=list(map(how, self.calls, other.calls)),
            within=list(map(how, self.within, other.within)),
            callbacks=how(self.callbacks, other.callbacks),
            dropped=how(self.dropped, other.dropped),
            gaps_ns=how(self.gaps_ns, other.gaps_ns),
            probing=self.probing,
        )


def call_cost(without: Reading, probed: Reading, stages: Sequence[str]) -> Cost:
    """Tell what a timed call costs, from stretches of the same work without probes and with them."""
    probe = stages.index(PROBE)
    probes = probed.calls[probe]
    more = (sum(probed.spent) - probed.spent[probe]) / probed.kept - sum(without.spent) / without.kept
    return Cost(inside=probed.spent[probe] / probes, outside=more * probed.kept / probes)


def gap(without: Reading, probed: Reading) -> float:
    """Tell the CPU between two callbacks, in nanoseconds, less what looking at it costs.

    With probes on an empty callback comes before each, so half of the gaps hold nothing but that cost.
    """
    plain = without.gaps_ns / without.callbacks
    return plain - (2 * probed.gaps_ns / probed.callbacks - plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """CPU of one stretch in nanoseconds: of each stage and of other threads; `timers` is what was taken off."""

    stages: Mapping[str, float]
    threads: float
    timers: float

    @property
    def total(self) -> float:
        """All of it without the timers: what the same work should cost a process that has none."""
        return sum(self.stages.values()) + self.threads


def share_out(stretch: Reading, stages: Sequence[str], cost: Cost, gap_ns: float) -> Shares:
    """Take the timers' cost off each stage. All is of the callbacks that count, `gap_ns` is of each of them.

    `stretch` is without probes, `stages` names its columns.
    """
    net = {}
    timers = 0.0
    for number, name in enumerate(stages):
        own = stretch.calls[number] * cost.inside + stretch.within[number] * cost.outside
        if name not in {PROBE, LOOP}:
            net[name] = stretch.spent[number] - own
            timers += own
    net[LOOP] = gap_ns * stretch.kept
    threads = (stretch.process_ns - stretch.thread_ns) * stretch.kept / stretch.callbacks
    return Shares(stages=net, threads=threads, timers=timers)


class StageTimers:
    """The timers of one thread. `stages` are their names; PROBE and LOOP are added, the last open at first."""

    __slots__ = (
        "_codes",
        "callbacks",
        "count",
        "counts",
        "dropped",
        "gaps",
        "left",
        "open",
        "probing",
        "since",
        "stages",
    )

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages: Final = (*stages, PROBE, LOOP)
        self.count: Final = len(self.stages)
        # Three columns in one list, so that a callback that was interrupted is undone by one assignment.
        self.counts = [0] * (3 * self.count)
        self.open = self.count - 1
        self.since = 0
        self.callbacks = self.dropped = self.gaps = 0
        self.left = time.thread_time_ns()
        self.probing = False
        self._codes: Final[list[tuple[FunctionType, CodeType, CodeType]]] = []

    def timed(self, function: Function, stage: str) -> Function:
        """Make a function of the same parameters whose time is charged to `stage`."""
        return self._switched(_TIMED, function, stage)

    def callback(self, function: Function, stage: str) -> Function:
        """The same for a function that the loop calls; called from within another one it is timed as any other."""
        return self._switched(_CALLBACK, function, stage, nested=self.timed(function, stage))

    def gap(self, function: Function) -> Function:
        """Make a function for the loop to call that measures the CPU since the last one, and nothing else."""
        idle = self._made(_GAP, _nothing, PROBE)
        return self._switched(_GAP, function, PROBE, first="idle()", idle=idle)

    def probe(self, *, on: bool) -> None:
        """Switch the probes of all functions on or off; to be asked between callbacks."""
        self.probing = on
        for function, without, probed in self._codes:
            function.__code__ = probed if on else without

    def _switched(
        self, template: str, function: Function, stage: str, *, first: str = "pass", **names: Any
    ) -> FunctionType:
        before, after = (self._made(_TIMED, _nothing, PROBE, work="pass") for _ in range(2))
        names |= {"probe_before": before, "probe_after": after}
        made = self._made(template, function, stage, **names)
        probed = self._made(template, function, stage, work=_PROBED_WORK, first=first, **names)
        self._codes.append((made, made.__code__, probed.__code__))
        functools.update_wrapper(made, function)
        return made

    def _made(
        self,
        template: str,
        function: Function,
        stage: str,
        *,
        work: str = _WORK,
        first: str = "pass",
        **names: Any,
    ) -> FunctionType:
        number = self.stages.index(stage)
        parameters, arguments = signature_text(function)
        source = template.format(
            parameters=parameters,
            arguments=arguments,
            work=work.format(arguments=arguments),
            first=first,
            number=number,
            calls=self.count + number,
            within=2 * self.count,
            loop=self.count - 1,
            interrupted=INTERRUPTED_NS,
        )
        scope: dict[str, Any] = {
            "timers": self,
            "function": function,
            "clock": time.perf_counter_ns,
            "cpu_clock": time.thread_time_ns,
            **names,
            **_defaults(function),
        }
        exec(compile(source, f"<timer of {function.__qualname__}>", "exec"), scope)  # noqa: S102
        made: FunctionType = scope["made"]
        return made

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
            dropped=self.dropped,
            gaps_ns=self.gaps,
            probing=self.probing,
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


def _nothing() -> None:
    """Stand for a function that takes no time."""
