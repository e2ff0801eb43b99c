"""Sidecars and the authority itself: enrolled by join tokens they call each other, until one of them is revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authority_process import AuthorityProcess
from mesh import Mesh, Sidecar, eventually, get, identity, service


@pytest.fixture
def service_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path_factory.mktemp("service"))
    try:
        made.init()
        made.start()
        yield made
    finally:
        made.stop()


def section(made: AuthorityProcess, account: str) -> dict[str, Any]:
    token_file: Path = made.base / f"{account}.token"
    token_file.write_text(made.token(account))
    return {
        "authority": {
            "url": f"https://127.0.0.1:{made.port}",
            "token_file": str(token_file),
            "bundle_file": str(made.bundle_file),
            "crl": "fail-closed",
        }
    }


async def enrolled(mesh: Mesh, made: AuthorityProcess, account: str, **options: Any) -> Sidecar:
    asks = await asyncio.to_thread(section, made, account)
    sidecar = await mesh.sidecar(account, publish=False, identity=asks, **options)
    await eventually(lambda: sidecar.app.sidecar.ready, f"{account} is ready", 10)
    return sidecar


@pytest.mark.asyncio
async def test_two_sidecars_enrol_and_call_until_one_is_revoked(mesh: Mesh, service_process: AuthorityProcess) -> None:
    orders = await enrolled(mesh, service_process, "orders", app=await mesh.backend())
    web = await enrolled(mesh, service_process, "web", services=[service("orders", orders)])
    client = await mesh.plain_client(web)
    await client.send(get())
    assert (await client.message()).status == 200

    enrolment = web.app.mounts.enrolment
    assert enrolment is not None
    enrolment.poll_now()  # with the certificate: it says which bundle counts here
    await asyncio.to_thread(service_process.order, "revoke", "--identity", identity("web"))
    for sidecar in (orders, web):
        assert sidecar.app.mounts.enrolment is not None
        sidecar.app.mounts.enrolment.poll_now()
    await eventually(lambda: orders.app.sidecar.registry.count("inbound") == 0, "its connections have ended", 10)
    await client.send(get())
    assert (await client.message()).status == 503
    reasons = {record["reason"] for record in await orders.records(2, kind="connection", direction="inbound")}
    assert reasons == {"certificate_revoked"}
    # Who is revoked asks for another certificate, with the certificate and without, and gets none.
    await eventually(lambda: "identity_revoked" in enrolment.fault or "join_token_used" in enrolment.fault, "", 10)
