"""Table tests: what a file may say, what it is told when it says something else, and what passes."""

from __future__ import annotations

import pytest
from answers_sets import NO_ADMIN, ORDERS, TOKENS, WEB, rules, world

from proxy.answers.testing.tables import Table, count_rules, read_table, run_table, unexercised, unknown_rule
from proxy.errors import ConfigError


def table(text: str) -> Table:
    return read_table(text.encode(), "t.yaml")


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        table(text)
    return [str(fault) for fault in raised.value.faults]


def results(text: str, *policies: str) -> list[bool]:
    return [outcome.passed for outcome in run_table(world(*policies), table(text).cases, 0.0)]


SHARED = "request: {host: orders.demo, port: 8080, identity: cluster.local/ns/demo/sa/web}\n"


def test_a_shared_request_is_laid_under_each_and_null_takes_a_value_away() -> None:
    read = table(
        f"{SHARED}tests:\n- {{request: {{path: /a, port: 9090, identity: null}}, expect: deny}}\n- expect: allow\n"
    )
    first, second = (case.question for case in read.cases)
    assert (first.principal, first.port, first.host, first.target) == ("", 9090, "orders.demo", "/a")
    assert (second.principal, second.port, second.target) == (WEB, 8080, "/")


def test_lists_make_a_case_for_each_combination_and_name_it() -> None:
    read = table(
        f"{SHARED}tests:\n"
        "- {name: reads, request: {method: [GET, HEAD], path: [/a, /b], port: [8080]}, expect: 403}\n"
    )
    assert [case.name for case in read.cases] == [
        "reads [GET, /a]",
        "reads [GET, /b]",
        "reads [HEAD, /a]",
        "reads [HEAD, /b]",
    ]
    assert [(case.question.method, case.question.target) for case in read.cases][2] == ("HEAD", "/a")
    assert read.cases[0].line == 3


def test_ports_and_nobody_may_stand_in_lists() -> None:
    read = table(f'tests:\n- {{request: {{identity: ["", {WEB}], port: [80, 81]}}, expect: deny}}\n')
    assert [(case.question.principal, case.question.port) for case in read.cases] == [
        ("", 80),
        ("", 81),
        (WEB, 80),
        (WEB, 81),
    ]


@pytest.mark.parametrize(
    ("expect", "passes"),
    [
        ("allow", False),
        ("deny", True),
        ("403", True),
        ("401", False),
        ("{decision: deny}", True),
        ("{decision: allow}", False),
        ("{status: 403}", True),
        ("{status: 404}", False),
        ('{rule: "ns[demo]-policy[no-admin]-rule[0]"}', True),
        ('{rule: "none"}', False),
        ("{reason: denied_by_policy}", True),
        ("{reason: denied_by_default}", False),
        ('{decision: deny, status: 403, reason: denied_by_policy, rule: "ns[demo]-policy[no-admin]-rule[0]"}', True),
    ],
)
def test_what_a_denial_is_held_against(expect: str, passes: bool) -> None:
    assert results(f"{SHARED}tests: [{{request: {{path: /admin}}, expect: {expect}}}]", NO_ADMIN) == [passes]


def test_what_an_allowed_request_is_held_against() -> None:
    text = f"""{SHARED}
tests:
- {{request: {{path: /orders/7}}, expect: allow}}
- {{request: {{path: /orders/7}}, expect: allow, rule: "ns[demo]-policy[orders]-rule[0]"}}
- {{request: {{path: /orders/7}}, expect: {{reason: ok}}}}
- {{request: {{path: /orders/7}}, expect: allow, rule: "ns[demo]-policy[orders]-rule[1]"}}
- {{request: {{path: /orders/7}}, expect: deny}}
"""
    assert results(text, ORDERS) == [True, True, True, False, False]


def test_the_gate_and_tokens_answer_too() -> None:
    text = f"""{SHARED}
tests:
- {{name: a NUL in the path, request: {{path: /a%00}}, expect: 400}}
- {{name: no token, request: {{path: /me, token: nonsense}}, expect: 401}}
- {{name: a token, request: {{path: /me, claims: {{iss: "https://issuer.test", sub: ann}}}}, expect: allow}}
- {{name: another issuer, request: {{path: /me, claims: {{iss: "https://other.test", sub: ann}}}}, expect: 401}}
"""
    me = rules('[{from: [{source: {requestPrincipals: ["https://issuer.test/ann"]}}]}]')
    assert results(text, TOKENS, me) == [True, True, True, True]


def test_a_connection_that_is_not_http() -> None:
    text = f"tests:\n- {{request: {{identity: {WEB}, port: 5432, protocol: tcp}}, expect: allow}}\n"
    assert results(text, rules('[{to: [{operation: {ports: ["5432"]}}]}]')) == [True]


def test_a_connection_that_is_closed_has_no_status() -> None:
    text = f"tests:\n- {{request: {{identity: {WEB}, port: 5432, protocol: tcp}}, expect: 403}}\n"
    assert results(text, rules("[{}]", action="DENY")) == [False]


def test_rules_that_decide_no_case_are_named_with_their_place() -> None:
    asked = world(ORDERS, NO_ADMIN, rules("[{}]", name="look", action="AUDIT"))
    text = f"{SHARED}tests: [{{request: {{path: /orders/7}}, expect: allow}}]"
    answers = [outcome.answer for outcome in run_table(asked, table(text).cases, 0.0)]
    assert count_rules(asked) == 3
    assert [(rule.rule, rule.place) for rule in unexercised(asked, answers)] == [
        ("ns[demo]-policy[no-admin]-rule[0]", "1.yaml:8")
    ]


