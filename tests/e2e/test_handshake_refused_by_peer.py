"""A peer that refuses us: in TLS 1.3 a client learns it after its own handshake, with the first read."""

from __future__ import annotations

import asyncio

import pytest
from handshake_peers import TIMEOUT, Peer, authority, generation, read_some, session, tcp_pair
from OpenSSL import SSL

from certs.testing import MemoryAuthority
from proxy.errors import HandshakeError, Reason
from proxy.handshake.binding import Calls, DirectCalls, PublicCalls
from proxy.handshake.drive import perform
from proxy.handshake.faults import RefusedByPeer


@pytest.mark.asyncio
@pytest.mark.parametrize("calls", [DirectCalls(), PublicCalls()], ids=["direct", "public"])
async def test_our_client_certificate_is_refused(calls: Calls) -> None:
    stranger = MemoryAuthority("cluster.local")
    client = generation(
        stranger.svid("demo", "web"), bundles={authority().trust_domain: authority().bundle}, calls=calls
    )
    with (
        tcp_pair() as (accepted, dialled),
        session(generation(), accepted, server_side=True) as inbound,
        session(client, dialled, server_side=False) as outbound,
    ):

        async def refuse() -> None:
            with pytest.raises(HandshakeError) as caught:
                await perform(inbound, accepted, timeout=TIMEOUT)
            assert caught.value.reason is Reason.ISSUER_UNKNOWN

        async def learn() -> None:
            await perform(outbound, dialled, timeout=TIMEOUT)
            outbound.write(b"GET / HTTP/1.1\r\n\r\n")  # too early to know
            with pytest.raises(RefusedByPeer) as caught:
                await read_some(outbound, dialled)
            assert (caught.value.alert, caught.value.reason) == ("unknown_ca", Reason.PEER_REJECTED_US)
            assert "bundle" in str(caught.value)
            dialled.close()

        await asyncio.gather(refuse(), learn())


@pytest.mark.asyncio
async def test_our_server_certificate_is_refused() -> None:
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as inbound:
        peer = Peer(dialled, configure=lambda context: context.set_verify(SSL.VERIFY_PEER))
        refused, _ = await asyncio.gather(
            perform(inbound, accepted, timeout=TIMEOUT), fails(peer), return_exceptions=True
        )
    assert isinstance(refused, HandshakeError)
    assert refused.reason is Reason.PEER_REJECTED_US
    assert "unknown_ca" in str(refused)


async def fails(peer: Peer) -> None:
    with pytest.raises(Exception, match="verify failed"):
        await peer.handshake()
