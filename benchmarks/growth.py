"""Measures what grows: a sidecar's cost over idle connections, policy rules, services, and headers of a request.

    caller == mutual TLS ==> sidecar --> application        idle connections, rules, headers
    application --> sidecar == mutual TLS ==> service        services

Every size has a sidecar of its own (headers share one), and all of them stand through the whole run. Rounds go through
all sizes of all curves in short turns, requests one after the other on one connection, so that a slow second of the
host hits all alike. What is counted is the sidecar's CPU, in nanoseconds from the scheduler. Every request of the rules
and of the headers has a path of its own, so that each is decided and none remembered. How curves are judged:
`growth_fit.py`.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import configs, growth_fit
from benchmarks.alone import ACCOUNT, Alone, CoreWatch, compile_code
from benchmarks.growth_fit import Curve, Verdict
from benchmarks.host import NOISY_SHARE, Machine
from benchmarks.peers import Line, MeshServer, application, close_all, reserve_descriptors, tls_context
from benchmarks.processes import Programs, bound_to, cpu_seconds, free_ports, thread_nanoseconds, write_files
from benchmarks.rule_sets import PREFIX, documents
from certs.memory import MemoryAuthority, write_set

REQUESTS: Final = 50
"""Of one size at a time: some milliseconds of CPU, which the scheduler counts in nanoseconds."""
TURNS: Final = 9
"""How often each size has its turn in one round. Their middle one counts, so that a neighbour who comes for some
milliseconds changes nothing, and one who stays changes all sizes alike."""
IDLE_SECONDS: Final = 1.0
"""How long nothing happens in a round: several of the sidecar's own looks at files and clocks fall into it."""
SETTLE_SECONDS: Final = 2.0
"""What a thousand handshakes leave is freed by then."""

# Low places show what many cost at all, those in between whether the cost bends on the way to the highest.
IDLE: Final = (1, 100, 1_500, 5_000)
RULES: Final = (1, 100, 2_500, 5_000, 10_000)
SERVICES: Final = (1, 20, 500, 1_000, 2_000)
HEADERS: Final = (5, 25, 50, 75, 100)

_LIMITS: Final = {"mesh_idle_timeout": "1h", "http_idle_timeout": "1h", "head_fields": 200}
"""Connections must stay, and a hundred headers are exactly what is taken by default: here no limit is to be met."""
DOCUMENTS_OF_A_FILE: Final = 20
_PATH: Final = "/api/v1/thing-{}"
_BUSY: Final = "us of CPU per request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One size of one curve: the sidecar that is watched, and how it is asked once."""

    curve: str
    size: int
    pid: int
    ask: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A curve before it is measured: its words, and the most that it may grow."""

    title: str
    axis: str
    unit: str
    due: Verdict
    sizes: Sequence[int]


SHAPES: Final[Mapping[str, Shape]] = {
    "idle": Shape(
        title="A request while other connections stand idle",
        axis="idle mTLS connections",
        unit=_BUSY,
        due=Verdict.FLAT,
        sizes=IDLE,
    ),
    "rules": Shape(
        title="A request under rules of which one matches",
        axis="policy rules",
        unit=_BUSY,
        due=Verdict.FLAT,
        sizes=RULES,
    ),
    "services": Shape(
        title="An outbound request among services that are not called",
        axis="services",
        unit=_BUSY,
        due=Verdict.FLAT,
        sizes=SERVICES,
    ),
    "headers": Shape(
        title="A request with headers that were seen before",
        axis="headers of the request",
        unit=_BUSY,
        due=Verdict.LINEAR,
        sizes=HEADERS,
    ),
    "headers-new": Shape(
        title="A request with headers whose values were never seen",
        axis="headers of the request",
        unit=_BUSY,
        due=Verdict.LINEAR,
        sizes=HEADERS,
    ),
    "background": Shape(
        title="Nothing happens: what idle connections cost by themselves",
        axis="idle mTLS connections",
        unit="us of CPU per second",
        due=Verdict.LINEAR,
        sizes=IDLE,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The curves, and which part of the sidecars' core others took in each round."""

    machine: Machine
    curves: Sequence[Curve]
    foreign: Sequence[float]

    def warnings(self) -> list[str]:
        """Say what makes the figures weaker than they look."""
        found = self.machine.warnings()
        if (share := max(self.foreign, default=0.0)) > NOISY_SHARE:
            found.append(f"the host was noisy: others took up to {share:.0%} of the sidecars' core")
        if len(self.foreign) < 6:
            found.append("fewer than six rounds give less than 95 % confidence in a verdict")
        return found


