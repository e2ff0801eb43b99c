"""The access log of a running process: opened anew on SIGUSR1, and a full disk stops the log and never the traffic."""

from __future__ import annotations

import json
import resource
import signal

import pytest
from mesh import Mesh, Process, eventually, fetch_page, get

ROOM = 8_192
"""Bytes that a file of the process may have: the kernel answers EFBIG beyond, as a full disk answers ENOSPC."""


async def asked(mesh: Mesh, process: Process, *paths: str) -> None:
    client = await mesh.client(process)
    for path in paths:
        await client.send(get(path))
        assert (await client.message()).status == 200
    client.close()


async def lost(process: Process) -> float:
    """The records that were lost, as metrics count them."""
    text = (await fetch_page(process.health_port, "/metrics")).body.decode()
    [value] = [line.split()[-1] for line in text.splitlines() if line.startswith("remora_access_records_dropped_total")]
    return float(value)


@pytest.mark.asyncio
async def test_a_log_that_was_moved_away_is_opened_anew(mesh: Mesh) -> None:
    orders = await mesh.process("orders", app=await mesh.backend())
    moved = orders.directory / "access.log.1"
    await asked(mesh, orders, "/before")
    await orders.records(2)
    orders.access_log.rename(moved)
    orders.signal(signal.SIGUSR1)
    await eventually(lambda: "the access log is open anew" in orders.output)
    await asked(mesh, orders, "/after")
    [record] = await orders.records(kind="request")
    assert record["path"] == "/after"
    assert "/before" in moved.read_text()
    assert "/after" not in moved.read_text()
    orders.signal(signal.SIGTERM)
    assert await orders.ended() == 0


@pytest.mark.asyncio
async def test_a_full_disk_stops_the_log_and_never_the_traffic(mesh: Mesh) -> None:
    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))

    orders = await mesh.process("orders", app=await mesh.backend(), prepare=narrow)
    paths = [f"/{number}" for number in range(40)]
    await asked(mesh, orders, *paths)
    await eventually(lambda: "access records lost" in orders.output)
    assert orders.access_log.stat().st_size == ROOM
    await asked(mesh, orders, "/while-full")
    before = await lost(orders)
    assert before > 0
    resource.prlimit(orders.popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await asked(mesh, orders, "/with-room")
    await eventually(lambda: "/with-room" in orders.access_log.read_text())
    await eventually(lambda: "the access log is written again" in orders.output)
    whole, torn = [], []
    for line in orders.access_log.read_text().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            torn.append(line)
    assert len(torn) == 1, "the record that did not fit whole, on a line of its own"
    orders.signal(signal.SIGTERM)
    assert await orders.ended() == 0
