"""The first file of tests passes as it is written, covers what can be covered and reads well."""

from __future__ import annotations

from typing import Any

import pytest
from answers_sets import NO_ADMIN, ORDERS, TOKENS, rules, world

from proxy.answers.question import World
from proxy.answers.testing.starter import Source, starter
from proxy.answers.testing.tables import Outcome, read_table, run_table, unexercised
from proxy.policy import PolicyDefault

SOURCE = Source(name="orders.test.yaml", policies=("policy/",))


def written(asked: World) -> tuple[str, list[Outcome]]:
    text = starter(asked, SOURCE, 0.0)
    return text, run_table(asked, read_table(text.encode(), "t.yaml").cases, 0.0)


SETS: dict[str, list[str]] = {
    "exact": [ORDERS],
    "a deny": [ORDERS, NO_ADMIN],
    "a deny alone": [NO_ADMIN],
    "any caller": [rules('[{to: [{operation: {paths: ["/health"]}}]}]')],
    "everything": [rules("[{}]")],
    "stars in principals": [
        rules(
            '[{from: [{source: {principals: ["*/ns/demo/sa/db"]}}]}, {from: [{source: {principals: ["*/sa/web"]}}]},'
            ' {from: [{source: {principals: ["cluster.local/ns/ops/*"]}}]},'
            ' {from: [{source: {principals: ["*-job"]}}]},'
            ' {from: [{source: {principals: ["clus*"]}}], to: [{operation: {paths: ["/c"]}}]}]'
        )
    ],
    "accounts, namespaces, trust domains": [
        rules(
            "[{from: [{source: {serviceAccounts: [web, other/job]}}], to: [{operation: {methods: [GET]}}]},"
            ' {from: [{source: {namespaces: ["team-*-prod", ops]}}]},'
            " {from: [{source: {trustDomains: [partner.example], namespaces: [sales]}}]}]"
        )
    ],
    "what must not be": [
        rules(
            "[{from: [{source: {notNamespaces: [demo]}}],"
            ' to: [{operation: {notMethods: [GET, POST], notPaths: ["/"]}}]},'
            ' {from: [{source: {notServiceAccounts: [someone], notIpBlocks: ["10.0.0.0/8"]}}],'
            ' to: [{operation: {notPorts: ["8080"]}}]}]'
        )
    ],
    "paths": [
        rules(
            '[{to: [{operation: {paths: ["/a/{*}/b/{**}"]}}]}, {to: [{operation: {paths: ["/public*"]}}]},'
            ' {to: [{operation: {paths: ["*.png"]}}]}, {to: [{operation: {paths: ["*"], methods: ["PAT*"]}}]}]'
        )
    ],
    "hosts, ports, addresses": [
        rules(
            '[{to: [{operation: {hosts: ["*.example.com", "api.*"], ports: ["9090"]}}]},'
            ' {from: [{source: {ipBlocks: ["10.1.0.0/16", "fd00::/8"]}}]},'
            ' {when: [{key: connection.sni, values: ["orders.demo"]}, {key: destination.ip, values: ["10.0.0.8"]}]}]'
        )
    ],
    "headers": [
        rules(
            '[{when: [{key: "request.headers[x-role]", values: [admin, "ops*"], notValues: [opsx]}]},'
            ' {when: [{key: "request.headers[x-team]", values: ["*"]}, {key: "request.headers[x-zone]", values: [a]}]}]'
        )
    ],
    "tokens": [
        TOKENS,
        rules(
            '[{from: [{source: {requestPrincipals: ["https://issuer.test/*"]}}],'
            ' when: [{key: "request.auth.claims[group][name]", values: [staff]},'
            ' {key: "request.auth.audiences", values: [orders]}]},'
            ' {when: [{key: "request.auth.presenter", values: [app]}]}]'
        ),
    ],
}


