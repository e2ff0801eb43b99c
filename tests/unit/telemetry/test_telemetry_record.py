"""An access record: one line of valid JSON, once, whatever its texts hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe import SpiffeId
from proxy.errors import Reason
from proxy.policy import outbound
from proxy.telemetry.decisions_log import DecisionLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.record import Record, Scope
from proxy.types import Denial, Generation, PeerIdentity

ISTIO = {
    "start_time",
    "method",
    "path",
    "protocol",
    "response_code",
    "response_flags",
    "response_code_details",
    "connection_termination_details",
    "upstream_transport_failure_reason",
    "bytes_received",
    "bytes_sent",
    "duration",
    "upstream_service_time",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
    "upstream_cluster",
    "upstream_local_address",
    "downstream_local_address",
    "downstream_remote_address",
    "requested_server_name",
    "route_name",
}
OURS = {
    "source_principal",
    "destination_principal",
    "decision",
    "policy",
    "reason",
    "generation",
    "stage_us",
    "retries",
}
WEB = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/web")
ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.binary().map(lambda data: data.decode("latin-1"))


def made(lines: list[str], *, direction: str = "inbound", text: str = "10.0.0.1:4000") -> Scope:
    return Scope(
        direction=direction, metrics=Metrics(), sink=lines.append, local=text, remote=text, upstream_cluster=text
    )


def written(change: Callable[[Record], object], *, method: str = "GET", reason: Reason = Reason.OK) -> dict[str, Any]:
    lines: list[str] = []
    record = Record(made(lines), protocol="HTTP/1.1", method=method, path="/" if method else "")
    change(record)
    record.finish(reason)
    (line,) = lines
    return dict(json.loads(line))


@pytest.mark.parametrize("method", ["GET", ""])
def test_every_key_of_istio_and_of_ours_is_there(method: str) -> None:
    found = written(lambda record: None, method=method)
    assert set(found) >= ISTIO | OURS
    assert found["kind"] == ("request" if method else "connection")


def test_a_second_finish_writes_nothing() -> None:
    lines: list[str] = []
    scope = made(lines)
    record = Record(scope, protocol="TCP")
    record.finish(Reason.IDLE_TIMEOUT)
    record.finish(Reason.OK)
    assert len(lines) == 1
    assert json.loads(lines[0])["reason"] == "idle_timeout"
    assert scope.metrics.ended == {("inbound", "none", Reason.IDLE_TIMEOUT): 1}


DENIED = Denial(reason=Reason.DENIED_BY_POLICY, rule="r", generation=Generation(2), explanation="no rule allows it")


@pytest.mark.parametrize("logged", [True, False])
def test_without_a_log_no_line_is_written_and_everything_counts(logged: bool) -> None:
    lines: list[str] = []
    decisions = DecisionLog()
    scope = Scope(
        direction="inbound",
        metrics=Metrics(),
        sink=lines.append if logged else None,
        local="l",
        remote="r",
        upstream_cluster="c",
        decisions=decisions,
    )
    scope.source_is(WEB)
    connection = Record(scope, protocol="HTTP/1.1")
    for verdict in (outbound("c", None, Generation(2)), outbound("c", None, Generation(2)), DENIED):
        record = Record(scope, protocol="HTTP/1.1", method="GET", path="/a")
        record.judged(verdict)
        if verdict is DENIED:
            record.response_code = 403
        else:
            record.reached("a:1", "b:2")
            record.responded(200)
        record.bytes_sent = 7
        for reason in (verdict.reason if isinstance(verdict, Denial) else Reason.OK, Reason.INTERNAL_ERROR):
            record.finish(reason)
    connection.finish(Reason.DOWNSTREAM_CLOSED)
    metrics = scope.metrics
    assert len(lines) == (4 if logged else 0)
    # What a line is made of: the members that a connection shares, and the text of the second.
    assert (scope._shared != "", scope._second != -1) == (logged, logged)
    assert Counter((each.decision, each.reason) for each in decisions.recent()) == {
        ("allow", "ok"): 2,
        ("deny", "denied_by_policy"): 1,
    }
    assert metrics.tally("inbound", 200, "allow", Reason.OK).value == 2
    assert metrics.tally("inbound", 403, "deny", Reason.DENIED_BY_POLICY).value == 1
    assert metrics.ended == {("inbound", "none", Reason.DOWNSTREAM_CLOSED): 1}
    assert sorted((series.count, series.sent_sum) for series in metrics.label_sets.all_requests()) == [(1, 7), (2, 14)]
    assert sum(metrics.stages["inbound"].upstream_response.buckets) == 2


@settings(derandomize=True, deadline=None, max_examples=300)
@given(ANY_TEXT, st.sampled_from(list(Reason)), st.booleans())
def test_whatever_texts_it_holds_it_is_one_line_of_json(text: str, reason: Reason, http: bool) -> None:
    lines: list[str] = []
    scope = made(lines, text=text)
    scope.source_claims(text)
    record = Record(scope, protocol="HTTP/1.1", method=text if http else "", path=text)
    record.authority = record.request_id = record.user_agent = record.forwarded_for = text
    record.judged(
        Denial(reason=reason, rule=text, generation=Generation(1), explanation=text, nearest_miss=text, audited=(text,))
    )
    record.reached(text, text)
    record.responded(200)
    record.finish(reason, text)
    (line,) = lines
    assert line.endswith("}\n")
    assert line.isascii()
    assert len(line.splitlines()) == 1
    found = json.loads(line)
    assert found["reason"] == reason.word
    if text:
        assert (found["authority"], found["upstream_host"], found["nearest_miss"]) == (text, text, text)
        assert found["source_principal"] == f"unverified {text}"
        assert found["upstream_transport_failure_reason"] == text


def test_texts_that_are_absent_are_null() -> None:
    found = written(lambda record: None)
    for key in ("user_agent", "request_id", "policy", "upstream_host", "source_principal", "x_forwarded_for"):
        assert found[key] is None


@pytest.mark.parametrize(
    ("at", "wanted"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1e9, "2001-09-09T01:46:40.000Z"), (1.999_999_9, "1970-01-01T00:00:01.999Z")],
)
def test_a_time_is_written_in_utc_with_milliseconds(at: float, wanted: str) -> None:
    def begin(record: Record) -> None:
        record.started_at = at

    assert written(begin)["start_time"] == wanted


@settings(derandomize=True, deadline=None)
@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=5))
def test_times_of_one_connection_are_each_their_own(times: list[float]) -> None:
    scope = made([])
    for at in times:
        text = scope.timestamp(at)
        assert abs(datetime.fromisoformat(text).timestamp() - at) < 0.0011


def test_a_denial_says_which_rule_and_why() -> None:
    denial = Denial(
        reason=Reason.DENIED_BY_POLICY,
        rule="ns[demo]-policy[no admin]-rule[0]",
        generation=Generation(3),
        explanation="the path is /admin",
        nearest_miss="ns[demo]-policy[p]-rule[0]",
    )
    found = written(lambda record: record.judged(denial), reason=Reason.DENIED_BY_POLICY)
    assert found["decision"] == "deny"
    assert found["response_code_details"] == "rbac_access_denied_matched_policy[ns[demo]-policy[no_admin]-rule[0]]"
    assert (found["policy"], found["generation"]) == (denial.rule, 3)
    assert (found["explanation"], found["nearest_miss"]) == (denial.explanation, denial.nearest_miss)


def test_outbound_the_permit_says_who_was_called() -> None:
    lines: list[str] = []
    scope = made(lines, direction="outbound")
    for name in ("one", "two"):
        server = PeerIdentity(
            spiffe_id=SpiffeId.parse(f"spiffe://cluster.local/ns/demo/sa/{name}"),
            not_after=4e9,
            serial="01",
            fingerprint="00",
        )
        record = Record(scope, protocol="HTTP/1.1", method="GET", path="/")
        record.judged(outbound("orders", server, Generation(1)))
        record.finish(Reason.OK)
    refused = Record(scope, protocol="HTTP/1.1", method="GET", path="/")
    refused.finish(Reason.UPSTREAM_CONNECT_FAILED)
    found = [json.loads(line)["destination_principal"] for line in lines]
    assert found == ["spiffe://cluster.local/ns/demo/sa/one", "spiffe://cluster.local/ns/demo/sa/two", None]


def test_the_stages_are_microseconds_that_add_up() -> None:
    def go(record: Record) -> None:
        record.started_ns -= 1_000_000  # so that what follows lies in the past
        start = record.started_ns
        record.judged(outbound("orders", None, Generation(1)))
        record.reached("a", "b")
        record.responded(200)
        record.policy_ns, record.upstream_reached_ns, record.upstream_responded_ns = (
            start + 5_000,
            start + 8_000,
            start + 9_000,
        )

    stages = written(go)["stage_us"]
    assert (stages["policy"], stages["upstream_connection"], stages["upstream_response"]) == (5, 3, 1)
    assert stages["total"] >= stages["transfer"] >= 0


def test_a_retry_is_counted_and_on_record() -> None:
    lines: list[str] = []
    scope = made(lines)
    record = Record(scope, protocol="HTTP/1.1", method="GET", path="/")
    record.retries = 1
    record.finish(Reason.OK)
    assert json.loads(lines[0])["retries"] == 1
    assert scope.metrics.retries == 1


def test_a_verified_caller_is_named_with_what_it_asked_for() -> None:
    lines: list[str] = []
    scope = made(lines)
    scope.source_is(WEB, "orders.demo")
    Record(scope, protocol="TCP").finish(Reason.OK)
    found = json.loads(lines[0])
    assert (found["source_principal"], found["requested_server_name"]) == (str(WEB), "orders.demo")


TEXTS = {
    "method": "method",
    "protocol": "protocol",
    "upstream_host": "upstream_host",
    "authority": "authority",
    "user_agent": "user_agent",
    "forwarded_for": "x_forwarded_for",
    "rule": "policy",
    "decision": "decision",
    "path": "path",
    "request_id": "request_id",
    "upstream_local": "upstream_local_address",
}


def answered(scope: Scope, status: int = 200, reason: Reason = Reason.OK, **texts: str) -> None:
    record = Record(scope, protocol="HTTP/1.1", method="GET", path="/")
    record.decision = "allow"
    record.reached("10.0.0.1:1", "10.0.0.2:2")
    for name, text in texts.items():
        setattr(record, name, text)
    record.responded(status)
    record.finish(reason)


@pytest.mark.parametrize("name", TEXTS)
def test_what_differs_from_the_request_before_is_written_as_it_is(name: str) -> None:
    lines: list[str] = []
    scope = made(lines)
    for text in ("a", "a", "b", "a"):
        answered(scope, **{name: text})
    assert [json.loads(line)[TEXTS[name]] for line in lines] == ["a", "a", "b", "a"]


def test_another_status_reason_or_identity_is_written_and_counted() -> None:
    lines: list[str] = []
    scope = made(lines)
    answered(scope)
    answered(scope, 404)
    answered(scope, 404, Reason.IDLE_TIMEOUT)
    scope.source_is(WEB, "orders")
    answered(scope, 404, Reason.IDLE_TIMEOUT)
    scope.asks_for("other")
    answered(scope, 404, Reason.IDLE_TIMEOUT)
    scope.destination_is(WEB)
    answered(scope, 404, Reason.IDLE_TIMEOUT)
    wanted = ("response_code", "reason", "source_principal", "requested_server_name", "destination_principal")
    web, late = str(WEB), Reason.IDLE_TIMEOUT.word
    assert [tuple(json.loads(line)[key] for key in wanted) for line in lines] == [
        (200, "ok", None, None, None),
        (404, "ok", None, None, None),
        (404, late, None, None, None),
        (404, late, web, "orders", None),
        (404, late, web, "other", None),
        (404, late, web, "other", web),
    ]
    counted = {(status, reason): tally.value for (_, status, _, reason), tally in scope.metrics.requests.items()}
    assert counted == {(200, Reason.OK): 1, (404, Reason.OK): 1, (404, Reason.IDLE_TIMEOUT): 4}


def test_what_stands_in_one_record_alone_is_not_written_into_the_next() -> None:
    lines: list[str] = []
    scope = made(lines)
    for change in ({}, {"explanation": "why"}, {"nearest_miss": "m"}, {"response_details": "d"}, {}):
        answered(scope, **change)
    found = [json.loads(line) for line in lines]
    assert [each["explanation"] for each in found] == [None, "why", None, None, None]
    assert [each["nearest_miss"] for each in found] == [None, None, "m", None, None]
    assert [each["response_code_details"] for each in found] == ["via_upstream"] * 3 + ["d", "via_upstream"]
