"""What the service answers, in which order it decides, and that each request for a certificate leaves one audit line.

The coroutine is driven by hand: it has to end without waiting for anything but the one who judges tokens.
"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.caller import Caller, How, PodRef
from certs.crl import read_crl
from certs.held import Held, hold, make_bundle, sign_list
from certs.joins import JoinBook, new_token
from certs.rates import Rate
from certs.refusals import Refusal, Refused
from certs.requests import MAX_BODY_BYTES, key_fingerprint
from certs.revocations import Kind, Reason, Revocation, Revocations
from certs.rotation import IntermediateMade, RootMade, begin
from certs.service import Answer, Authenticate, Connection, Moment, Service, no_authenticator
from certs.signers import signer_name
from certs.signing import Lifetimes
from certs.spiffe import SpiffeId
from certs.state_store import IssuedEntry, StateError
from certs.store import chain_fault
from certs.testing import MemoryAuthority
from tests.authority_requests import KEY, RECIPES

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
WEB = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web")
TOKEN = "header.claims.signature"
CORPUS = Path(__file__).parents[2] / "corpus" / "authority" / "requests.yaml"
UNREADABLE = [row for row in yaml.safe_load(CORPUS.read_text("utf-8")) if "body" in row]


class DeskOffice:
    """An office that keeps everything in lists; `order` tells what was done, in order. `broken` names what fails."""

    def __init__(self, memory: MemoryAuthority) -> None:
        now = memory.now
        root = RootMade(name="r", not_after=9e9)
        state = begin(root, IntermediateMade(name="i", root="r", not_after=8e9), now.timestamp())
        bundle = make_bundle(state, lambda _: memory.root, memory.trust_domain)
        crl = sign_list(Revocations(), memory.authority, now)
        self.now = now
        self.held: Held = hold(state, memory.authority, bundle, Revocations(), crl, JoinBook())
        self.entries: list[IssuedEntry] = []
        self.lines: list[str] = []
        self.confirmed: list[tuple[str, int | None]] = []
        self.order: list[str] = []
        self.broken: set[str] = set()
        self.is_overtaken = False

    def record(self, entry: IssuedEntry) -> None:
        self._do("record")
        self.entries.append(entry)

    def replace_joins(self, before: JoinBook, after: JoinBook) -> bool:
        self._do("joins")
        assert before is self.held.joins
        if self.is_overtaken:
            return False
        self.hold(joins=after)
        return True

    def confirm(self, sidecar: str, sequence: int | None, now: datetime.datetime) -> None:
        assert now == self.now
        self.confirmed.append((sidecar, sequence))

    def audit(self, line: str) -> None:
        self._do("audit")
        self.lines.append(line)

    def hold(self, **parts: Any) -> None:
        held = {name: getattr(self.held, name) for name in Held.__dataclass_fields__} | parts
        self.held = Held(**held)

    def revoke(self, kind: Kind, value: str) -> None:
        end = self.now + datetime.timedelta(days=1) if kind is Kind.SERIAL else None
        entry = Revocation(
            kind=kind, value=value, when=self.now, reason=Reason.KEY_COMPROMISE, who="alice", not_after=end
        )
        self.hold(revocations=self.held.revocations.add(entry))

    def join_token(self, spiffe_id: SpiffeId = ORDERS) -> str:
        token = new_token()
        self.hold(joins=self.held.joins.create(token, spiffe_id, made_by="alice", now=self.now.timestamp()))
        return token

    def _do(self, what: str) -> None:
        if what in self.broken:
            raise StateError(f"/var/lib/authority/{what}: no space left")
        self.order.append(what)


class Pause:
    """Something that an authenticator waits for."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def run(work: Coroutine[Any, Any, Answer], meanwhile: Callable[[], None] | None = None) -> Answer:
    """Drive to the end; at the only pause that there may be, `meanwhile` happens."""
    try:
        work.send(None)
        assert meanwhile is not None, "it waits, and for nobody"
        meanwhile()
        work.send(None)
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    raise AssertionError("it waits a second time")


def body(**members: object) -> bytes:
    return json.dumps({"csr": RECIPES["p256"](), **members}).encode()


