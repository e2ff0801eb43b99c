"""What holds for every test: it leaves nothing behind, and end-to-end tests run on both event loops.

After each test these are compared with what was there before it: asyncio tasks, file descriptors, child processes and
threads. Sockets and files that were dropped without being closed warn when they are collected, and warnings are
errors. Fixtures of a wider scope than one test may hold what they like: they are set up before the first look.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import uvloop

if TYPE_CHECKING:
    from fake_clock import FakeClock

TESTS = Path(__file__).parent
END_TO_END = ("e2e", "netns", "pods")
LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
GRACE = 1.0
"""Seconds that threads and children get to end after the test that ended them."""


# --- both event loops ------------------------------------------------------------------------------------------------


def is_end_to_end(item: pytest.Item) -> bool:
    """Say whether a test lies in one of the folders with real sockets."""
    relative = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
    return any(part in END_TO_END for part in relative.parts)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async end-to-end tests on uvloop and on asyncio, all others on asyncio alone."""
    return LOOPS if is_end_to_end(item) else {"asyncio": LOOPS["asyncio"]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are not async and take `loop_name` (for a process that they start) once with each loop."""
    if "loop_name" in metafunc.fixturenames:
        metafunc.parametrize("loop_name", list(LOOPS))


@pytest.fixture(scope="session", autouse=True)
def _uvloop_warm() -> None:
    """Open what libuv opens once per process and never closes, so that no test is blamed for it."""
    uvloop.new_event_loop().close()


# --- leaks -----------------------------------------------------------------------------------------------------------


def open_descriptors() -> set[str]:
    """Name every open descriptor with what it leads to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the directory listing itself
    return found


def child_processes() -> set[str]:
    """Name every child of this process, ended and unreaped ones too."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            children = Path(f"/proc/self/task/{task}/children").read_text()
        except FileNotFoundError:
            continue  # a thread that ended meanwhile
        for pid in children.split():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                command = ""
            found.add(f"{pid} {command.strip() or '(ended, not waited for)'}")
    return found


def threads() -> set[str]:
    """Name every thread."""
    return {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()}


def left_behind(before: tuple[set[str], set[str], set[str]]) -> list[str]:
    """Say what is there now and was not before."""
    kinds = ("file descriptor", "child process", "thread")
    now = (open_descriptors(), child_processes(), threads())
    return [f"{kind} {name}" for kind, old, new in zip(kinds, before, now, strict=True) for name in sorted(new - old)]


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves descriptors, processes or threads."""
    before = (open_descriptors(), child_processes(), threads())
    yield
    if is_end_to_end(request.node) or pytest_asyncio.is_async_test(request.node):
        gc.collect()  # an unclosed socket warns now, in the test that dropped it
    left = left_behind(before)
    deadline = time.monotonic() + GRACE
    while left and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
        left = left_behind(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest_asyncio.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail an async test that leaves tasks running."""
    yield
    current = asyncio.current_task()
    for _ in range(5):  # tasks that were cancelled need a turn or two to end
        if not asyncio.all_tasks() - {current}:
            return
        await asyncio.sleep(0)
    left = [repr(task) for task in asyncio.all_tasks() - {current}]
    if left:
        pytest.fail("tasks left behind:\n  " + "\n  ".join(sorted(left)), pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each async test the look at its tasks, first of its own fixtures: so it is the last to be taken down."""
    for item in items:
        if pytest_asyncio.is_async_test(item):
            names: list[str] = item.fixturenames
            names.insert(names.index("nothing_left_behind") + 1, "no_task_left")


# --- the fake clock --------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves when told."""
    from fake_clock import FakeClock

    return FakeClock()
