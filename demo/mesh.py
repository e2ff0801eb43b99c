"""The mesh as processes: `remora authority serve`, three applications, and beside each `remora proxy run`.

The authority is there first: it makes a join token for each workload, which is all that a sidecar needs to begin. A
fourth workload, batch, has no sidecar and enrols by itself.

Nothing outlives the demo. Children are ended by their process id; should the demo itself be killed, the kernel kills
them (PR_SET_PDEATHSIG). They stand in process groups of their own, so that Ctrl-C in a terminal reaches the demo
alone and the mesh ends in order: first the sidecars, which drain, then the applications, last the authority.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

from certs.store import CERTIFICATE_FILE
from demo import authority
from demo.command import MeshError, environment, indented, interpreter
from demo.layout import MEMBERS, PORTS, WORKLOADS, Layout

_READY_WITHIN: Final = 30.0
"""It takes a second or two; a machine that is busy with something else may take longer, and is not to blame."""
_END_WITHIN: Final = 5.0
"""More than the sidecars' drain_timeout."""
_BASES: Final = range(20_000, 32_000, 100)
"""Below the ports that Linux gives to outgoing connections (32768 and up), so that none of ours is taken by chance."""
_BETWEEN_LOOKS: Final = 0.03
_LOG_TAIL: Final = 12
_PR_SET_PDEATHSIG: Final = 1
_AUTHORITY: Final = "the authority"
_SIDECAR: Final = "sidecar of "


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A child: `title` names it to a person, `log` takes its output."""

    title: str
    child: subprocess.Popen[bytes]
    log: Path


def free_base() -> int:
    """Choose where the ports begin: a block of which every port is free now. Raises MeshError when there is none."""
    for base in random.sample(_BASES, len(_BASES)):
        with ExitStack() as opened:
            try:
                for offset in PORTS.values():
                    sock = opened.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    raise MeshError(f"no free ports on 127.0.0.1 between {_BASES.start} and {_BASES.stop}")


class Mesh:
    """The running mesh: a context manager that starts every process and leaves none behind.

    Entering returns when all are ready; MeshError says which one is not, with the end of its log.
    """

    def __init__(self, layout: Layout, lifetime: str) -> None:
        """`lifetime` is that of certificates, as `remora authority serve` takes it."""
        self.layout = layout
        self.lifetime = lifetime
        self.processes: list[Process] = []
        self.ready_after = 0.0

    def __enter__(self) -> Mesh:
        began = time.monotonic()
        try:
            authority.found(self.layout)
            self._serve(began + _READY_WITHIN)
            authority.publish_bundle(self.layout)
            authority.admit(self.layout, MEMBERS)
            self._start_all()
            self._wait(self._looks(), began + _READY_WITHIN)
        except BaseException:
            self.stop()
            raise
        self.ready_after = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def check(self) -> None:
        """Raise MeshError when a process has ended."""
        for process in self.processes:
            code = process.child.poll()
            if code is not None:
                raise MeshError(f"{process.title} ended with code {code}:\n{log_tail(process.log)}")

    def serve_anew(self, lifetime: str) -> None:
        """End the authority and start it again with another lifetime of certificates. Nobody else is touched.

        Raises MeshError.
        """
        self.lifetime = lifetime
        for process in self.processes:
            if process.title == _AUTHORITY:
                _end([process.child], time.monotonic() + _END_WITHIN)
        self.processes = [process for process in self.processes if process.title != _AUTHORITY]
        self._serve(time.monotonic() + _READY_WITHIN)

    def stop(self) -> None:
        """End all processes and wait for them; what does not end in time is killed."""
        deadline = time.monotonic() + _END_WITHIN
        sidecars = [process.child for process in self.processes if process.title.startswith(_SIDECAR)]
        last = [process.child for process in self.processes if process.title == _AUTHORITY]
        others = [process.child for process in self.processes if process.child not in (*sidecars, *last)]
        for children in (sidecars, others, last):
            _end(children, deadline)
        self.processes.clear()

    def _serve(self, deadline: float) -> None:
        layout = self.layout
        words = interpreter("-m", "remora", *authority.serve_words(layout, self.lifetime))
        self._start(_AUTHORITY, words, layout.authority_log)
        self._wait({_AUTHORITY: partial(_not_serving, layout.port("authority_health"))}, deadline)

    def _start_all(self) -> None:
        layout = self.layout
        for name in WORKLOADS:
            words = interpreter("-m", "demo.workloads", *layout.application_arguments(name))
            self._start(f"application {name}", words, layout.application_log(name))
            words = interpreter("-m", "remora", "proxy", "run", "--config", str(layout.configuration(name)))
            self._start(f"{_SIDECAR}{name}", words, layout.sidecar_log(name))
        self._start("batch", interpreter("-m", "demo.batch", *layout.batch_arguments()), layout.batch_log)

    def _start(self, title: str, words: Sequence[str], log: Path) -> None:
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 our own interpreter, our own words
                words,
                cwd=self.layout.directory,  # the authority's socket has a path of 107 bytes at most: it is relative
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(os.environ),
                process_group=0,
                preexec_fn=_bound_to(os.getpid()),  # noqa: PLW1509 the demo has one thread
            )
        self.processes.append(Process(title=title, child=child, log=log))

    def _looks(self) -> dict[str, Callable[[], str]]:
        """Say how to see of each process whether it is ready: "" or why it is not."""
        layout = self.layout
        looks: dict[str, Callable[[], str]] = {}
        for name in WORKLOADS:
            looks[f"application {name}"] = partial(_unreachable, layout.port(f"{name}_app"))
            title = f"{_SIDECAR}{name}"
            looks[title] = partial(_not_ready, layout.port(f"{name}_admin"), title)
        looks["batch"] = partial(_not_enrolled, layout)
        return looks

    def _wait(self, waiting: dict[str, Callable[[], str]], deadline: float) -> None:
        while waiting:
            self.check()
            answers = {title: look() for title, look in waiting.items()}
            waiting = {title: look for title, look in waiting.items() if answers[title]}
            if waiting and time.monotonic() > deadline:
                title = next(iter(waiting))
                raise MeshError(f"{title} is not ready after {_READY_WITHIN:g} s: {answers[title]}")
            time.sleep(_BETWEEN_LOOKS if waiting else 0)


def _end(children: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _bound_to(parent: int) -> Callable[[], None]:
    """Make what a child does before its program runs: ask to be killed when the demo ends, however it ends."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux has it; elsewhere a killed demo leaves its children

    def bind() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it ended before the kernel knew
                os._exit(1)

    return bind


