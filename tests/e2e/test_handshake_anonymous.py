"""Where a certificate is asked for and not demanded: who shows none is nobody, and who shows a bad one is refused."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from handshake_peers import TIMEOUT, Peer, authority, generation, identity_set, session, tcp_pair

from certs.authority import Svid
from proxy.errors import HandshakeError, Reason
from proxy.handshake import drive
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.handshake.engine import Session
from proxy.identity.verify import Trust
from proxy.types import Generation


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "_LINGER", 0.02)


def admitting() -> TlsGeneration:
    """A generation that admits clients without a certificate."""
    memory = authority()
    bundles = {memory.trust_domain: memory.bundle}
    return TlsGeneration(
        identity_set(memory.svid("demo", "orders"), bundles),
        Trust.of(memory.trust_domain, bundles),
        Generation(1),
        admits_anonymous=True,
    )


async def meet(svid: Svid | None, material: TlsGeneration) -> tuple[HandshakeError | tuple[str, bytes | None], str]:
    """What the server knows of the client, or why it refused it; and the alert that the client saw."""
    with tcp_pair() as (accepted, dialled), session(material, accepted, server_side=True) as inbound:
        client = Peer(dialled, svid)

        async def serve(end: Session) -> HandshakeError | tuple[str, bytes | None]:
            try:
                await perform(end, accepted, timeout=TIMEOUT)
            except HandshakeError as error:
                accepted.close()
                return error
            end.close_write()
            peer = end.maybe_peer
            return ("nobody" if peer is None else str(peer.spiffe_id)), end.peer_certificate()

        known, alert = await asyncio.gather(serve(inbound), client.alert())
        return known, alert


@pytest.mark.asyncio
async def test_a_client_without_a_certificate_is_nobody() -> None:
    assert await meet(None, admitting()) == (("nobody", None), "")


@pytest.mark.asyncio
async def test_a_certificate_that_is_shown_is_judged_and_kept() -> None:
    web = authority().svid("demo", "web")
    known, alert = await meet(web, admitting())
    assert known == (str(web.spiffe_id), web.leaf.public_bytes(Encoding.DER))
    assert alert == ""


@pytest.mark.asyncio
@pytest.mark.parametrize("whose", ["stranger", "impostor", "neighbour"])
async def test_a_certificate_of_another_root_is_worse_than_none(whose: str) -> None:
    foreign = getattr(authority(), whose).svid("demo", "web")
    known, alert = await meet(foreign, admitting())
    assert isinstance(known, HandshakeError)
    assert known.reason in (Reason.TRUST_DOMAIN_UNKNOWN, Reason.ISSUER_UNKNOWN)
    assert alert == "unknown_ca"


@pytest.mark.asyncio
async def test_nobody_is_admitted_where_that_was_not_said() -> None:
    known, alert = await meet(None, generation())
    assert isinstance(known, HandshakeError)
    assert (known.reason, alert) == (Reason.CERTIFICATE_REQUIRED, "certificate_required")


@pytest.mark.asyncio
async def test_a_server_must_always_show_one() -> None:
    with tcp_pair() as (accepted, dialled):
        with session(admitting(), dialled, server_side=False) as outbound:
            assert outbound.maybe_peer is None
            with pytest.raises(RuntimeError, match="nobody knows the peer"):
                _ = outbound.peer
        assert accepted.fileno() >= 0
