"""An audit line says all that is known, keeps proof and claim apart, and cannot be forged from outside."""

from __future__ import annotations

import datetime
import json
from typing import Any

from certs.audit import MAX_TEXT_CHARACTERS, Occasion, issued_line, refused_line
from certs.caller import Caller, How, PodRef
from certs.keys import generate_key
from certs.refusals import Refusal, Refused
from certs.requests import SignRequest, key_fingerprint
from certs.signing import AuthorityState, sign
from certs.spiffe import SpiffeId
from certs.testing import MemoryAuthority

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
POD = PodRef(namespace="demo", name="orders-7d9", uid="b9c4")
NOW = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
HOSTILE = '"}\n{"event":"issued","caller":"x"}\r\x00\x1b[2J\x7f\u2028\u0085\ud800é'


def occasion(**changes: Any) -> Occasion:
    return Occasion(**{"now": NOW, "remote_address": "192.0.2.7:4711", "replica": "authority-0", **changes})


def refused(message: str = "send a token") -> Refused:
    return Refused(Refusal.CALLER_UNKNOWN, message)


def test_an_issuance_tells_who_what_how_long_and_from_where() -> None:
    memory, key = MemoryAuthority("cluster.local", NOW), generate_key().public_key()
    request = SignRequest(public_key=key, key_fingerprint=key_fingerprint(key), token="a.secret.token")
    caller = Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=POD, peer=ORDERS)
    issued = sign(request, caller, AuthorityState(authority=memory.authority), NOW)
    line = issued_line(occasion(caller=caller), issued)
    assert json.loads(line) == {
        "time": "2030-01-01T10:00:00.000Z",
        "event": "issued",
        "reason": None,
        "status": None,
        "message": None,
        "caller": str(ORDERS),
        "authenticated_by": "service_account_token",
        "peer": str(ORDERS),
        "presented_unverified": None,
        "identity": str(ORDERS),
        "serial": f"{issued.chain[0].serial_number:x}",
        "not_before": "2030-01-01T09:59:00.000Z",
        "not_after": "2030-01-02T10:00:00.000Z",
        "key_fingerprint": key_fingerprint(key),
        "remote_address": "192.0.2.7:4711",
        "pod_namespace": "demo",
        "pod_name": "orders-7d9",
        "pod_uid": "b9c4",
        "replica": "authority-0",
    }
    assert "secret" not in line + repr(request)


def test_a_refusal_tells_why_and_has_the_same_members() -> None:
    members = json.loads(refused_line(occasion(key_fingerprint="ab"), refused()))
    assert (members["event"], members["reason"], members["status"]) == ("refused", "caller_unknown", 401)
    assert (members["message"], members["key_fingerprint"]) == ("send a token", "ab")
    assert members["serial"] is members["identity"] is members["caller"] is None
    assert len(members) == 19


def test_a_claim_is_never_written_as_the_caller() -> None:
    members = json.loads(refused_line(occasion(presented=str(ORDERS)), refused()))
    assert members["presented_unverified"] == str(ORDERS)
    assert [name for name, value in members.items() if value == str(ORDERS)] == ["presented_unverified"]


def test_nothing_from_outside_makes_a_second_line_or_member() -> None:
    pod = PodRef(namespace=HOSTILE, name=HOSTILE, uid=HOSTILE)
    caller = Caller(spiffe_id=ORDERS, how=How.CERTIFICATE, pod=pod)
    everywhere = occasion(remote_address=HOSTILE, replica=HOSTILE, presented=HOSTILE, caller=caller)
    line = refused_line(everywhere, refused(HOSTILE))
    assert line.isascii()
    assert line.isprintable()
    members = json.loads(line, object_pairs_hook=list)
    names = [name for name, _ in members]
    assert len(set(names)) == len(names) == 19
    values = dict(members)
    assert values["event"] == "refused"
    assert values["caller"] == str(ORDERS)
    for name in (
        "presented_unverified",
        "message",
        "remote_address",
        "pod_namespace",
        "pod_name",
        "pod_uid",
        "replica",
    ):
        assert values[name] == HOSTILE


def test_texts_from_outside_are_cut() -> None:
    line = refused_line(occasion(presented="é" * 100_000), refused("x" * 100_000))
    members = json.loads(line)
    assert len(members["presented_unverified"]) == len(members["message"]) == MAX_TEXT_CHARACTERS
    assert members["message"].endswith("...")