def _unreachable(port: int) -> str:
    """Say why nobody serves the port; "" when somebody does."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError as failure:
        return failure.strerror or str(failure)
    return ""


def _not_ready(admin_port: int, title: str) -> str:
    """Say why a sidecar cannot be asked; "" when it is ready. MeshError when it says what nobody is going to mend.

    It read its policies before it opened this port; its identity is on the way from the authority.
    """
    try:
        status, text = get_page(admin_port, "/readyz")
    except (OSError, http.client.HTTPException) as failure:
        return str(failure)
    if status == 200:
        return ""
    lines = text.strip().splitlines()[1:]
    if faults := [line for line in lines if line.startswith("policy: ")]:
        raise MeshError(f"the {title} is not ready:\n" + indented("\n".join(faults)))
    return "; ".join(lines)


def _not_serving(health_port: int) -> str:
    """Say why the authority cannot be asked; "" when it is ready."""
    try:
        status, text = get_page(health_port, "/readyz")
    except (OSError, http.client.HTTPException) as failure:
        return str(failure)
    return "" if status == 200 else text.strip()


def _not_enrolled(layout: Layout) -> str:
    """Say what batch lacks; "" when it has its certificate."""
    if (layout.identity("batch") / CERTIFICATE_FILE).exists():
        return ""
    return log_tail(layout.batch_log).strip()


def get_page(port: int, path: str) -> tuple[int, str]:
    """Read a page of a sidecar: status and text. Raises OSError and HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def log_tail(log: Path, lines: int = _LOG_TAIL) -> str:
    """Give the last lines of a log, indented; what cannot be read is said."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError as failure:
        text = [f"({failure.strerror})"]
    return indented("\n".join(text) or "(empty)")
