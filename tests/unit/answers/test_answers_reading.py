"""Questions from documents, with a place and a mend for what is wrong, and from lines of the access log."""

from __future__ import annotations

import json
from typing import Any

import pytest
from explain_world import WEB

from proxy.answers.question import Question, question_of_record, read_question
from proxy.answers.reading import NoQuestion, plain, record_of_line, recorded
from proxy.documents import Checker, parse


def read(text: str) -> Question:
    documents, faults = parse(text.encode(), "request.yaml")
    checker = Checker("request.yaml")
    question = read_question(documents[0], checker)
    assert [str(fault) for fault in (*faults, *checker.faults)] == []
    return question


def faults_of(text: str) -> list[str]:
    documents, _ = parse(text.encode(), "request.yaml")
    checker = Checker("request.yaml")
    read_question(documents[0], checker)
    return [str(fault) for fault in checker.faults]


def test_every_key() -> None:
    question = read(
        f"""
identity: spiffe://{WEB}
method: POST
path: /orders/7?x=1
host: orders.demo
port: 9090
headers:
  x-role: admin
  x-tag: [a, b]
claims: {{iss: i, sub: s, groups: [a, 1, true], deep: {{n: 1.5}}}}
source: 10.0.0.7
destination: "::1"
sni: orders.demo
protocol: http
"""
    )
    assert question == Question(
        principal=WEB,
        method="POST",
        target="/orders/7?x=1",
        host="orders.demo",
        port=9090,
        headers=(("x-role", "admin"), ("x-tag", "a"), ("x-tag", "b")),
        claims={"iss": "i", "sub": "s", "groups": ["a", 1, True], "deep": {"n": 1.5}},
        source_ip="10.0.0.7",
        destination_ip="::1",
        sni="orders.demo",
    )


def test_what_is_left_out_has_its_default() -> None:
    assert read("{}") == Question()
    assert read('{identity: ""}') == Question()
    assert read("{token: Bearer a.b.c}").token == "a.b.c"
    assert read("{protocol: tcp, port: 5432}") == Question(opaque=True, port=5432)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{paths: /}", 'request.yaml:1:2: unknown key "paths" in `request`; did you mean `path`?'),
        ("{identity: a b}", "request.yaml:1:12: `request.identity` is no SPIFFE ID"),
        ("{port: 0}", "request.yaml:1:8: `request.port` must be between 1 and 65535, not 0"),
        ("{source: 10.0.0.7:80}", 'request.yaml:1:10: `request.source` is "10.0.0.7:80", which is no IP address; '),
        ("{protocol: udp}", "request.yaml:1:12: `request.protocol` must be one of http, tcp"),
        ("{protocol: tcp, path: /}", "request.yaml:1:17: `request.path` is of HTTP, and the protocol is tcp; leave it"),
        ("{token: a, claims: {}}", "request.yaml:1:12: `request` has both `token` and `claims`; keep one of the two"),
        ('{headers: {x-a: "b\\nc"}}', "request.yaml:1:17: `request.headers.x-a` holds a line break; write a list"),
        ("{headers: [a]}", "request.yaml:1:11: `request.headers` must be a mapping, not a list"),
        ("{headers: {x-a: 7}}", 'request.yaml:1:17: `request.headers.x-a` must be text, not the number 7; write "7"'),
        ("[]", "request.yaml:1:1: `request` must be a mapping, not a list"),
    ],
)
def test_faults_have_a_place_and_a_mend(text: str, fault: str) -> None:
    [found] = faults_of(text)
    assert found.startswith(fault)


def test_plain_values() -> None:
    [node], _ = parse(b"{a: [1, null, {b: x}]}", "a.yaml")
    assert plain(node) == {"a": [1, None, {"b": "x"}]}


# --- records ---

RECORD: dict[str, Any] = {
    "kind": "request",
    "method": "GET",
    "path": "/orders/7?x=1",
    "authority": "orders.demo",
    "direction": "inbound",
    "upstream_cluster": "inbound|8080",
    "downstream_local_address": "[::1]:15443",
    "downstream_remote_address": "10.0.0.7:4711",
    "requested_server_name": None,
    "source_principal": f"spiffe://{WEB}",
    "x_forwarded_for": "1.2.3.4",
    "user_agent": None,
    "request_id": "mine",
    "decision": "deny",
    "policy": "none",
    "reason": "denied_by_policy",
    "explanation": "because",
    "nearest_miss": "nearly",
    "generation": 3,
}


def test_a_record_of_a_request() -> None:
    line = json.dumps(RECORD)
    record = recorded(record_of_line(line))
    assert record.question == Question(
        principal=WEB,
        target="/orders/7?x=1",
        host="orders.demo",
        port=8080,
        headers=(("x-forwarded-for", "1.2.3.4"),),
        source_ip="10.0.0.7",
        destination_ip="::1",
    )
    assert question_of_record(record_of_line(line)) == record.question
    assert (record.request_id, record.allowed, record.rule, record.generation) == ("mine", False, "none", 3)
    assert (record.reason, record.explanation, record.nearest_miss) == ("denied_by_policy", "because", "nearly")
    assert record.missing == ("a record holds no token and no headers but User-Agent and the last X-Forwarded-For",)


def test_a_record_that_has_the_path_as_it_was_sent() -> None:
    record = recorded(RECORD | {"original_path": "/a/../orders/7"})
    assert record.question.target == "/a/../orders/7?x=1"


def test_a_permitted_request_is_not_on_record_as_it_was_sent() -> None:
    record = recorded(RECORD | {"decision": "allow"})
    assert record.question.target == "/orders/7?x=1"
    assert "what was sent is not known" in record.missing[-1]


def test_a_record_of_a_connection() -> None:
    record = recorded(RECORD | {"kind": "connection", "method": None, "path": None, "authority": None})
    assert record.question.opaque
    assert record.question.headers == ()
    assert record.missing == ()


def test_a_name_that_nobody_verified_is_no_identity() -> None:
    record = recorded(RECORD | {"source_principal": f"unverified spiffe://{WEB}"})
    assert record.question.principal == ""
    assert "was not verified" in record.missing[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"direction": "outbound"}, "the record is of an outbound call"),
        ({"method": "-", "reason": "path_invalid"}, r"the request could not be read \(path_invalid"),
        ({"source_principal": "spiffe://A/b"}, "`source_principal` of the record is no SPIFFE ID"),
        ({"upstream_cluster": "inbound"}, "which names no port"),
        ({"upstream_cluster": "inbound|x"}, "which names no port"),
    ],
)
def test_records_without_a_question(change: dict[str, Any], says: str) -> None:
    with pytest.raises(NoQuestion, match=says):
        recorded(RECORD | change)


@pytest.mark.parametrize("line", ["", "no json", "[]", '{"kind": "request"}', "[" * 100_000])
def test_lines_that_are_no_record(line: str) -> None:
    with pytest.raises(NoQuestion, match="the line is no"):
        record_of_line(line)
