"""No session is ever resumed: every connection is judged anew, by the bundles of its own generation."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from handshake_peers import TIMEOUT, Peer, authority, generation, read_some, readable, session, tcp_pair
from OpenSSL import SSL

from proxy.errors import HandshakeError, Reason
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.identity.verify import Judge


class Judgements:
    """Counts how often a peer was judged inside a handshake."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0

        judge = Judge.judge

        def counted(*chain: object, **more: object) -> object:
            self.count += 1
            return judge(*chain, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Judge, "judge", counted)


@pytest.fixture
def judgements(monkeypatch: pytest.MonkeyPatch) -> Judgements:
    return Judgements(monkeypatch)


class StandardClient:
    """A client of the standard library that keeps its session and offers it at the next visit."""

    def __init__(self, directory: Path, version: ssl.TLSVersion) -> None:
        svid = authority().svid("demo", "web")
        (directory / "chain.pem").write_bytes(svid.chain_pem())
        (directory / "key.pem").write_bytes(svid.key_pem())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.minimum_version = self.context.maximum_version = version
        self.context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
        self.session: ssl.SSLSession | None = None

    async def visit(self, server: TlsGeneration) -> tuple[bool | None, HandshakeError | None]:
        """Says whether the session of the last visit was resumed, and how the server refused, if it did."""
        with tcp_pair() as (accepted, dialled), session(server, accepted, server_side=True) as inbound:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = self.context.wrap_bio(incoming, outgoing, session=self.session)

            async def serve() -> HandshakeError | None:
                try:
                    await perform(inbound, accepted, timeout=TIMEOUT)
                except HandshakeError as error:
                    return error
                inbound.write(b"hello")
                return None

            async def call() -> str:
                try:
                    while True:
                        try:
                            client.do_handshake()
                        except ssl.SSLWantReadError:
                            dialled.send(outgoing.read())
                            await readable(dialled)
                            incoming.write(dialled.recv(16_384))
                        else:
                            dialled.send(outgoing.read())
                            return "done"
                except ssl.SSLError as error:
                    return str(error)  # in TLS 1.2 the client hears of a refusal before it is done
                finally:
                    dialled.shutdown(socket.SHUT_WR)

            refused, heard = await asyncio.gather(serve(), call())
            assert heard == "done" or (refused is not None and "unknown ca" in heard), heard
            if refused is None:
                await self._read_hello(client, incoming, dialled)
                self.session = client.session
            return client.session_reused, refused

    @staticmethod
    async def _read_hello(client: ssl.SSLObject, incoming: ssl.MemoryBIO, dialled: socket.socket) -> None:
        while True:  # tickets come before the first bytes
            try:
                assert client.read() == b"hello"
            except ssl.SSLWantReadError:
                await readable(dialled)
                incoming.write(dialled.recv(16_384))
            else:
                return


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["tls13", "tls12"])
async def test_a_standard_client_cannot_resume(judgements: Judgements, tmp_path: Path, version: ssl.TLSVersion) -> None:
    server = generation(allow_tls12=version is ssl.TLSVersion.TLSv1_2)
    client = StandardClient(tmp_path, version)
    for visit in range(1, 4):
        assert await client.visit(server) == (False, None)
        assert judgements.count == visit
        assert client.session is not None
    if version is ssl.TLSVersion.TLSv1_3:
        assert client.session is not None
        assert client.session.has_ticket, "the client had nothing to try with"


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["tls13", "tls12"])
async def test_a_kept_session_does_not_survive_the_trust(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """The root is taken out of the bundle between two visits of the same client."""
    lenient = version is ssl.TLSVersion.TLSv1_2
    client = StandardClient(tmp_path, version)
    assert await client.visit(generation(number=1, allow_tls12=lenient)) == (False, None)
    distrusting = {authority().trust_domain: authority().impostor.bundle}
    _, refused = await client.visit(generation(number=2, bundles=distrusting, allow_tls12=lenient))
    assert refused is not None
    assert refused.reason is Reason.ISSUER_UNKNOWN


@pytest.mark.asyncio
async def test_our_client_does_not_offer_a_session(judgements: Judgements) -> None:
    """A server that issues tickets to everybody gets none back, and is judged each time."""

    def generous(context: SSL.Context) -> None:
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        context.set_session_id(b"generous")

    ours = generation()
    for visit in range(1, 3):
        with tcp_pair() as (accepted, dialled), session(ours, dialled, server_side=False) as outbound:
            peer = Peer(accepted, authority().svid("demo", "web"), server_side=True, configure=generous)

            async def greet(peer: Peer = peer) -> None:
                await peer.handshake()
                await peer.send(b"hello")

            await asyncio.gather(perform(outbound, dialled, timeout=TIMEOUT), greet())
            assert await read_some(outbound, dialled) == b"hello"
        assert judgements.count == visit