def run(machine: Machine, rounds: int, directory: Path, tell: Callable[[str], None]) -> Result:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when it cannot be done."""
    reserve_descriptors(sum(IDLE) + 512)
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    with bound_to(machine.cores.others), ExitStack() as held:
        compile_code(memory, directory / "first", machine.cores.proxies)
        bench = _Bench(machine, directory, memory, held)
        subjects = []
        for name, prepare in (
            ("services", bench.services),
            ("headers", bench.headers),
            ("rules", bench.rules),
            ("idle connections", bench.idle),
        ):
            tell(f"sidecars for {name}")
            subjects += list(prepare())
        time.sleep(SETTLE_SECONDS)
        return _measure(machine, bench, subjects, rounds, tell)


def _measure(
    machine: Machine, bench: _Bench, subjects: Sequence[Subject], rounds: int, tell: Callable[[str], None]
) -> Result:
    found: dict[str, list[list[float]]] = {name: [] for name in SHAPES}
    numbers, foreign = itertools.count(), []
    for subject in subjects:
        _cost(subject, numbers)
    for number in range(1, rounds + 1):
        tell(f"round {number} of {rounds}")
        watch, before = CoreWatch(machine.cores.proxies), cpu_seconds(bench.pids)
        turns = [[_cost(subject, numbers) for subject in subjects] for _ in range(TURNS)]
        values: dict[str, list[float]] = {name: [] for name in SHAPES}
        for subject, costs in zip(subjects, zip(*turns, strict=True), strict=True):
            values[subject.curve].append(statistics.median(costs))
        values["background"] = _background([subject.pid for subject in subjects if subject.curve == "idle"])
        for name, row in values.items():
            found[name].append(row)
        foreign.append(watch.foreign(cpu_seconds(bench.pids) - before))
    return Result(machine=machine, curves=[_curve(name, rows) for name, rows in found.items()], foreign=foreign)


def _curve(name: str, rounds: Sequence[Sequence[float]]) -> Curve:
    shape = SHAPES[name]
    return Curve(
        name=name,
        title=shape.title,
        axis=shape.axis,
        unit=shape.unit,
        due=shape.due,
        sizes=shape.sizes,
        rounds=rounds,
    )


def _cost(subject: Subject, numbers: Iterator[int]) -> float:
    """Send requests one after the other; the sidecar's CPU for each, in microseconds."""
    before = thread_nanoseconds(subject.pid)
    for number in itertools.islice(numbers, REQUESTS):
        subject.ask(number)
    return (thread_nanoseconds(subject.pid) - before) / REQUESTS / 1e3


def _background(pids: Sequence[int]) -> list[float]:
    """Let nothing happen for a while; the CPU that each sidecar used of a second, in microseconds."""
    before = [thread_nanoseconds(pid) for pid in pids]
    time.sleep(IDLE_SECONDS)
    return [(thread_nanoseconds(pid) - used) / IDLE_SECONDS / 1e3 for pid, used in zip(pids, before, strict=True)]


# --- what is measured -------------------------------------------------------------------------------------------------


class _Bench:
    """Starts the sidecars; all that it starts ends with `held`, connections first."""

    def __init__(self, machine: Machine, directory: Path, memory: MemoryAuthority, held: ExitStack) -> None:
        self._core = machine.cores.proxies
        self._directory = directory
        self._memory = memory
        self._held = held
        self._programs = held.enter_context(Programs())
        self._app = held.enter_context(application())
        self._caller = tls_context(memory.svid(configs.NAMESPACE, configs.CALLER), memory.bundle, server=False)
        self._lines: list[Line] = []
        held.callback(close_all, self._lines)
        self.pids: list[int] = []

    def idle(self) -> Iterator[Subject]:
        """Give each sidecar its number of idle connections, each of which has served a request."""
        for size in IDLE:
            alone = self._start(f"idle-{size}")
            for number in range(size):
                line = self._call(alone, f"idle connection {number + 1}")
                _get(line, "/orders/1")
            yield Subject(curve="idle", size=size, pid=alone.pid, ask=self._asks(alone, "/orders"))

    def rules(self) -> Iterator[Subject]:
        """Give each sidecar its number of rules, of which the last allows what is asked."""
        for size in RULES:
            alone = self._start(f"rules-{size}", policy=rule_files(size))
            yield Subject(curve="rules", size=size, pid=alone.pid, ask=self._asks(alone, _PATH.format(size - 1)))

    def headers(self) -> Iterator[Subject]:
        """Ask one sidecar with ever more headers, of which host is one."""
        alone = self._start("headers", policy=rule_files(1))
        path = _PATH.format(0)
        for size in HEADERS:
            same = "".join(f"x-header-{number}: value-of-header-{number}\r\n" for number in range(size - 1))
            yield Subject(curve="headers", size=size, pid=alone.pid, ask=self._asks(alone, path, same))
        for size in HEADERS:
            fresh = "".join(f"x-header-{number}: value-{{0:012}}-{number}\r\n" for number in range(size - 1))
            yield Subject(curve="headers-new", size=size, pid=alone.pid, ask=self._asks(alone, path, fresh))

    def services(self) -> Iterator[Subject]:
        """Give each sidecar its number of services, of which the last is called."""
        svid = self._memory.svid(configs.NAMESPACE, ACCOUNT)
        for size in SERVICES:
            server = self._held.enter_context(closing(MeshServer(tls_context(svid, self._memory.bundle, server=True))))
            alone = self._start(f"services-{size}", endpoint=server.port, services=size)
            line = Line.call(alone.outbound, f"the application of {size} services")
            self._lines.append(line)
            yield Subject(curve="services", size=size, pid=alone.pid, ask=_asks_service(line, server))

    def _start(
        self, name: str, *, endpoint: int = 0, services: int = 1, policy: Mapping[str, str] | None = None
    ) -> Alone:
        """Start a sidecar that calls `endpoint`, or without one a sidecar that is called, and wait for it."""
        inbound, outbound, health = free_ports(3)
        home = self._directory / name
        identity = home.with_name(home.name + "-identity")
        trusted = {self._memory.trust_domain: self._memory.bundle}
        write_set(self._memory.svid(configs.NAMESPACE, ACCOUNT), trusted, identity)
        files = configs.sidecar(
            home,
            identity,
            account=ACCOUNT,
            health=health,
            inbound=None if endpoint else (inbound, self._app),
            outbound=(outbound, endpoint) if endpoint else None,
            limits=_LIMITS,
        )
        if endpoint:
            files[configs.CONFIG_FILE] = with_services(files[configs.CONFIG_FILE], services)
        if policy:
            files = {configs.CONFIG_FILE: files[configs.CONFIG_FILE], **policy}
        write_files(home, files)
        launched_at = time.monotonic()
        process = self._programs.launch(
            configs.sidecar_command(home), core=self._core, directory=home, environment=_compiled(home.parent)
        )
        alone = Alone(
            process=process,
            launched_at=launched_at,
            directory=home,
            inbound=inbound,
            outbound=outbound,
            health=health,
        )
        alone.wait_until_ready(pause=0.05)
        self.pids.append(alone.pid)
        return alone

    def _call(self, alone: Alone, name: str) -> Line:
        line = Line.call(alone.inbound, name, self._caller)
        self._lines.append(line)
        return line

    def _asks(self, alone: Alone, path: str, fields: str = "") -> Callable[[int], None]:
        """Make a connection and what asks on it; `fields` are header lines, with {0} for the number of the request."""
        line = self._call(alone, f"the caller of {alone.directory.name}")
        return lambda number: _get(line, f"{path}/{number}", fields.format(number))


