"""What one caller, or nobody at all, may ask of the authority: rates, sizes, times, connections, and no signature."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from authority_inside import AuthorityInside
from authority_process import eventually, exchange, identity, raw_tls, sign_body

import certs.authority
from certs.keys import generate_key
from certs.rates import Rate
from certs.requests import MAX_BODY_BYTES
from certs.testing import MemoryAuthority
from proxy.https import door
from proxy.runtime import pages
from tests.authority_requests import RECIPES

CORPUS = Path(__file__).parents[1] / "corpus" / "authority" / "requests.yaml"
LATE = 10.0
"""Seconds within which something must have come about that takes less than one."""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityInside]:
    made = AuthorityInside(tmp_path)
    try:
        made.init()
        yield made
    finally:
        made.stop()


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who got a certificate signed, those included whom nobody gave it."""
    made: list[str] = []
    sign_leaf = certs.authority.sign_leaf

    def counting(spiffe_id: Any, *arguments: Any) -> Any:
        made.append(str(spiffe_id))
        return sign_leaf(spiffe_id, *arguments)

    monkeypatch.setattr(certs.authority, "sign_leaf", counting)
    return made


def issued(authority: AuthorityInside) -> int:
    return len([line for line in authority.audit() if line["event"] == "issued"])


# --- rates -----------------------------------------------------------------------------------------------------------


def test_one_identity_is_held_back_and_another_is_not(
    authority: AuthorityInside, signatures: list[str], loop_name: str
) -> None:
    authority.serve(loop_name, identity_rate=Rate(per_second=0.01, burst=3))
    orders, web = (authority.enrol(token=authority.token(name)) for name in ("orders", "web"))
    with authority.connection(orders) as connection:
        granted = [exchange(connection, "POST", "/v1/sign", sign_body(generate_key())).status for _ in range(2)]
        assert granted == [200, 200]
        before = len(signatures)
        refused = exchange(connection, "POST", "/v1/sign", sign_body(generate_key()))
    # Another connection, or another proof, is no way around.
    again, by_token = authority.sign(svid=orders), authority.sign(token=authority.token("orders"))
    for answered in (refused, again, by_token):
        assert (answered.status, answered.reason) == (429, "rate_limited")
        assert 90 <= int(answered.headers["retry-after"]) <= 100
        assert identity("orders") in answered.told["message"]
    assert len(signatures) == before
    lines = authority.audit()[-3:]
    assert [(line["event"], line["reason"], line["caller"]) for line in lines] == [
        ("refused", "rate_limited", identity("orders"))
    ] * 3
    assert authority.sign(svid=web).status == 200


def test_one_address_is_held_back_before_anything_is_read(
    authority: AuthorityInside, signatures: list[str], loop_name: str
) -> None:
    authority.serve(loop_name, address_rate=Rate(per_second=0.01, burst=4))
    token = authority.token()
    authority.source = "127.0.0.2"
    for _ in range(4):
        assert authority.ask("POST", "/v1/sign", b"{}").reason == "request_malformed"
    before = len(signatures)
    refused = authority.sign(token=token)
    assert (refused.status, refused.reason) == (429, "rate_limited")
    assert 90 <= int(refused.headers["retry-after"]) <= 100
    assert len(signatures) == before
    line = authority.audit()[-1]
    assert (line["reason"], line["caller"], line["key_fingerprint"]) == ("rate_limited", None, None)
    assert line["remote_address"].startswith("127.0.0.2:")
    # What anybody may read costs nothing and is not counted.
    assert authority.ask("GET", "/v1/bundle").status == 200
    authority.source = "127.0.0.3"
    # The token was not used up by the request that was held back.
    assert authority.sign(token=token).status == 200


def test_who_waits_as_told_is_served(authority: AuthorityInside) -> None:
    authority.serve(identity_rate=Rate(per_second=2.0, burst=1))
    orders = authority.enrol(token=authority.token())
    refused = authority.sign(svid=orders)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    eventually(lambda: authority.sign(svid=orders).status == 200, "there is a grant again")


# --- sizes -----------------------------------------------------------------------------------------------------------

HEAD = b"POST /v1/sign HTTP/1.1\r\nhost: authority\r\ncontent-type: application/json\r\n"


