"""Many rules: the index finds the same rule as trying them in order, and never loses one."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, allows, judge, policy, snapshot

from proxy.policy.facts import path_head
from proxy.policy.table import SCAN_AT_MOST

Rules = list[dict[str, Any]]

OTHERS: Rules = [{"to": [{"operation": {"hosts": [f"host-{n}"]}}]} for n in range(3 * SCAN_AT_MOST)]
BY_PRINCIPAL: dict[str, Any] = {"from": [{"source": {"principals": [WEB]}}]}
BY_PATH = {"to": [{"operation": {"paths": ["/a/b"]}}]}
BY_HEAD = {"to": [{"operation": {"paths": ["/a/*"]}}]}
BY_ACCOUNT = {"from": [{"source": {"serviceAccounts": ["web"]}}]}
BY_NAMESPACE = {"when": [{"key": "source.namespace", "values": ["demo"]}]}
UNFILED = {"to": [{"operation": {"paths": ["*b"]}}]}
ALL: Rules = [BY_PRINCIPAL, BY_PATH, BY_HEAD, BY_ACCOUNT, BY_NAMESPACE, UNFILED]


@pytest.mark.parametrize("first", range(len(ALL)))
def test_of_rules_filed_in_different_places_the_first_is_named(first: int) -> None:
    rules = [*OTHERS, *ALL[first:], *ALL[:first]]
    assert judge(snapshot(policy(rules)), path="/a/b").rule == f"ns[demo]-policy[p]-rule[{len(OTHERS)}]"


def test_every_audit_rule_is_named_in_order() -> None:
    compiled = snapshot(policy([*OTHERS, *ALL], "AUDIT"), default="allow-all")
    numbers = range(len(OTHERS), len(OTHERS) + len(ALL))
    assert judge(compiled, path="/a/b").audited == tuple(f"ns[demo]-policy[p]-rule[{n}]" for n in numbers)


@pytest.mark.parametrize(
    "rule",
    [
        {
            "from": [
                {"source": {"principals": ["cluster.local/ns/demo/sa/x"]}},
                {"source": {"ipBlocks": ["10.0.0.0/8"]}},
            ]
        },
        {"to": [{"operation": {"paths": ["/x"]}}, {"operation": {"methods": ["GET"]}}]},
        {"to": [{"operation": {"paths": ["/x", "*"]}}]},
        {"to": [{"operation": {"paths": ["/x/*", "/a*"]}}]},
        {"to": [{"operation": {"paths": ["/x/y", "/{*}/b"]}}]},
        {"to": [{"operation": {"paths": ["/x/{*}", "/{**}"]}}]},
        {"to": [{"operation": {"notPaths": ["/x"]}}]},
        {"to": [{"operation": {"hosts": ["x", "orders*"]}}]},
        {"from": [{"source": {"namespaces": ["x", "d*"]}}]},
        {"from": [{"source": {"notPrincipals": ["cluster.local/ns/demo/sa/x"]}}]},
    ],
)
def test_a_rule_that_also_matches_otherwise_is_not_filed_under_what_it_does_not_need(rule: dict[str, Any]) -> None:
    assert allows(snapshot(policy([*OTHERS, rule])), path="/a/b")


@pytest.mark.parametrize(
    ("path", "head"), [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/b", "/a"), ("//b", "/"), ("*", "*"), ("", "")]
)
def test_the_head_of_a_path(path: str, head: str) -> None:
    assert path_head(path) == head


def test_a_thousand_rules_over_several_documents_are_filed() -> None:
    """What a decision tries is a handful of rules, however many there are."""
    documents = [
        policy([{"to": [{"operation": {"paths": [f"/{doc}/{n}"]}}]} for n in range(100)], name=f"p{doc}")
        for doc in range(10)
    ]
    compiled = snapshot(*documents)
    table = compiled.http.other.allow
    assert table is not None
    assert len(table.rules) == 1000
    assert table._unfiled == ()
    assert judge(compiled, path="/7/42").rule == "ns[demo]-policy[p7]-rule[42]"
    assert not allows(compiled, path="/7/100")
