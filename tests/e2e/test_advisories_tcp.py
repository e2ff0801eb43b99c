"""What went wrong in other meshes over TCP and is shown nowhere else: one test per advisory."""

from __future__ import annotations

import contextlib

import pytest
from mesh import Mesh, policy
from tcp_way import settled

HEAD = b"PROXY TCP4 10.9.9.9 10.0.0.1 40000 3306\r\nhello"


@pytest.mark.asyncio
@pytest.mark.parametrize(("block", "passes"), [("10.9.9.9", False), ("127.0.0.0/8", True)])
@pytest.mark.parametrize("field", ["ipBlocks", "remoteIpBlocks"])
async def test_a_proxy_protocol_head_changes_no_address(mesh: Mesh, field: str, block: str, passes: bool) -> None:
    """ISTIO-SECURITY-2020-011: the head of the PROXY protocol is bytes like any others, whatever address it names."""
    backend = await mesh.backend()
    rules = f'[{{from: [{{source: {{{field}: ["{block}"]}}}}]}}]'
    ledger = await mesh.sidecar("ledger", app=backend, protocol="tcp", policies=policy("by-address", rules))
    client = await mesh.client(ledger, alpn=(b"istio",))
    with contextlib.suppress(ConnectionError):
        await client.send(HEAD)
        await client.end()
    await client.closed()
    [record] = await settled(ledger)
    assert record["decision"] == ("allow" if passes else "deny")
    assert backend.received == (HEAD if passes else b"")
