"""Every broken certificate is refused in a real handshake, in both directions: our Reason, its alert."""

from __future__ import annotations

import asyncio
import socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from handshake_peers import TIMEOUT, Peer, authority, generation, session, tcp_pair

from certs.testing import BROKEN, Svid
from proxy.errors import HandshakeError, Reason
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform

INVALID_IDS = sorted(name for name, case in BROKEN.items() if case.reason_word == Reason.SPIFFE_ID_INVALID.word)
OTHERS = sorted(BROKEN.keys() - set(INVALID_IDS))


@pytest.fixture(scope="module")
def ours() -> TlsGeneration:
    return generation()


async def refused(ours: TlsGeneration, name: str, *, as_server: bool) -> tuple[HandshakeError, str]:
    """Lets the owner of a broken certificate meet us: our error and the alert that it sees."""
    svid = BROKEN[name].make(authority())
    with tcp_pair() as (accepted, dialled):
        mine, theirs = (dialled, accepted) if as_server else (accepted, dialled)
        peer = Peer(theirs, svid, server_side=as_server)
        with session(ours, mine, server_side=not as_server) as end:
            outcome, alert = await asyncio.gather(
                perform(end, mine, timeout=TIMEOUT), peer.alert(), return_exceptions=True
            )
            assert isinstance(outcome, HandshakeError), f"{name} was let in: {outcome!r}"
            assert isinstance(alert, str), repr(alert)
            with pytest.raises(RuntimeError):
                _ = end.peer
    return outcome, alert


def check(name: str, error: HandshakeError, alert: str) -> None:
    case = BROKEN[name]
    assert (error.reason.word, alert) == (case.reason_word, case.alert), f"{name}: {error}"
    assert error.reason.consequence.alert == alert
    message = str(error)
    assert message.isprintable()
    assert message.isascii()
    assert "; " in message, "what happened; who; what to do"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", OTHERS)
async def test_client_with_a_broken_certificate_is_refused(ours: TlsGeneration, name: str) -> None:
    check(name, *await refused(ours, name, as_server=False))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", OTHERS)
async def test_server_with_a_broken_certificate_is_refused(ours: TlsGeneration, name: str) -> None:
    check(name, *await refused(ours, name, as_server=True))


@pytest.mark.asyncio
@pytest.mark.parametrize("as_server", [False, True], ids=["as_client", "as_server"])
async def test_no_invalid_spiffe_id_comes_in(ours: TlsGeneration, as_server: bool) -> None:
    # One test for all of them: they differ in a few bytes of one field.
    assert len(INVALID_IDS) > 30
    for name in INVALID_IDS:
        check(name, *await refused(ours, name, as_server=as_server))


def without_authority_key_identifier() -> Svid:
    """A leaf that is good but for RFC 5280 section 4.2.1.1, which only strict validation asks for."""
    good = authority().svid("demo", "web")
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.leaf.subject)
        .issuer_name(good.leaf.issuer)
        .public_key(good.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(good.leaf.not_valid_before_utc)
        .not_valid_after(good.leaf.not_valid_after_utc)
    )
    for extension in good.leaf.extensions:
        if extension.oid != x509.AuthorityKeyIdentifier.oid:
            builder = builder.add_extension(extension.value, extension.critical)
    return Svid(chain=(builder.sign(authority().intermediate_key, SHA256()), *good.chain[1:]), key=good.key)


@pytest.mark.asyncio
async def test_validation_is_strict(ours: TlsGeneration) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as end:
        peer = Peer(dialled, without_authority_key_identifier())
        outcome, alert = await asyncio.gather(
            perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError)
    assert (outcome.reason, alert) == (Reason.CHAIN_INVALID, "bad_certificate")
    assert "Missing Authority Key Identifier" in str(outcome)


@pytest.mark.asyncio
async def test_what_was_presented_is_told_escaped(ours: TlsGeneration) -> None:
    error, _ = await refused(ours, "trailing_newline", as_server=False)
    assert error.presented == r"spiffe://cluster.local/ns/demo/sa/rogue\n"


@pytest.mark.asyncio
async def test_a_good_certificate_comes_in(ours: TlsGeneration) -> None:
    svid = authority().svid("demo", "web")
    with tcp_pair() as (accepted, dialled):
        peer = Peer(dialled, svid)
        with session(ours, accepted, server_side=True) as end:
            await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.handshake())
            assert end.peer.spiffe_id == svid.spiffe_id
            assert end.peer.principal == "cluster.local/ns/demo/sa/web"
            assert end.peer.serial == f"{svid.leaf.serial_number:x}"
            assert end.peer.not_after == svid.leaf.not_valid_after_utc.timestamp()
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
