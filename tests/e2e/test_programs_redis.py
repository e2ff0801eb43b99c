"""Redis through two sidecars as opaque TCP: single commands, large pipelines, and connections that live long."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator

import pytest
from http_application import content
from mesh import Mesh, Sidecar, eventually, free_port, policy, service
from programs import Result, installed, run, running

pytestmark = pytest.mark.debian

ONLY_WEB = policy("redis", '[{from: [{source: {serviceAccounts: ["demo/web"]}}]}]')


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    options = {"bind": "127.0.0.1", "port": str(port), "dir": str(directory), "save": "", "appendonly": "no"}
    argv = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
    with running(argv, directory, port):
        yield port


async def through(mesh: Mesh, redis: int, account: str = "web", protocol: str = "tcp") -> tuple[Sidecar, Sidecar]:
    """The sidecar of Redis, and that of its caller."""
    server = await mesh.sidecar("redis", app=redis, protocol=protocol, policies=ONLY_WEB)
    return server, await mesh.sidecar(account, services=[service("redis", server, protocol=protocol)])


async def command(caller: Sidecar, *words: str, given: bytes = b"") -> Result:
    return await run("redis-cli", "-h", "127.0.0.1", "-p", str(caller.outbound_port), *words, given=given)


@contextlib.asynccontextmanager
async def waiting(caller: Sidecar, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A redis-cli that stays; its standard output can be read line by line."""
    process = await asyncio.create_subprocess_exec(
        installed("redis-cli"),
        *("-h", "127.0.0.1", "-p", str(caller.outbound_port), *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 10)).decode().rstrip("\n")


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["tcp", "auto"])
async def test_commands(mesh: Mesh, redis: int, protocol: str) -> None:
    server, caller = await through(mesh, redis, protocol=protocol)
    assert (await command(caller, "PING")).ok().text == "PONG\n"
    assert (await command(caller, "SET", "greeting", "hello there")).ok().text == "OK\n"
    assert (await command(caller, "GET", "greeting")).ok().text == "hello there\n"
    records = await server.records(3)
    assert {(record["decision"], record["reason"], record["protocol"]) for record in records} == {
        ("allow", "ok", "TCP")
    }


@pytest.mark.asyncio
async def test_who_may_not(mesh: Mesh, redis: int) -> None:
    server, caller = await through(mesh, redis, account="batch")
    result = await command(caller, "PING")
    assert "PONG" not in result.text
    assert result.code != 0
    [record] = await server.records()
    assert (record["reason"], record["upstream_host"]) == ("denied_by_policy", None)


@pytest.mark.asyncio
async def test_a_pipeline_of_many_commands(mesh: Mesh, redis: int) -> None:
    _, caller = await through(mesh, redis)
    count = 20_000
    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\nkey:%d\r\n$5\r\nvalue\r\n" % (4 + len(str(number)), number)
        for number in range(count)
    )
    result = await command(caller, "--pipe", given=commands)
    assert f"errors: 0, replies: {count}" in result.ok().text
    assert int((await command(caller, "DBSIZE")).ok().text) >= count


@pytest.mark.asyncio
async def test_a_large_value_both_ways(mesh: Mesh, redis: int) -> None:
    _, caller = await through(mesh, redis)
    value = content(5_000_000).replace(b"\n", b".")
    assert (await command(caller, "-x", "SET", "large", given=value)).ok().text == "OK\n"
    found = (await command(caller, "GET", "large")).ok().out.removesuffix(b"\n")
    assert hashlib.sha256(found).digest() == hashlib.sha256(value).digest()


@pytest.mark.asyncio
async def test_a_subscriber_stays_connected(mesh: Mesh, redis: int) -> None:
    server, caller = await through(mesh, redis)
    async with waiting(caller, "SUBSCRIBE", "news") as subscriber:
        assert [await line_of(subscriber) for _ in range(3)] == ["subscribe", "news", "1"]
        for number in range(3):
            await asyncio.sleep(0.2)
            assert (await command(caller, "PUBLISH", "news", f"item {number}")).ok().text == "1\n"
            assert [await line_of(subscriber) for _ in range(3)] == ["message", "news", f"item {number}"]
        await eventually(lambda: server.open_connections == 1, "nothing but the subscriber is open")


@pytest.mark.asyncio
async def test_a_blocked_client_is_woken(mesh: Mesh, redis: int) -> None:
    _, caller = await through(mesh, redis)
    async with waiting(caller, "BLPOP", "queue", "10") as worker:
        await asyncio.sleep(0.3)
        await command(caller, "RPUSH", "queue", "job")
        assert [await line_of(worker) for _ in range(2)] == ["queue", "job"]
        assert await asyncio.wait_for(worker.wait(), 10) == 0


@pytest.mark.asyncio
async def test_a_client_that_redis_closes(mesh: Mesh, redis: int) -> None:
    server, caller = await through(mesh, redis)
    async with waiting(caller, "BLPOP", "nothing", "20") as worker:
        await asyncio.sleep(0.3)
        closed = (await command(caller, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")).ok().text
        assert closed == "1\n"
        assert await asyncio.wait_for(worker.wait(), 10) != 0
    assert len(await server.records(2)) == 2
