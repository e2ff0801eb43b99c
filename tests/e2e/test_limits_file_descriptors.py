"""Out of file descriptors a sidecar rests instead of spinning, serves what it has, and takes new connections again."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest
from mesh import TIMEOUT, Mesh, eventually, fetch_page, get

OPEN_FILES = 64


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


@pytest.mark.asyncio
async def test_it_survives_and_heals(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.process("orders", app=backend, prepare=few_files, limits={"handshake_timeout": "60s"})
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 200
    crowd = [await mesh.plain_client(orders.port) for _ in range(OPEN_FILES)]
    await eventually(lambda: "cannot accept" in orders.output)
    before = orders.cpu_seconds
    await asyncio.sleep(0.5)
    assert orders.cpu_seconds - before < 0.2
    await client.send(get())
    assert (await client.message()).status == 200
    assert orders.output.count("cannot accept") < 12
    for stream in crowd:
        stream.reset()
    fresh = await mesh.client(orders)
    await fresh.send(get())
    assert (await fresh.message()).status == 200
    metrics = (await fetch_page(orders.health_port, "/metrics")).body
    assert b'remora_limits_reached_total{reason="file_descriptors_exhausted"}' in metrics


@pytest.mark.asyncio
async def test_without_a_descriptor_for_the_upstream_there_is_an_answer(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.process("orders", app=backend, prepare=few_files, limits={"handshake_timeout": "60s"})
    client = await mesh.client(orders)
    await client.send(get("/denied", "x_bad: 1"))
    assert (await client.message()).status == 400
    client = await mesh.client(orders)
    await client.send(b"GET / HTTP/1.1\r\n")
    crowd = [await mesh.plain_client(orders.port) for _ in range(OPEN_FILES)]
    await eventually(lambda: "cannot accept" in orders.output)
    await client.send(b"Host: orders\r\n\r\n")
    assert (await client.message()).status == 503
    for stream in crowd:
        stream.reset()
    statuses = []
    deadline = time.monotonic() + TIMEOUT
    while 200 not in statuses and time.monotonic() < deadline:  # the rest of the crowd is accepted and found gone first
        await client.send(get())
        statuses.append((await client.message()).status)
        await asyncio.sleep(0.02)
    assert statuses[-1] == 200
