"""What goes wrong while the root is replaced is counted and named."""

from __future__ import annotations

from collections import Counter

from demo_samples import access, spiffe

from demo.rotation import faults_of

ORDERS = access(decision="allow", reason="ok", policy="rule", status=200)
LEDGER = access(workload="ledger", source=spiffe("orders"), what="TCP", decision="allow", reason="ok", policy="rule")
SENT = access(workload="web", direction="outbound", decision="allow", reason="ok")


def test_two_requests_that_were_answered_and_recorded_are_no_fault() -> None:
    assert faults_of(Counter({"200 OK": 2}), [ORDERS, LEDGER, SENT, LEDGER, ORDERS, SENT]) == []


def test_a_failed_request_is_a_fault() -> None:
    seen = Counter({"200 OK": 1, "502 Bad Gateway": 1})
    assert faults_of(seen, [ORDERS, LEDGER] * 2) == ["1 of 2 requests failed: 502 Bad Gateway (1)"]


def test_a_request_that_is_not_on_record_is_a_fault() -> None:
    assert faults_of(Counter({"200 OK": 2}), [ORDERS, ORDERS, LEDGER]) == [
        "2 requests were made, and on record at ledger are 1"
    ]


def test_a_refused_handshake_is_a_fault_even_if_the_caller_was_answered() -> None:
    refused = access(workload="ledger", source="", what="TCP", decision="none", reason="issuer_unknown")
    assert faults_of(Counter({"200 OK": 1}), [ORDERS, LEDGER, refused]) == [
        "1 requests were made, and on record at ledger are 2",
        "on record, and should not be: ledger says none (issuer_unknown) to nobody, 1 times",
    ]


def test_an_allowed_request_that_ended_badly_is_a_fault() -> None:
    broken = access(decision="allow", reason="upstream_reset")
    assert faults_of(Counter({"200 OK": 1}), [broken, LEDGER]) == [
        f"on record, and should not be: orders says allow (upstream_reset) to {spiffe('web')}, 1 times"
    ]


def test_a_request_that_was_sent_twice_is_a_fault() -> None:
    again = access(workload="web", direction="outbound", decision="allow", reason="ok", retries=1)
    assert faults_of(Counter({"200 OK": 1}), [ORDERS, LEDGER, again]) == ["1 requests were sent twice"]
