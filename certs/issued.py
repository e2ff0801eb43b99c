"""Keeps the index of the certificates that were given out: a file of lines that only grows, synced line by line.

1. A certificate is in the file, on disk, before it leaves.
2. A last line without its end was being written when the process died: its certificate never left, and the line goes
   when the file is opened.
3. A line that could not be written whole is cut off at once, or before the next one: half a line would join the next
   one into nonsense.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from certs.state_disk import replace_file, sync, unwritable
from certs.state_store import IssuedEntry, StateError, StateInDoubt


class IssuedIndex:
    """The index in one file. Raises StateError for a line that is none, or a serial that stands there twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._entries: dict[str, IssuedEntry] = {}
        self._ends: dict[str, float] = {}
        self._end = 0
        try:
            self._open()
        except StateError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[IssuedEntry, ...]:
        """What the index holds, oldest first."""
        return tuple(self._entries.values())

    @property
    def ends(self) -> Mapping[str, float]:
        """Says for each issuer when its last leaf ends; asked each second, so it is counted and not searched for."""
        return self._ends

    def close(self) -> None:
        """Lets the file go; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def append(self, entry: IssuedEntry) -> None:
        """Writes one entry and syncs it; raises StateError, and the file is as before."""
        if entry.serial in self._entries:
            raise StateError(f"the serial {entry.serial} was given out already; sign with another")
        line = write_line(entry)
        try:
            if os.lseek(self._descriptor, 0, os.SEEK_END) != self._end:
                # A write failed and could not be undone then.
                os.ftruncate(self._descriptor, self._end)
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(28, "no space left for the whole line")
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise unwritable(error, self._path) from None
        self._end += len(line)
        self._entries[entry.serial] = entry
        self._ends[entry.issuer] = max(self._ends.get(entry.issuer, 0.0), entry.not_after)

    def compact(self, now: float) -> int:
        """Drops the entries of certificates that had ended at `now`; returns how many."""
        kept = [entry for entry in self._entries.values() if entry.not_after > now]
        dropped = len(self._entries) - len(kept)
        if not dropped:
            return 0
        try:
            replace_file(self._path, b"".join(map(write_line, kept)))
        except StateInDoubt:
            # The old file may have lost its name: a line written to it would be lost with it.
            self._reopen()
            raise
        self._reopen()
        return dropped

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = self._path.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole != len(data):
                os.ftruncate(self._descriptor, whole)
                os.fsync(self._descriptor)
            sync(self._path.parent)
        except OSError as error:
            raise unwritable(error, self._path) from None
        entries: dict[str, IssuedEntry] = {}
        for number, line in enumerate(data[:whole].splitlines(), 1):
            entry = read_line(line, f"{self._path}:{number}")
            if entry.serial in entries:
                raise StateError(f"{self._path}:{number}: this serial stands there twice; restore the file from a copy")
            entries[entry.serial] = entry
        self._entries, self._end = entries, whole
        self._ends = {}
        for entry in entries.values():
            self._ends[entry.issuer] = max(self._ends.get(entry.issuer, 0.0), entry.not_after)


def write_line(entry: IssuedEntry) -> bytes:
    r"""Writes an entry as one line of JSON.

    >>> write_line(IssuedEntry(serial="7f", identity="spiffe://td/a", key="ab", not_after=9.0, issuer="i"))
    b'{"identity": "spiffe://td/a", "issuer": "i", "key": "ab", "not_after": 9.0, "serial": "7f"}\n'
    """
    return json.dumps(dataclasses.asdict(entry), sort_keys=True).encode("ascii") + b"\n"


def read_line(line: bytes, source: str) -> IssuedEntry:
    """Reads what `write_line` wrote; raises StateError naming `source`."""
    try:
        entry = IssuedEntry(**json.loads(line))
        texts = (entry.serial, entry.identity, entry.key, entry.issuer)
        if all(isinstance(text, str) for text in texts) and isinstance(entry.not_after, int | float):
            return entry
    except (ValueError, TypeError, RecursionError):
        pass
    raise StateError(f"{source}: it is no entry of the index; restore the file from a copy")