class Desk:
    """A service at work, and who asks it."""

    def __init__(self, memory: MemoryAuthority) -> None:
        self.memory = memory
        self.office = DeskOffice(memory)
        self.seen: list[Caller | None] = []
        self.tokens: list[str] = []
        self.denial: str | None = None
        self.service = self.make()

    def make(self, **settings: Any) -> Service:
        self.service = Service(self.office, replica="authority-0", **{"authenticate": self.authenticate} | settings)
        return self.service

    async def authenticate(self, token: str, now: datetime.datetime) -> Caller:
        self.tokens.append(token)
        return Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN)

    def permits(self, caller: Caller | None) -> str | None:
        self.seen.append(caller)
        return self.denial

    def connection(self, account: str | None = None, address: str = "192.0.2.7:4711", **shape: Any) -> Connection:
        leaf = None if account is None else self.memory.svid("demo", account, **shape).leaf
        return Connection(remote_address=address, leaf=leaf)

    def moment(self, ticks: float = 0.0) -> Moment:
        return Moment(now=self.memory.now, ticks=ticks)

    def sign(
        self,
        content: bytes,
        connection: Connection | None = None,
        ticks: float = 0.0,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        work = self.service.sign(content, connection or self.connection(), self.permits, self.moment(ticks))
        return run(work, meanwhile)

    def refusal(self, answer: Answer) -> str:
        """The reason of a refusal, after a look at what else it must be."""
        told, line = json.loads(answer.body), json.loads(self.office.lines[-1])
        assert (line["event"], line["reason"], line["status"]) == ("refused", told["reason"], answer.status)
        assert told["message"]
        assert self.office.entries == []
        return str(told["reason"])


@pytest.fixture
def desk(memory: MemoryAuthority) -> Desk:
    return Desk(memory)


# --- a certificate ---------------------------------------------------------------------------------------------------


def test_a_join_token_is_used_up_then_the_index_then_the_audit_line(desk: Desk) -> None:
    token = desk.office.join_token()
    answer = desk.sign(body(token=token, bundle_sequence=1, instance="laptop-7"))
    assert answer.status == 200
    assert desk.office.order == ["joins", "record", "audit"]
    told = json.loads(answer.body)
    chain = tuple(x509.load_pem_x509_certificates(told["chain"].encode()))
    assert told["spiffe_id"] == str(ORDERS)
    assert chain_fault(chain, desk.office.held.bundle, desk.memory.now) is None
    assert told["bundle"]["spiffe_sequence"] == 1
    crl = read_crl(base64.b64decode(told["crl"]), chain[1:], desk.office.held.bundle, desk.memory.now)
    assert crl.sequence == 0
    [entry] = desk.office.entries
    assert (entry.serial, entry.issuer) == (told["serial"], signer_name(desk.memory.intermediate))
    assert entry.key == key_fingerprint(KEY.public_key())
    [line] = map(json.loads, desk.office.lines)
    assert (line["event"], line["identity"], line["serial"]) == ("issued", str(ORDERS), told["serial"])
    assert (line["authenticated_by"], line["remote_address"]) == ("join_token", "192.0.2.7:4711")
    assert token not in desk.office.lines[0]
    assert desk.office.confirmed == [(f"{ORDERS}#laptop-7", 1)]
    assert desk.service.issued == {How.JOIN_TOKEN: 1}
    assert told["not_before"].endswith("Z")
    assert told["not_after"].endswith("Z")


def test_a_join_token_is_used_once(desk: Desk) -> None:
    token = desk.office.join_token()
    assert desk.sign(body(token=token)).status == 200
    desk.office.entries.clear()
    answer = desk.sign(body(token=token))
    assert desk.refusal(answer) == "join_token_used"
    assert desk.service.refused == {Refusal.JOIN_TOKEN_USED: 1}


def test_a_token_of_a_pod_is_judged_by_who_can(desk: Desk) -> None:
    answer = desk.sign(body(token=TOKEN))
    assert (answer.status, desk.tokens) == (200, [TOKEN])
    assert json.loads(desk.office.lines[0])["authenticated_by"] == "service_account_token"
    assert TOKEN not in desk.office.lines[0]
    assert desk.office.confirmed == [(f"{ORDERS}#-", None)]


def test_the_kind_decides_against_the_form_of_the_token(desk: Desk) -> None:
    token = desk.office.join_token(WEB)
    answer = desk.sign(body(token=token, kind="service_account_token"))
    assert (answer.status, desk.tokens) == (200, [token])


def test_a_certificate_renews_itself(desk: Desk) -> None:
    answer = desk.sign(body(), desk.connection("orders"))
    assert answer.status == 200
    line = json.loads(desk.office.lines[0])
    assert (line["authenticated_by"], line["peer"], line["caller"]) == ("certificate", str(ORDERS), str(ORDERS))


def test_what_is_held_after_the_wait_counts(desk: Desk) -> None:
    async def slow(token: str, now: datetime.datetime) -> Caller:
        await Pause()
        return Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN)

    desk.make(authenticate=slow)
    answer = desk.sign(body(token=TOKEN), meanwhile=lambda: desk.office.revoke(Kind.IDENTITY, str(ORDERS)))
    assert desk.refusal(answer) == "identity_revoked"


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", UNREADABLE, ids=[row["name"] for row in UNREADABLE])
def test_what_cannot_be_read_is_answered_and_audited(desk: Desk, row: dict[str, Any]) -> None:
    text = row["body"]["text"] * row["body"]["times"] if isinstance(row["body"], dict) else row["body"]
    answer = desk.sign(text.encode("latin-1"))
    assert desk.refusal(answer) == row["reason"]
    assert len(desk.office.lines) == 1
    assert desk.seen == []


