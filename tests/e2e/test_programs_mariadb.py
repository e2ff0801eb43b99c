"""MariaDB, a server that speaks first, through two sidecars: SQL, large results, and a connection that is killed."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mesh import ALLOW_ALL, Mesh, Sidecar, eventually, free_port, policy, service
from plaintext import change, files, peers
from programs import ROOT, Result, installed, run, running

pytestmark = pytest.mark.debian

ONLY_WEB = policy("ledger", '[{from: [{source: {serviceAccounts: ["demo/web"]}}]}]')


@pytest.fixture(scope="module")
def mariadb() -> Iterator[int]:
    """A server on an empty data directory. It refuses to run as root, so root gives the directory to `mysql`."""
    directory, port = Path(tempfile.mkdtemp(prefix="remora-mariadb-")), free_port()
    as_user = ["--user=mysql"] if ROOT else []
    try:
        if ROOT:
            directory.chmod(0o755)
            shutil.chown(directory, "mysql")
        data = f"--datadir={directory / 'data'}"
        done = subprocess.run(
            [
                installed("mariadb-install-db"),
                "--no-defaults",
                *as_user,
                data,
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ],
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        argv = [
            "mariadbd",
            "--no-defaults",
            *as_user,
            data,
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-networking=0",
            f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=16M",
            "--max-connect-errors=1000000",
        ]
        with running(argv, directory, port):
            yield port
    finally:
        shutil.rmtree(directory)


async def through(mesh: Mesh, mariadb: int, account: str = "web", protocol: str = "tcp") -> tuple[Sidecar, Sidecar]:
    """The sidecar of the database, and that of its caller."""
    ledger = await mesh.sidecar("ledger", app=mariadb, protocol=protocol, policies=ONLY_WEB)
    return ledger, await mesh.sidecar(account, services=[service("ledger", ledger, protocol=protocol)])


async def sql(caller: Sidecar | int, text: str, *options: str) -> Result:
    """Ask through the sidecar of a caller, or directly at a port."""
    port = caller if isinstance(caller, int) else caller.outbound_port
    return await run(
        "mariadb",
        "--no-defaults",
        "--skip-ssl",
        "--batch",
        "--skip-column-names",
        "--host=127.0.0.1",
        f"--port={port}",
        "--user=root",
        *options,
        given=text.encode(),
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["tcp", "auto"])
async def test_sql(mesh: Mesh, mariadb: int, protocol: str) -> None:
    ledger, caller = await through(mesh, mariadb, protocol=protocol)
    result = await sql(
        caller,
        "CREATE OR REPLACE DATABASE shop; USE shop; CREATE TABLE orders (id INT PRIMARY KEY, item TEXT);"
        "INSERT INTO orders VALUES (1, 'a teapot'), (2, 'two cups');"
        "START TRANSACTION; DELETE FROM orders; ROLLBACK;"
        "SELECT COUNT(*), GROUP_CONCAT(item ORDER BY id) FROM orders;",
    )
    assert result.ok().text == "2\ta teapot,two cups\n"
    [record] = await ledger.records()
    assert (record["decision"], record["reason"], record["protocol"]) == ("allow", "ok", "TCP")


@pytest.mark.asyncio
async def test_the_servers_refusal_arrives(mesh: Mesh, mariadb: int) -> None:
    _, caller = await through(mesh, mariadb)
    result = await sql(caller, "SELECT 1", "--password=wrong")
    assert result.code == 1
    assert "ERROR 1045 (28000)" in result.err


@pytest.mark.asyncio
async def test_who_may_not(mesh: Mesh, mariadb: int) -> None:
    """The greeting of the server is content too: a denied caller does not even see that."""
    ledger, caller = await through(mesh, mariadb, account="batch")
    result = await sql(caller, "SELECT 1")
    assert (result.code, result.out) == (1, b"")
    assert "ERROR 2013 (HY000)" in result.err
    [record] = await ledger.records()
    assert (record["reason"], record["bytes_sent"], record["upstream_host"]) == ("denied_by_policy", 0, None)


@pytest.mark.asyncio
async def test_a_large_result(mesh: Mesh, mariadb: int) -> None:
    ledger, caller = await through(mesh, mariadb)
    result = await sql(caller, "SELECT seq, REPEAT(CHAR(65 + seq % 26), 1000) FROM seq_1_to_12000;", "--database=mysql")
    wanted = b"".join(b"%d\t%b\n" % (number, bytes([65 + number % 26]) * 1_000) for number in range(1, 12_001))
    assert hashlib.sha256(result.ok().out).digest() == hashlib.sha256(wanted).digest()
    [record] = await ledger.records()
    assert record["bytes_sent"] > len(wanted)


@pytest.mark.asyncio
async def test_a_large_statement(mesh: Mesh, mariadb: int) -> None:
    _, caller = await through(mesh, mariadb)
    result = await sql(caller, f"SELECT LENGTH('{'x' * 5_000_000}');")
    assert result.ok().text == "5000000\n"


@pytest.mark.asyncio
async def test_a_connection_that_is_killed(mesh: Mesh, mariadb: int) -> None:
    ledger, caller = await through(mesh, mariadb)
    loop = asyncio.get_running_loop()
    asleep = loop.create_task(sql(caller, "SELECT SLEEP(25);"))
    find = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%';"
    for _ in range(100):
        if found := (await sql(caller, find)).ok().text.strip():
            (await sql(caller, f"KILL {found};")).ok()
            break
    result = await asyncio.wait_for(asleep, 10)
    assert result.code == 1
    assert "ERROR 2013 (HY000)" in result.err or "ERROR 1317" in result.err
    await eventually(lambda: not ledger.open_connections, "all connections closed")


@pytest.mark.asyncio
async def test_many_connections_at_once(mesh: Mesh, mariadb: int) -> None:
    ledger, caller = await through(mesh, mariadb)
    results = await asyncio.gather(*(sql(caller, f"SELECT {number} * 2;") for number in range(16)))
    assert [result.ok().text for result in results] == [f"{number * 2}\n" for number in range(16)]
    assert len(await ledger.records(16)) == 16


@pytest.mark.asyncio
@pytest.mark.parametrize("protocol", ["tcp", "auto"])
@pytest.mark.parametrize("mode", ["PERMISSIVE", "DISABLE"])
async def test_in_plaintext_where_that_is_taken(mesh: Mesh, mariadb: int, mode: str, protocol: str) -> None:
    """A caller without a sidecar waits for the greeting and says nothing: silence is plaintext."""
    ledger = await mesh.sidecar("ledger", app=mariadb, protocol=protocol, policies=files(peers(mode), ALLOW_ALL))
    assert (await sql(ledger.port, "SELECT 6 * 7;")).ok().text == "42\n"
    [record] = await ledger.records()
    assert (record["decision"], record["reason"], record["source_principal"]) == ("allow", "ok", None)


@pytest.mark.asyncio
async def test_both_at_one_port_until_it_is_strict(mesh: Mesh, mariadb: int) -> None:
    ledger = await mesh.sidecar("ledger", app=mariadb, protocol="tcp", policies=files(peers("PERMISSIVE"), ALLOW_ALL))
    caller = await mesh.sidecar("web", services=[service("ledger", ledger, protocol="tcp")])
    for each in (ledger.port, caller):
        assert (await sql(each, "SELECT 1;")).ok().text == "1\n"
    await ledger.records(2)
    asleep = asyncio.get_running_loop().create_task(sql(ledger.port, "SELECT SLEEP(25);"))
    await eventually(lambda: ledger.open_connections == 1)
    change(ledger, peers("STRICT"), ALLOW_ALL)
    result = await asyncio.wait_for(asleep, 10)
    assert (result.code, "ERROR 2013" in result.err) == (1, True)
    assert (await sql(caller, "SELECT 1;")).ok().text == "1\n"
    assert "certificate_required" in {record["reason"] for record in await ledger.records(4)}
