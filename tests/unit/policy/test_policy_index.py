"""Many rules: the index finds the same rule as trying them in order, and never loses one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from policy_world import CONNECTION_WORDS, WEB, allows, connection, judge, policy, request, snapshot, token

from proxy.policy import PolicySnapshot
from proxy.policy.facts import MAX_PREFIXES, Facts, segment_prefixes
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
    ("path", "prefixes"),
    [
        ("/", ["/"]),
        ("/a", ["/a"]),
        ("/a/", ["/a", "/a/"]),
        ("/a/b", ["/a", "/a/b"]),
        ("//b", ["/", "//b"]),
        ("*", ["*"]),
        ("", [""]),
    ],
)
def test_the_segment_prefixes_of_a_path(path: str, prefixes: list[str]) -> None:
    assert segment_prefixes(path) == prefixes


def test_a_path_of_many_segments_costs_a_bounded_number_of_look_ups() -> None:
    prefixes = segment_prefixes("/a" * 8000)
    assert prefixes == ["/a" * depth for depth in range(1, MAX_PREFIXES + 1)]


def operation(**fields: Any) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def source(**fields: Any) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def when(key: str, value: str) -> dict[str, Any]:
    return {"when": [{"key": key, "values": [value]}]}


def tried(compiled: PolicySnapshot, **call: Any) -> int:
    """How many ALLOW rules a request has to be compared with."""
    of_connection = {key: call.pop(key) for key in list(call) if key in CONNECTION_WORDS}
    table = compiled.http.at(8080).allow
    assert table is not None
    return table.tried(Facts(connection(**of_connection), request(**call)))


@pytest.mark.parametrize(
    ("rule", "call"),
    [
        (lambda n: operation(paths=[f"/{n}"]), {"path": "/142"}),
        (lambda n: operation(paths=[f"/api/v1/thing-{n}/*"]), {"path": "/api/v1/thing-142/x"}),
        (lambda n: operation(paths=[f"/api/{n}/{{*}}"]), {"path": "/api/142/x"}),
        (lambda n: operation(paths=[f"/api/{n}", f"/api/{n}/*"]), {"path": "/api/142"}),
        (lambda n: operation(hosts=[f"h{n}"]), {"host": "H142"}),
        (lambda n: operation(methods=[f"M{n}"]), {"method": "M142"}),
        (lambda n: source(principals=[f"td/ns/a/sa/s{n}"]), {"principal": "td/ns/a/sa/s142"}),
        (lambda n: source(principals=[f"td/ns/n{n}/*"]), {"principal": "td/ns/n142/sa/a"}),
        (lambda n: source(namespaces=[f"n{n}"]), {"principal": "td/ns/n142/sa/a"}),
        (lambda n: source(serviceAccounts=[f"a/s{n}"]), {"principal": "td/ns/a/sa/s142"}),
        (lambda n: source(trustDomains=[f"td{n}"]), {"principal": "td142/ns/a/sa/b"}),
        (lambda n: source(ipBlocks=[f"10.1.{n % 256}.{n // 256}"]), {"ip": "10.1.142.0"}),
        (lambda n: source(ipBlocks=[f"10.{n % 256}.{n // 256}.0/24"]), {"ip": "10.142.0.9"}),
        (lambda n: source(remoteIpBlocks=[f"10.1.{n % 256}.{n // 256}"]), {"ip": "10.1.142.0"}),
        (lambda n: when("destination.ip", f"10.1.{n % 256}.{n // 256}"), {"destination_ip": "10.1.142.0"}),
        (lambda n: when("connection.sni", f"h{n}"), {"sni": "h142"}),
        (lambda n: when("request.headers[x-tenant]", f"t{n}"), {"headers": [(b"x-tenant", b"t142")]}),
        (lambda n: source(requestPrincipals=[f"i/s{n}"]), {"token": token(iss="i", sub="s142")}),
        (lambda n: when("request.auth.audiences", f"a{n}"), {"token": token(aud=["a142", "b"])}),
        (lambda n: when("request.auth.claims[a][b]", f"c{n}"), {"token": token(a={"b": "c142"})}),
        # many share one text: filed once more by another
        (
            lambda n: source(namespaces=[f"n{n % 40}"]) | operation(paths=[f"/{n // 40}/*"]),
            {"principal": "td/ns/n22/sa/a", "path": "/3/x"},
        ),
    ],
)
def test_a_thousand_rules_that_differ_in_something_are_not_tried(
    rule: Callable[[int], dict[str, Any]], call: dict[str, Any]
) -> None:
    documents = [
        policy([rule(n) for n in range(first, first + 250)], name=f"p{first:04}") for first in range(0, 1000, 250)
    ]
    compiled = snapshot(*documents)
    assert judge(compiled, **call).rule == "ns[demo]-policy[p0000]-rule[142]"
    assert 1 <= tried(compiled, **call) <= SCAN_AT_MOST


def test_what_cannot_be_looked_up_is_tried() -> None:
    compiled = snapshot(policy([operation(paths=[f"*/{n}"]) for n in range(100)]))
    assert tried(compiled, path="/a/7") == 100
    assert judge(compiled, path="/a/7").rule == "ns[demo]-policy[p]-rule[7]"


def test_a_rule_of_very_many_keys_is_filed_again_only_where_it_has_few() -> None:
    """A thousand callers times a thousand paths would be a million entries for each rule."""
    wide = {
        **source(principals=[f"td/ns/a/sa/s{n}" for n in range(100)]),
        **operation(paths=[f"/{n}" for n in range(100)]),
    }
    compiled = snapshot(policy([wide] * 20))
    assert judge(compiled, principal="td/ns/a/sa/s7", path="/7").rule == "ns[demo]-policy[p]-rule[0]"
    assert tried(compiled, principal="td/ns/a/sa/s7", path="/7") == 20


def test_rules_below_very_deep_paths_are_found() -> None:
    deep = "/d" * 3 * MAX_PREFIXES
    rules = [operation(paths=[f"{deep}/{n}", f"{deep}/{n}/*", f"{deep}/{n}/{{*}}/x"]) for n in range(20)]
    compiled = snapshot(policy([*OTHERS, *rules]))
    for path in (f"{deep}/7", f"{deep}/7/a", f"{deep}/7/b/x"):
        assert judge(compiled, path=path).rule == f"ns[demo]-policy[p]-rule[{len(OTHERS) + 7}]"
    assert not allows(compiled, path=f"{deep}/20")


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
    assert judge(compiled, path="/7/42").rule == "ns[demo]-policy[p7]-rule[42]"
    assert not allows(compiled, path="/7/100")
