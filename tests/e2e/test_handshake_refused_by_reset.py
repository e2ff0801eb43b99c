"""A server that closes right behind its alert, with our bytes unread: the reset does not hide who refused whom."""

from __future__ import annotations

import asyncio

import pytest
from handshake_peers import TIMEOUT, AlertSeen, Peer, authority, believes, generation, session, tcp_pair

from proxy.connection import _hear_refusal
from proxy.errors import HandshakeError, Reason
from proxy.handshake.drive import perform


@pytest.mark.asyncio
async def test_the_alert_is_read_behind_the_reset() -> None:
    stranger = authority().stranger
    with tcp_pair() as (accepted, dialled), session(generation(), dialled, server_side=False) as ours:
        server = Peer(
            accepted,
            authority().svid("demo", "orders"),
            server_side=True,
            configure=lambda context: believes(context, stranger.bundle),
        )
        refuses = asyncio.ensure_future(server.handshake())
        await perform(ours, dialled, timeout=TIMEOUT)
        _hear_refusal(ours, dialled)  # the server has not judged yet: nothing to hear
        ours.write(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(AlertSeen, match="certificate_verify_failed"):
            await refuses
        accepted.close()
        with pytest.raises(HandshakeError, match="unknown_ca") as caught:
            _hear_refusal(ours, dialled)
        assert caught.value.reason is Reason.PEER_REJECTED_US


@pytest.mark.asyncio
async def test_a_reset_without_an_alert() -> None:
    with tcp_pair() as (accepted, dialled), session(generation(), dialled, server_side=False) as ours:
        server = Peer(accepted, authority().svid("demo", "orders"), server_side=True)
        await asyncio.gather(server.handshake(), perform(ours, dialled, timeout=TIMEOUT))
        ours.write(b"GET / HTTP/1.1\r\n\r\n")
        accepted.close()
        with pytest.raises(HandshakeError) as caught:
            _hear_refusal(ours, dialled)
        assert caught.value.reason is Reason.HANDSHAKE_PEER_CLOSED