def answer_on(sock: ssl.SSLSocket) -> bytes:
    """Everything that the authority says until it ends the connection."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            said += data
    return said


@pytest.mark.parametrize("framing", ["content_length", "chunked"])
def test_a_body_is_refused_before_the_whole_of_it_has_come(authority: AuthorityInside, framing: str) -> None:
    authority.serve()
    body = b" " * (MAX_BODY_BYTES + 1)
    with raw_tls(authority.port) as sock:
        if framing == "chunked":
            sock.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(body), body))
        else:
            sock.sendall(HEAD + b"content-length: 1000000000\r\n\r\n" + body)
        said = answer_on(sock)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"request_too_large"' in said
    [line] = authority.audit()
    assert (line["event"], line["reason"]) == ("refused", "request_too_large")


def test_a_head_without_end_is_refused(authority: AuthorityInside) -> None:
    authority.serve()
    with raw_tls(authority.port) as sock:
        sock.sendall(HEAD + b"x: " + b"y" * 100_000)
        assert answer_on(sock).startswith(b"HTTP/1.1 431 ")
    assert authority.audit() == []


# --- times -----------------------------------------------------------------------------------------------------------


def is_cut_off(sock: ssl.SSLSocket) -> bool:
    """Send byte after byte until the authority ends the connection; False when it never does."""
    deadline = time.monotonic() + LATE
    sock.settimeout(0.05)
    while time.monotonic() < deadline:
        try:
            sock.sendall(b"y")
            if not sock.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    "begin", [b"POST /v1/sign HTTP/1.1\r\nx: ", HEAD + b"content-length: 1000\r\n\r\n"], ids=["head", "body"]
)
def test_a_request_that_drips_is_cut_off_and_holds_up_nobody(
    authority: AuthorityInside, monkeypatch: pytest.MonkeyPatch, begin: bytes, loop_name: str
) -> None:
    monkeypatch.setattr(pages, "_IDLE", 0.8)
    authority.serve(loop_name)
    with raw_tls(authority.port) as sock:
        sock.sendall(begin)
        assert authority.enrol(token=authority.token()).spiffe_id.service_account == "orders"
        assert is_cut_off(sock)
    # It never became a request, so nobody was refused.
    assert [line["event"] for line in authority.audit()] == ["issued"]


def test_a_handshake_that_is_not_done_is_cut_off(authority: AuthorityInside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HANDSHAKE_SECONDS", 0.3)
    authority.serve()
    with socket.create_connection(("127.0.0.1", authority.port), timeout=LATE) as sock:
        sock.sendall(b"\x16\x03\x01")  # the begin of a ClientHello
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1024) == b""


# --- connections -----------------------------------------------------------------------------------------------------


def is_open(sock: ssl.SSLSocket) -> bool:
    """Whether a connection is answered."""
    try:
        sock.sendall(b"GET /v1/bundle HTTP/1.1\r\nhost: authority\r\n\r\n")
        return sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def opens(authority: AuthorityInside) -> bool:
    """Whether one more connection is answered."""
    try:
        with raw_tls(authority.port) as sock:
            return is_open(sock)
    except OSError:
        return False


def test_one_connection_too_many_is_closed_at_once(authority: AuthorityInside, loop_name: str) -> None:
    authority.serve(loop_name, connections=3)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(raw_tls(authority.port, f"127.0.1.{number}")) for number in range(1, 4)]
        assert all(map(is_open, held))
        assert not opens(authority)
        assert authority.turned_away == 1
        held[0].close()
        eventually(lambda: opens(authority), "there is room again")
        assert all(map(is_open, held[1:]))
    assert authority.audit() == []


def test_one_address_has_a_quarter_of_the_connections(authority: AuthorityInside, loop_name: str) -> None:
    authority.serve(loop_name, connections=8)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(raw_tls(authority.port)) for _ in range(2)]
        assert all(map(is_open, held))
        assert not opens(authority)
        assert authority.turned_away == 1
        another = stack.enter_context(raw_tls(authority.port, "127.0.1.1"))
        assert is_open(another)
        held[0].close()
        eventually(lambda: opens(authority), "there is room again")


def test_handshakes_that_never_begin_leave_room_when_their_time_is_over(
    authority: AuthorityInside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(door.Door.__init__.__kwdefaults__, "handshakes", 2)
    monkeypatch.setattr(door, "HANDSHAKE_SECONDS", 1.0)
    authority.serve()
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(socket.create_connection(("127.0.0.1", authority.port), timeout=LATE))
        eventually(lambda: not opens(authority), "the handshakes are all taken")
        assert authority.turned_away >= 1
        eventually(lambda: opens(authority), "the silent ones are gone")


# --- work for nobody -------------------------------------------------------------------------------------------------


def unproved(authority: AuthorityInside) -> list[Callable[[], Any]]:
    """Requests of callers who prove nothing; each is one call."""

    def posts(body: bytes) -> Callable[[], Any]:
        return lambda: authority.ask("POST", "/v1/sign", body)

    bodies = [sign_body(generate_key(), **members) for members in ({}, {"token": "a.b.c"}, {"lifetime_seconds": 1})]
    bodies.append(sign_body(generate_key(), token="remora-join-" + "A" * 43))
    for row in yaml.safe_load(CORPUS.read_text("utf-8")):
        if "body" in row and isinstance(row["body"], str):
            bodies.append(row["body"].encode("latin-1"))
        elif "csr" in row:
            bodies.append(json.dumps({"csr": RECIPES[row["csr"]]()}).encode())
    gets = [lambda path=path: authority.ask("GET", path) for path in ("/v1/bundle", "/v1/crl", "/v1/sign", "/")]
    return [*map(posts, bodies), *gets]


def test_who_proves_nothing_costs_no_signature(authority: AuthorityInside, signatures: list[str]) -> None:
    authority.serve()
    used = authority.token()
    orders = authority.enrol(token=used)
    before, listed = list(signatures), authority.ask("GET", "/v1/crl").body
    asked = [*unproved(authority), lambda: authority.sign(token=used)]
    statuses = {call().status for call in asked}
    assert len(asked) > 50
    assert statuses <= {200, 400, 401, 404, 405, 413}
    for foreign in (
        MemoryAuthority("cluster.local").svid("demo", "orders"),
        MemoryAuthority("far.example").svid("a", "b"),
    ):
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|pipe"):
            authority.sign(svid=foreign)
    assert signatures == before
    assert issued(authority) == 1
    assert authority.ask("GET", "/v1/crl").body == listed
    assert len(authority.inside(lambda: list(authority.keeper._store.issued))) == 2  # the authority's own is the other
    # The count counts: one who proves who it is makes it grow by one.
    authority.enrol(orders)
    assert len(signatures) == len(before) + 1
