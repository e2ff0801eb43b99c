"""Measures two hops: requests per second and CPU per request of each contender, in one run.

    core A   outbound hop ==mutual TLS==> inbound hop            the proxies, two processes as in two pods
    core B   load generator, application, and this program       what must not be in their way

How: everybody is started once and warmed up; then round after round measures each contender for a few seconds, one
after the other (A B C, A B C), so that a slow minute of the host hits all alike. CPU is what the kernel charged to the
two processes; it is the better figure on a shared machine, because what others run stretches time and not work.

That the work was done is checked in every repetition: no answer failed, each logged request left its line in both
hops, and in the middle of the load a request that policy forbids was answered 403 and is on record.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import configs
from benchmarks.configs import Hop
from benchmarks.contenders import REQUIRED, Contender, application_command, maybe_program
from benchmarks.host import Cores, foreign_share
from benchmarks.load import LoadReport, parse_wrk, wrk_command
from benchmarks.processes import BenchError, Programs, bound_to, core_seconds, cpu_seconds, free_ports, write_files
from certs.memory import MemoryAuthority, write_set

WARM_UP_SECONDS: Final = 1.0
LOG_SECONDS: Final = 5.0
"""How long after a load the last lines may come; everybody writes out at least every second."""
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to measure: seconds of each repetition, rounds, connections of the load generator."""

    seconds: float
    repetitions: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetition:
    """What one contender did in one round.

    `cpu_us` is per request, for both hops together. `proxy_share` is the part of their core that the proxies used,
    `foreign_share` the part that others took.
    """

    requests: int
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    proxy_share: float
    foreign_share: float


@dataclass(slots=True)
class Standing:
    """A contender that runs: its hops, their processes, and what it did so far."""

    contender: Contender
    hops: tuple[Hop, Hop]
    pids: list[int]
    repetitions: list[Repetition] = field(default_factory=list)
    denials: int = 0

    @property
    def entry(self) -> int:
        """The port that requests go to."""
        return self.hops[1].listen


def run(
    wanted: Sequence[Contender], plan: Plan, cores: Cores, directory: Path, tell: Callable[[str], None]
) -> list[Standing]:
    """Measure those of `wanted` that are installed; `directory` takes their files, `tell` hears of the progress.

    Raises BenchError when a program is missing, does not start, or when the work of a repetition was not done.
    """
    for name, why in REQUIRED.items():
        if maybe_program(name) is None:
            raise BenchError(f"{name} is not installed and {why}: apt-get install {name}")
    wrk, nginx = maybe_program("wrk") or "", maybe_program("nginx") or ""
    with Programs() as programs, bound_to(cores.others):
        app = _start_application(programs, nginx, directory, cores.others)
        identities = make_identities(directory)
        standings = []
        for contender in wanted:
            if not contender.absent:
                tell(f"start and warm up {contender.name}")
                standing = _start(programs, contender, app, identities, directory, cores.proxies)
                _check_answer(standing)
                _load(standing, wrk, plan, WARM_UP_SECONDS)
                standings.append(standing)
        for number in range(1, plan.repetitions + 1):
            for standing in standings:
                tell(f"round {number} of {plan.repetitions}: {standing.contender.name}")
                standing.repetitions.append(_repetition(standing, wrk, plan, cores.proxies, number))
        return standings


# --- setting up -----------------------------------------------------------------------------------------------------


def _start_application(programs: Programs, nginx: str, directory: Path, core: int) -> int:
    [port] = free_ports(1)
    home = directory / "application"
    write_files(home, {"nginx.conf": configs.application(port, home, as_root=os.geteuid() == 0)})
    programs.start("the application", application_command(nginx, str(home)), core=core, port=port, directory=home)
    return port


def make_identities(directory: Path) -> dict[str, Path]:
    """Issue both identities. They carry a DNS name besides: nginx and haproxy verify a server by nothing else."""
    memory = MemoryAuthority(configs.TRUST_DOMAIN)
    made = {}
    for account in (configs.CALLER, configs.CALLED):
        made[account] = directory / f"identity-{account}"
        svid = memory.svid(configs.NAMESPACE, account, dns_names=(account.encode("ascii"),))
        write_set(svid, {memory.trust_domain: memory.bundle}, made[account])
    return made


