"""A sidecar with stage timers: `python -m benchmarks.stages_sidecar READINGS WHAT --config FILE`.

It is `remora proxy run` in every other way: the functions of the byte path are replaced by timed ones, by name, before
anything is built from them. Nothing of it is in the sidecar itself, so a sidecar without timers pays nothing for them.
A name that is not there any more ends the start: a function that lost its timer would be charged to its caller, and
nobody would notice. (`tests/unit/benchmarks/test_benchmarks_stages.py` finds that earlier.)

WHAT is `stages`, or `gaps` for the CPU between callbacks. At each tick of the sidecar's coarse clock the timers are
read, and their probes switched on or off. The readings are written when the process ends, so that a benchmark can take
those of any time in between, by CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from benchmarks.stages_timers import Function, Reading, StageTimers

READ: Final = "read (receive call)"
WRITE: Final = "write (send call)"
TLS_READ: Final = "TLS read (receive calls and decryption)"
TLS_WRITE: Final = "TLS write (encryption and send call)"
PARSE: Final = "parse"
GATE: Final = "gate (h11 and rules)"
POLICY: Final = "policy"
REWRITE: Final = "rewrite"
RECORD: Final = "record: begin"
FINISH: Final = "record: finish"
HAND_OVER: Final = "record: to the log's thread"
METRICS: Final = "metrics"
POOL: Final = "pool"
WIRE: Final = "wire"
FORWARD: Final = "forward (pump and exchange)"

SPANS: Final = "stages"
GAPS: Final = "gaps"
"""What a process times."""

STAGES: Final = (
    READ,
    TLS_READ,
    PARSE,
    GATE,
    POLICY,
    REWRITE,
    TLS_WRITE,
    WRITE,
    RECORD,
    FINISH,
    HAND_OVER,
    METRICS,
    POOL,
    WIRE,
    FORWARD,
)
"""In the order of a request, then what is between its stages. The event loop comes last."""


class Timed(NamedTuple):
    """A function of the byte path: `module:name` or `module:Class.name`, and its stage."""

    where: str
    stage: str
    callback: bool = False


PLACES: Final = (
    Timed("proxy.runtime.wire:LoopWire._readable", WIRE, callback=True),
    Timed("proxy.runtime.wire:LoopWire._writable", WIRE, callback=True),
    Timed("proxy.runtime.wire:LoopWire.write", WIRE),
    Timed("proxy.runtime.wire:PlainEnd.read", READ),
    Timed("proxy.runtime.wire:PlainEnd.write", WRITE),
    Timed("proxy.handshake.engine:Session.read", TLS_READ),
    Timed("proxy.handshake.engine:Session.write", TLS_WRITE),
    Timed("proxy.forward.http:HttpForward.data_received", FORWARD),
    Timed("proxy.forward.upstream:UpstreamConnection.data_received", FORWARD),
    Timed("proxy.protocol.http1:ServerCodec.take_whole", PARSE),
    Timed("proxy.protocol.http1:ClientCodec.take_whole", PARSE),
    Timed("proxy.protocol.http1:ServerCodec.next_event", PARSE),
    Timed("proxy.protocol.http1:ClientCodec.next_event", PARSE),
    Timed("proxy.protocol.gate:parse_request_head", GATE),
    Timed("proxy.protocol.gate:parse_response_head", GATE),
    Timed("proxy.routes:InboundRoute.judge", POLICY),
    Timed("proxy.protocol.headers:write_request_head", REWRITE),
    Timed("proxy.protocol.headers:write_response_head", REWRITE),
    Timed("proxy.routes:_Recorded.begin", RECORD),
    Timed("proxy.telemetry.record:Record.finish", FINISH),
    Timed("proxy.telemetry.access_log:AccessLog.flush", HAND_OVER, callback=True),
    Timed("proxy.telemetry.record:Scope.count_ordinary", METRICS),
    Timed("proxy.telemetry.record:Scope.count_request", METRICS),
    Timed("proxy.forward.pool:Pool.take", POOL),
    Timed("proxy.forward.pool:Pool.release", POOL),
)
COUNTED: Final = FINISH
"""The stage that every request enters once: its calls are the requests that a reading counts (and, very few, the
connections that ended)."""
SELDOM: Final = frozenset({GATE, POLICY, HAND_OVER})
"""Stages that a request need not enter: canonical heads need no gate, outbound the server's identity decides, and the
log's thread is given many lines at once."""


