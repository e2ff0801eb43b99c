"""Drives one load through whatever stands behind a port, and gives what was counted.

wrk does what is a closed loop over HTTP; our own generators do what it cannot, a fixed rate and plain bytes. Each runs
as a process of its own, so that the kernel says what the generator itself took.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.load import parse_wrk, wrk_command
from benchmarks.matrix import Kind, Load
from benchmarks.processes import PACKAGES, BenchError
from benchmarks.results import Percentile

_BIG: Final = 65_536
"""From this payload on, bytes a second say as much as requests a second."""
_SLOWEST: Final = 200e6
"""Bytes a second, half of what the slowest of the contenders passes on: 64 answers of 10 MB together take 1 to 2 s."""
_KEPT: Final = {50.0: "p50_us", 90.0: "p90_us", 99.0: "p99_us", 99.9: "p999_us", 100.0: "max_us"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """What a load did: `total` requests (for bulk: bytes) that the proxies worked for, and the figures of results."""

    total: int
    figures: Mapping[str, float]
    percentiles: Sequence[Percentile] = ()


def long_enough(load: Load, seconds: float) -> float:
    """Give the seconds that a load takes at least, so that each connection has a whole answer.

    >>> long_enough(Load(kind=Kind.CAPACITY, connections=64, payload=10_000_000), 2.0)
    3.2
    """
    return max(seconds, load.connections * load.payload / _SLOWEST)


def path_of(load: Load) -> str:
    """Name what an HTTP load asks for."""
    return f"/orders/{load.payload}"


def command(load: Load, port: int, seconds: float, wrk: str) -> list[str]:
    """Write the command line of a load's generator."""
    ours = [sys.executable, "-m"]
    sized = ["--connections", str(load.connections), "--seconds", f"{seconds:g}"]
    match load.kind:
        case Kind.CAPACITY | Kind.HANDSHAKES:
            close = load.kind is Kind.HANDSHAKES
            return wrk_command(
                wrk, port, connections=load.connections, seconds=seconds, path=path_of(load), close=close
            )
        case Kind.LATENCY:
            rate = ["--path", path_of(load), "--rate", str(load.rate)]
            return [*ours, "benchmarks.open_loop", str(port), *rate, *sized]
        case Kind.ROUNDTRIPS | Kind.BULK:
            return [*ours, "benchmarks.tcp_load", load.kind.value, str(port), "--size", str(load.payload), *sized]
        case _:
            raise ValueError(f"{load.name} is driven by nobody")


def drive(load: Load, port: int, seconds: float, wrk: str, amid: Callable[[], None] | None = None) -> Driven:
    """Run a load of `seconds`, or `long_enough`, and `amid` in the middle. Raises BenchError when it was not served."""
    seconds = long_enough(load, seconds)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = command(load, port, seconds, wrk)
    with subprocess.Popen(  # noqa: S603
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PACKAGES
    ) as process:
        try:
            if amid is not None:
                time.sleep(seconds / 2)
                amid()
            said, complaint = process.communicate(timeout=seconds + 60)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchError(f"the load ended with code {process.returncode}: {(complaint or said).strip()[:300]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    driven = read(load, said)
    if not driven.total:
        raise BenchError("no request was served")
    if load.kind is Kind.BULK:
        return driven
    figures = {**driven.figures, "load_cpu_us": used / driven.total * 1e6}
    return Driven(total=driven.total, figures=figures, percentiles=driven.percentiles)


def read(load: Load, said: str) -> Driven:
    """Read what a generator said. Raises BenchError when answers failed, LoadError when wrk's report lacks a figure."""
    if load.kind in (Kind.CAPACITY, Kind.HANDSHAKES):
        return _read_wrk(load, said)
    document: dict[str, Any] = json.loads(said)
    if load.kind is Kind.LATENCY:
        points = tuple(Percentile(percent=percent, us=us) for percent, us in document["percentiles"])
        figures = {_KEPT[point.percent]: point.us for point in points if point.percent in _KEPT}
        return Driven(total=document["total"], figures=figures, percentiles=points)
    if load.kind is Kind.BULK:
        return Driven(total=document["total"], figures={"mb_per_s": document["received"] / document["seconds"] / 1e6})
    rate = document["requests"] / document["seconds"]
    figures = {"rate": rate, "p50_us": document["p50_us"], "p99_us": document["p99_us"]}
    return Driven(total=document["total"], figures=figures)


def _read_wrk(load: Load, said: str) -> Driven:
    report = parse_wrk(said)
    if report.refused or report.broken:
        raise BenchError(f"{report.refused} requests were refused and {report.broken} connections broke")
    figures = {"rate": report.rate, "p50_us": report.p50_us, "p99_us": report.p99_us}
    if load.payload >= _BIG:
        figures["mb_per_s"] = report.rate * load.payload / 1e6
    return Driven(total=report.requests, figures=figures)


def cost(load: Load, cpu: float, total: int) -> dict[str, float]:
    """Give what the proxies' CPU seconds mean for each request, or for each MB of bulk."""
    if load.kind is Kind.BULK:
        return {"cpu_us_per_mb": cpu * 1e6 / (total / 1e6)}
    return {"cpu_us": cpu / total * 1e6}
