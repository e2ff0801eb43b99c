"""Who connects to the signing port and says nothing, or asks all the time, keeps nobody else out."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority_process import ASK, AuthorityProcess, eventually

from proxy.https.config import HANDSHAKES, SHARES

SHARE = HANDSHAKES // SHARES


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    made = AuthorityProcess(tmp_path)
    try:
        made.init()
        yield made
    finally:
        made.stop()


def answers(port: int, source: str) -> bool:
    """Whether the authority talks TLS with somebody from this address, before the silent ones are given up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        plain = socket.create_connection(("127.0.0.1", port), timeout=ASK, source_address=(source, 0))
        with plain, context.wrap_socket(plain) as tls:
            tls.sendall(b"GET /v1/bundle HTTP/1.1\r\nhost: authority\r\nconnection: close\r\n\r\n")
            return tls.recv(12) == b"HTTP/1.1 200"
    return False


def test_silent_connections_of_one_address_leave_room_for_others(authority: AuthorityProcess) -> None:
    authority.start()
    with contextlib.ExitStack() as held:
        silent = [
            held.enter_context(
                socket.create_connection(("127.0.0.1", authority.port), timeout=ASK, source_address=("127.0.0.1", 0))
            )
            for _ in range(SHARE + 3)
        ]
        closed = eventually(lambda: select.select(silent, [], [], 0)[0], "some are turned away")
        assert len(closed) <= 3
        assert not answers(authority.port, "127.0.0.1")
        assert answers(authority.port, "127.0.0.2")
    assert eventually(lambda: answers(authority.port, "127.0.0.1"), "their places are free again")


def test_who_reads_all_the_time_waits_and_may_renew_all_the_same(authority: AuthorityProcess) -> None:
    authority.start("--address-rate", "0.1:2")
    assert [authority.ask("GET", path).status for path in ("/v1/bundle", "/v1/crl")] == [200, 200]
    for path in ("/v1/bundle", "/v1/crl"):
        refused = authority.ask("GET", path)
        assert (refused.status, refused.reason) == (429, "rate_limited")
        assert 0 < int(refused.headers["retry-after"]) <= 10
    assert authority.audit() == []
    assert authority.sign(token=authority.token()).status == 200
