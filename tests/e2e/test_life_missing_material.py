"""Without certificates or policy a sidecar lives, is not ready, refuses traffic with a reason, and heals by itself."""

from __future__ import annotations

import pytest
from mesh import ALLOW_ALL, Mesh, Stream, authority, eventually, fetch_page, get, service, svid

from certs.testing import write_set


async def refused(client: Stream) -> None:
    """Fail unless a request gets no answer at all."""
    with pytest.raises((ConnectionError, EOFError)):
        await answered(client)


async def answered(client: Stream) -> int:
    await client.send(get())
    return (await client.message()).status


@pytest.mark.asyncio
async def test_no_identity(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.process(
        "orders", app=backend, services=[service("ledger", backend)], publish=False, ready=False
    )
    await orders.readiness(503)
    assert (await fetch_page(orders.health_port, "/livez")).status == 200
    client = await mesh.client(orders)
    await refused(client)
    outbound = await mesh.plain_client(orders)
    await outbound.send(get())
    assert (await outbound.message()).status == 503
    [connection] = await orders.records(1, kind="connection", direction="inbound")
    assert connection["reason"] == "not_ready"
    [request] = await orders.records(1, kind="request")
    assert (request["reason"], request["response_flags"]) == ("not_ready", "NR")
    assert backend.received == b""
    assert "not ready: certificates" in orders.output

    write_set(svid("orders"), authority().bundles, orders.identity_directory)
    await orders.readiness(200)
    client = await mesh.client(orders)
    assert await answered(client) == 200


@pytest.mark.asyncio
async def test_no_policy_directory(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.process("orders", app=backend, policies=None, ready=False)
    await orders.readiness(503)
    client = await mesh.client(orders)
    await refused(client)
    assert backend.received == b""
    assert "not ready: policy" in orders.output

    orders.policy_directory.mkdir()
    (orders.policy_directory / "allow.yaml").write_text(ALLOW_ALL)
    await orders.readiness(200)
    client = await mesh.client(orders)
    assert await answered(client) == 200


@pytest.mark.asyncio
async def test_policies_with_errors_are_no_policies(mesh: Mesh) -> None:
    backend = await mesh.backend()
    orders = await mesh.sidecar("orders", app=backend, policies={"bad.yaml": ALLOW_ALL + "nonsense: true\n"})
    assert (await fetch_page(orders.health_port, "/readyz")).status == 503
    client = await mesh.client(orders)
    await refused(client)
    [connection] = await orders.records(1, kind="connection")
    assert connection["reason"] == "not_ready"
    (orders.policy_directory / "bad.yaml").write_text(ALLOW_ALL)
    await eventually(lambda: orders.app.sidecar.ready)
    client = await mesh.client(orders)
    assert await answered(client) == 200


@pytest.mark.asyncio
async def test_the_certificate_of_somebody_else_is_no_identity(mesh: Mesh) -> None:
    orders = await mesh.sidecar("orders", app=await mesh.backend(), certificate=svid("ledger"))
    assert (await fetch_page(orders.health_port, "/readyz")).status == 503
    assert "orders" in str(orders.app.readiness.missing["certificates"])
