"""The coarse clock: late by three ticks at most, never early, whatever is armed and moved."""

from __future__ import annotations

import gc
import logging
import math
import weakref

import pytest
from hand_loop import HandLoop
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.runtime.clock import TICK, CoarseClock


class Entry:
    """Something with a deadline: notes when it passed."""

    def __init__(self, loop: HandLoop) -> None:
        self.deadline = self.slot = math.inf
        self.passed: list[float] = []
        self._loop = loop

    def deadline_passed(self) -> None:
        self.passed.append(self._loop.now)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.15, 1.0, 4.0, 25.5, 25.6, 25.7, 60.0, 3_600.0])
@pytest.mark.parametrize("since_tick", [0.0, 0.03, 0.099])
def test_a_deadline_is_kept_late_and_never_early(seconds: float, since_tick: float) -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    loop.advance(10 * TICK + since_tick)
    entry = Entry(loop)
    armed = loop.now
    clock.arm(entry, seconds)
    loop.advance(seconds + 3 * TICK)
    (passed,) = entry.passed
    assert armed + seconds - 1e-9 <= passed <= armed + seconds + 3 * TICK + 1e-9
    assert entry.deadline == entry.slot == math.inf


def test_a_late_loop_makes_no_deadline_early() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    loop.advance(0.95, late=0.04)
    armed = loop.now
    clock.arm(entry, 1.0)
    loop.advance(2.0, late=0.04)
    assert armed + 1.0 <= entry.passed[0] <= armed + 1.0 + 3 * TICK


def test_a_deadline_that_is_put_off_is_kept_at_the_later_time() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    for _ in range(10):
        clock.arm(entry, 1.0)
        loop.advance(0.5)
    assert not entry.passed
    loop.advance(1.0)
    assert len(entry.passed) == 1


def test_a_deadline_that_is_moved_forward_is_kept_at_the_earlier_time() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    clock.arm(entry, 60.0)
    clock.arm(entry, 1.0)
    loop.advance(1.3)
    assert len(entry.passed) == 1
    loop.advance(100.0)
    assert len(entry.passed) == 1


def test_a_disarmed_deadline_does_not_pass_and_may_be_armed_again() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    clock.arm(entry, 1.0)
    clock.disarm(entry)
    clock.disarm(entry)
    loop.advance(30.0)
    assert not entry.passed
    clock.arm(entry, 1.0)
    loop.advance(1.3)
    assert len(entry.passed) == 1


def test_a_disarmed_entry_is_let_go_at_once() -> None:
    """It may be a closed connection: at 1,000 connections a second, a turn of slots would keep 25,000 of them."""
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    clock.arm(entry, 3_600.0)
    clock.arm(entry, 1.0)
    clock.disarm(entry)
    gone = weakref.ref(entry)
    del entry
    gc.collect()
    assert gone() is None


def test_a_deadline_may_arm_and_disarm_others_and_itself() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    others = [Entry(loop) for _ in range(4)]

    class Again(Entry):
        def deadline_passed(self) -> None:
            super().deadline_passed()
            clock.arm(self, 60.0)
            for other in others[:2]:
                clock.disarm(other)
            clock.arm(others[2], 5.0)

    again = Again(loop)
    for entry in (*others[:2], again, *others[2:]):
        clock.arm(entry, 1.0)
    loop.advance(2.0)
    assert len(again.passed) == 1
    loop.advance(10.0)
    assert len(others[2].passed) >= 1
    assert len(others[3].passed) == 1
    loop.advance(60.0)
    assert len(again.passed) == 2


def test_a_deadline_that_raises_is_reported_and_the_others_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)

    class Broken(Entry):
        def deadline_passed(self) -> None:
            raise ZeroDivisionError

    broken, sound = Broken(loop), Entry(loop)
    clock.arm(sound, 1.0)
    clock.arm(broken, 1.0)
    later = Entry(loop)
    clock.arm(later, 2.0)
    with caplog.at_level(logging.ERROR):
        loop.advance(3.0)
    assert len(sound.passed) == len(later.passed) == 1
    assert "could not be kept" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_loop_that_stood_still_catches_up() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entries = [Entry(loop) for _ in range(100)]
    for number, entry in enumerate(entries):
        clock.arm(entry, number / 10)
    loop.now += 100.0
    loop.advance(TICK)
    assert all(len(entry.passed) == 1 for entry in entries)


def test_a_stopped_clock_keeps_no_deadline_and_takes_a_disarm() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entry = Entry(loop)
    clock.arm(entry, 1.0)
    clock.stop()
    clock.stop()
    clock.disarm(entry)
    loop.advance(5.0)
    assert not entry.passed
    assert all(timer.cancelled for timer in loop.timers)


def test_thousands_of_entries_are_each_kept_once() -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entries = [Entry(loop) for _ in range(5_000)]
    for number, entry in enumerate(entries):
        clock.arm(entry, (number * 7_919 % 1_000) / 10)
    loop.advance(101.0)
    for number, entry in enumerate(entries):
        wanted = 50.0 + (number * 7_919 % 1_000) / 10
        assert len(entry.passed) == 1
        assert wanted - 1e-9 <= entry.passed[0] <= wanted + 3 * TICK + 1e-9


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 70), st.booleans(), st.floats(0, 4)),
        max_size=40,
    )
)
def test_whatever_is_armed_and_moved_the_last_word_counts(steps: list[tuple[int, float, bool, float]]) -> None:
    loop = HandLoop()
    clock = CoarseClock(loop.face)
    entries = [Entry(loop) for _ in range(4)]
    wanted: list[float | None] = [None] * 4
    for number, seconds, arms, pause in steps:
        for index, entry in enumerate(entries):
            if entry.passed:
                wanted[index] = None
                entry.passed.clear()
        if arms:
            clock.arm(entries[number], seconds)
            wanted[number] = loop.now + seconds
        else:
            clock.disarm(entries[number])
            wanted[number] = None
        loop.advance(pause)
        for entry, end in zip(entries, wanted, strict=True):
            if entry.passed:
                assert end is not None
                assert end - 1e-6 <= entry.passed[0] <= end + 3 * TICK + 1e-6
            elif end is not None:
                assert loop.now <= end + 3 * TICK + 1e-6
    loop.advance(80.0)
    for entry, end in zip(entries, wanted, strict=True):
        assert bool(entry.passed) is (end is not None)
