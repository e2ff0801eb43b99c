"""Bytes that are no handshake, too few of them, or none at all: each has its Reason and none blocks the loop."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from handshake_peers import TIMEOUT, authority, generation, readable, session, tcp_pair

from proxy.errors import HandshakeError, Reason
from proxy.handshake import drive
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform


@pytest.fixture(scope="module")
def ours() -> TlsGeneration:
    return generation()


async def server_fed_with(ours: TlsGeneration, data: bytes, *, end: bool = False) -> HandshakeError:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        dialled.send(data)
        if end:
            dialled.shutdown(socket.SHUT_WR)

        async def hang_up() -> None:
            await readable(dialled)  # the refusal, so that nobody waits for us
            dialled.shutdown(socket.SHUT_WR)

        outcome, _ = await asyncio.gather(
            perform(inbound, accepted, timeout=TIMEOUT), asyncio.sleep(0) if end else hang_up(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError), repr(outcome)
    return outcome


class Wakeups:
    """Counts what the loop tells `drive`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        settle = drive._settle

        def counted(future: asyncio.Future[bool], value: bool) -> None:
            self.count += 1
            settle(future, value)

        monkeypatch.setattr(drive, "_settle", counted)

    async def none_more(self, peer: socket.socket) -> None:
        """Makes our socket readable, writable as it is, and sees that nobody cares."""
        before = self.count
        peer.send(b"x")
        await asyncio.sleep(0.02)
        assert self.count == before


@pytest.fixture
def wakeups(monkeypatch: pytest.MonkeyPatch) -> Wakeups:
    return Wakeups(monkeypatch)


CLIENT_HELLO_HEADER = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Reason.NOT_TLS),
        (b"POST /a HTTP/1.0\r\n\r\n", Reason.NOT_TLS),
        (b"CONNECT a:443 HTTP/1.1\r\n\r\n", Reason.NOT_TLS),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason.NOT_TLS),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.NOT_TLS),
        (b"\x00" * 64, Reason.NOT_TLS),
        (b"\xff" * 64, Reason.NOT_TLS),
        (b"\x16\x02\x00\x00\x10" + b"\x00" * 16, Reason.NOT_TLS),
    ],
    ids=["get", "post", "connect", "h2_preface", "ssh", "zeros", "ones", "wrong_record_version"],
)
async def test_plaintext_is_named_as_such(ours: TlsGeneration, data: bytes, reason: Reason) -> None:
    error = await server_fed_with(ours, data)
    assert error.reason is reason, str(error)
    assert "plaintext" in str(error)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "data",
    [
        CLIENT_HELLO_HEADER + b"\xaa" * (0xC8 - 6),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x17\x03\x03\x00\x10" + b"\x00" * 16,
        b"\x14\x03\x03\x00\x01\x01" * 3,
        b"\x16\x03\x01\xff\xff" + b"\x00" * 64,
        b"\x16\x03\x01\x00\x00" * 40,
    ],
    ids=["hello_of_nonsense", "server_hello_first", "data_first", "change_cipher_first", "oversized", "empty_records"],
)
async def test_broken_records_fail_the_handshake(ours: TlsGeneration, data: bytes) -> None:
    error = await server_fed_with(ours, data)
    assert error.reason in (Reason.HANDSHAKE_FAILED, Reason.NOT_TLS, Reason.TLS_VERSION_UNSUPPORTED), str(error)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "alert", [b"\x02\x28", b"\x02\x00", b"\x01\x00", b"\x01"], ids=["fatal", "odd", "close", "short"]
)
async def test_an_alert_in_place_of_a_hello(ours: TlsGeneration, alert: bytes) -> None:
    """Nothing is agreed on yet that an alert could end, so it is a broken protocol and no refusal."""
    error = await server_fed_with(ours, b"\x15\x03\x01\x00" + bytes((len(alert),)) + alert, end=True)
    assert error.reason is Reason.HANDSHAKE_FAILED


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("alert", "reason", "word"),
    [
        (b"\x02\x28", Reason.PEER_REJECTED_US, "handshake_failure"),
        (b"\x02\x46", Reason.PEER_REJECTED_US, "protocol_version"),
        (b"\x02\xfe", Reason.PEER_REJECTED_US, "alert_254"),
        (b"\x01\x00", Reason.HANDSHAKE_PEER_CLOSED, "went away"),
    ],
    ids=["handshake_failure", "protocol_version", "unknown", "close_notify"],
)
async def test_an_alert_in_answer_to_our_hello(ours: TlsGeneration, alert: bytes, reason: Reason, word: str) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, dialled, server_side=False) as outbound:
        accepted.send(b"\x15\x03\x03\x00\x02" + alert)
        with pytest.raises(HandshakeError) as caught:
            await perform(outbound, dialled, timeout=TIMEOUT)
    assert caught.value.reason is reason, str(caught.value)
    assert word in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"", b"\x16", CLIENT_HELLO_HEADER], ids=["nothing", "one_byte", "half_a_hello"])