def test_nobody_is_refused(desk: Desk) -> None:
    assert desk.refusal(desk.sign(body())) == "caller_unknown"


def test_without_a_cluster_no_token_of_a_pod_is_taken(desk: Desk) -> None:
    desk.make(authenticate=no_authenticator)
    answer = desk.sign(body(token=TOKEN))
    assert desk.refusal(answer) == "token_refused"
    assert b"join token" in answer.body


def test_a_certificate_may_be_too_little(desk: Desk) -> None:
    desk.make(is_certificate_enough=False)
    assert desk.refusal(desk.sign(body(), desk.connection("orders"))) == "caller_unknown"
    assert desk.sign(body(token=TOKEN), desk.connection("orders")).status == 200


def test_a_certificate_that_ended_while_its_connection_stood(desk: Desk) -> None:
    ended = desk.connection("orders", not_after=desk.memory.now - datetime.timedelta(seconds=1))
    answer = desk.sign(body(), ended)
    assert desk.refusal(answer) == "caller_unknown"
    assert json.loads(desk.office.lines[0])["presented_unverified"] == str(ORDERS)


@pytest.mark.parametrize("by", list(Kind))
@pytest.mark.parametrize("with_token", [False, True])
def test_who_is_revoked_renews_nothing_by_an_old_connection(desk: Desk, by: Kind, with_token: bool) -> None:
    connection = desk.connection("orders")
    assert connection.leaf is not None
    value = {
        Kind.SERIAL: f"{connection.leaf.serial_number:x}",
        Kind.IDENTITY: str(ORDERS),
        Kind.KEY: key_fingerprint(desk.memory.key("demo/orders").public_key()),
    }[by]
    desk.office.revoke(by, value)
    answer = desk.sign(body(token=TOKEN) if with_token else body(), connection)
    assert desk.refusal(answer) == "identity_revoked"
    assert desk.tokens == []


def test_a_connection_is_looked_at_again_when_its_token_was_judged(desk: Desk) -> None:
    connection = desk.connection("orders")
    assert connection.leaf is not None
    serial = f"{connection.leaf.serial_number:x}"

    async def slow(token: str, now: datetime.datetime) -> Caller:
        await Pause()
        return Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN)

    desk.make(authenticate=slow)
    answer = desk.sign(body(token=TOKEN), connection, meanwhile=lambda: desk.office.revoke(Kind.SERIAL, serial))
    assert desk.refusal(answer) == "identity_revoked"


def test_a_stolen_token_does_not_change_who_a_connection_is(desk: Desk) -> None:
    assert desk.refusal(desk.sign(body(token=TOKEN), desk.connection("web"))) == "identity_changed"


def test_policy_is_asked_with_the_caller_and_before_anything_is_signed(desk: Desk) -> None:
    desk.denial = "not today"
    answer = desk.sign(body(token=TOKEN))
    assert desk.refusal(answer) == "policy_denied"
    assert [caller.spiffe_id for caller in desk.seen if caller is not None] == [ORDERS]
    assert b"not today" in answer.body


def test_a_page_that_policy_denies_is_audited_too(desk: Desk) -> None:
    answer = desk.service.deny("not for you", desk.connection("web"), desk.moment())
    assert (answer.status, desk.refusal(answer)) == (403, "policy_denied")
    assert json.loads(desk.office.lines[0])["presented_unverified"] == str(WEB)


