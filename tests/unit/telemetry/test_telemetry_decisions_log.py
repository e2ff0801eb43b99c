"""The decisions of the last minutes: what is kept, for how long, and how much of it."""

from __future__ import annotations

import json
import time

import pytest

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.policy import outbound
from proxy.telemetry.decisions_log import PERMITS, REFUSALS, WINDOW, DecisionLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.record import Record, Scope
from proxy.types import Denial, Generation, PeerIdentity

WEB = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web")
LEDGER = PeerIdentity(
    spiffe_id=SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/ledger"), not_after=2e9, serial="1", fingerprint="2"
)
DENIAL = Denial(
    reason=Reason.DENIED_BY_POLICY,
    rule="none",
    generation=Generation(3),
    explanation="no ALLOW rule allows it",
    nearest_miss="nearly",
)
PERMIT = outbound("ledger", LEDGER, Generation(3))


class World:
    """A log and the connections that feed it."""

    def __init__(self) -> None:
        self.log = DecisionLog()
        self.lines: list[str] = []

    def scope(self, direction: str = "inbound") -> Scope:
        scope = Scope(
            direction=direction,
            metrics=Metrics(),
            sink=self.lines.append,
            local="127.0.0.1:1",
            remote="10.0.0.9:2",
            upstream_cluster="inbound|8080",
            decisions=self.log,
        )
        scope.source_is(WEB)
        return scope

    def request(self, scope: Scope, path: str = "/orders", request_id: str = "id") -> Record:
        record = Record(scope, protocol="HTTP/1.1", method="GET", path=path)
        record.request_id = request_id
        return record


@pytest.fixture
def world() -> World:
    return World()


def test_a_denial_is_kept_with_its_explanation_and_found_by_its_request_id(world: World) -> None:
    record = world.request(world.scope(), request_id="wanted")
    record.judged(DENIAL)
    record.response_code = 403
    record.finish(Reason.DENIED_BY_POLICY)
    [decision] = [each for each in world.log.recent() if each.request_id == "wanted"]
    written = json.loads(world.lines[0])
    assert (decision.decision, decision.reason, decision.status) == ("deny", "denied_by_policy", 403)
    assert (decision.explanation, decision.nearest_miss) == (DENIAL.explanation, DENIAL.nearest_miss)
    assert (decision.source, decision.remote) == (str(WEB), "10.0.0.9:2")
    assert (decision.path, decision.generation, decision.rule) == (written["path"], 3, written["policy"])


def test_a_permit_is_kept_and_a_second_end_adds_nothing(world: World) -> None:
    record = world.request(world.scope("outbound"))
    record.judged(PERMIT)
    record.finish(Reason.OK)
    record.finish(Reason.INTERNAL_ERROR)
    [decision] = world.log.recent()
    assert (decision.decision, decision.destination) == ("allow", str(LEDGER.spiffe_id))


def test_a_permit_tells_whom_its_own_request_reached(world: World) -> None:
    scope = world.scope("outbound")
    record = world.request(scope)
    record.judged(PERMIT)
    record.finish(Reason.OK)
    scope.destination_is(WEB)
    assert world.log.recent()[0].destination == str(LEDGER.spiffe_id)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (Reason.OK, False),
        (Reason.DOWNSTREAM_CLOSED, False),
        (Reason.IDLE_TIMEOUT, False),
        (Reason.DRAINED, False),
        (Reason.CERTIFICATE_EXPIRED, True),
        (Reason.NOT_TLS, True),
        (Reason.TRUST_ENDED, True),
        (Reason.CONNECTION_LIMIT, True),
        (Reason.FRAMING_CONFLICT, False),
    ],
)
def test_a_connection_is_kept_when_something_was_refused(world: World, reason: Reason, kept: bool) -> None:
    Record(world.scope(), protocol="HTTP/1.1").finish(reason, "why")
    found = world.log.recent()
    assert [each.reason for each in found] == ([reason.word] if kept else [])
    assert all(each.detail == "why" for each in found)


def test_a_malformed_request_is_kept_once(world: World) -> None:
    scope = world.scope()
    world.request(scope).finish(Reason.FRAMING_CONFLICT)
    Record(scope, protocol="HTTP/1.1").finish(Reason.FRAMING_CONFLICT)
    assert [each.method for each in world.log.recent()] == ["GET"]


def test_an_unverified_name_stays_marked(world: World) -> None:
    scope = world.scope()
    scope.source_claims("spiffe://other/ns/x/sa/y")
    Record(scope, protocol="TCP").finish(Reason.ISSUER_UNKNOWN)
    assert world.log.recent()[0].source == "unverified spiffe://other/ns/x/sa/y"


def test_the_newest_comes_first_and_the_old_is_not_told(world: World) -> None:
    scope = world.scope()
    now = time.time()
    for age in (WINDOW + 1, 5, 1, 3):
        record = world.request(scope, path=f"/{age}")
        record.started_at = now - age
        record.judged(DENIAL if age != 3 else PERMIT)
        record.finish(Reason.DENIED_BY_POLICY if age != 3 else Reason.OK)
    assert [each.path for each in world.log.recent(now)] == ["/1", "/3", "/5"]


def test_the_number_is_bounded_and_permits_push_out_no_denial(world: World) -> None:
    scope = world.scope()
    for number in range(REFUSALS + 10):
        record = world.request(scope, request_id=f"deny-{number}")
        record.judged(DENIAL)
        record.finish(Reason.DENIED_BY_POLICY)
    for number in range(PERMITS + 10):
        record = world.request(scope, request_id=f"allow-{number}")
        record.judged(PERMIT)
        record.finish(Reason.OK)
    found = {each.request_id for each in world.log.recent()}
    assert len(found) == REFUSALS + PERMITS
    assert {"deny-10", f"deny-{REFUSALS + 9}", "allow-10", f"allow-{PERMITS + 9}"} <= found
    assert not {"deny-9", "allow-9"} & found


@pytest.mark.parametrize("verdict", [DENIAL, PERMIT])
def test_long_texts_are_cut_and_their_record_is_let_go(world: World, verdict: Denial) -> None:
    record = world.request(world.scope(), path="/" + "x" * 60_000)
    record.judged(verdict)
    record.finish(Reason.OK)
    [decision] = world.log.recent()
    assert len(decision.path) < 400
    assert decision.path.endswith("...")
    assert all(not isinstance(kept, tuple) for kept in world.log._permits)


def test_without_a_log_nothing_is_kept() -> None:
    scope = Scope(
        direction="inbound",
        metrics=Metrics(),
        sink=lambda line: None,
        local="",
        remote="",
        upstream_cluster="",
    )
    Record(scope, protocol="TCP").finish(Reason.NOT_TLS)
    assert scope.decisions is None