class NoPlace(Exception):
    """A function of the table that the sidecar does not have."""


def install(timers: StageTimers, places: Sequence[Timed] = PLACES, *, gaps: bool = False) -> None:
    """Replace the functions by timed ones, wherever a module has imported them; for `gaps` only the callbacks.

    Raises NoPlace when one is not there, or is compiled and so cannot be replaced.
    """
    for place in places:
        holder, name, function = find(place.where)
        if not inspect.isfunction(function):
            raise NoPlace(f"{place.where} is compiled: stages are timed in the pure-Python form")
        if gaps:
            if not place.callback:
                continue
            wrapped = timers.gap(function)
        else:
            wrapped = (timers.callback if place.callback else timers.timed)(function, place.stage)
        setattr(holder, name, wrapped)
        if isinstance(holder, ModuleType):
            for importer, known_as in importers(name, function):
                setattr(importer, known_as, wrapped)


def find(where: str) -> tuple[Any, str, Function]:
    """Find what a function hangs on, its name there, and itself. Raises NoPlace when it is not defined there."""
    module, _, path = where.partition(":")
    *holders, name = path.split(".")
    try:
        holder: Any = importlib.import_module(module)
        for each in holders:
            holder = vars(holder)[each]
        function: Function = vars(holder)[name]
    except (ImportError, KeyError) as failure:
        raise NoPlace(f"{where} is not there any more: the table of timed functions must follow the code") from failure
    return holder, name, function


def importers(name: str, function: Function) -> Iterator[tuple[ModuleType, str]]:
    """Find the modules of the sidecar that have imported a function by its name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("proxy.") and vars(module).get(name) is function:
            yield module, name


# --- what the process leaves ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Everything that a process with timers leaves: the readings, oldest first, and the names of their columns."""

    stages: Sequence[str]
    readings: Sequence[Reading]

    def slices(self, begin_ns: int, end_ns: int) -> list[Reading]:
        """Give what was counted from one tick to the next, of the ticks between two times of CLOCK_MONOTONIC."""
        within = [item for item in self.readings if begin_ns <= item.at_ns <= end_ns]
        return [after.since(before) for before, after in itertools.pairwise(within)]


def dump(readings: Readings) -> str:
    """Write readings as JSON."""
    return json.dumps(dataclasses.asdict(readings)) + "\n"


def load(text: str) -> Readings:
    """Read what `dump` wrote."""
    document = json.loads(text)
    return Readings(
        stages=tuple(document["stages"]),
        readings=tuple(Reading(**item) for item in document["readings"]),
    )


def main(argv: Sequence[str]) -> int:
    """Run a sidecar with timers; `argv` is a file for the readings, what to time, and the options of `proxy run`."""
    target, what, *options = Path(argv[0]), *argv[1:]
    from proxy import cli  # the whole sidecar: what has imported a function by its name must be there to be changed

    timers = StageTimers(STAGES)
    install(timers, gaps=what == GAPS)
    readings: list[Reading] = []
    _read_at_ticks(timers, readings)
    try:
        return cli.main(["run", *options])
    finally:
        target.write_text(dump(Readings(stages=timers.stages, readings=readings)), "ascii")


def _read_at_ticks(timers: StageTimers, readings: list[Reading]) -> None:
    """Read the timers when the sidecar's coarse clock ticks: that is between callbacks, on their thread."""
    holder, name, tick = find("proxy.runtime.clock:CoarseClock._tick")

    def tick_and_read(clock: Any) -> None:
        tick(clock)
        readings.append(timers.read())
        timers.probe(on=not timers.probing)

    setattr(holder, name, tick_and_read)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
