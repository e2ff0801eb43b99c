"""The file that a run of the suite leaves: every repetition of every scenario, and on what it was taken. Pure.

    Results ── machine, settings, absent, warnings
       └─ scenarios: name, what it is made of (dimensions), what was checked
             └─ repetitions: round, figures by name, percentiles, how busy the core was

One JSON document, `format` says which version. Whoever reads it (the table, the page, `remora bench compare`) goes
through `loads`, which refuses what this version does not know, so that no reader guesses.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

FORMAT: Final = 1
"""Raised whenever a reader of the version before would misread a file."""


class ResultsError(ValueError):
    """A file that is no result of the suite, or one of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a figure counts: its words in a table, its unit, which way is better."""

    title: str
    unit: str
    more_is_better: bool


METRICS: Final[Mapping[str, Metric]] = {
    "rate": Metric(title="requests/s", unit="/s", more_is_better=True),
    "cpu_us": Metric(title="CPU per request", unit="us", more_is_better=False),
    "p50_us": Metric(title="p50", unit="us", more_is_better=False),
    "p90_us": Metric(title="p90", unit="us", more_is_better=False),
    "p99_us": Metric(title="p99", unit="us", more_is_better=False),
    "p999_us": Metric(title="p99.9", unit="us", more_is_better=False),
    "max_us": Metric(title="longest", unit="us", more_is_better=False),
    "mb_per_s": Metric(title="MB/s", unit="MB/s", more_is_better=True),
    "cpu_us_per_mb": Metric(title="CPU per MB", unit="us", more_is_better=False),
    "rss_mib": Metric(title="memory of the proxies", unit="MiB", more_is_better=False),
    "load_cpu_us": Metric(title="CPU of the load", unit="us", more_is_better=False),
    "idle_rss_mib": Metric(title="memory of an idle sidecar", unit="MiB", more_is_better=False),
    "inbound_kib": Metric(title="idle inbound mTLS connection", unit="KiB", more_is_better=False),
    "outbound_kib": Metric(title="idle outbound mTLS connection", unit="KiB", more_is_better=False),
    "ready_s": Metric(title="start to ready", unit="s", more_is_better=False),
    "ready_cpu_s": Metric(title="CPU used until ready", unit="s", more_is_better=False),
}
"""Every figure that a repetition may hold. A request is a round trip for TCP, a new connection for handshakes; MB is
10**6 bytes. `cpu_us` and `cpu_us_per_mb` are of all measured proxies together, from the kernel's accounting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One point of a latency distribution: `percent` of the requests took at most `us` microseconds."""

    percent: float
    us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """One measurement, in round `round` (from 1; repetitions of one round lie seconds apart and are compared).

    `proxy_share` is the part of their core that the measured proxies used, `foreign_share` the part that others took,
    both from 0 to 1. `percentiles` ascend; only loads of a fixed rate have them.
    """

    round: int
    figures: Mapping[str, float]
    proxy_share: float = 0.0
    foreign_share: float = 0.0
    percentiles: Sequence[Percentile] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """One scenario: its name, the dimensions that it is made of, and what was measured.

    `load` is the kind: capacity, latency, roundtrips, bulk, handshakes, idle, start. `tls` is "mtls" or "plain",
    `sides` "both", "client", "server" or "none" (no proxy at all). `rules` is the number of policy rules, 0 without
    policy. `rate` is what an open loop was asked for, 0 for closed ones; `payload` bytes of each answer (or message).
    `denials` counts the rounds in which a forbidden request (connection, for TCP) amid the load was refused and, where
    there is a log, is on record.
    """

    name: str
    contender: str
    protocol: str
    load: str
    tls: str
    sides: str
    rules: int
    log: bool
    connections: int
    payload: int
    rate: int
    repetitions: Sequence[Repetition]
    denials: int = 0

    def series(self, metric: str) -> list[float]:
        """Give a figure of every repetition that has it, in the order of the rounds."""
        return [item.figures[metric] for item in self.repetitions if metric in item.figures]

    @property
    def metrics(self) -> list[str]:
        """Name the figures that every repetition has, in the order of METRICS."""
        return [name for name in METRICS if all(name in item.figures for item in self.repetitions)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """On what a run was made. `peers` are versions by contender; cores are those of the proxies and of the rest."""

    processor: str
    processors: int
    memory_mib: int
    kernel: str
    system: str
    python: str
    python_build: str
    python_optimised: bool
    openssl: str
    proxies_core: int
    others_core: int
    peers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a run was made: "quick", "full" or "only"; seconds of a repetition, rounds, the pattern of --only."""

    mode: str
    seconds: float
    repetitions: int
    only: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A whole run. `taken_at` is UTC in ISO 8601, `remora` the version that `remora version` tells.

    `remora_compiled` is that of the compiled form, "" where it was not measured. `absent` says of each contender that
    is not installed why. `sections` hold what other benchmarks add (stage
    decomposition, micro benchmarks, curves), each a JSON object of its own format, by name.
    """

    taken_at: str
    remora: str
    machine: MachineFacts
    settings: RunSettings
    scenarios: Sequence[ScenarioResult]
    absent: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remora_compiled: str = ""

    def maybe_scenario(self, name: str) -> ScenarioResult | None:
        """Find a scenario by its name; None when it was not run."""
        return next((item for item in self.scenarios if item.name == name), None)


def dumps(results: Results) -> str:
    """Write a run as JSON, with a line break at the end."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(results)}, indent=1, allow_nan=False) + "\n"


def loads(text: str) -> Results:
    """Read what `dumps` wrote. Raises ResultsError, with the place in the document, for anything else."""
    try:
        document = json.loads(text)
    except ValueError as failure:
        raise ResultsError(f"this is no JSON: {failure}") from failure
    if not isinstance(document, dict) or "format" not in document:
        raise ResultsError("this is no result of `remora bench run`: it does not say its format")
    if (version := document.pop("format")) != FORMAT:
        raise ResultsError(f"format {version!r} is not {FORMAT}, the one that this version of Remora reads")
    results = _read(Results, document, "results")
    _check(results)
    return results


def _check(results: Results) -> None:
    names = [scenario.name for scenario in results.scenarios]
    if len(names) != len(set(names)):
        raise ResultsError("a scenario is there twice")
    for scenario in results.scenarios:
        if not scenario.repetitions:
            raise ResultsError(f"{scenario.name} has no repetition")
        for item in scenario.repetitions:
            for metric, value in item.figures.items():
                if metric not in METRICS:
                    raise ResultsError(f"{scenario.name} has a figure that is not known: {metric!r}")
                if not math.isfinite(value) or value < 0:
                    raise ResultsError(f"{scenario.name}: {metric} is {value}")


_Value = TypeVar("_Value")


def _read(kind: type[_Value], value: Any, place: str) -> _Value:
    """Make a dataclass of a JSON object: every key known, every type right, what has no default there."""
    if not isinstance(value, dict):
        raise ResultsError(f"{place} is not an object")
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(typing.cast("Any", kind))}
    if unknown := sorted(value.keys() - fields.keys()):
        raise ResultsError(f"{place} has keys that are not known: {', '.join(unknown)}")
    missing = sorted(
        name
        for name, item in fields.items()
        if name not in value and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    )
    if missing:
        raise ResultsError(f"{place} lacks {', '.join(missing)}")
    return kind(**{name: _convert(hints[name], item, f"{place}.{name}") for name, item in value.items()})


def _convert(kind: Any, value: Any, place: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read(kind, value, place)
    origin: Any = typing.get_origin(kind)
    if origin is not None and not isinstance(kind, types.UnionType):
        arguments = typing.get_args(kind)
        if issubclass(origin, Mapping):
            if not isinstance(value, dict):
                raise ResultsError(f"{place} is not an object")
            return {key: _convert(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
        if not isinstance(value, list):
            raise ResultsError(f"{place} is not a list")
        return tuple(_convert(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(value))
    # JSON knows no difference between 1 and 1.0, and Python none between True and 1.
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ResultsError(f"{place} is not {kind.__name__}: {value!r:.40}")
    return value
