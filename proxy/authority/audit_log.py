"""Writes the audit log: whole lines, each handed to the kernel before the certificate that it tells of leaves."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

from certs.state_store import StateError
from proxy.authority.config import STDOUT

_MODE: Final = 0o600


class AuditLog:
    """A file that is only ever appended to, or standard output. Raises StateError when it cannot be opened."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._descriptor = self._open()
        self._guard = threading.Lock()  # the office and the event loop both write
        self._is_torn = False  # the last line was not written to its end

    def write(self, line: str) -> None:
        """Write one line, without its break. Raises StateError when not all of it could be written."""
        data = line.encode("ascii") + b"\n"
        with self._guard:
            # Half a line would join the next one into nonsense; it may have left already, so it cannot be cut off.
            self._write(b"\n" + data if self._is_torn else data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:  # a pipe that is nearly full takes it in pieces
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._is_torn = self._is_torn or len(rest) < len(data)
            raise StateError(f"the audit log {self._target} cannot be written ({error.strerror}); make room") from None
        self._is_torn = False

    def reopen(self) -> None:
        """Open the file anew: whoever rotates logs has moved it away. The old one stays when that fails."""
        if self._target == STDOUT:
            return
        fresh = self._open()
        with self._guard:
            os.close(self._descriptor)
            self._descriptor, self._is_torn = fresh, False

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._target != STDOUT and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        if self._target == STDOUT:
            return sys.stdout.fileno()
        try:
            return os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise StateError(
                f"the audit log {self._target} cannot be opened ({error.strerror}); name a place that can be written"
            ) from None
