"""What the timers of a hop mean, and how it is told: the arithmetic of the decomposition, its table, its JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.figures import Figure, figure
from benchmarks.heads import Client
from benchmarks.host import Machine
from benchmarks.processes import BenchError
from benchmarks.stages_records import TlsCost
from benchmarks.stages_sidecar import READ, TLS_READ, TLS_WRITE, WRITE
from benchmarks.stages_timers import LOOP, Cost, Shares

TOLERANCE: Final = 0.10
"""How far the sum of the stages may lie from the kernel's account: the target of the decomposition."""
DECRYPT: Final = "TLS decrypt"
ENCRYPT: Final = "TLS encrypt"
LOG_THREAD: Final = "access log's thread"
HOW: Final = (
    "stages: exclusive times of timed functions, the timers' own cost taken off; TLS by what the",
    "same records cost in memory; kernel: what it charged to the same hop without timers, at the same time",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: seconds of each repetition, rounds, connections, and whose heads are sent."""

    seconds: int
    repetitions: int
    connections: int
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """One hop: microseconds of each stage for a request, and what they are held against.

    `kernel` is what the kernel charged to the hop without timers, `ratio` the sum of the stages against it, round by
    round. `timers` is what the timers took of the stages in the timed process, at `cost` for a timed call.
    `without` says what the hop costs less where it does without something.
    """

    hop: str
    stages: Mapping[str, Figure]
    total: Figure
    kernel: Figure
    ratio: Figure
    timers: float
    cost: Cost
    dropped: float
    without: Mapping[str, Figure]

    @property
    def holds(self) -> bool:
        """Say whether the sum of the stages meets the kernel's account."""
        return abs(self.ratio.median - 1.0) <= TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The whole result."""

    machine: Machine
    plan: Plan
    tls: TlsCost
    hops: Sequence[Decomposition]


def per_request(shares: Shares, requests: int, records: Mapping[str, int], tls: TlsCost) -> dict[str, float]:
    """Give microseconds of each stage for a request, socket calls and cryptography parted; `records` are counts."""
    stages = dict(shares.stages)
    loop = stages.pop(LOOP)
    read, write = stages.pop(TLS_READ), stages.pop(TLS_WRITE)
    decrypt = min(read, records[TLS_READ] * tls.decrypt_ns)
    encrypt = min(write, records[TLS_WRITE] * tls.encrypt_ns)
    found: dict[str, float] = {}
    for name, spent in stages.items():
        if name == READ:
            found[READ] = spent + read - decrypt
            found[DECRYPT] = decrypt
        elif name == WRITE:
            found[ENCRYPT] = encrypt
            found[WRITE] = spent + write - encrypt
        else:
            found[name] = spent
    found[LOG_THREAD] = shares.threads
    found[LOOP] = loop
    return {name: spent / requests / 1e3 for name, spent in found.items()}


def decomposition(
    hop: str,
    rounds: Sequence[Mapping[str, float]],
    kernel: Sequence[float],
    without: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    timers: float,
    cost: Cost,
    dropped: float,
) -> Decomposition:
    """Sum up rounds of one hop: `rounds` are its stages, `kernel` its CPU without timers, both in microseconds.

    `without` has the CPU of the hop as it is and of one that does without something, taken at the same time.
    """
    totals = [sum(item.values()) for item in rounds]
    return Decomposition(
        hop=hop,
        stages={name: figure([item[name] for item in rounds]) for name in rounds[0]},
        total=figure(totals),
        kernel=figure(kernel),
        ratio=figure([ours / whole for ours, whole in zip(totals, kernel, strict=True)]),
        timers=timers,
        cost=cost,
        dropped=dropped,
        without={
            what: figure([whole - less for whole, less in zip(usual, costs, strict=True)])
            for what, (usual, costs) in without.items()
        },
    )


def check(stages: Stages) -> None:
    """Raise BenchError when the sum of the stages of a hop does not meet the kernel's account."""
    failed = [
        f"{item.hop} {item.total.median:.1f} us against {item.kernel.median:.1f} us ({item.ratio.median:.2f} x)"
        for item in stages.hops
        if not item.holds
    ]
    if failed:
        raise BenchError(
            f"the stages do not add up to the kernel's account within {TOLERANCE:.0%}: {'; '.join(failed)}; "
            "do not use this decomposition: measure again on a quieter machine, or look for a stage that is missing"
        )


def as_json(stages: Stages) -> str:
    """Write everything for programs."""
    return json.dumps(document(stages), indent=1) + "\n"


def document(stages: Stages) -> dict[str, Any]:
    """Write the result as a section of a run's results. Every figure is microseconds of CPU for a request.

    `hops` has for each: `stages` in the order of a request (name and figure), their sum, what the kernel says of the
    same hop without timers, whether the two meet, and what it costs less where it does without something.
    """
    return {
        "kind": "stages",
        **stages.machine.document(),
        "how": list(HOW),
        "unit": "us",
        "tolerance": TOLERANCE,
        "load": {
            "client": stages.plan.client.name,
            "connections": stages.plan.connections,
            "seconds": stages.plan.seconds,
            "repetitions": stages.plan.repetitions,
        },
        "tls_in_memory_us": {"encrypt": stages.tls.encrypt_ns / 1e3, "decrypt": stages.tls.decrypt_ns / 1e3},
        "hops": [
            {
                "hop": item.hop,
                "stages": [{"name": name, **_figure(value)} for name, value in item.stages.items()],
                "total": _figure(item.total),
                "kernel": _figure(item.kernel),
                "ratio": _figure(item.ratio),
                "holds": item.holds,
                "timers": item.timers,
                "timed_call_ns": {"inside": item.cost.inside, "outside": item.cost.outside},
                "interrupted_share": item.dropped,
                "without": [{"name": name, **_figure(value)} for name, value in item.without.items()],
            }
            for item in stages.hops
        ],
        "warnings": warnings(stages),
    }


def _figure(value: Figure) -> dict[str, float]:
    return {"median": value.median, "lowest": value.lowest, "highest": value.highest}


def as_text(stages: Stages) -> str:
    """Write the result for a person."""
    plan = stages.plan
    lines = [
        "Where the CPU time of a hop goes, microseconds for a request",
        *stages.machine.lines("both hops"),
        f"  load        heads as {plan.client.name} sends them, {plan.connections} connections each, "
        f"{plan.repetitions} rounds of {plan.seconds} s",
        *(f"  {'how' if not number else '':<12}{line}" for number, line in enumerate(HOW)),
        "",
        _line("", (f"{item.hop}, median (lowest to highest)" for item in stages.hops)),
    ]
    lines += [
        _line(name, (_cell(item.stages[name], item.total.median) for item in stages.hops))
        for name in stages.hops[0].stages
    ]
    rows = (
        ("sum of the stages", [_cell(item.total) for item in stages.hops]),
        ("the kernel, without timers", [_cell(item.kernel) for item in stages.hops]),
        ("sum : kernel", [_ratio(item) for item in stages.hops]),
        (
            "taken off for the timers",
            [f"{item.timers:6.1f}  (a call {item.cost.inside + item.cost.outside:.0f} ns)" for item in stages.hops],
        ),
        ("interrupted, and left out", [f"{item.dropped:6.1%}" for item in stages.hops]),
    )
    lines += [_line(title, cells) for title, cells in rows]
    lines += ["", "  Subtraction: the kernel's CPU of a hop less that of one without"]
    lines += [_line(what, (_cell(item.without[what]) for item in stages.hops)) for what in stages.hops[0].without]
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in warnings(stages))]) + "\n"


def warnings(stages: Stages) -> list[str]:
    """Say what makes the figures weaker than they look."""
    found = stages.machine.warnings()
    if stages.plan.repetitions < 2:
        found.append("one round has no spread")
    noisy = max(item.kernel.highest / item.kernel.lowest for item in stages.hops)
    if noisy > 1 + TOLERANCE:
        found.append(f"the host was noisy: the same hop took up to {noisy:.2f} times the CPU in another round")
    return found


def _line(title: str, cells: Iterable[str]) -> str:
    return f"  {title:<30}{''.join(f'{cell:<44}' for cell in cells)}".rstrip()


def _cell(value: Figure, total: float = 0.0) -> str:
    share = f"  {value.median / total:4.0%}" if total else ""
    return f"{value.median:6.1f}{share}  ({value.lowest:.1f} to {value.highest:.1f})"


def _ratio(item: Decomposition) -> str:
    verdict = "holds" if item.holds else f"DOES NOT HOLD within {TOLERANCE:.0%}"
    return f"{item.ratio.median:6.2f}   ({item.ratio.lowest:.2f} to {item.ratio.highest:.2f}): {verdict}"
