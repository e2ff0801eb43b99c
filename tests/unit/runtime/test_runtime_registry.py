"""The registry of open connections, and the one place where tasks are made."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.errors import Reason
from proxy.runtime.registry import Entry, Registry, SettingUp
from proxy.runtime.tasks import TaskSpawner


class Runs:
    """What runs a connection; when broken off it leaves the registry, as the real ones do."""

    def __init__(self, registry: Registry, entry: Entry) -> None:
        self.told: list[Reason | str] = []
        self._registry, self._entry = registry, entry

    def drain(self) -> None:
        self.told.append("drain")

    def break_off(self, reason: Reason) -> None:
        self.told.append(reason)
        self._registry.remove(self._entry)

    def revoke(self, reason: Reason) -> None:
        self.told += ["revoked", reason]
        self._registry.remove(self._entry)

    def judge_again(self) -> None:
        self.told.append("judge again")


def opened(registry: Registry, direction: str = "inbound") -> tuple[Entry, Runs]:
    entry = Entry(direction, "orders", "10.0.0.1:4000", 0.0)
    registry.add(entry)
    return entry, Runs(registry, entry)


def test_connections_are_counted_by_direction() -> None:
    registry = Registry()
    entry, _ = opened(registry)
    opened(registry, "outbound")
    assert (registry.count("inbound"), registry.count("outbound")) == (1, 1)
    registry.remove(entry)
    registry.remove(entry)
    assert (registry.count("inbound"), registry.count("outbound")) == (0, 1)
    assert len(list(registry)) == 1


def test_a_drain_reaches_one_direction_and_those_who_are_still_being_set_up() -> None:
    registry = Registry()
    entry, runs = opened(registry)
    late, late_runs = opened(registry)
    other, other_runs = opened(registry, "outbound")
    entry.attach(runs)
    other.attach(other_runs)
    registry.drain("inbound")
    assert (runs.told, late_runs.told, other_runs.told) == (["drain"], [], [])
    late.attach(late_runs)
    assert late_runs.told == ["drain"]


def test_everything_can_be_broken_off_while_it_leaves() -> None:
    registry = Registry()
    told = []
    for direction in ("inbound", "outbound", "inbound"):
        entry, runs = opened(registry, direction)
        entry.attach(runs)
        told.append(runs.told)
    opened(registry)  # still being set up: it ends with its task
    registry.break_off(Reason.DRAIN_DEADLINE)
    assert told == [[Reason.DRAIN_DEADLINE]] * 3
    assert registry.count("inbound") == 1


def test_who_waits_for_the_last_connection_is_told_once() -> None:
    registry, told = Registry(), []
    registry.when_empty("inbound", lambda: told.append("at once"))
    assert told == ["at once"]
    one, _ = opened(registry)
    two, _ = opened(registry)
    registry.when_empty("inbound", lambda: told.append("later"))
    registry.remove(one)
    assert told == ["at once"]
    registry.remove(two)
    registry.remove(two)
    assert told == ["at once", "later"]


@pytest.mark.asyncio
async def test_a_task_that_fails_is_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    spawner = TaskSpawner(asyncio.get_running_loop())

    async def fails() -> None:
        raise ZeroDivisionError("here")

    with caplog.at_level(logging.ERROR):
        task = spawner.spawn(fails(), "the ninth task")
        assert len(spawner) == 1
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert "the ninth task" in caplog.text
    assert "ZeroDivisionError: here" in caplog.text
    assert len(spawner) == 0


@pytest.mark.asyncio
async def test_all_that_runs_is_cancelled_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    spawner, ended = TaskSpawner(asyncio.get_running_loop()), []

    async def runs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    for number in range(3):
        spawner.spawn(runs(), f"task {number}")
    await asyncio.sleep(0)
    await spawner.cancel_all()
    assert len(ended) == 3
    assert len(spawner) == 0
    assert not caplog.text, "to be cancelled is no failure"


def test_what_is_revoked_before_somebody_runs_it_is_revoked_then() -> None:
    registry = Registry()
    entry, runs = opened(registry)
    entry.judge = lambda: Reason.TRUST_ENDED
    assert registry.judge_again() == 1
    assert not runs.told
    entry.attach(runs)
    assert runs.told == ["revoked", Reason.TRUST_ENDED]


def test_an_end_after_a_revocation_is_the_end() -> None:
    registry = Registry()
    entry, runs = opened(registry)
    entry.revoke(Reason.TRUST_ENDED)
    entry.break_off(Reason.DRAIN_DEADLINE)
    entry.attach(runs)
    assert runs.told == [Reason.DRAIN_DEADLINE]


@pytest.mark.asyncio
async def test_an_end_cancels_the_task_that_sets_a_connection_up() -> None:
    registry = Registry()
    entry, _ = opened(registry)
    task = asyncio.create_task(asyncio.Event().wait())
    setting_up = SettingUp(task)
    entry.attach(setting_up)
    registry.drain("inbound")
    registry.judge_again()
    await asyncio.sleep(0)
    assert not task.cancelling()
    entry.revoke(Reason.TRUST_ENDED)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (setting_up.ended_by, setting_up.is_revoked) == (Reason.TRUST_ENDED, True)
