"""Access records as calls: what is taken, what is skipped and counted, and what a record does not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from answers_sets import TOKENS, WEB, record, rules, world

from proxy.answers.calls.points import Point, Scene, dropping_details
from proxy.answers.comparing import replay
from proxy.answers.comparing.replay import Unsaid, merged, read_records
from proxy.policy.model import Rule


def lines(*records: Any) -> list[bytes]:
    return [(text if isinstance(text, str) else json.dumps(text)).encode() + b"\n" for text in records]


def rules_of(*texts: str) -> list[Rule]:
    return [rule.rule for rule in world(*texts).snapshot.rules]


def test_a_request_is_a_call() -> None:
    found = read_records(lines(record(x_forwarded_for="203.0.113.9", requested_server_name="orders")))
    assert found.calls == {
        Point(
            identity=WEB,
            port=8080,
            method="GET",
            path="/orders/7",
            host="orders.demo",
            source_ip="10.0.0.7",
            destination_ip="10.0.0.8",
            sni="orders",
            headers=(
                ("x-forwarded-for", "203.0.113.9"),
                ("user-agent", "curl/8.5.0"),
                ("x-request-id", "5f2b1c1e"),
            ),
        ): 1
    }


def test_a_connection_is_a_call_without_http() -> None:
    opaque = record(kind="connection", method=None, path=None, authority=None, upstream_cluster="inbound|5432||")
    (point,) = read_records(lines(opaque)).calls
    assert (point.opaque, point.port, point.identity, point.method, point.headers) == (True, 5432, WEB, "", ())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"direction": "outbound"}, replay.OUTBOUND),
        ({"direction": "sideways"}, replay.NOT_A_RECORD),
        ({"decision": "none", "source_principal": None}, replay.UNJUDGED),
        ({"source_principal": "unverified spiffe://x/y", "decision": "none"}, replay.UNJUDGED),
        ({"source_principal": "unverified spiffe://x/y"}, replay.UNJUDGED),
        ({"method": "-", "path": "-"}, replay.UNREADABLE),
        ({"upstream_cluster": "orders"}, replay.UNREADABLE),
        ({"upstream_cluster": None}, replay.UNREADABLE),
        ({"upstream_cluster": "inbound|0||"}, replay.UNREADABLE),
        ({"source_principal": "spiffe://not a name"}, replay.UNREADABLE),
        ({"kind": "page"}, replay.NOT_A_RECORD),
    ],
)
def test_what_is_no_call_is_counted(changed: dict[str, Any], why: str) -> None:
    found = read_records(lines(record(**changed), record(**changed)))
    assert (dict(found.calls), found.skipped) == ({}, {why: 2})


@pytest.mark.parametrize("text", ["no JSON", "[]", "1", "{", '{"level": "info"}', "[" * 100_000, "\ufffd"])
def test_other_lines_of_a_log_are_counted(text: str) -> None:
    found = read_records([*lines(text), b"\xff\xfe\n", b"\n"])
    assert (dict(found.calls), found.skipped) == ({}, {replay.NOT_A_RECORD: 2})


def test_a_caller_without_identity_that_was_judged_is_a_call() -> None:
    (point,) = read_records(lines(record(source_principal=None, decision="deny"))).calls
    assert point.identity == ""


def test_the_number_of_different_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_POINTS", 2)
    found = read_records(lines(*(record(path=f"/{n % 4}") for n in range(8))))
    assert sum(found.calls.values()) == 4
    assert found.skipped == {replay.TOO_MANY: 4}


def test_calls_that_differ_in_what_no_rule_looks_at_are_one() -> None:
    found = read_records(
        lines(
            record(request_id="a", path="/orders/7?page=1"),
            record(request_id="b", downstream_remote_address="10.0.0.9:1", user_agent=None),
        )
    )
    plain = rules_of(rules("[{to: [{operation: {paths: [/a]}}]}]"))
    assert merged((dropping_details(plain)(point), count) for point, count in found.calls.items()) == {
        Point(identity=WEB, port=8080, method="GET", path="/orders/7"): 2
    }


@pytest.mark.parametrize(
    "spec",
    [
        '[{from: [{source: {ipBlocks: ["10.0.0.7"]}}]}]',
        '[{from: [{source: {remoteIpBlocks: ["10.0.0.7"]}}]}]',
        '[{when: [{key: "request.headers[x-request-id]", values: [a]}]}]',
        '[{when: [{key: "request.headers[user-agent]", notValues: [curl]}]}]',
    ],
)
def test_what_a_rule_looks_at_tells_calls_apart(spec: str) -> None:
    found = read_records(
        lines(record(request_id="a"), record(request_id="b", downstream_remote_address="10.0.0.9:1", user_agent="x"))
    )
    assert len({dropping_details(rules_of(rules(spec)))(point) for point in found.calls}) == 2


def variants(*texts: str) -> list[str]:
    asked = world(*texts)
    unsaid = Unsaid([rule.rule for rule in asked.snapshot.rules], Scene.of(asked))
    return [variant.assumed for variant in unsaid.variants(Point(identity=WEB, port=8080, method="GET", path="/"))]


def test_what_a_record_lacks_is_filled_in_with_what_rules_name() -> None:
    spec = '[{when: [{key: "request.headers[x-role]", values: [admin], notValues: [guest]}]}]'
    assert variants(rules(spec)) == ["", "x-role: admin", "x-role: guest"]
    assert variants(rules('[{when: [{key: "request.headers[User-Agent]", values: [curl]}]}]')) == [""]
    assert variants(TOKENS, rules('[{from: [{source: {requestPrincipals: ["https://issuer.test/ann"]}}]}]')) == [
        "",
        'a token with {"iss": "https://issuer.test", "sub": "ann"}',
    ]


def test_the_ways_to_fill_in_are_bounded_and_the_simplest_come_first() -> None:
    conditions = ", ".join(f'{{key: "request.headers[x-{n}]", values: [a, b]}}' for n in range(10))
    found = variants(rules(f"[{{when: [{conditions}]}}]"))
    assert len(found) == replay.MAX_VARIANTS
    assert all("," not in assumed for assumed in found[:21])
    assert "," in found[21]