@pytest.mark.parametrize("name", SETS)
def test_it_passes_as_it_is_written_and_reaches_every_rule(name: str) -> None:
    asked = world(*SETS[name])
    text, outcomes = written(asked)
    assert outcomes
    assert [outcome.case.name for outcome in outcomes if not outcome.passed] == []
    assert unexercised(asked, [outcome.answer for outcome in outcomes]) == []
    assert "No request was found" not in text


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        ({"trusted_proxies": 1}, '[{from: [{source: {remoteIpBlocks: ["203.0.113.0/24"]}}]}]'),
        ({"trusted_proxies": 3}, '[{from: [{source: {remoteIpBlocks: ["203.0.113.0/24"]}}]}]'),
        ({"trusted_proxies": 0}, '[{from: [{source: {remoteIpBlocks: ["203.0.113.0/24"]}}]}]'),
        ({"tcp_ports": (5432, 8080)}, '[{to: [{operation: {ports: ["5432"]}}]}]'),
        ({"default": PolicyDefault.ALLOW_ALL}, '[{to: [{operation: {paths: ["/a"]}}]}]'),
    ],
)
def test_settings_are_taken_into_account(settings: dict[str, Any], spec: str) -> None:
    asked = world(rules(spec), **settings)
    _, outcomes = written(asked)
    assert all(outcome.passed for outcome in outcomes)
    assert unexercised(asked, [outcome.answer for outcome in outcomes]) == []


def test_how_it_reads() -> None:
    text, _ = written(world(ORDERS))
    assert (
        text
        == """\
# What the policies of demo/orders say today, as tests made from them.
# Every answer was asked before it was written. Keep those that you mean, and add your own:
#     remora policy test orders.test.yaml
policies: [policy/]
workload:
  namespace: demo
  service_account: orders
  labels: {app: orders}
policy: {default: deny}
request: {host: orders.demo, port: 8080}

tests:

  # 0.yaml:7: ALLOW ns[demo]-policy[orders]-rule[0]
  - name: demo/web may GET /orders/7
    request: {identity: cluster.local/ns/demo/sa/web, method: GET, path: /orders/7}
    expect: allow
    rule: ns[demo]-policy[orders]-rule[0]
  - name: a stranger may not GET /orders/7
    request: {identity: cluster.local/ns/elsewhere/sa/stranger, method: GET, path: /orders/7}
    expect: 403
  - name: a caller without identity may not GET /orders/7
    request: {method: GET, path: /orders/7}
    expect: deny
  - name: demo/web may not POST /orders/7
    request: {identity: cluster.local/ns/demo/sa/web, method: POST, path: /orders/7}
    expect: 403
  - name: demo/web may not GET /elsewhere
    request: {identity: cluster.local/ns/demo/sa/web, method: GET, path: /elsewhere}
    expect: 403
"""
    )


def test_a_rule_that_another_always_precedes_gets_a_comment() -> None:
    text, outcomes = written(world(rules("[{}, {to: [{operation: {paths: [/a]}}]}]")))
    assert (
        "  # No request was found that this rule decides: those tried are decided by ns[demo]-policy[p]-rule[0]."
        in text
    )
    assert all(outcome.passed for outcome in outcomes)


def test_a_value_that_names_nobody_is_no_trouble() -> None:
    text, outcomes = written(world(rules('[{from: [{source: {principals: ["*/ns/demo/sa/*"]}}]}]')))
    assert "  # No request was found that this rule decides: those tried are denied, by no rule." in text
    assert all(outcome.passed for outcome in outcomes)


@pytest.mark.parametrize("default", PolicyDefault)
def test_without_a_rule_the_default_is_tested(default: PolicyDefault) -> None:
    text, outcomes = written(world(default=default))
    assert f"policy.default is {default.value}." in text
    assert len(outcomes) == 2
    assert all(outcome.passed for outcome in outcomes)


def test_policies_of_standard_input_are_not_named() -> None:
    text = starter(world(ORDERS), Source(), 0.0)
    assert "\npolicies:" not in text
    assert "# The policies were read from standard input: give them with -f when you run this." in text


def test_a_configuration_stands_for_the_workload() -> None:
    text = starter(world(ORDERS), Source(config="remora.yaml"), 0.0)
    assert "config: remora.yaml\n" in text
    assert "\nworkload:" not in text
