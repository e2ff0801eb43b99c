"""A worker that is killed: what waits in its socket is served by the one in its place, and no counter goes back."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from mesh import TIMEOUT, Mesh, eventually, get
from worker_process import WORKERS, Crew, crew, until_replaced

QUEUED = 12
CALLERS = 6
CALLS = 25


async def call(mesh: Mesh, orders: Crew) -> int:
    """Make one request on a connection of its own; give its status, 0 when the connection broke."""
    client = await mesh.client(orders.process)
    try:
        await client.send(get("/"))
        return (await client.message()).status
    except ConnectionError:
        return 0
    finally:
        client.close()


@pytest.mark.asyncio
async def test_what_is_queued_is_served_and_what_stood_is_reset(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    clients = await orders.clients_of_each(mesh)
    served = await orders.requests()
    victim = orders.pid_of(1)
    os.kill(victim, signal.SIGSTOP)  # so that nobody accepts what the kernel queues for it
    calls = [asyncio.ensure_future(call(mesh, orders)) for _ in range(QUEUED)]
    done, waiting = await asyncio.wait(calls, timeout=1)
    assert done, "the other worker serves meanwhile"
    assert waiting, "the kernel gave it some"
    os.kill(victim, signal.SIGKILL)
    assert await asyncio.wait_for(asyncio.gather(*calls), TIMEOUT) == [200] * QUEUED
    assert await clients[1][0].closed() == "broken"
    await clients[2][0].send(get("/"))
    assert (await clients[2][0].message()).status == 200
    await until_replaced(orders, victim)
    assert await orders.requests() == served + QUEUED + 1
    assert (await orders.metrics())["remora_workers_replaced_total"] == 1
    assert "was ended by signal 9" in orders.process.output


@pytest.mark.asyncio
async def test_under_load_only_what_it_had_accepted_breaks(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    counted = [await orders.requests()]

    async def caller() -> list[int]:
        return [await call(mesh, orders) for _ in range(CALLS)]

    callers = [asyncio.ensure_future(caller()) for _ in range(CALLERS)]
    for number in range(1, WORKERS + 1):
        victim = orders.pid_of(number)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda gone=victim: gone not in orders.workers)  # type: ignore[misc]
        counted.append(await orders.requests())
        await until_replaced(orders, victim)
        counted.append(await orders.requests())
    statuses = [status for caller_of in await asyncio.gather(*callers) for status in caller_of]
    counted.append(await orders.requests())
    assert set(statuses) <= {200, 0}
    assert statuses.count(0) <= WORKERS * CALLERS, "each caller has one connection at a time"
    assert counted == sorted(counted)


@pytest.mark.asyncio
async def test_one_that_keeps_dying_is_given_a_rest(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    for _ in range(3):
        victim = orders.pid_of(2)
        os.kill(victim, signal.SIGKILL)
        await until_replaced(orders, victim)
    lines = [line for line in orders.process.output.splitlines() if "another begins" in line]
    assert [line.rpartition("another begins ")[2] for line in lines] == ["now", "in 0.2 s", "in 0.4 s"]


@pytest.mark.asyncio
async def test_workers_without_a_supervisor_end(mesh: Mesh) -> None:
    orders = await crew(mesh, app=await mesh.backend())
    workers = orders.workers
    client = await mesh.client(orders.process)
    await client.send(get("/"))
    assert (await client.message()).status == 200
    orders.process.popen.kill()
    orders.process.popen.wait()

    def running() -> list[int]:
        return [pid for pid in workers if is_running(pid)]

    assert await client.receive() == b"", "an idle connection ends cleanly"
    await eventually(lambda: not running(), "the end of the workers")


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
