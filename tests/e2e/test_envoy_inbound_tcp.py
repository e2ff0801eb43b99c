"""Our caller, Envoy before the application, opaque bytes: both ways and half-closed, or ended by Envoy's policy."""

from __future__ import annotations

import pytest
from envoy_sidecar import agreed_names, envoy_before
from mesh import Backend, Mesh, Stream, identity, service

pytestmark = [pytest.mark.debian, pytest.mark.asyncio]

DATA = bytes(range(256)) * 4_000


async def echo_to_the_end(stream: Stream, backend: Backend) -> None:
    """Speak first, then give back everything once the client has ended."""
    await stream.send(b"hello\n")
    await stream.send(await stream.rest())
    await stream.end()


async def test_allowed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    names = agreed_names(monkeypatch)
    backend = await mesh.backend(echo_to_the_end)
    async with envoy_before(mesh, backend) as envoy:
        web = await mesh.sidecar("web", services=[service("orders", envoy.port, protocol="tcp")])
        client = await mesh.plain_client(web)
        assert await client.until(b"\n") == b"hello\n"
        await client.send(DATA)
        await client.end()
        assert await client.rest() == DATA
        [theirs] = await envoy.records()
    # `istio` in our offer chose Envoy's opaque chain. Such a server answers with none of the names that we offer.
    assert (theirs["filter_chain"], names) == ("tcp", [b""])
    assert (theirs["source_principal"], theirs["downstream_tls_version"]) == (identity("web"), "TLSv1.3")
    assert (theirs["bytes_received"], theirs["bytes_sent"]) == (len(DATA), len(DATA) + 6)
    [ours] = await web.records()
    assert (ours["decision"], ours["reason"], ours["protocol"]) == ("allow", "ok", "TCP")
    assert (ours["source_principal"], ours["destination_principal"]) == (identity("web"), identity("orders"))
    assert (ours["bytes_received"], ours["bytes_sent"]) == (len(DATA), len(DATA) + 6)


async def test_denied(mesh: Mesh) -> None:
    async def say_nothing_first(stream: Stream, backend: Backend) -> None:
        await stream.rest()

    backend = await mesh.backend(say_nothing_first)
    async with envoy_before(mesh, backend) as envoy:
        batch = await mesh.sidecar("batch", services=[service("orders", envoy.port, protocol="tcp")])
        client = await mesh.plain_client(batch)
        await client.send(b"let me in")
        await client.closed()
        client.close()
        [theirs] = await envoy.records(kind="connections")
    # Envoy judges with the first bytes of the client: by then it has connected, but told the application nothing.
    assert (bytes(client.received), backend.received) == (b"", b"")
    assert theirs["connection_termination_details"] == "rbac_access_denied_matched_policy[none]"
    assert theirs["source_principal"] == identity("batch")
    [ours] = await batch.records()
    assert (ours["bytes_sent"], ours["destination_principal"]) == (0, identity("orders"))