def _compiled(directory: Path) -> dict[str, str]:
    """Let sidecars find the code that the first of them compiled, as `alone.launch` does."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "compiled")}


def _get(line: Line, path: str, fields: str = "") -> None:
    line.send(f"GET {path} HTTP/1.1\r\nhost: orders:8080\r\n{fields}\r\n".encode("ascii"))
    line.read_answer()


def _asks_service(line: Line, server: MeshServer) -> Callable[[int], None]:
    def ask(number: int) -> None:
        line.send(f"GET /orders/{number} HTTP/1.1\r\nhost: {configs.CALLED}\r\n\r\n".encode("ascii"))
        server.read_requests(1)
        server.answer_all()
        line.read_answer()

    return ask


def rule_files(count: int) -> dict[str, str]:
    """Write the files of `count` rules, each of some documents: a file may have a mebibyte."""
    found = documents(PREFIX, count)
    return {
        f"policy/rules-{first:03}.yaml": "".join(
            f"---\n{json.dumps(item)}\n" for item in found[first : first + DOCUMENTS_OF_A_FILE]
        )
        for first in range(0, len(found), DOCUMENTS_OF_A_FILE)
    }


def with_services(config: str, count: int) -> str:
    """Add services that nobody calls to a configuration with one, so that there are `count`; it stays the last."""
    document: dict[str, Any] = json.loads(config)
    called = document["outbound"]["services"][-1]
    others = [
        {
            **called,
            "name": f"service-{number}",
            "hosts": [f"service-{number}.{configs.NAMESPACE}.svc.cluster.local"],
            "identities": [f"spiffe://{configs.TRUST_DOMAIN}/ns/{configs.NAMESPACE}/sa/service-{number}"],
        }
        for number in range(count - 1)
    ]
    document["outbound"]["services"] = [*others, called]
    return json.dumps(document, indent=1) + "\n"


# --- what is said of it -----------------------------------------------------------------------------------------------

HOW: Final = (
    f"in each round, each size has {TURNS} turns of {REQUESTS} requests, one after the other; the middle turn counts,",
    "CPU of one sidecar from the scheduler;",
    "growth and bend are shares of the cost at the smallest size, with a 95 % interval of the median round",
)


def as_text(result: Result) -> str:
    """Write the curves for a person."""
    lines = ["What grows, and how", *result.machine.lines("the sidecars")]
    lines += [f"  {'how' if not number else '':<12}{line}" for number, line in enumerate(HOW)]
    lines += ["", *growth_fit.as_lines(result.curves)]
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in result.warnings())]).rstrip() + "\n"


def as_json(result: Result) -> str:
    """Write everything, each round included, for programs."""
    return json.dumps(document(result), indent=1) + "\n"


def document(result: Result) -> dict[str, Any]:
    """Give everything as a JSON object."""
    return {
        "kind": "growth",
        **result.machine.document(),
        "how": list(HOW),
        "curves": growth_fit.documents(result.curves),
        "foreign_share": list(result.foreign),
        "warnings": result.warnings(),
    }