def test_a_rule_that_does_not_exist_is_pointed_out() -> None:
    text = f'{SHARED}tests: [{{expect: deny, rule: "ns[demo]-policy[order]-rule[0]"}}, {{expect: deny, rule: none}}]'
    first, second = table(text).cases
    assert unknown_rule(world(ORDERS), first) == (
        'no rule of this workload is named "ns[demo]-policy[order]-rule[0]"; '
        "did you mean `ns[demo]-policy[orders]-rule[0]`?"
    )
    assert unknown_rule(world(ORDERS), second) == ""


def test_what_stands_around_the_tests() -> None:
    read = table(
        """
policies: [policy/, more.yaml]
workload: {namespace: demo, service_account: orders, labels: {app: orders}}
trust_domain: mesh.example
trust_domain_aliases: [old.example]
policy: {default: allow-all, path_normalization: merge_slashes, root_namespace: mesh, trusted_proxies: 2}
tcp_ports: [5432]
jwks: {"https://issuer.test/keys": keys.json}
now: 1700000000
tests: [{request: {path: /}, expect: allow}]
"""
    )
    assert read.policies == ("policy/", "more.yaml")
    assert read.workload is not None
    assert (read.workload.trust_domain, read.workload.trust_domain_aliases) == ("mesh.example", ("old.example",))
    assert (read.settings.default.value, read.settings.root_namespace) == ("allow-all", "mesh")
    assert (read.normalization.value, read.settings.trusted_proxies) == ("merge_slashes", 2)
    assert (read.tcp_ports, dict(read.jwks), read.now) == ((5432,), {"https://issuer.test/keys": "keys.json"}, 1.7e9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["t.yaml:1:1: the file is empty; write one document with `tests`"]),
        (
            "tests: [{request: {}, expect: allow}]\n---\ntests: []\n",
            ["t.yaml:3:1: a second document in one file of tests; write one document with `tests`"],
        ),
        ("tests: []\n", ["t.yaml:1:8: `tests` is empty; write a test, or let --init write some"]),
        ("policies: [a]\n", ["t.yaml:1:1: `the file` lacks the key `tests`"]),
        (
            "test: []\n",
            [
                "t.yaml:1:1: `the file` lacks the key `tests`",
                't.yaml:1:1: unknown key "test" in `the file`; did you mean `tests`?',
            ],
        ),
        ("tests:\n- {request: {path: /}}\n", ["t.yaml:2:3: `tests[0]` lacks the key `expect`"]),
        ("tests:\n- {expect: allow}\n", ["t.yaml:2:3: `tests[0]` lacks the key `request`"]),
        (
            "tests:\n- {request: {path: /}, expect: maybe}\n",
            [
                't.yaml:2:32: `tests[0].expect` is the text "maybe"; '
                "write allow, deny, a status such as 403, or {decision: deny, rule: ..., reason: ...}"
            ],
        ),
        (
            "tests:\n- {request: {path: /}, expect: 200}\n",
            [
                "t.yaml:2:32: `tests[0].expect` is the number 200; "
                "write allow, deny, a status such as 403, or {decision: deny, rule: ..., reason: ...}"
            ],
        ),
        (
            "tests:\n- {request: {pth: /}, expect: allow}\n",
            ['t.yaml:2:14: unknown key "pth" in `tests[0].request`; did you mean `path`?'],
        ),
        (
            "tests:\n- {request: {path: []}, expect: allow}\n",
            ["t.yaml:2:20: `tests[0].request.path` is an empty list; write a value, or leave it out"],
        ),
        (
            "tests:\n- {request: {identity: [nobody, no one]}, expect: allow}\n",
            [],
        ),
        (
            "tests:\n- {request: {path: /}, expect: {reason: denied_by_polcy}}\n",
            ['t.yaml:2:41: there is no reason "denied_by_polcy"; did you mean `denied_by_policy`?'],
        ),
        (
            "tests:\n- {request: {path: /}, expect: {rule: a}, rule: a}\n",
            ["t.yaml:2:39: `tests[0]` names a rule twice; keep one of the two"],
        ),
        (
            "config: a.yaml\nworkload: {namespace: demo}\ntests: [{request: {}, expect: deny}]\n",
            ["t.yaml:2:1: `config` says `workload` already; leave one of the two out"],
        ),
        (
            "workload: {namespace: demo, labels: {app: 1}}\ntests: [{request: {}, expect: deny}]\n",
            ['t.yaml:1:43: `workload.labels.app` must be text, not the number 1; write "1" with the quotes'],
        ),
        (
            "policy: {default: open}\ntests: [{request: {}, expect: deny}]\n",
            [
                "t.yaml:1:19: `policy.default` must be one of deny, allow-authenticated, allow-all, audit, "
                'not the text "open"'
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(text: str, expected: list[str]) -> None:
    found = faults(text)
    if expected:
        assert found == expected
    else:
        assert len(found) == 1
        assert "`tests[0].request.identity` is no SPIFFE ID" in found[0]


def test_a_product_too_large_is_refused() -> None:
    many = ", ".join(str(port) for port in range(1, 301))
    paths = ", ".join(f"/{n}" for n in range(100))
    assert faults(f"tests:\n- {{request: {{port: [{many}], path: [{paths}]}}, expect: deny}}\n") == [
        "t.yaml:2:3: `tests[0]`: the lists make 30000 cases, and a file has at most 20000; split it"
    ]