async def test_a_peer_that_goes_away(ours: TlsGeneration, data: bytes) -> None:
    error = await server_fed_with(ours, data, end=True)
    assert error.reason is Reason.HANDSHAKE_PEER_CLOSED


@pytest.mark.asyncio
async def test_a_reset_in_the_handshake_is_a_peer_that_went_away(ours: TlsGeneration) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        dialled.close()
        with pytest.raises(HandshakeError) as caught:
            await perform(inbound, accepted, timeout=TIMEOUT)
    assert caught.value.reason is Reason.HANDSHAKE_PEER_CLOSED


@pytest.mark.asyncio
@pytest.mark.parametrize("data", [b"", CLIENT_HELLO_HEADER], ids=["nothing", "half_a_hello"])
async def test_a_silent_peer_meets_the_deadline(ours: TlsGeneration, wakeups: Wakeups, data: bytes) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        dialled.send(data)
        started = asyncio.get_running_loop().time()
        with pytest.raises(HandshakeError) as caught:
            await perform(inbound, accepted, timeout=0.1)
        assert 0.09 <= asyncio.get_running_loop().time() - started < drive._LINGER
        assert caught.value.reason is Reason.HANDSHAKE_TIMEOUT
        await wakeups.none_more(dialled)


@pytest.mark.asyncio
async def test_cancelled_it_leaves_nothing_on_the_loop(ours: TlsGeneration, wakeups: Wakeups) -> None:
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        task = asyncio.create_task(perform(inbound, accepted, timeout=TIMEOUT))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wakeups.none_more(dialled)


@pytest.mark.asyncio
async def test_a_refused_peer_that_does_not_hang_up_is_left_after_the_linger(
    ours: TlsGeneration, wakeups: Wakeups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "_LINGER", 0.2)
    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        dialled.send(b"GET / HTTP/1.1\r\n\r\n")
        started = asyncio.get_running_loop().time()
        with pytest.raises(HandshakeError):
            await perform(inbound, accepted, timeout=TIMEOUT)
        assert 0.19 <= asyncio.get_running_loop().time() - started < 1.0
        await wakeups.none_more(dialled)


@pytest.mark.asyncio
async def test_a_client_hello_byte_by_byte(ours: TlsGeneration, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A whole handshake in fragments of one byte, from a client of the standard library."""
    path = tmp_path_factory.mktemp("client")
    svid = authority().svid("demo", "web")
    (path / "chain.pem").write_bytes(svid.chain_pem())
    (path / "key.pem").write_bytes(svid.key_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(path / "chain.pem", path / "key.pem")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)

    async def trickle(sock: socket.socket) -> None:
        while True:
            try:
                client.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            for byte in outgoing.read():
                sock.send(bytes((byte,)))
                await asyncio.sleep(0)
            if done:
                return
            await readable(sock)
            incoming.write(sock.recv(16_384))

    with tcp_pair() as (accepted, dialled), session(ours, accepted, server_side=True) as inbound:
        await asyncio.gather(perform(inbound, accepted, timeout=TIMEOUT), trickle(dialled))
        assert inbound.peer.spiffe_id == svid.spiffe_id
