"""Measures what a scrape of /metrics costs a sidecar that has counted many label sets.

The label sets are made by real means: as many callers, each with an identity of its own, make one connection and one
request each. Then the page is fetched again and again: the time until its last byte, the CPU that the sidecar used for
it (from the scheduler, so it counts nanoseconds), and how long another request waited meanwhile, asked one after the
other on a second connection. The same is measured of the sidecar before anybody came.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.alone import Alone, CoreWatch, launch
from benchmarks.figures import figure
from benchmarks.host import Machine
from benchmarks.peers import REQUEST, Line, application, tls_context
from benchmarks.processes import BenchError, Programs, bound_to, thread_nanoseconds
from benchmarks.sheet import Row, Sheet
from certs.memory import MemoryAuthority

SCRAPES: Final = 10
"""Of each repetition: a single one takes some 20 ms, and cores are accounted for in steps of 10."""

POLICY: Final = f"""\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: callers, namespace: {configs.NAMESPACE}}}
spec:
  action: ALLOW
  rules:
  - from: [{{source: {{principals: ["{configs.TRUST_DOMAIN}/ns/{configs.NAMESPACE}/sa/*"]}}}}]
"""

_COUNTED: Final = b"istio_requests_total{"
_SIZE: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """Some scrapes: milliseconds of each (the middle one), CPU of each in ms, the longest wait of another request."""

    wall_ms: float
    cpu_ms: float
    wait_ms: float
    foreign_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """How much a scrape brings: bytes, samples, label sets."""

    size: int
    samples: int
    label_sets: int


def weigh(page: bytes) -> Page:
    """Count what is in a page of metrics; a label set is one of those that requests are counted in.

    >>> weigh(b'# TYPE a counter\\na 1\\nistio_requests_total{response_code="200"} 2\\n')
    Page(size=65, samples=2, label_sets=1)
    """
    lines = page.splitlines()
    return Page(
        size=len(page),
        samples=sum(1 for line in lines if line and not line.startswith(b"#")),
        label_sets=sum(1 for line in lines if line.startswith(_COUNTED)),
    )


def run(machine: Machine, repetitions: int, label_sets: int, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it cannot be done."""
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    core = machine.cores.proxies
    with Programs() as programs, bound_to(machine.cores.others), application() as app:
        alone = launch(programs, memory, directory / "sidecar", core=core, app=app, endpoint=app, policy=POLICY)
        alone.wait_until_ready(pause=0.05)
        tell("scrapes before anybody came")
        empty = [_repetition(alone, core) for _ in range(repetitions)]
        before = weigh(alone.metrics())
        tell(f"{label_sets} callers")
        for number in range(label_sets):
            _call(alone, memory, f"caller-{number}")
        page = weigh(alone.metrics())
        if page.label_sets != label_sets:
            raise BenchError(f"{label_sets} callers came and the metrics have {page.label_sets} label sets")
        time.sleep(1.5)  # the access log is written out every second
        full = []
        for number in range(1, repetitions + 1):
            tell(f"scrapes, {number} of {repetitions}")
            full.append(_repetition(alone, core))
    return sheet(machine, (before, empty), (page, full))


def sheet(machine: Machine, empty: tuple[Page, Sequence[Repetition]], full: tuple[Page, Sequence[Repetition]]) -> Sheet:
    """Write down what scrapes cost, before any traffic and after it."""
    rows = []
    for name, (page, found) in (("no label set", empty), (f"{full[0].label_sets:,} label sets", full)):
        rows += [
            Row(name=f"{name}: time of a scrape", figure=figure([item.wall_ms for item in found]), unit="ms"),
            Row(name=f"{name}: CPU of the sidecar", figure=figure([item.cpu_ms for item in found]), unit="ms"),
            Row(
                name=f"{name}: longest wait of another request",
                figure=figure([item.wait_ms for item in found]),
                unit="ms",
            ),
            Row(name=f"{name}: size of the page", figure=figure([page.size / 1024]), unit="KiB"),
            Row(name=f"{name}: samples", figure=figure([page.samples]), unit=""),
        ]
    repetitions = [{"label_sets": page.label_sets, **asdict(item)} for page, found in (empty, full) for item in found]
    return Sheet(
        benchmark="scrape",
        title="Cost of a scrape of /metrics",
        how=[
            f"{len(full[1])} repetitions of {SCRAPES} scrapes one after the other, then {SCRAPES} with other requests "
            "beside them;",
            "each label set was made by a caller with its own certificate, one mTLS connection and one request",
        ],
        machine=machine,
        rows=rows,
        foreign=[item.foreign_share for item in full[1]],
        repetitions=repetitions,
    )


def _call(alone: Alone, memory: MemoryAuthority, account: str) -> None:
    context = tls_context(memory.svid(configs.NAMESPACE, account, key="callers"), memory.bundle, server=False)
    line = Line.call(alone.inbound, account, context)
    line.send(REQUEST)
    line.read_answer()
    line.close()


def _repetition(alone: Alone, core: int) -> Repetition:
    watch, cpu = CoreWatch(core), thread_nanoseconds(alone.pid)
    walls = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        alone.metrics()
        walls.append(time.perf_counter() - began)
    used = thread_nanoseconds(alone.pid) - cpu
    foreign = watch.foreign(used / 1e9)
    return Repetition(
        wall_ms=figure(walls).median * 1000,
        cpu_ms=used / SCRAPES / 1e6,
        wait_ms=max(_longest_wait(alone.health) for _ in range(SCRAPES)) * 1000,
        foreign_share=foreign,
    )


def _longest_wait(port: int) -> float:
    """Scrape, and ask for /livez on another connection again and again: the longest answer took so many seconds."""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as other,
        socket.create_connection(("127.0.0.1", port), 20) as scrape,
    ):
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        longest, done = 0.0, False
        scrape.sendall(b"GET /metrics HTTP/1.1\r\nhost: sidecar\r\nconnection: close\r\n\r\n")
        while not done:
            other.sendall(b"GET /livez HTTP/1.1\r\nhost: sidecar\r\n\r\n")
            began, answered = time.perf_counter(), False
            while not answered:
                readable, _, _ = select.select([other, *([] if done else [scrape])], [], [], 20)
                if not readable:
                    raise BenchError("the sidecar's pages say nothing for 20 s")
                if other in readable:
                    longest = max(longest, time.perf_counter() - began)
                    if not other.recv(_SIZE):
                        raise BenchError("the sidecar closed the connection that other requests came on")
                    answered = True
                if scrape in readable and not done:
                    done = not scrape.recv(_SIZE)
        return longest
