"""The access log and its thread: flushed in time and at the end, counted when it cannot be written."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.telemetry import access_log
from proxy.telemetry.access_log import AccessLog


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.01)


def writers() -> int:
    return sum(thread.name == "access-log" for thread in threading.enumerate())


@pytest.mark.asyncio
async def test_a_record_is_in_the_file_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(asyncio.get_running_loop(), str(path))
    log.write("one\n")
    log.write("two\n")
    async with asyncio.timeout(1.0):
        await until(lambda: path.read_text() == "one\ntwo\n")
    log.close()


@pytest.mark.asyncio
async def test_at_the_end_everything_is_written_and_the_thread_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLog(asyncio.get_running_loop(), str(path))
    assert writers() == 1
    for number in range(10_000):
        log.write(f"line {number}\n")
    log.close()
    log.close()
    assert path.read_text().splitlines() == ["before", *(f"line {number}" for number in range(10_000))]
    assert writers() == 0
    assert log.dropped == 0


@pytest.mark.asyncio
async def test_a_full_block_does_not_wait_for_the_interval(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(asyncio.get_running_loop(), str(path))
    log.write("x" * 70_000 + "\n")
    await until(lambda: path.stat().st_size == 70_001)
    log.close()


@pytest.mark.asyncio
async def test_records_that_cannot_be_written_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = AccessLog(asyncio.get_running_loop(), "/dev/full")
    for _ in range(3):
        log.write("lost\n")
    log.flush()
    await until(lambda: log.dropped)
    log.close()
    assert log.dropped == 3
    assert "3 access records lost" in caplog.text


@pytest.mark.asyncio
async def test_a_reader_that_stands_still_costs_records_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "_BACKLOG", 200_000)
    monkeypatch.setattr(access_log, "_LAST_WRITE", 0.05)
    reading, writing = os.pipe()
    log = AccessLog(asyncio.get_running_loop(), f"/dev/fd/{writing}")
    os.close(writing)
    for _ in range(100):
        log.write("x" * 9_999 + "\n")
        log.flush()
    dropped = log.dropped
    assert 0 < dropped < 100
    log.close()
    heard = 0
    while data := os.read(reading, 65_536):
        heard += len(data)
    os.close(reading)
    await until(lambda: writers() == 0)
    assert heard == (100 - dropped) * 10_000
    assert log.dropped == dropped


@pytest.mark.asyncio
async def test_switched_off_it_has_no_thread_and_keeps_nothing() -> None:
    log = AccessLog(asyncio.get_running_loop(), "off")
    log.write("nothing\n")
    log.close()
    assert writers() == 0
    assert not log._lines


@pytest.mark.asyncio
async def test_stdout_is_written_by_a_descriptor_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stdout"
    with path.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        log = AccessLog(asyncio.get_running_loop(), "stdout")
    log.write("still open\n")
    log.close()
    assert path.read_text() == "still open\n"


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        AccessLog(asyncio.get_running_loop(), str(tmp_path / "nowhere" / "access.log"))
    assert writers() == 0


@pytest.mark.asyncio
async def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(asyncio.get_running_loop(), str(path))
    log.write("before\n")
    path.rename(moved)
    log.reopen()
    log.write("after\n")
    log.close()
    log.reopen()
    assert (moved.read_text(), path.read_text()) == ("before\n", "after\n")
    assert log.dropped == 0


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_opened_anew_leaves_the_old_one_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    log = AccessLog(asyncio.get_running_loop(), str(directory / "access.log"))
    directory.rename(tmp_path / "elsewhere")
    log.reopen()
    log.write("still written\n")
    log.close()
    assert (tmp_path / "elsewhere" / "access.log").read_text() == "still written\n"
    assert "the access log stays where it was" in caplog.text


@pytest.mark.asyncio
async def test_stdout_is_not_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stdout"
    with path.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        log = AccessLog(asyncio.get_running_loop(), "stdout")
    path.rename(tmp_path / "moved")
    log.reopen()
    log.write("same\n")
    log.close()
    assert (tmp_path / "moved").read_text() == "same\n"
    assert not path.exists()


@pytest.mark.asyncio
async def test_after_a_full_disk_the_log_goes_on_and_says_what_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    path.symlink_to("/dev/full")
    log = AccessLog(asyncio.get_running_loop(), str(path))
    for count in (1, 2):
        log.write("lost\n")
        log.flush()
        await until(lambda count=count: log.dropped == count)  # type: ignore[misc]
    assert caplog.text.count("records lost") == 1, "a full disk is told once"
    path.unlink()
    log.reopen()
    log.write("written\n")
    log.close()
    assert path.read_text() == "written\n"
    assert "2 records were lost" in caplog.text


@pytest.mark.asyncio
async def test_a_record_that_was_cut_off_does_not_spoil_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(asyncio.get_running_loop(), str(path))
    room = 6
    write = os.write

    def narrow(fd: int, data: memoryview) -> int:
        nonlocal room
        if fd != log._fd:
            return write(fd, data)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(fd, data[:room])
        room -= taken
        return taken

    monkeypatch.setattr(os, "write", narrow)
    for line in ("one\n", "two\n", "three\n"):
        log.write(line)
    log.flush()
    await until(lambda: log.dropped == 2)
    log.write("four\n")
    log.flush()
    await until(lambda: log.dropped == 3)
    room = 100
    log.write("five\n")
    log.close()
    assert path.read_text() == "one\ntw\nfive\n"
    assert log.dropped == 3
