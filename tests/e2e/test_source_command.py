"""An identity that a program prints: run, judged, run again, and bounded in time and size."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
import time
from pathlib import Path

import pytest
from bundle_endpoint import until
from mesh import Mesh, authority, eventually, get, svid

from certs.authority import Svid
from proxy.enrolment.command import ProgramError, run_program


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def printed(path: Path, identity: Svid) -> None:
    """Write what the program will print, as JSON."""
    parts = {
        "tls.crt": identity.chain_pem().decode(),
        "tls.key": identity.key_pem().decode(),
        "ca.crt": authority().bundle.to_pem().decode(),
        "bundles": {
            str(name): json.loads(bundle.to_jwks())
            for name, bundle in authority().bundles.items()
            if name != authority().trust_domain
        },
    }
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(parts))
    temporary.replace(path)


@pytest.mark.asyncio
async def test_what_is_printed_is_served_with(mesh: Mesh, tmp_path: Path) -> None:
    printed(tmp_path / "identity.json", svid("orders"))
    program = script(tmp_path / "get-identity", f"cat {tmp_path}/identity.json")
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), publish=False, identity={"command": {"run": [program]}}
    )
    await eventually(lambda: orders.app.sidecar.ready)
    client = await mesh.client(orders)
    await client.send(get("/"))
    assert (await client.message()).status == 200
    foreign = await mesh.client(orders, certificate=authority().neighbour.svid("demo", "partner"))
    await foreign.send(get("/"))
    assert (await foreign.message()).status == 200, "a bundle of another domain was printed as well"


@pytest.mark.asyncio
async def test_pem_is_understood_and_roots_may_come_from_a_file(mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_bytes(svid("orders").key_pem() + svid("orders").chain_pem())
    (tmp_path / "roots.pem").write_bytes(authority().bundle.to_pem())
    program = script(tmp_path / "get-identity", f"cat {tmp_path}/identity.pem")
    command = {"run": [program], "bundle_file": str(tmp_path / "roots.pem")}
    orders = await mesh.sidecar("orders", app=await mesh.backend(), publish=False, identity={"command": command})
    await eventually(lambda: orders.app.sidecar.ready)


@pytest.mark.asyncio
async def test_it_is_run_again_at_half_of_the_lifetime(mesh: Mesh, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    soon = {"not_before": now - datetime.timedelta(seconds=6), "not_after": now + datetime.timedelta(seconds=6)}
    printed(tmp_path / "identity.json", authority().svid("demo", "orders", **soon))
    program = script(tmp_path / "get-identity", f"cat {tmp_path}/identity.json; echo x >> {tmp_path}/runs")
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), publish=False, identity={"command": {"run": [program]}}
    )
    await eventually(lambda: orders.app.sidecar.ready)
    first = orders.app.sidecar.tls_generation
    printed(tmp_path / "identity.json", authority().svid("demo", "orders"))
    await eventually(lambda: orders.app.sidecar.tls_generation > first)
    assert (tmp_path / "runs").read_text().count("x") >= 2


@pytest.mark.asyncio
async def test_a_program_that_fails_is_named_and_run_again(mesh: Mesh, tmp_path: Path) -> None:
    printed(tmp_path / "identity.json", svid("orders"))
    program = script(tmp_path / "get-identity", f"test -e {tmp_path}/go || exit 3; cat {tmp_path}/identity.json")
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), publish=False, identity={"command": {"run": [program]}}
    )
    missing = orders.app.readiness.missing
    await eventually(lambda: any("ended with status 3" in sentence for sentence in missing.get("certificates", [])))
    (tmp_path / "go").touch()
    await eventually(lambda: orders.app.sidecar.ready)


@pytest.mark.asyncio
async def test_while_it_fails_what_is_held_is_used_to_its_end(mesh: Mesh, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    soon = {"not_before": now - datetime.timedelta(seconds=3), "not_after": now + datetime.timedelta(seconds=3)}
    printed(tmp_path / "identity.json", authority().svid("demo", "orders", **soon))
    program = script(tmp_path / "get-identity", f"cat {tmp_path}/identity.json || exit 3")
    orders = await mesh.sidecar(
        "orders", app=await mesh.backend(), publish=False, identity={"command": {"run": [program]}}
    )
    readiness = orders.app.readiness
    await eventually(lambda: readiness.is_ready)
    (tmp_path / "identity.json").unlink()
    told = await eventually(lambda: readiness.rejected.get("certificates"))
    assert "ended with status 3" in told[0]
    assert readiness.is_ready
    told = await eventually(lambda: readiness.missing.get("certificates"))
    assert "the identity that was held has ended" in told[0]
    assert "ended with status 3" in told[1]
    assert not readiness.is_ready
    printed(tmp_path / "identity.json", authority().svid("demo", "orders"))
    await eventually(lambda: readiness.is_ready)


# --- one run ---------------------------------------------------------------------------------------------------------


def fails(program: str, *arguments: str, seconds: float = 5.0, limit: int = 1000) -> str:
    with pytest.raises(ProgramError) as caught:
        run_program((program, *arguments), seconds, threading.Event(), limit)
    return str(caught.value)


def test_a_run_is_bounded_in_every_way(tmp_path: Path) -> None:
    assert "status 7" in fails(script(tmp_path / "a", "echo secret; exit 7"))
    assert "killed by signal 9" in fails(script(tmp_path / "b", "kill -9 $$"))
    assert "cannot be started" in fails(str(tmp_path / "nowhere"))
    (tmp_path / "c").write_text("x")
    assert "cannot be started" in fails(str(tmp_path / "c"))
    assert "more than 1000 bytes" in fails(script(tmp_path / "d", "while :; do echo 0123456789; done"))
    began = time.monotonic()
    assert "did not end in time" in fails(script(tmp_path / "e", "sleep 60"), seconds=0.3)
    assert "did not end in time" in fails(script(tmp_path / "f", "exec >&-; sleep 60"), seconds=0.3)
    assert time.monotonic() - began < 5


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    program = script(tmp_path / "a", f"sleep 60 & echo $! > {tmp_path}/pid; echo done")
    fails(program, seconds=0.5)  # its child holds the pipe, so that the output does not end
    pid = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        with contextlib.suppress(OSError):
            # Ended, but nobody reaps it where no init does: a zombie is gone enough.
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True

    until(gone)


def test_arguments_are_handed_over_as_they_stand_and_nothing_is_read(tmp_path: Path) -> None:
    program = script(tmp_path / "a", 'printf "%s|" "$@"; cat')
    assert run_program((program, "$HOME", "a b", "*"), 5.0, threading.Event()) == b"$HOME|a b|*|"


def test_the_end_of_the_sidecar_ends_a_run(tmp_path: Path) -> None:
    ending = threading.Event()
    threading.Timer(0.2, ending.set).start()
    began = time.monotonic()
    with pytest.raises(ProgramError, match="the sidecar ends"):
        run_program((script(tmp_path / "a", "sleep 60"),), 30.0, ending)
    assert time.monotonic() - began < 5
