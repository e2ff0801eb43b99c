"""Every request of the table is answered as it says: by its reason, or by a certificate that is the caller's."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from certs.audit import Occasion, issued_line, refused_line
from certs.caller import Caller, How
from certs.joins import JoinBook, new_token
from certs.refusals import Refused
from certs.requests import SignRequest, key_fingerprint, read_sign_request
from certs.signing import AuthorityState, Issued, sign
from certs.spiffe import SpiffeId
from certs.svid import leaf_violations, spiffe_id_of
from certs.testing import MemoryAuthority
from tests.authority_requests import KEY, RECIPES

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
CORPUS = Path(__file__).parents[2] / "corpus" / "authority" / "requests.yaml"
ROWS: list[dict[str, Any]] = yaml.safe_load(CORPUS.read_text("utf-8"))
REFUSED = [row for row in ROWS if "reason" in row]
GRANTED = [row for row in ROWS if "reason" not in row]


def text(value: object) -> object:
    return value["text"] * value["times"] if isinstance(value, dict) and "times" in value else value


def token_and_book(row: dict[str, Any], now: float) -> tuple[str | None, JoinBook]:
    state, token = row.get("join"), new_token()
    if state is None:
        return None, JoinBook()
    if state == "unknown":
        return token, JoinBook().create(new_token(), ORDERS, made_by="alice", now=now)
    made = now - 601 if state == "expired" else now
    book = JoinBook().create(token, ORDERS, made_by="alice", now=made)
    return token, book.redeem(token, now)[0] if state == "used" else book


def body_of(row: dict[str, Any], token: str | None) -> bytes:
    if "body" in row:
        return str(text(row["body"])).encode("latin-1")
    members = {"csr": RECIPES[row.get("csr", "p256")]()}
    members |= {name: text(value) for name, value in row.get("with", {}).items()}
    if token is not None:
        members["token"] = token
    return json.dumps(members).encode("utf-8")


def caller_of(row: dict[str, Any], request: SignRequest, book: JoinBook, now: float) -> Caller:
    asked = row.get("caller", {})
    spiffe_id = SpiffeId.parse(asked.get("id", str(ORDERS)))
    how = How(asked.get("how", "service_account_token"))
    if "join" in row or request.kind is How.JOIN_TOKEN:
        assert request.token is not None
        how, spiffe_id = How.JOIN_TOKEN, book.redeem(request.token, now)[1]
    peer = asked.get("peer")
    if peer is not None:
        peer = spiffe_id if peer == "same" else SpiffeId.parse(peer)
    return Caller(spiffe_id=spiffe_id, how=how, peer=peer)


def decide(row: dict[str, Any], memory: MemoryAuthority) -> tuple[Issued, Caller]:
    state = row.get("state", {})
    now = memory.now + datetime.timedelta(seconds=state.get("clock", 0))
    token, book = token_and_book(row, now.timestamp())
    request = read_sign_request(body_of(row, token))
    caller = caller_of(row, request, book, now.timestamp())
    known = AuthorityState(
        authority=memory.authority,
        revoked_identities={ORDERS} if state.get("revoked_identity") else frozenset(),
        revoked_keys={key_fingerprint(KEY.public_key())} if state.get("revoked_key") else frozenset(),
    )
    return sign(request, caller, known, now), caller


def occasion(memory: MemoryAuthority, caller: Caller | None = None) -> Occasion:
    return Occasion(now=memory.now, remote_address="192.0.2.7:4711", replica="authority-0", caller=caller)


@pytest.mark.parametrize("row", REFUSED, ids=[row["name"] for row in REFUSED])
def test_refused_with_its_reason_and_an_audit_line(row: dict[str, Any], memory: MemoryAuthority) -> None:
    with pytest.raises(Refused) as caught:
        decide(row, memory)
    assert caught.value.reason.word == row["reason"]
    assert str(caught.value).isprintable()
    line = refused_line(occasion(memory), caught.value)
    assert json.loads(line)["reason"] == row["reason"]
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("row", GRANTED, ids=[row["name"] for row in GRANTED])
def test_granted_to_the_caller_alone(row: dict[str, Any], memory: MemoryAuthority) -> None:
    issued, caller = decide(row, memory)
    leaf = issued.chain[0]
    assert spiffe_id_of(leaf) == issued.spiffe_id == ORDERS
    assert leaf_violations(leaf) == []
    assert list(leaf.subject) == []
    assert len(list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)) == 1
    assert {extension.oid.dotted_string for extension in leaf.extensions} == {
        "2.5.29.17",
        "2.5.29.19",
        "2.5.29.15",
        "2.5.29.37",
        "2.5.29.14",
        "2.5.29.35",
    }
    assert leaf.not_valid_after_utc <= memory.now + datetime.timedelta(hours=24)
    assert json.loads(issued_line(occasion(memory, caller), issued))["serial"] == f"{leaf.serial_number:x}"


def test_the_table_is_large_and_its_names_differ() -> None:
    assert len(REFUSED) >= 40
    assert len({row["name"] for row in ROWS}) == len(ROWS)
