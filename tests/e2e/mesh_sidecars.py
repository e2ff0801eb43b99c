"""Sidecars under test: on the test's own loop, or as a process of their own, each with its files and access log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from handshake_peers import TIMEOUT
from mesh_streams import Message, Stream, dial

from proxy.app import App
from proxy.cli import read_config

_Result = TypeVar("_Result")
Records = list[dict[str, Any]]

ROOT = Path(__file__).parents[2]


def loop_name() -> str:
    """The kind of the running loop, as `runtime.loop` names it: a process runs on the kind that its test runs on."""
    return "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"


async def eventually(check: Callable[[], _Result], what: str = "", seconds: float = TIMEOUT) -> _Result:
    """Wait until `check` gives something true, and give that."""
    deadline = time.monotonic() + seconds
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come true within {seconds:g} s: {what or check}; last: {found!r}")
        await asyncio.sleep(0.01)
    return found


def free_port() -> int:
    """A port that was free a moment ago, for processes that cannot tell which one they got."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def fetch_page(port: int, path: str) -> Message:
    """Get a page of a health or admin listener."""
    stream = Stream(dial(port))
    try:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        return await stream.message()
    finally:
        stream.close()


def _parse_records(path: Path) -> Records:
    """Read whole lines of an access log; each must be one JSON object."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]]
    assert all(isinstance(record, dict) for record in records)
    return records


class _Described:
    """What sidecars in this process and in another have in common: a configuration file and an access log."""

    def __init__(self, directory: Path, config_file: Path) -> None:
        self.directory = directory
        self.config_file = config_file
        self.identity_directory = directory / "identity"
        self.policy_directory = directory / "policy"
        self.access_log = directory / "access.log"

    def _flush(self) -> None:
        """Hurry the access log along, where that can be done."""

    async def records(
        self, count: int = 1, *, kind: str = "", direction: str = "", seconds: float = TIMEOUT
    ) -> Records:
        """Wait for `count` records of a kind ("request", "connection") and give them; more than that is a failure."""

        def found() -> Records:
            return [
                record
                for record in _parse_records(self.access_log)
                if kind in ("", record["kind"]) and direction in ("", record["direction"])
            ]

        def enough() -> bool:
            self._flush()
            return len(found()) >= count

        await eventually(enough, f"{count} {kind} records of {self.directory.name}", seconds)
        records = found()
        assert len(records) == count, records
        return records


class Sidecar(_Described):
    """A sidecar that runs on the test's own loop."""

    def __init__(self, directory: Path, config_file: Path) -> None:
        super().__init__(directory, config_file)
        self.app = App(read_config(str(config_file)), asyncio.get_running_loop(), str(config_file))
        self._closed = False

    @property
    def port(self) -> int:
        """Its first inbound port."""
        return self.app.bound_ports()["inbound"][0]

    @property
    def outbound_port(self) -> int:
        """The port of its first outbound listener."""
        return self.app.bound_ports()["outbound"][0]

    @property
    def health_port(self) -> int:
        return self.app.bound_ports()["pages"][0]

    @property
    def open_connections(self) -> int:
        """How many connections it has open, both directions."""
        registry = self.app.sidecar.registry
        return registry.count("inbound") + registry.count("outbound")

    async def close(self) -> None:
        """End it at once; a second time is no mistake."""
        if not self._closed:
            self._closed = True
            await self.app.close()

    def _flush(self) -> None:
        self.app.sidecar.access_log.flush()


class Process(_Described):
    """A sidecar as a process of its own: `python -m remora proxy run`."""

    def __init__(
        self,
        directory: Path,
        config_file: Path,
        ports: Mapping[str, list[int]],
        prepare: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(directory, config_file)
        self.ports = ports
        self.error_file = directory / "stderr"
        with self.error_file.open("wb") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "remora", "proxy", "run", "--config", str(config_file)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                preexec_fn=prepare,
            )

    @property
    def port(self) -> int:
        return self.ports["inbound"][0]

    @property
    def outbound_port(self) -> int:
        return self.ports["outbound"][0]

    @property
    def health_port(self) -> int:
        return self.ports["pages"][0]

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.error_file.read_text(errors="replace")

    @property
    def resident(self) -> int:
        """Its resident memory in bytes."""
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def readiness(self, status: int) -> Message:
        """Wait until /readyz answers with this status."""
        deadline = time.monotonic() + 2 * TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                answer = await fetch_page(self.health_port, "/readyz")
                if answer.status == status:
                    return answer
            assert self.popen.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            await asyncio.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    async def ended(self, seconds: float = TIMEOUT) -> int:
        """Wait for its end and give the exit code (minus the signal that ended it). Fails on a traceback."""
        await eventually(lambda: self.popen.poll() is not None, f"the end of the process: {self.output}", seconds)
        assert "Traceback" not in self.output, self.output
        return int(self.popen.returncode)

    async def close(self) -> None:
        """Kill it if it still runs. Fails when it has shown a traceback."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        assert "Traceback" not in self.output, self.output


def accepts(port: int) -> bool:
    """Say whether somebody listens on a port. A reset is no: the listener was closed with us in its queue."""
    try:
        dial(port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True
