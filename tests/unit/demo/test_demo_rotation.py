"""A rotation keeps the overlap that makes it harmless, and counts what went wrong."""

from __future__ import annotations

import datetime
from collections import Counter
from itertools import pairwise

from demo_samples import access, spiffe

from certs.authority import Authority
from certs.spiffe import parse_trust_domain
from demo.rotation import faults_of, sets

ORDERS = access(decision="allow", reason="ok", policy="rule", status=200)
LEDGER = access(workload="ledger", source=spiffe("orders"), what="TCP", decision="allow", reason="ok", policy="rule")
SENT = access(workload="web", direction="outbound", decision="allow", reason="ok")


def test_whoever_has_the_old_set_and_whoever_has_the_new_one_trust_each_other() -> None:
    now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    domain = parse_trust_domain("cluster.local")
    first, second = Authority.create(domain, now), Authority.create(domain, now)
    presented, states = first.root, [(first.root, first.bundle.certificates)]
    for each in sets(first, second):
        presented = presented if each.signer is None else each.signer.root
        states.append((presented, each.roots.certificates))
    for (old_root, old_trusted), (new_root, new_trusted) in pairwise(states):
        assert new_root in old_trusted
        assert old_root in new_trusted
    assert states[-1] == (second.root, (second.root,)), "in the end the first root is gone"


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
