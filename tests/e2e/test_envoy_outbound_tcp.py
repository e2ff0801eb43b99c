"""Envoy calls, we are before the application, opaque bytes: both ways and half-closed, or ended by our policy."""

from __future__ import annotations

import pytest
from envoy_config import SERVER_NAME
from envoy_sidecar import agreed_names, envoy_calling
from mesh import Backend, Mesh, Stream, identity, policy

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

DATA = bytes(range(256)) * 4_000
ONLY_WEB = policy("orders", '[{from: [{source: {serviceAccounts: ["demo/web"]}}]}]')


async def echo_to_the_end(stream: Stream, backend: Backend) -> None:
    """Give back everything once the client has ended."""
    await stream.send(await stream.rest())
    await stream.end()


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
async def test_allowed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend(echo_to_the_end)
    orders = await mesh.sidecar("orders", app=backend, protocol=protocol, policies=ONLY_WEB)
    async with envoy_calling(mesh, orders, http=False) as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(DATA)
        await client.end()
        assert await client.rest() == DATA
        [theirs] = await envoy.records()
    # Of istio-peer-exchange and istio we must take the second: the first would bring bytes of Envoy's own.
    assert names == [b"istio"]
    assert (theirs["destination_principal"], theirs["upstream_tls_version"]) == (identity("orders"), "TLSv1.3")
    [ours] = await orders.records()
    assert (ours["decision"], ours["reason"], ours["protocol"]) == ("allow", "ok", "TCP")
    assert (ours["source_principal"], ours["destination_principal"]) == (identity("web"), identity("orders"))
    assert (ours["bytes_received"], ours["bytes_sent"]) == (len(DATA), len(DATA))
    assert ours["requested_server_name"] == SERVER_NAME


async def test_the_server_speaks_first(mesh: Mesh) -> None:
    async def greet(stream: Stream, backend: Backend) -> None:
        await stream.send(b"hello\n")
        await stream.rest()

    backend = await mesh.backend(greet)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp")
    async with envoy_calling(mesh, orders, http=False) as envoy:
        client = await mesh.plain_client(envoy.port)
        assert await client.until(b"\n") == b"hello\n"


async def test_denied(mesh: Mesh) -> None:
    backend = await mesh.backend(echo_to_the_end)
    orders = await mesh.sidecar("orders", app=backend, protocol="tcp", policies=ONLY_WEB)
    async with envoy_calling(mesh, orders, http=False, account="batch") as envoy:
        client = await mesh.plain_client(envoy.port)
        await client.send(b"let me in")
        await client.closed()
    assert client.received == b""
    assert backend.streams == []
    [ours] = await orders.records()
    assert (ours["decision"], ours["reason"]) == ("deny", "denied_by_policy")
    assert (ours["source_principal"], ours["destination_principal"]) == (identity("batch"), identity("orders"))
