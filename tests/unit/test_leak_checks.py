"""The leak checks of conftest.py find what a test leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
SETTINGS = """\
[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
CASES = """\
import asyncio, os, socket, subprocess, sys, threading, time, pytest

KEPT = []

def test_descriptor():
    KEPT.append(os.pipe())

def test_child():
    KEPT.append(subprocess.Popen(["/bin/sleep", "20"], stdin=subprocess.DEVNULL))

def test_zombie():
    KEPT.append(os.posix_spawn("/bin/true", ["true"], {}))

def test_thread():
    KEPT.append(threading.Thread(target=time.sleep, args=(20,), daemon=True))
    KEPT[-1].start()

@pytest.mark.asyncio
async def test_task():
    KEPT.append(asyncio.create_task(asyncio.sleep(20), name="forgotten"))

@pytest.mark.asyncio
async def test_socket():
    socket.socket()

@pytest.mark.asyncio
async def test_socket_in_a_cycle():
    cycle = [socket.socket()]
    cycle.append(cycle)

@pytest.mark.asyncio
async def test_clean():
    left, right = socket.socketpair()
    left.close(), right.close()
    task = asyncio.create_task(asyncio.sleep(20))
    task.cancel()
    subprocess.run(["/bin/true"], check=True)
    thread = threading.Thread(target=time.sleep, args=(0.05,))
    thread.start()

def test_clean_too():
    pass

def teardown_module():
    for kept in KEPT:
        if isinstance(kept, subprocess.Popen):
            kept.kill(), kept.wait()
        elif isinstance(kept, int):
            os.waitpid(kept, 0)
        elif isinstance(kept, tuple):
            os.close(kept[0]), os.close(kept[1])
"""


def test_each_kind_of_leak_fails_the_test_that_left_it(tmp_path: Path) -> None:
    shorter = CONFTEST.read_text().replace("GRACE = 1.0", "GRACE = 0.3")
    (tmp_path / "conftest.py").write_text(shorter)
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "e2e").mkdir()
    (tmp_path / "e2e" / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", "e2e"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    lines = run.stdout.splitlines()

    def outcome(word: str) -> set[str]:
        ours = [line for line in lines if line.startswith(f"{word} e2e/")]
        return {line.split("::")[1].split(" ")[0] for line in ours}

    # A socket that the last reference drops warns inside the test, the others are found when it is taken down.
    assert outcome("ERROR") | outcome("FAILED") == {
        "test_descriptor",
        "test_child",
        "test_zombie",
        "test_thread",
        "test_task[uvloop]",
        "test_task[asyncio]",
        "test_socket[uvloop]",
        "test_socket[asyncio]",
        "test_socket_in_a_cycle[uvloop]",
        "test_socket_in_a_cycle[asyncio]",
    }, run.stdout
    assert outcome("PASSED") >= {"test_clean[uvloop]", "test_clean[asyncio]", "test_clean_too"}, run.stdout
    for phrase in ("file descriptor ", "child process ", "thread ", "name='forgotten'", "ResourceWarning: unclosed"):
        assert phrase in run.stdout, phrase


def test_the_fake_clock_ends_in_order_what_comes_due(clock) -> None:
    ended: list[tuple[str, float]] = []

    class Entry:
        deadline = 0.0

        def __init__(self, name: str) -> None:
            self.name = name

        def deadline_passed(self) -> None:
            ended.append((self.name, clock.now - start))

    start = clock()
    late, early, moved, never = Entry("late"), Entry("early"), Entry("moved"), Entry("never")
    clock.arm(late, 5)
    clock.arm(early, 1)
    clock.arm(moved, 2)
    clock.arm(moved, 4)
    clock.arm(never, 3)
    clock.disarm(never)
    clock.advance(4.5)
    assert ended == [("early", 1), ("moved", 4)]
    clock.advance(1)
    assert ended[2:] == [("late", 5)]
    assert clock.now == start + 5.5