def test_too_many_of_one_identity_wait(desk: Desk) -> None:
    desk.make(identity_rate=Rate(per_second=0.1, burst=2))
    assert [desk.sign(body(token=TOKEN)).status for _ in range(2)] == [200, 200]
    desk.office.entries.clear()
    answer = desk.sign(body(token=TOKEN))
    assert (answer.status, desk.refusal(answer), answer.headers) == (429, "rate_limited", {"retry-after": "10"})
    assert json.loads(desk.office.lines[-1])["caller"] == str(ORDERS)
    assert desk.sign(body(token=TOKEN), ticks=10.0).status == 200


def test_a_pod_is_not_held_up_by_another_one_of_its_identity(desk: Desk) -> None:
    async def by_pod(token: str, now: datetime.datetime) -> Caller:
        pod = PodRef(namespace="demo", name=token, uid=token)
        return Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=pod)

    desk.make(identity_rate=Rate(per_second=0.1, burst=1), authenticate=by_pod)
    assert [desk.sign(body(token=pod)).status for pod in ("one", "two", "one", "two")] == [200, 200, 429, 429]


def test_too_many_of_one_address_are_not_even_read(desk: Desk) -> None:
    desk.make(address_rate=Rate(per_second=0.5, burst=1))
    assert desk.refusal(desk.sign(b"")) == "request_malformed"
    answer = desk.sign(body(token=TOKEN), desk.connection(address="192.0.2.7:9"))
    assert (desk.refusal(answer), answer.headers, desk.tokens) == ("rate_limited", {"retry-after": "2"}, [])
    assert desk.sign(body(token=TOKEN), desk.connection(address="[2001:db8::7]:9")).status == 200


def test_a_flood_of_one_address_leaves_one_line_in_ten_seconds(desk: Desk) -> None:
    desk.make(address_rate=Rate(per_second=0.001, burst=1))
    desk.sign(b"")
    far = desk.connection(address="192.0.2.8:9")
    desk.sign(b"", far)
    desk.office.lines.clear()
    for ticks in (1.0, 2.0, 10.9, 11.1):
        assert desk.sign(b"", ticks=ticks).status == 429
    assert desk.sign(b"", far, ticks=11.2).status == 429
    assert [json.loads(line)["remote_address"] for line in desk.office.lines] == [
        "192.0.2.7:4711",
        "192.0.2.7:4711",
        "192.0.2.8:9",
    ]
    assert desk.service.refused[Refusal.RATE_LIMITED] == 5


def test_a_body_that_is_too_large_is_answered_and_audited(desk: Desk) -> None:
    answer = desk.service.too_large(desk.connection(), desk.moment())
    assert (answer.status, desk.refusal(answer)) == (413, "request_too_large")
    assert desk.refusal(desk.sign(b"x" * (MAX_BODY_BYTES + 1))) == "request_too_large"


@pytest.mark.parametrize("authenticate", [None, "refuses"])
def test_the_reason_of_the_judge_is_told(desk: Desk, authenticate: str | None) -> None:
    async def refuse(token: str, now: datetime.datetime) -> Caller:
        raise Refused(Refusal.POD_GONE, "the pod is gone")

    chosen: Authenticate = refuse if authenticate else no_authenticator
    desk.make(authenticate=chosen)
    assert desk.refusal(desk.sign(body(token=TOKEN))) == ("pod_gone" if authenticate else "token_refused")


def test_the_lifetime_is_the_authority_s_to_grant(desk: Desk) -> None:
    hour = datetime.timedelta(hours=1)
    desk.make(lifetimes=Lifetimes(usual=hour, minimum=datetime.timedelta(minutes=5), maximum=hour))
    told = json.loads(desk.sign(body(token=TOKEN, lifetime_seconds=999_999)).body)
    assert datetime.datetime.fromisoformat(told["not_after"]) == desk.memory.now + hour
    desk.office.entries.clear()
    assert desk.refusal(desk.sign(body(token=TOKEN, lifetime_seconds=1))) == "lifetime_refused"


# --- what cannot be written is not given out -------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["record", "joins"])
def test_a_store_that_fails_gives_out_nothing(desk: Desk, broken: str) -> None:
    token = desk.office.join_token()
    desk.office.broken = {broken}
    answer = desk.sign(body(token=token))
    assert (answer.status, desk.refusal(answer)) == (503, "authority_not_ready")
    assert b"/var/lib" not in answer.body
    assert b"BEGIN CERTIFICATE" not in answer.body
    assert desk.office.confirmed == []


