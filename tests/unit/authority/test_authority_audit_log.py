"""A line of the audit log is written whole or said to be missing, and spoils no other line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs.state_store import StateError
from proxy.authority.audit_log import AuditLog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(file: Path) -> Iterator[AuditLog]:
    made = AuditLog(str(file))
    try:
        yield made
    finally:
        made.close()


def fill(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """A disk that takes `room` more bytes."""
    write, left = os.write, [room]

    def until_full(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, bytes(data)[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr("proxy.authority.audit_log.os.write", until_full)


def test_a_line_that_goes_in_pieces_arrives_whole(log: AuditLog, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("proxy.authority.audit_log.os.write", lambda where, data: write(where, bytes(data)[:3]))
    log.write("one line")
    assert file.read_text() == "one line\n"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("room", "there"), [(0, ""), (3, "lin\n"), (8, "line two\n")])
def test_half_a_line_joins_no_other_one(
    log: AuditLog, file: Path, monkeypatch: pytest.MonkeyPatch, room: int, there: str
) -> None:
    log.write("line one")
    with monkeypatch.context() as patch:
        fill(patch, room)
        for _ in range(2):
            with pytest.raises(StateError, match="No space left on device"):
                log.write("line two")
    log.write("line three")
    log.write("line four")
    assert file.read_text() == f"line one\n{there}line three\nline four\n"


def test_a_log_that_was_moved_away_begins_anew(log: AuditLog, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill(patch, 3)
        with pytest.raises(StateError):
            log.write("line one")
    file.rename(file.with_suffix(".1"))
    log.reopen()
    log.write("line two")
    assert file.read_text() == "line two\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"nowhere/audit cannot be opened \(No such file or directory\)"):
        AuditLog(str(tmp_path / "nowhere" / "audit"))
