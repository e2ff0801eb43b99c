"""Measures what an API server waits for the injector, and how many reviews one core carries.

A real `remora injector serve` has a core to itself; the API server is on the other one, on kept connections with TLS.

    rounds: 200 reviews/s, open loop --> p50, p99 from when each was due, CPU of a review
            as many as there can be  --> reviews/s
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.alone import CoreWatch
from benchmarks.figures import figure
from benchmarks.host import Machine
from benchmarks.processes import (
    BenchError,
    Programs,
    answers_ready,
    bound_to,
    free_ports,
    resident_mib,
    thread_nanoseconds,
    wait_until,
)
from benchmarks.sheet import Row, Sheet
from benchmarks.webhook_calls import Callers
from certs.memory import MemoryAuthority
from injector import certificate, names

RATE: Final = 200
"""Reviews each second: a cluster that starts twelve thousand pods in a minute."""
TARGET_MS: Final = 50.0
SATURATED: Final = 0.9
"""A core that was used less had time left: then the rate tells of the callers and not of the webhook."""
PAUSE: Final = 0.01

_HOST: Final = f"{names.INJECTOR}.{names.NAMESPACE}.svc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: seconds of each load, rounds, connections of the API server."""

    seconds: float
    repetitions: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: both loads, each with the part of its core that the webhook used, and what others took of it."""

    p50_ms: float
    p99_ms: float
    longest_ms: float
    cpu_ms: float
    rate: float
    core_share: float
    resident_mib: float
    foreign_share: float


def run(machine: Machine, plan: Plan, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when work was not done."""
    rounds: list[Round] = []
    with bound_to(machine.cores.others), _served(machine.cores.proxies, directory) as (pid, port, ca):
        with Callers(port, _HOST, ca, plan.connections) as callers:
            callers.saturate(0.5)  # not counted: first connections, first imports
            for number in range(1, plan.repetitions + 1):
                tell(f"round {number} of {plan.repetitions}")
                rounds.append(_round(callers, pid, machine.cores.proxies, plan))
        audited = sum(1 for _ in (directory / "audit.log").open("rb"))
    if not audited:
        raise BenchError("the webhook wrote no audit line")
    return sheet(machine, plan, rounds)


def sheet(machine: Machine, plan: Plan, rounds: Sequence[Round]) -> Sheet:
    """Write down what was measured."""
    rows = [
        Row(name=f"a review at {RATE}/s, p50", figure=figure([each.p50_ms for each in rounds]), unit="ms"),
        Row(
            name=f"a review at {RATE}/s, p99",
            figure=figure([each.p99_ms for each in rounds]),
            unit="ms",
            target=TARGET_MS,
        ),
        Row(name=f"a review at {RATE}/s, longest", figure=figure([each.longest_ms for each in rounds]), unit="ms"),
        Row(name="CPU of a review", figure=figure([each.cpu_ms for each in rounds]), unit="ms"),
        Row(name="reviews on one core", figure=figure([each.rate for each in rounds]), unit="/s"),
        Row(name="memory", figure=figure([each.resident_mib for each in rounds]), unit="MiB"),
    ]
    idle = [each.core_share for each in rounds if each.core_share < SATURATED]
    remarks = [f"the webhook's core was only {min(idle):.0%} used: it can carry more than is said"] if idle else []
    return Sheet(
        benchmark="webhook",
        title="What an API server waits for the injector",
        how=[
            "reviews of a Deployment's pod (two containers, four probes),",
            f"{plan.connections} kept connections with TLS;",
            f"{plan.repetitions} rounds: {plan.seconds:g} s at {RATE} reviews/s, timed from when each was due, then "
            f"{plan.seconds:g} s of as many as there can be;",
            "every answer has a patch, every decision an audit line in a file",
        ],
        machine=machine,
        rows=rows,
        foreign=[each.foreign_share for each in rounds],
        repetitions=[asdict(each) for each in rounds],
        remarks=remarks,
        measured="the webhook",
    )


def _round(callers: Callers, pid: int, core: int, plan: Plan) -> Round:
    watch, start = CoreWatch(core), thread_nanoseconds(pid)
    paced = callers.open_loop(RATE, plan.seconds)
    middle = thread_nanoseconds(pid)
    full = callers.saturate(plan.seconds)
    end = thread_nanoseconds(pid)
    return Round(
        p50_ms=paced.percentile_ms(0.5),
        p99_ms=paced.percentile_ms(0.99),
        longest_ms=paced.percentile_ms(1.0),
        cpu_ms=(end - middle) / 1e6 / len(full.waits),
        rate=full.rate,
        core_share=(end - middle) / 1e9 / full.seconds,
        resident_mib=resident_mib([pid]),
        foreign_share=watch.foreign((end - start) / 1e9),
    )


@contextmanager
def _served(core: int, directory: Path) -> Iterator[tuple[int, int, str]]:
    """Serve within the `with`; gives process, port and the roots that its certificate leads to."""
    step = certificate.advance({}, (_HOST,), datetime.datetime.now(datetime.UTC))
    if step is None:
        raise BenchError("no certificate was made for the webhook")
    for name, content in step.files.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    (directory / "bundle.pem").write_bytes(MemoryAuthority().bundle.to_pem())
    port, health = free_ports(2)
    command = [
        sys.executable, "-m", "remora", "injector", "serve", "--tls-directory", str(directory),
        "--listen", f"127.0.0.1:{port}", "--health-listen", f"127.0.0.1:{health}", "--drain", "0s",
        "--trust-bundle", str(directory / "bundle.pem"),
        "--audit-log", str(directory / "audit.log"), "--log-level", "warning",
    ]  # fmt: skip
    with Programs() as programs:
        process = programs.launch(command, core=core, directory=directory)
        ready = "does not become ready"
        wait_until(lambda: answers_ready(health), process, "the injector", ready, directory, pause=PAUSE)
        yield process.pid, port, certificate.ca_bundle(step.files).decode("ascii")
