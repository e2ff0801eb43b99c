"""Starts one sidecar by itself, with one inbound port and one outbound service, and asks its pages.

Its code is compiled once into a directory of the benchmark, whatever this environment says of byte code: an image is
compiled when it is built, and a process that compiles at its start takes longer and keeps more memory.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import configs
from benchmarks.host import foreign_share
from benchmarks.processes import BenchError, Programs, answers_ready, core_seconds, free_ports, wait_until, write_files
from certs.memory import MemoryAuthority, write_set

ACCOUNT: Final = configs.CALLED
"""Who the sidecar is; its own service is called by the same name, which only a benchmark may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A sidecar that was launched: its process, when (by the monotonic clock), its directory, where it listens."""

    process: subprocess.Popen[bytes]
    launched_at: float
    directory: Path
    inbound: int
    outbound: int
    health: int

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def is_ready(self) -> bool:
        """Ask once whether it is ready; False while nobody listens."""
        return answers_ready(self.health)

    def wait_until_ready(self, *, pause: float) -> None:
        """Ask every `pause` seconds until it is ready. Raises BenchError when it does not become so."""
        wait_until(self.is_ready, self.process, "the sidecar", "does not become ready", self.directory, pause=pause)

    def metrics(self) -> bytes:
        """Scrape it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.health, timeout=20)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            page = answer.read()
        except (OSError, http.client.HTTPException) as failure:
            raise BenchError(f"the sidecar's metrics cannot be had: {failure!r}") from failure
        finally:
            connection.close()
        if answer.status != 200:
            raise BenchError(f"the sidecar answers {answer.status} to a scrape")
        return page


def launch(
    programs: Programs,
    memory: MemoryAuthority,
    directory: Path,
    *,
    core: int,
    app: int,
    endpoint: int,
    policy: str = configs.POLICY,
    limits: Mapping[str, object] | None = None,
) -> Alone:
    """Write the files of a sidecar to a new directory and start it on `core`; it is not waited for."""
    inbound, outbound, health = free_ports(3)
    identity = directory.with_name(directory.name + "-identity")
    write_set(memory.svid(configs.NAMESPACE, ACCOUNT), {memory.trust_domain: memory.bundle}, identity)
    files = configs.sidecar(
        directory,
        identity,
        account=ACCOUNT,
        health=health,
        inbound=(inbound, app),
        outbound=(outbound, endpoint),
        policy=policy,
        limits=limits,
    )
    write_files(directory, files)
    launched_at = time.monotonic()
    process = programs.launch(
        configs.sidecar_command(directory),
        core=core,
        directory=directory,
        environment={"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory.parent / "compiled")},
    )
    return Alone(
        process=process,
        launched_at=launched_at,
        directory=directory,
        inbound=inbound,
        outbound=outbound,
        health=health,
    )


def compile_code(memory: MemoryAuthority, directory: Path, core: int) -> None:
    """Start a sidecar and end it, so that those which follow beside `directory` find everything compiled."""
    with Programs() as programs:
        [nobody] = free_ports(1)
        launch(programs, memory, directory, core=core, app=nobody, endpoint=nobody).wait_until_ready(pause=0.05)


class CoreWatch:
    """Tells which part of a core others took since this was made, before the sidecar was launched there."""

    def __init__(self, core: int) -> None:
        self._core = core
        self._began = time.monotonic()
        self._busy, self._stolen = core_seconds(core)

    def foreign(self, ours: float) -> float:
        """Give the part of others, from 0 to 1; `ours` is the CPU time that the sidecar used meanwhile, in seconds."""
        busy, stolen = core_seconds(self._core)
        return foreign_share(busy - self._busy, ours, stolen - self._stolen, time.monotonic() - self._began)
