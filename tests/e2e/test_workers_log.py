"""Two workers write one access log: into a pipe, records longer than the kernel takes whole stay whole."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mesh import Mesh, eventually, get
from worker_process import crew

from proxy.telemetry.access_log import AccessLog

LONG = 6_000
"""More than PIPE_BUF (4,096 bytes): two writers that did not take turns would interleave."""
REQUESTS = 60
HOLD_THE_TURN = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("has", flush=True)
input()
"""


@pytest.mark.asyncio
async def test_lines_are_whole_in_a_pipe(mesh: Mesh) -> None:
    pipe = mesh.directory / "pipe"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    fcntl.fcntl(held, fcntl.F_SETPIPE_SZ, 4_096)  # a full pipe takes a write in pieces, each writer's in turn
    taken = bytearray()
    asked = threading.Event()

    def take() -> None:
        asked.wait()
        while (data := os.read(held, 1_000)) != b"end\n":
            taken.extend(data)

    reader = threading.Thread(target=take)
    reader.start()
    try:
        orders = await crew(mesh, app=await mesh.backend(), telemetry={"access_log": str(pipe)})
        clients = await orders.clients_of_each(mesh, 2)

        async def ask(number: int) -> None:
            client = clients[1 + number % 2][number // 2 % 2]
            for i in range(REQUESTS):
                await client.send(get(f"/{number}-{i}-" + "x" * LONG))
                assert (await client.message()).status == 200

        await asyncio.gather(*(ask(number) for number in range(4)))
        asked.set()
        expected = {f"/{number}-{i}-" for number in range(4) for i in range(REQUESTS)}
        await eventually(lambda: taken.count(b"x" * LONG) >= len(expected))
        await eventually(lambda: taken.endswith(b"\n"))
    finally:
        for stream in mesh._streams:
            stream.close()
        asked.set()
        os.write(held, b"end\n")
        reader.join()
        os.close(held)
    records = [json.loads(line) for line in taken.splitlines()]
    paths = [record["path"].rstrip("x") for record in records if record["kind"] == "request" and record["path"] != "/"]
    assert sorted(paths) == sorted(expected)


@pytest.mark.asyncio
async def test_what_a_process_left_half_written_is_ended_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b'{"half":')
    turn = os.memfd_create("turn")
    os.write(turn, b"t")  # as a writer leaves it that dies within a write
    log = AccessLog(asyncio.get_running_loop(), str(path), turn)
    log.write('{"whole": 1}\n')
    log.flush()
    await eventually(lambda: path.read_bytes().endswith(b"1}\n"))
    log.write('{"whole": 2}\n')
    log.close()
    os.close(turn)
    assert path.read_text() == '{"half":\n{"whole": 1}\n{"whole": 2}\n'


@pytest.mark.asyncio
async def test_one_waits_while_another_has_the_turn(tmp_path: Path) -> None:
    path, turn_path = tmp_path / "access.log", tmp_path / "turn"
    turn = os.open(turn_path, os.O_RDWR | os.O_CREAT)
    holder = subprocess.Popen(  # noqa: ASYNC220  it speaks to this test alone
        [
            sys.executable,
            "-c",
            HOLD_THE_TURN,
            str(turn_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"has\n"
    log = AccessLog(asyncio.get_running_loop(), str(path), turn)
    log.write('{"whole": 1}\n')
    log.flush()
    await asyncio.sleep(0.2)
    assert path.read_bytes() == b""
    holder.kill()  # the kernel gives the turn on
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    await eventually(lambda: path.read_bytes() == b'{"whole": 1}\n')
    log.close()
    os.close(turn)
