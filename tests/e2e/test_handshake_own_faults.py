"""A fault of our own refuses the peer, and a binding that is not as expected is not used."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest
from cryptography import x509
from handshake_peers import TIMEOUT, Peer, authority, generation, session, tcp_pair
from OpenSSL import SSL

from proxy.errors import HandshakeError, Reason
from proxy.handshake import binding, verification
from proxy.handshake.binding import DirectCalls, PublicCalls, direct_calls_work, select_calls
from proxy.handshake.drive import perform
from proxy.identity.verify import Judge
from proxy.types import Protocol


def broken(*_: object, **__: object) -> Any:
    raise ZeroDivisionError("a bug")


async def refused(caplog: pytest.LogCaptureFixture) -> tuple[HandshakeError, str]:
    with (
        caplog.at_level(logging.ERROR),
        tcp_pair() as (accepted, dialled),
        session(generation(), accepted, server_side=True) as end,
    ):
        peer = Peer(dialled, authority().svid("demo", "web"), alpn=[b"http/1.1"])
        outcome, alert = await asyncio.gather(
            perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError), repr(outcome)
    assert "a bug" in caplog.text
    return outcome, str(alert)


@pytest.mark.asyncio
async def test_a_bug_while_judging_refuses_the_peer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "judge", broken)
    error, alert = await refused(caplog)
    assert (error.reason, alert) == (Reason.INTERNAL_ERROR, "internal_error")


@pytest.mark.asyncio
async def test_a_bug_while_reading_the_chain_refuses_the_peer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_chain_of", broken)
    error, _ = await refused(caplog)
    assert error.reason is Reason.INTERNAL_ERROR


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ValueError("odd \n bytes"), x509.InvalidVersion("version", 7)])
async def test_a_certificate_that_only_openssl_can_read_is_malformed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unreadable(_: object) -> Any:
        raise error

    monkeypatch.setattr(verification, "_chain_of", unreadable)
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as end:
        peer = Peer(dialled, authority().svid("demo", "web"))
        outcome, alert = await asyncio.gather(
            perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError), repr(outcome)
    assert (outcome.reason, alert) == (Reason.CERTIFICATE_MALFORMED, "bad_certificate")
    assert str(outcome).isprintable()


@pytest.mark.asyncio
async def test_a_bug_while_choosing_alpn_refuses_the_peer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "_names_in", broken)
    error, alert = await refused(caplog)
    assert (error.reason, alert) == (Reason.ALPN_UNKNOWN, "no_application_protocol")


@pytest.mark.asyncio
async def test_a_connection_that_nobody_registered_is_refused() -> None:
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as end:
        end.material.server_context(Protocol.HTTP).verdicts.clear()
        peer = Peer(dialled, authority().svid("demo", "web"))
        outcome, alert = await asyncio.gather(
            perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True
        )
    assert isinstance(outcome, HandshakeError), repr(outcome)
    assert alert == "internal_error"


@pytest.mark.asyncio
async def test_a_handshake_that_left_no_identity_admits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a path on which OpenSSL is content and our rules were not asked, such as a resumed session."""
    monkeypatch.setattr(Judge, "judge", lambda *_, **__: None)
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as end:
        peer = Peer(dialled, authority().svid("demo", "web"))
        outcome, _ = await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.alert(), return_exceptions=True)
        assert isinstance(outcome, HandshakeError), repr(outcome)
        assert outcome.reason is Reason.INTERNAL_ERROR
        with pytest.raises(RuntimeError):
            _ = end.peer


@pytest.mark.asyncio
async def test_old_entries_of_the_error_queue_are_not_taken_for_the_cause() -> None:
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as end:
        dialled.shutdown(socket.SHUT_WR)
        binding.lib.ERR_put_error(20, 0, 156, b"test", 1)
        with pytest.raises(HandshakeError) as caught:
            await perform(end, accepted, timeout=TIMEOUT)
        assert caught.value.reason is Reason.HANDSHAKE_PEER_CLOSED


class CountingLibrary:
    """The binding, with the references to certificates counted."""

    def __init__(self) -> None:
        self.taken = self.freed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(binding.lib, name)

    def sk_X509_num(self, stack: Any) -> int:
        count = int(binding.lib.sk_X509_num(stack))
        self.taken += count
        return count

    def X509_free(self, certificate: Any) -> None:
        self.freed += 1
        binding.lib.X509_free(certificate)


@pytest.mark.asyncio
async def test_every_certificate_taken_from_openssl_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    counting = CountingLibrary()
    monkeypatch.setattr(verification, "lib", counting)
    with tcp_pair() as (accepted, dialled), session(generation(), accepted, server_side=True) as end:
        peer = Peer(dialled, authority().svid("demo", "web"))
        await asyncio.gather(perform(end, accepted, timeout=TIMEOUT), peer.handshake())
    assert (counting.taken, counting.freed) == (3, 3)


# --- the trial of the direct calls ---


def test_the_direct_calls_work_here() -> None:
    assert direct_calls_work()
    assert isinstance(select_calls(), DirectCalls)


def test_each_generation_has_a_buffer_of_its_own() -> None:
    first, second = select_calls(), select_calls()
    assert first.buffer is not second.buffer


def short_read(ssl: Any, buffer: Any, size: int) -> int:
    return int(binding.lib.SSL_read(ssl, buffer, min(size, 10)))


def silent_write(ssl: Any, data: Any, size: int) -> int:
    return size


def wrong_error(ssl: Any, result: int) -> int:
    return int(binding.lib.SSL_ERROR_SSL)


@pytest.mark.parametrize(("name", "call"), [("read", short_read), ("write", silent_write), ("error", wrong_error)])
def test_calls_that_behave_in_another_way_fail_the_trial(name: str, call: Any) -> None:
    calls = DirectCalls()
    setattr(calls, name, call)
    try:
        passed = binding._trial(calls)
    except SSL.Error:
        passed = False
    assert not passed


@pytest.mark.parametrize("error", [AttributeError, TypeError, OSError])
def test_without_the_binding_the_public_calls_are_taken(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def missing(_: DirectCalls) -> bool:
        raise error("SSL_read")

    monkeypatch.setattr(binding, "_trial", missing)
    direct_calls_work.cache_clear()
    try:
        assert isinstance(select_calls(), PublicCalls)
    finally:
        direct_calls_work.cache_clear()
