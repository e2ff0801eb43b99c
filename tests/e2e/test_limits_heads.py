"""Limits on a head: its size, the number of its fields, the time it may take; each with status and Reason."""

from __future__ import annotations

import asyncio
import time

import pytest
from mesh import Mesh, answering, get

HOST = b"GET / HTTP/1.1\r\nHost: orders\r\n"


CASES = [
    (HOST + b"X: " + b"y" * 5_000 + b"\r\n\r\n", 431, "head_too_large"),
    (HOST + b"X: " + b"y" * 100_000, 431, "head_too_large"),
    (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: orders\r\n\r\n", 431, "head_too_large"),
    (HOST + b"X: y\r\n" * 20 + b"\r\n", 431, "too_many_headers"),
    (HOST + b"Cookie: a\r\n" * 20 + b"\r\n", 431, "too_many_headers"),
    (HOST + b"X: y\r\n" * 19 + b"\r\n", 200, "ok"),
]


@pytest.mark.asyncio
async def test_size_and_number(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, limits={"head_bytes": 4_096, "head_fields": 20})
    for raw, status, _ in CASES:
        client = await mesh.client(orders)
        await client.send(raw)
        assert (await client.message()).status == status
        if status != 200:
            assert await client.closed() == "clean"
    assert len(backend.requests) == 1
    records = await orders.records(len(CASES), kind="request")
    assert [(record["response_code"], record["reason"]) for record in records] == [
        (status, reason) for _, status, reason in CASES
    ]


@pytest.mark.asyncio
async def test_the_head_of_an_answer(mesh: Mesh) -> None:
    backend = await mesh.backend(answering(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 5_000 + b"\r\n\r\n"))
    orders = await mesh.sidecar("orders", app=backend, limits={"head_bytes": 4_096})
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 502
    [record] = await orders.records(1, kind="request")
    assert record["response_flags"] == "UPE"


@pytest.mark.asyncio
async def test_the_time_of_a_head(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, limits={"head_timeout": "0.3s"})
    client = await mesh.client(orders)
    await client.send(get())
    assert (await client.message()).status == 200
    started = time.monotonic()

    async def drip() -> None:
        for byte in get("/slow") * 10:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    answer = await client.message()
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    assert (answer.status, answer.get("connection")) == (408, b"close")
    assert time.monotonic() - started < 1.5
    records = await orders.records(2, kind="request")
    assert (records[1]["reason"], records[1]["response_code"]) == ("head_timeout", 408)
    assert b"/slow" not in backend.received
