"""The README's three denials, made for real: what the caller sees, what the command says, and that the diff mends it.

Everything is taken from the README: the policies, the commands, what they print. Only what differs from run to run is
put in its place: request ids and the port of the admin listener.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from admin_caller import ADMIN, admin_port
from handshake_peers import authority
from mesh import ROOT, Mesh, Sidecar, eventually, get

README = (ROOT / "README.md").read_text()
SECTION = README[README.index("## Why was I denied?") :]
PORT, ID = "127.0.0.1:15000", "$ID"


@dataclass(frozen=True)
class Shown:
    """One denial of the README: the request, the command that explains it, what the command prints."""

    caller: str
    method: str
    target: str
    command: str
    output: str


def shown() -> Iterator[Shown]:
    """Read the denials: a line in italics that says who asked what, then a block with the command and its output."""
    pattern = re.compile(r"_`(\w+)`: `(\w+) (\S+)`_.*?```\n\$ (.*?)\n(.*?)```", re.DOTALL)
    for match in pattern.finditer(SECTION):
        yield Shown(*match.groups())


def policies() -> dict[str, str]:
    """Take the policy files of the README, by the names that the text gives them."""
    found = re.findall(r"`policy/(\w+\.yaml)`.*?```yaml\n(.*?)```", README, re.DOTALL)
    assert len(found) == 2
    return dict(found)


async def run(command: str, directory: Path, *, request_id: str, admin: str) -> str:
    words = command.replace(PORT, admin).replace(ID, request_id)
    assert words.startswith("remora ")
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m {words}",
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert (process.returncode, error.decode()) == (0, "")
    return out.decode()


async def status(mesh: Mesh, orders: Sidecar, denial: Shown) -> tuple[int, bytes, str]:
    certificate = authority().svid("shop", denial.caller)
    client = await mesh.client(orders, certificate=certificate)
    await client.send(get(denial.target, method=denial.method))
    answer = await client.message()
    return answer.status, answer.body, (answer.get("x-request-id") or b"").decode()


def test_there_are_three() -> None:
    denials = list(shown())
    assert len({denial.command.partition("--")[2] for denial in denials}) == 3
    assert all("+++ b/policy/" in denial.output for denial in denials)


@pytest.mark.debian
@pytest.mark.asyncio
async def test_each_is_explained_as_shown_and_mended_by_its_diff(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = shutil.which("patch")
    assert patch is not None, "apt-get install patch"
    directory = mesh.directory / "shop"
    (directory / "policy").mkdir(parents=True)
    monkeypatch.chdir(directory)
    for denial in shown():
        for path in (directory / "policy").iterdir():
            path.unlink()
        for name, text in policies().items():
            (directory / "policy" / name).write_text(text)
        backend = await mesh.backend()
        orders = await mesh.sidecar(
            "orders",
            app=backend,
            admin=ADMIN,
            certificate=authority().svid("shop", "orders"),
            workload={"namespace": "shop", "service_account": "orders", "labels": {"app": "orders"}},
            policy={"directory": "policy"},
        )
        shutil.copy(orders.config_file, directory / "orders.yaml")
        answered, body, request_id = await status(mesh, orders, denial)
        assert (answered, body) == (403, b"RBAC: access denied")
        await orders.records(1, kind="request")
        shutil.copy(orders.access_log, directory / "access.log")
        admin = f"127.0.0.1:{admin_port(orders)}"
        printed = await run(denial.command, directory, request_id=request_id, admin=admin)
        assert printed.replace(request_id, ID).rstrip() == denial.output.rstrip(), denial.command
        generation = orders.app.sidecar.policy_generation
        process = await asyncio.create_subprocess_exec(patch, "-p1", "--silent", stdin=asyncio.subprocess.PIPE)
        await process.communicate(printed.encode())
        assert process.returncode == 0
        await eventually(lambda before=generation, now=orders: now.app.sidecar.policy_generation > before)
        assert (await status(mesh, orders, denial))[0] == 200