def test_without_an_audit_line_nothing_is_given_out(desk: Desk) -> None:
    desk.office.broken = {"audit"}
    answer = desk.sign(body(token=TOKEN))
    assert answer.status == 503
    assert json.loads(answer.body)["reason"] == "authority_not_ready"
    assert b"BEGIN CERTIFICATE" not in answer.body
    assert desk.service.issued == {}


def test_of_two_who_redeem_at_once_one_is_told_to_ask_again(desk: Desk) -> None:
    token = desk.office.join_token()
    desk.office.is_overtaken = True
    answer = desk.sign(body(token=token))
    assert desk.refusal(answer) == "authority_not_ready"
    assert b"ask again" in answer.body


# --- what anybody may have -------------------------------------------------------------------------------------------


def test_the_bundle_has_a_tag_and_comes_once(desk: Desk) -> None:
    first = desk.service.bundle(desk.connection(), {}, None, desk.moment())
    assert (first.status, first.content_type) == (200, "application/json")
    assert json.loads(first.body)["spiffe_refresh_hint"] == 300
    tag = first.headers["etag"]
    for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        assert desk.service.bundle(desk.connection(), {}, sent, desk.moment()).status == 304
    assert desk.service.bundle(desk.connection(), {}, '"other"', desk.moment()).status == 200
    assert desk.office.lines == []


@pytest.mark.parametrize(
    ("account", "query", "confirmed"),
    [
        ("orders", {"confirms": "1", "instance": "orders-0"}, [(f"{ORDERS}#orders-0", 1)]),
        ("orders", {"confirms": "1"}, [(f"{ORDERS}#-", 1)]),
        (None, {"confirms": "1", "instance": "orders-0"}, []),
        ("orders", {"instance": "orders-0"}, []),
        ("orders", {"confirms": "-1"}, []),
        ("orders", {"confirms": "1" * 19}, []),
        ("orders", {"confirms": "1", "instance": "orders 0"}, []),
    ],
)
def test_a_poll_with_a_certificate_may_confirm(
    desk: Desk, account: str | None, query: dict[str, str], confirmed: list[tuple[str, int]]
) -> None:
    answer = desk.service.bundle(desk.connection(account), query, None, desk.moment())
    assert (answer.status, desk.office.confirmed) == (200, confirmed)


def test_too_many_readers_of_one_address_are_refused_and_fill_no_log(desk: Desk) -> None:
    desk.make(address_rate=Rate(per_second=0.5, burst=2))
    near, far = desk.connection(address="192.0.2.7:9"), desk.connection(address="192.0.2.8:9")
    assert [desk.service.crowded(near, desk.moment()) for _ in range(2)] == [None, None]
    refused = desk.service.crowded(near, desk.moment())
    assert refused is not None
    assert (refused.status, refused.headers) == (429, {"retry-after": "2"})
    assert (desk.service.crowded(far, desk.moment()), desk.office.lines) == (None, [])
    assert desk.service.refused == {Refusal.RATE_LIMITED: 1}
    assert desk.sign(body(token=TOKEN), near).status == 200  # who reads too much may renew all the same


@pytest.mark.parametrize("late", [False, True])
def test_who_is_revoked_or_over_confirms_nothing(desk: Desk, late: bool) -> None:
    connection = desk.connection("orders")
    if not late:
        desk.office.revoke(Kind.IDENTITY, str(ORDERS))
    now = desk.office.now + datetime.timedelta(days=2 * late)
    answer = desk.service.bundle(connection, {"confirms": "1"}, None, Moment(now=now, ticks=0.0))
    assert (answer.status, desk.office.confirmed) == (200, [])


def test_the_revocation_list_is_der_and_comes_once(desk: Desk) -> None:
    answer = desk.service.crl(None)
    assert answer.content_type == "application/pkix-crl"
    assert x509.load_der_x509_crl(answer.body).public_bytes(Encoding.DER) == answer.body
    tag = answer.headers["etag"]
    assert desk.service.crl(tag).status == 304
    desk.office.hold(crl=sign_list(Revocations(), desk.memory.authority, desk.memory.now))
    assert desk.service.crl(tag).status == 200, "signed anew it is another one"
