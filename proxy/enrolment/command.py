"""Runs the program of `identity.command` and keeps what it printed: an identity whose maker has no API that we speak.

    run --prints--> certs.store judges --good--> held, and run again at half of its lifetime
     ^                     |
     |                  broken, or no output in time: what is held stays
     '--- 1 s, 2 s ... 150 s

What holds:

1. No shell: the program and its arguments are executed as they stand, with an empty standard input.
2. A run ends within its time limit, and so does whatever it has started: its whole process group is killed.
3. More output than an identity can have ends the run. Its standard error is ours, and goes where our log goes; what
   it printed is never quoted, because a private key stands in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from certs.files import StoreError, read_file
from certs.store import ROOTS_FILE, IdentitySet
from proxy.config_values import IdentityCommand
from proxy.enrolment.held import Files, HeldIdentity
from proxy.errors import ConfigError, Fault
from proxy.identity.credential import MAX_CREDENTIAL_BYTES, CredentialError, read_printed

_AT_ONCE: Final = 65_536
_LOOK: Final = 0.25
"""Seconds between looks whether we are to end: a program that says nothing delays the end by no more."""
_LEAVING: Final = 0.005
_JOIN_SECONDS: Final = 5.0

_log = logging.getLogger("remora.identity")


class CommandSource:
    """Runs the program when it is due, on a thread. `read` from any thread; `close` ends a run that is under way."""

    def __init__(
        self,
        command: IdentityCommand,
        judge: Callable[[Files, float], IdentitySet],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`judge` takes files and the time and raises ConfigError for a set that cannot be taken."""
        self._command = command
        self._judge = judge
        self._now = now
        self._held = HeldIdentity(command.run[0], "the program has not printed an identity yet", now)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="identity command", daemon=True)
        self._thread.start()

    def read(self) -> Files:
        """Give the files of the last good run. Raises ConfigError until there is one, and while runs fail."""
        return self._held.read()

    def close(self) -> None:
        """End the thread and a run that is under way."""
        self._ending.set()
        self._thread.join(_JOIN_SECONDS)

    def _follow(self) -> None:
        while not self._ending.is_set():
            try:
                self._run_once()
            except Exception:
                _log.exception("running %s failed; the identity that is held stays", self._command.run[0])
                self._held.fail()
            # By a clock that nobody sets, and never longer than a day: a clock may have been wrong when we asked it.
            self._ending.wait(min(max(self._held.renewal.due - self._now(), 0.0), 86_400.0))

    def _run_once(self) -> None:
        try:
            files = self._printed()
            identity = self._judge(files, self._now())
        except ConfigError as failure:
            if not self._ending.is_set():
                self._held.fail(failure.faults)
            return
        self._held.take(files, identity)

    def _printed(self) -> Files:
        command = self._command
        try:
            files = read_printed(run_program(command.run, command.timeout, self._ending))
            if command.bundle_file and ROOTS_FILE not in files:
                files[ROOTS_FILE] = read_file(Path(command.bundle_file))
        except ProgramError as failure:
            raise ConfigError([Fault(file=command.run[0], message=str(failure))]) from None
        except CredentialError as failure:
            raise ConfigError(
                [Fault(file=command.run[0], message=f"what it printed cannot be used: {failure}")]
            ) from None
        except StoreError as failure:
            message = str(failure).removeprefix(f"{command.bundle_file}: ")
            raise ConfigError([Fault(file=command.bundle_file, message=message)]) from failure
        return files


class ProgramError(Exception):
    """A program that gave no output that can be used; the message quotes none of it."""


def run_program(
    arguments: tuple[str, ...], seconds: float, ending: threading.Event, limit: int = MAX_CREDENTIAL_BYTES
) -> bytes:
    """Run a program and give what it printed, at most `limit` bytes, within `seconds` or until `ending` is set.

    Raises ProgramError when it cannot be started, takes too long, prints too much, or ends with a failure.
    """
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(  # noqa: S603 - the configuration names it, and nobody else adds a word
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
        )
    except (OSError, ValueError) as failure:
        why = getattr(failure, "strerror", None) or "an argument cannot be passed on"
        raise ProgramError(f"it cannot be started: {why}; check path and mode") from None
    stdout = process.stdout
    try:
        if stdout is None:
            raise ProgramError("it was started without a pipe; this is a fault of ours")
        printed = _read_all(stdout.fileno(), deadline, ending, limit)
        while not _has_ended(process.pid):
            if time.monotonic() > deadline or ending.is_set():
                raise ProgramError("it closed its output and did not end in time; let it exit when it is done")
            ending.wait(_LEAVING)
    finally:
        # Its children as well. Not waited for before, so that its number, and the group's, are still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if stdout is not None:
            stdout.close()
        status = process.wait()
    if status != 0:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise ProgramError(f"it {how}, so what it printed does not count; its own messages stand in the log")
    return printed


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _read_all(descriptor: int, deadline: float, ending: threading.Event, limit: int) -> bytes:
    printed = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ProgramError("it did not end in time; raise the time limit, or see what it waits for")
            if ending.is_set():
                raise ProgramError("it was ended because the sidecar ends")
            if not selector.select(min(left, _LOOK)):
                continue
            chunk = os.read(descriptor, _AT_ONCE)
            if not chunk:
                return bytes(printed)
            printed += chunk
            if len(printed) > limit:
                raise ProgramError(f"it printed more than {limit} bytes; nothing of an identity is as large")
