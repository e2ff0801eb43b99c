"""What is agreed on in a handshake, and what is answered when nothing can be: versions, groups, ALPN, certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from handshake_peers import TIMEOUT, Peer, authority, generation, session, tcp_pair
from OpenSSL import SSL

from proxy.errors import HandshakeError, Reason
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.types import Protocol


@pytest.fixture(scope="module")
def ours() -> TlsGeneration:
    return generation()


async def refused_client(
    ours: TlsGeneration,
    *,
    present: bool = True,
    protocol: Protocol = Protocol.HTTP,
    alpn: Sequence[bytes] = (),
    configure: Callable[[SSL.Context], None] = lambda context: None,
) -> tuple[HandshakeError, str]:
    svid = authority().svid("demo", "web") if present else None
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True, protocol=protocol) as end:
        peer = Peer(dialled, svid, alpn=alpn, configure=configure)
        outcome, alert = await asyncio.gather(
            perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError), repr(outcome)
    assert isinstance(alert, str), repr(alert)
    return outcome, alert


async def met(
    server: TlsGeneration, client: TlsGeneration, port: Protocol, service: Protocol, name: str = ""
) -> tuple[bytes, bytes, str, str, str]:
    """Two of ours meet: ALPN of both, SNI at the server, group and version at the client."""
    with (
        tcp_pair() as (accepted, dialled),
        session(server, accepted, server_side=True, protocol=port) as inbound,
        session(client, dialled, server_side=False, protocol=service, server_name=name) as outbound,
    ):
        await asyncio.gather(perform(inbound, accepted, timeout=TIMEOUT), perform(outbound, dialled, timeout=TIMEOUT))
        assert (inbound.group, inbound.version) == (outbound.group, outbound.version)
        return inbound.alpn, outbound.alpn, inbound.sni, outbound.group, outbound.version


# --- certificates ---


@pytest.mark.asyncio
async def test_no_certificate_is_answered_certificate_required(ours: TlsGeneration) -> None:
    error, alert = await refused_client(ours, present=False)
    assert (error.reason, alert) == (Reason.CERTIFICATE_REQUIRED, "certificate_required")
    assert "presented no certificate" in str(error)


# --- versions ---


def only_tls12(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)


@pytest.mark.asyncio
async def test_tls12_is_refused_by_default(ours: TlsGeneration) -> None:
    error, alert = await refused_client(ours, configure=only_tls12)
    assert (error.reason, alert) == (Reason.TLS_VERSION_UNSUPPORTED, "protocol_version")


@pytest.mark.asyncio
async def test_a_server_of_tls12_is_refused_by_default(ours: TlsGeneration) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, dialled, server_side=False) as end:
        peer = Peer(accepted, authority().svid("demo", "web"), server_side=True, configure=only_tls12)
        outcome, _ = await asyncio.gather(perform(end, dialled, timeout=TIMEOUT), peer.alert(), return_exceptions=True)
    assert isinstance(outcome, HandshakeError)
    assert outcome.reason is Reason.PEER_REJECTED_US
    assert "protocol_version" in str(outcome)


@pytest.mark.asyncio
async def test_tls12_where_it_is_allowed_is_judged_as_well() -> None:
    lenient = generation(allow_tls12=True)
    with tcp_pair() as (accepted, dialled), session(lenient, accepted, server_side=True) as end:
        peer = Peer(dialled, authority().svid("demo", "web"), configure=only_tls12)
        await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.handshake())
        assert (end.version, end.peer.spiffe_id.service_account) == ("TLSv1.2", "web")
    error, alert = await refused_client(lenient, present=False, configure=only_tls12)
    assert (error.reason, alert) == (Reason.CERTIFICATE_REQUIRED, "handshake_failure")


# --- ciphers and groups ---


@pytest.mark.asyncio
async def test_no_common_cipher_suite(ours: TlsGeneration) -> None:
    error, alert = await refused_client(
        ours, configure=lambda context: context.set_tls13_ciphersuites(b"TLS_AES_128_CCM_SHA256")
    )
    assert (error.reason, alert) == (Reason.TLS_NO_COMMON_PARAMETERS, "handshake_failure")


@pytest.mark.asyncio
async def test_aes_128_is_preferred_whatever_the_client_prefers(ours: TlsGeneration) -> None:
    def reversed_order(context: SSL.Context) -> None:
        context.set_tls13_ciphersuites(b"TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256")

    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as end:
        peer = Peer(dialled, authority().svid("demo", "web"), configure=reversed_order)
        await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.handshake())
        assert peer.tls.get_cipher_name() == "TLS_AES_128_GCM_SHA256"


@pytest.mark.asyncio
async def test_two_of_ours_agree_on_the_post_quantum_group(ours: TlsGeneration) -> None:
    *_, group, version = await met(ours, ours, Protocol.HTTP, Protocol.HTTP)
    assert (group, version) == ("X25519MLKEM768", "TLSv1.3")


# --- ALPN and SNI ---


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("port", "service", "agreed"),
    [
        (Protocol.HTTP, Protocol.HTTP, b"istio-http/1.1"),
        (Protocol.TCP, Protocol.TCP, b"istio"),
        (Protocol.AUTO, Protocol.HTTP, b"istio-http/1.1"),
        (Protocol.AUTO, Protocol.AUTO, b"istio"),
        (Protocol.HTTP, Protocol.TCP, b"istio"),
    ],
)
async def test_alpn_between_two_of_ours(ours: TlsGeneration, port: Protocol, service: Protocol, agreed: bytes) -> None:
    inbound, outbound, *_ = await met(ours, ours, port, service)
    assert (inbound, outbound) == (agreed, agreed)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("port", "offered", "chosen"),
    [
        (Protocol.HTTP, [b"http/1.1", b"istio-http/1.0", b"istio-http/1.1"], b"istio-http/1.1"),
        (Protocol.HTTP, [b"h2", b"http/1.1"], b"http/1.1"),
        (Protocol.HTTP, [b"istio-h2", b"istio-http/1.0"], b"istio-http/1.0"),
        (Protocol.AUTO, [b"istio", b"http/1.1"], b"http/1.1"),
        (Protocol.TCP, [b"istio-peer-exchange", b"istio"], b"istio"),
        (Protocol.TCP, [], b""),
        (Protocol.HTTP, [], b""),
    ],
)
async def test_the_server_chooses_by_its_own_order(
    ours: TlsGeneration, port: Protocol, offered: list[bytes], chosen: bytes
) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True, protocol=port) as end:
        peer = Peer(dialled, authority().svid("demo", "web"), alpn=offered)
        await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.handshake())
        assert (end.alpn, peer.tls.get_alpn_proto_negotiated()) == (chosen, chosen)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("port", "offered"),
    [(Protocol.HTTP, [b"h2"]), (Protocol.TCP, [b"http/1.1", b"istio-http/1.1"]), (Protocol.AUTO, [b"x\n\xff"])],
)
async def test_only_unknown_alpn_names(ours: TlsGeneration, port: Protocol, offered: list[bytes]) -> None:
    error, alert = await refused_client(ours, protocol=port, alpn=offered)
    assert (error.reason, alert) == (Reason.ALPN_UNKNOWN, "no_application_protocol")
    assert repr(offered[0])[2:-1] in str(error)
    assert str(error).isprintable()


@pytest.mark.asyncio
@pytest.mark.parametrize(("name", "seen"), [("orders.demo", "orders.demo"), ("10.0.0.7", ""), ("::1", ""), ("", "")])
async def test_sni_is_a_name_and_never_an_address(ours: TlsGeneration, name: str, seen: str) -> None:
    _, _, sni, *_ = await met(ours, ours, Protocol.HTTP, Protocol.HTTP, name)
    assert sni == seen