def _start(
    programs: Programs, contender: Contender, app: int, identities: dict[str, Path], directory: Path, core: int
) -> Standing:
    inbound_port, outbound_port, *health = free_ports(4)
    hops = []
    pids = []
    for inbound, listen, after in ((True, inbound_port, app), (False, outbound_port, inbound_port)):
        hop = Hop(
            inbound=inbound,
            listen=listen,
            next=after,
            health=health[inbound],
            directory=directory / f"{contender.name}-{'inbound' if inbound else 'outbound'}",
            identity=identities[configs.CALLED if inbound else configs.CALLER],
        )
        write_files(hop.directory, contender.files(hop))
        hops.append(hop)
        pids.append(
            programs.start(
                contender.name,
                contender.command(hop),
                core=core,
                port=listen,
                directory=hop.directory,
                stdout=hop.log if contender.log_on_stdout else None,
            )
        )
    return Standing(contender, (hops[0], hops[1]), pids)


def _check_answer(standing: Standing) -> None:
    """Ask once: the application's own body must come back through both hops."""
    status, body = get(standing.entry, "/orders/1")
    if (status, body) != (200, configs.BODY.encode()):
        raise BenchError(
            f"{standing.contender.name} answers {status} {body[:200]!r} where the application's 200 was due"
        )


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as failure:
        raise BenchError(f"no answer on port {port}: {failure!r}") from failure
    finally:
        connection.close()


# --- a repetition ---------------------------------------------------------------------------------------------------


def _repetition(standing: Standing, wrk: str, plan: Plan, core: int, number: int) -> Repetition:
    name, denied = standing.contender.name, f"{configs.DENIED_PREFIX}/round-{number}"
    if standing.contender.logs:
        _empty_logs(standing)
    busy, stolen = core_seconds(core)
    cpu, began = cpu_seconds(standing.pids), time.monotonic()
    report = _load(standing, wrk, plan, plan.seconds, denied=denied if standing.contender.judges else "")
    cpu, elapsed = cpu_seconds(standing.pids) - cpu, time.monotonic() - began
    busy_after, stolen_after = core_seconds(core)
    if standing.contender.logs:
        _check_logs(standing, report.requests, denied)
    if not cpu or not report.requests:
        raise BenchError(f"{name} did nothing that could be measured: {report.requests} requests, {cpu:.2f} s of CPU")
    return Repetition(
        requests=report.requests,
        rate=report.rate,
        cpu_us=cpu / report.requests * 1e6,
        p50_us=report.p50_us,
        p99_us=report.p99_us,
        proxy_share=min(1.0, cpu / elapsed),
        foreign_share=foreign_share(busy_after - busy, cpu, stolen_after - stolen, elapsed),
    )


def _load(standing: Standing, wrk: str, plan: Plan, seconds: float, *, denied: str = "") -> LoadReport:
    """Drive load through the hops; a path in `denied` is asked for in the middle and must be refused."""
    command = wrk_command(wrk, standing.entry, connections=plan.connections, seconds=seconds)
    name = standing.contender.name
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        try:
            if denied:
                time.sleep(seconds / 2)
                status, _ = get(standing.entry, denied)
                if status != 403:
                    raise BenchError(f"{name} answered {status} to a request for {denied}, which its policy denies")
            said, _ = process.communicate(timeout=seconds + 30)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchError(f"wrk ended with code {process.returncode}: {said.strip()[:300]}")
    report = parse_wrk(said)
    if report.refused or report.broken:
        raise BenchError(f"under load {name} refused {report.refused} requests and broke {report.broken} connections")
    return report


# --- was the work done? ---------------------------------------------------------------------------------------------


def _empty_logs(standing: Standing) -> None:
    for hop in standing.hops:
        os.truncate(hop.log, 0)


def _check_logs(standing: Standing, requests: int, denied: str) -> None:
    """See that each request left a line in each hop, and that the denied one is on record where policy judges."""
    deadline = time.monotonic() + LOG_SECONDS
    name = standing.contender.name
    for hop in standing.hops:
        where = "inbound" if hop.inbound else "outbound"
        while (lines := count_lines(hop.log)) < requests:
            if time.monotonic() > deadline:
                raise BenchError(f"{name}'s {where} hop logged {lines} of {requests} requests")
            time.sleep(0.1)
    if not standing.contender.judges:
        return
    while (record := find_record(standing.hops[0].log, denied)) is None:
        if time.monotonic() > deadline:
            raise BenchError(f"{name} denied {denied} and has no record of it")
        time.sleep(0.1)
    if record.get("response_code") not in (403, "403") or record.get("decision", "deny") != "deny":
        raise BenchError(f"{name}'s record of {denied} does not say that it was denied: {record}")
    standing.denials += 1


def count_lines(log: Path) -> int:
    """Count the lines of a file without holding it."""
    with log.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def find_record(log: Path, path: str) -> dict[str, Any] | None:
    """Find the record of a path in a log of JSON lines; None when there is none, or none that is whole yet."""
    needle = path.encode()
    with log.open("rb") as file:
        for line in file:
            if needle in line and line.endswith(b"\n"):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("path") == path:
                    return record
    return None
