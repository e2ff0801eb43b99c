"""Drives wrk, Debian's HTTP load generator, and reads what it says.

wrk prints for people, so its report is parsed line by line and every line that counts must be there: a figure that
cannot be read is an error, never a zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PATH: Final = "/orders/42?currency=EUR"
"""What is asked for where nothing else is said."""
_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOTAL: Final = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h), ", re.M)
_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.M)
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m|h) ?$", re.M)
"""A unit of one letter has a blank after it, so that the columns stand below each other."""
_REFUSED: Final = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)$", re.M)
_BROKEN: Final = re.compile(r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)$", re.M)


class LoadError(ValueError):
    """A report of wrk that lacks what must be in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What the load generator saw: counts, the rate per second, latencies in microseconds.

    `refused` counts answers that were no success, `broken` connections that failed and answers that never came.
    """

    requests: int
    seconds: float
    rate: float
    p50_us: float
    p99_us: float
    refused: int
    broken: int


def wrk_command(
    program: str,
    port: int,
    *,
    connections: int,
    seconds: float,
    path: str = PATH,
    close: bool = False,
    host: str = "127.0.0.1",
) -> list[str]:
    """Write the command line: one thread, `connections` at once, whole seconds (wrk knows no others).

    Connections are kept open; with `close` each serves one request.
    """
    return [
        program,
        "--threads=1",
        f"--connections={connections}",
        f"--duration={max(1, round(seconds))}s",
        "--timeout=10s",
        "--latency",
        *(("--header", "Connection: close") if close else ()),
        f"http://{host}:{port}{path}",
    ]


def parse_wrk(text: str) -> LoadReport:
    """Read wrk's report. Raises LoadError when a figure is missing.

    >>> parse_wrk('''
    ...   Latency Distribution
    ...      50%    2.50ms
    ...      99%    1.00s
    ...   30 requests in 3.00s, 9.26KB read
    ... Requests/sec:     10.00
    ... ''').p50_us
    2500.0
    """
    total, rate = _TOTAL.search(text), _RATE.search(text)
    percentiles = {name: float(number) * _UNITS[unit] * 1e6 for name, number, unit in _PERCENTILE.findall(text)}
    missing: Sequence[str] = [
        name
        for name, found in (
            ("the number of requests", total),
            ("Requests/sec", rate),
            ("the 50th percentile", "50" in percentiles),
            ("the 99th percentile", "99" in percentiles),
        )
        if not found
    ]
    if total is None or rate is None or missing:
        raise LoadError(f"wrk's report lacks {', '.join(missing)}: {text.strip()[:300]!r}")
    refused, broken = _REFUSED.search(text), _BROKEN.search(text)
    return LoadReport(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]],
        rate=float(rate[1]),
        p50_us=percentiles["50"],
        p99_us=percentiles["99"],
        refused=int(refused[1]) if refused else 0,
        broken=sum(int(count) for count in broken.groups()) if broken else 0,
    )
