"""Starts the programs of a benchmark, each bound to its core, reads what they cost, and ends them by their ids.

CPU comes from the kernel's accounting, /proc/<pid>/stat: user and system time of the process, of its living
descendants and of those that it has waited for. It is counted in ticks of 10 ms, so a figure needs seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

START_SECONDS: Final = 20.0
"""A program that does not listen by then has failed; Envoy on a busy core takes 3."""
END_SECONDS: Final = 5.0
"""How long a program may take to end after SIGTERM before it is killed."""
ANSWER_SECONDS: Final = 5.0
"""How long a program may take to say whether it is ready."""

PACKAGES: Final = str(Path(__file__).resolve().parent.parent)
"""Where our own packages lie, for programs of ours that run in a directory of their own."""

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A benchmark that cannot go on, in a sentence for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """What /proc/<pid>/stat says: who its parent is, and its ticks with those of the children it waited for."""

    parent: int
    ticks: int


def parse_process_stat(text: str) -> ProcessStat:
    """Read one /proc/<pid>/stat (proc(5)). The command's name may hold spaces and brackets: count from the last one."""
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(parent=int(fields[1]), ticks=sum(int(field) for field in fields[11:15]))


def parse_core_stat(text: str) -> dict[int, tuple[int, int]]:
    """Read /proc/stat: for each core the ticks that processes ran on it, and those stolen by the hypervisor.

    Interrupts are left out: what traffic costs there is charged to no process, so it would look like somebody else's.
    Guest time is part of user time already.
    """
    cores: dict[int, tuple[int, int]] = {}
    for line in text.splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, _, _, steal = (int(number) for number in numbers[:8])
            cores[int(name[3:])] = (user + nice + system, steal)
    return cores


def trees(stats: Mapping[int, ProcessStat], roots: Sequence[int]) -> list[int]:
    """Find processes and all their living descendants; one that is gone is left out."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in stats:
            found.append(pid)
        waiting += children.get(pid, ())
    return found


def tree_ticks(stats: Mapping[int, ProcessStat], roots: Sequence[int]) -> int:
    """Add up the ticks of processes and of all their living descendants; one that is gone counts nothing."""
    return sum(stats[pid].ticks for pid in trees(stats, roots))


def process_stats() -> dict[int, ProcessStat]:
    """Read what the kernel says of every process there is."""
    stats: dict[int, ProcessStat] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended since the directory was read
                stats[int(entry.name)] = parse_process_stat(Path(entry.path, "stat").read_text("latin-1"))
    return stats


def cpu_seconds(roots: Sequence[int]) -> float:
    """Tell the CPU time that processes and their descendants have used since they started."""
    return tree_ticks(process_stats(), roots) / TICKS_PER_SECOND


def resident_mib(roots: Sequence[int]) -> float:
    """Tell the resident memory of processes and their descendants, in MiB; what they share counts for each."""
    pages = 0
    for pid in trees(process_stats(), roots):
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def core_seconds(core: int) -> tuple[float, float]:
    """Tell how long processes have run on a core since boot, and how long it was stolen, in seconds."""
    busy, steal = parse_core_stat(Path("/proc/stat").read_text("ascii")).get(core, (0, 0))
    return busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


@contextlib.contextmanager
def bound_to(core: int | Collection[int]) -> Iterator[None]:
    """Let what is started within run on one core, or on some: children inherit the binding of who starts them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if isinstance(core, int) else core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Programs:
    """The programs of one benchmark; leaving the `with` ends every one of them, the last started first."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._running):
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self._files:
            file.close()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        core: int | Collection[int],
        port: int,
        directory: Path,
        stdout: Path | None = None,
    ) -> int:
        """Start a program on `core`, one or several, and wait until it accepts connections on `port`.

        Returns its process id. What it says goes to `output.log` in its directory, or its standard output to `stdout`.
        Raises BenchError with the last of it when the program ends or does not listen in time.
        """
        process = self.launch(command, core=core, directory=directory, stdout=stdout)
        wait_until(lambda: accepts(port), process, name, f"does not listen on port {port}", directory, pause=0.05)
        return process.pid

    def launch(
        self,
        command: Sequence[str],
        *,
        core: int | Collection[int],
        directory: Path,
        stdout: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program on `core` and wait for nothing; `environment` is what differs from ours."""
        said = (directory / "output.log").open("ab")
        self._files.append(said)
        out: IO[bytes] = said
        if stdout is not None:
            out = stdout.open("ab")
            self._files.append(out)
        with bound_to(core):
            process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=said,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": PACKAGES, **(environment or {})},
            )
        self._running.append(process)
        return process


def wait_until(
    happened: Callable[[], bool],
    process: subprocess.Popen[bytes],
    name: str,
    failure: str,
    directory: Path,
    *,
    pause: float,
) -> None:
    """Look every `pause` seconds whether something of a process has happened.

    Raises BenchError with the last words in its `directory` when the process ends first, or when it takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while not happened():
        if process.poll() is not None:
            raise BenchError(f"{name} ended with code {process.returncode}: {_last_words(directory)}")
        if time.monotonic() > deadline:
            raise BenchError(f"{name} {failure}: {_last_words(directory)}")
        time.sleep(pause)


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Make a directory with files in it, by their names relative to it."""
    directory.mkdir()
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def thread_nanoseconds(pid: int) -> int:
    """Tell the CPU time of a process's living threads in nanoseconds, from the scheduler's own count.

    It resolves what ticks of 10 ms do not, a single scrape; it leaves out children and threads that have ended.
    """
    return sum(
        int(Path(task.path, "schedstat").read_text("ascii").split()[0]) for task in os.scandir(f"/proc/{pid}/task")
    )


def accepts(port: int) -> bool:
    """Say whether somebody listens on a port of the loopback address."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def answers_ready(port: int) -> bool:
    """Whether /readyz on this port of 127.0.0.1 answers with 200; a port where nobody listens answers nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_ports(count: int) -> list[int]:
    """Find ports of the loopback address that nobody uses now."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            sock = held.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            ports.append(int(sock.getsockname()[1]))
        return ports


def _last_words(directory: Path) -> str:
    words = [
        line
        for name in ("output.log", "error.log")
        if (directory / name).exists()
        for line in (directory / name).read_text("utf-8", "replace").splitlines()[-3:]
    ]
    return " | ".join(words) or "it said nothing"
