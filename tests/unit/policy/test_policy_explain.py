"""What a denial says to the operator."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, connection, judge, policy, request, snapshot, token

from proxy.types import Denial


def denial(*documents: bytes, **call: Any) -> Denial:
    decision = judge(snapshot(*documents), **call)
    assert isinstance(decision, Denial)
    return decision


ALLOW = policy(
    [
        {"to": [{"operation": {"paths": ["/health"]}}]},
        {
            "from": [{"source": {"principals": [WEB]}}, {"source": {"namespaces": ["ops"]}}],
            "to": [{"operation": {"methods": ["GET"], "paths": ["/orders/*", "/items"]}}],
        },
    ],
    name="orders",
)


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        ({"path": "/admin"}, '`paths`: saw "/admin", wanted "/orders/*" or "/items"'),
        ({"path": "/items", "method": "PUT"}, '`methods`: saw "PUT", wanted "GET"'),
        (
            {"path": "/items", "principal": "cluster.local/ns/demo/sa/cart"},
            f'`principals`: saw "cluster.local/ns/demo/sa/cart", wanted "{WEB}"',
        ),
        ({"path": "/admin", "method": "PUT"}, '`methods`: saw "PUT", wanted "GET" (and 1 more)'),
    ],
)
def test_the_nearest_miss_names_rule_clause_seen_and_wanted(call: dict[str, Any], nearest: str) -> None:
    assert denial(ALLOW, **call).nearest_miss == f"ns[demo]-policy[orders]-rule[1] (000.json:1): {nearest}"


def test_the_explanation_names_what_was_judged() -> None:
    assert denial(ALLOW, path="/admin").explanation == f'no ALLOW rule allows GET "/admin" to port 8080 from {WEB}'


def test_a_deny_rule_is_explained_by_the_clauses_that_matched() -> None:
    rule = {
        "from": [{"source": {"namespaces": ["ops"]}}, {"source": {"notPrincipals": ["*/sa/admin"]}}],
        "to": [{"operation": {"paths": ["/admin*"]}}],
        "when": [{"key": "request.headers[x-role]", "notValues": ["root"]}],
    }
    denied = denial(policy([rule], "DENY", name="d"), path="/admin/x", headers=[(b"x-role", b"user")])
    assert denied.rule == "ns[demo]-policy[d]-rule[0]"
    assert denied.explanation == (
        f'ns[demo]-policy[d]-rule[0] (000.json:1) denies GET "/admin/x" to port 8080 from {WEB}: '
        f'`notPrincipals`: saw "{WEB}", which is none of "*/sa/admin"; '
        '`paths`: "/admin/x" matches "/admin*"; '
        '`request.headers[x-role] notValues`: saw "user", which is none of "root"'
    )


@pytest.mark.parametrize(
    ("rule", "call", "told"),
    [
        ({"to": [{"operation": {"paths": ["/b", "/a", "/a*"]}}]}, {"path": "/a"}, '`paths`: "/a" matches "/a"'),
        ({"to": [{"operation": {"hosts": ["X", "ORDERS*"]}}]}, {}, '`hosts`: "orders.demo" matches "ORDERS*"'),
        (
            {"from": [{"source": {"ipBlocks": ["::/0", "10.0.0.0/8"]}}]},
            {},
            '`ipBlocks`: "10.0.0.7" matches "10.0.0.0/8"',
        ),
        (
            {"when": [{"key": "request.headers[x]", "values": ["2", "b"]}]},
            {"headers": [(b"x", b"a"), (b"x", b"b")]},
            '`request.headers[x]`: "a" and "b" matches "b"',
        ),
        (
            {"from": [{"source": {"notRequestPrincipals": ["*"]}}]},
            {},
            '`notRequestPrincipals`: saw no verified token, which is none of "*"',
        ),
        (
            {"when": [{"key": "request.auth.claims[groups]", "values": ["a", "b*"]}]},
            {"token": token(groups=["bees"])},
            '`request.auth.claims[groups]`: "bees" matches "b*"',
        ),
    ],
)
def test_a_match_reads_as_a_match_and_names_the_value(rule: dict[str, Any], call: dict[str, Any], told: str) -> None:
    assert denial(policy([rule], "DENY"), **call).explanation.endswith(f": {told}")


def test_a_match_among_very_many_values_names_some_of_them() -> None:
    rule = {"to": [{"operation": {"methods": [*(f"M{n}" for n in range(50)), "GET"]}}]}
    assert denial(policy([rule], "DENY")).explanation.endswith(
        '`methods`: "GET" matches "M0" or "M1" or "M2" or "M3" or one of 47 more'
    )


def test_without_allow_rules_there_is_no_nearest_miss() -> None:
    assert denial().nearest_miss == ""


@pytest.mark.parametrize(
    ("rule", "call", "seen"),
    [
        ({"when": [{"key": "request.headers[x]", "values": ["1"]}]}, {}, "no such header"),
        (
            {"when": [{"key": "request.headers[x]", "values": ["1"]}]},
            {"headers": [(b"x", b"2"), (b"x", b"3")]},
            '"2" and "3"',
        ),
        (
            {"from": [{"source": {"namespaces": ["a"]}}]},
            {"principal": "td/ci/job"},
            'an identity without namespace ("td/ci/job")',
        ),
        ({"from": [{"source": {"ipBlocks": ["1.1.1.1"]}}]}, {}, '"10.0.0.7"'),
        ({"to": [{"operation": {"ports": ["1"]}}]}, {}, '"8080"'),
        ({"to": [{"operation": {"hosts": ["a"]}}]}, {"host": ""}, "no host"),
        ({"from": [{"source": {"trustDomains": ["a"]}}]}, {}, '"cluster.local"'),
        ({"from": [{"source": {"remoteIpBlocks": ["1.1.1.1"]}}]}, {}, '"10.0.0.7"'),
        ({"when": [{"key": "destination.ip", "values": ["1.1.1.1"]}]}, {}, '"10.0.0.8"'),
        ({"when": [{"key": "connection.sni", "values": ["a"]}]}, {}, "no server name"),
        ({"when": [{"key": "connection.sni", "values": ["a"]}]}, {"sni": "b"}, '"b"'),
        ({"from": [{"source": {"requestPrincipals": ["*"]}}]}, {}, "no verified token"),
        ({"when": [{"key": "request.auth.audiences", "values": ["a"]}]}, {}, "no verified token"),
        ({"when": [{"key": "request.auth.presenter", "values": ["a"]}]}, {}, "no verified token"),
        ({"when": [{"key": "request.auth.claims[a]", "values": ["a"]}]}, {}, "no verified token"),
        ({"from": [{"source": {"requestPrincipals": ["i/s"]}}]}, {"token": token(sub="t")}, '"issuer.example/t"'),
        (
            {"from": [{"source": {"requestPrincipals": ["*"]}}]},
            {"token": token()},
            'a token of "issuer.example" without subject',
        ),
        (
            {"when": [{"key": "request.auth.audiences", "values": ["a"]}]},
            {"token": token(aud=["b", "c"])},
            '"b" and "c"',
        ),
        (
            {"when": [{"key": "request.auth.audiences", "values": ["a"]}]},
            {"token": token()},
            "a token without audiences",
        ),
        (
            {"when": [{"key": "request.auth.presenter", "values": ["a"]}]},
            {"token": token()},
            "a token without presenter",
        ),
        ({"when": [{"key": "request.auth.claims[x][y]", "values": ["a"]}]}, {"token": token(x="y")}, "no such claim"),
        ({"when": [{"key": "request.auth.claims[x]", "values": ["1"]}]}, {"token": token(x=1)}, "claim without text"),
    ],
)
def test_absent_things_are_said_in_words(rule: dict[str, Any], call: dict[str, Any], seen: str) -> None:
    assert f": saw {seen}, wanted " in denial(policy([rule]), **call).nearest_miss


def test_a_peer_without_identity_is_said_in_words() -> None:
    compiled = snapshot(policy([{"from": [{"source": {"principals": ["*"]}}]}]), default="allow-all")
    decision = compiled.request(connection(None), request())
    assert isinstance(decision, Denial)
    assert decision.explanation == 'no ALLOW rule allows GET "/" to port 8080 from a peer without identity'
    assert '`principals`: saw a peer without identity, wanted "*"' in decision.nearest_miss


def test_what_a_peer_sent_cannot_write_into_a_log() -> None:
    hostile = '/a\r\n{"level":"info"}\x1b[2J\u202e' + "x" * 100_000
    denied = denial(ALLOW, path=hostile, headers=[(b"x", b"\n" * 70_000)], method="G\n" * 500)
    for text in (denied.explanation, denied.nearest_miss):
        assert text.isprintable()
        assert len(text) < 1000


def test_a_long_list_of_wanted_values_is_cut() -> None:
    rule = {"to": [{"operation": {"methods": [f"M{n}" for n in range(50)]}}]}
    assert denial(policy([rule])).nearest_miss.endswith('wanted "M0" or "M1" or "M2" or "M3" or one of 46 more')


def test_the_search_for_the_nearest_miss_is_bounded_and_says_so() -> None:
    rules = [{"to": [{"operation": {"paths": [f"/{n}"]}}]} for n in range(300)]
    nearest = denial(policy(rules)).nearest_miss
    assert nearest.startswith("ns[demo]-policy[p]-rule[0] ")
    assert nearest.endswith("(of 10 of 300 ALLOW rules compared)")


@pytest.mark.parametrize(
    ("rule", "call"),
    [
        ({"paths": ["/orders"], "methods": ["PUT"]}, {"path": "/orders"}),
        ({"paths": ["/orders/*"], "methods": ["PUT"]}, {"path": "/orders/7"}),
        ({"hosts": ["orders.demo"], "methods": ["PUT"]}, {}),
    ],
)
def test_the_nearest_of_many_rules_is_found_wherever_it_stands(rule: dict[str, Any], call: dict[str, Any]) -> None:
    others = [{"to": [{"operation": {"paths": [f"/{n}"], "methods": ["PUT"]}}]} for n in range(300)]
    rules = [*others, {"to": [{"operation": rule}]}, *others]
    assert denial(policy(rules[:450]), **call).nearest_miss.startswith("ns[demo]-policy[p]-rule[300] ")


def test_of_rules_equally_near_the_first_is_named() -> None:
    rules = [{"to": [{"operation": {"paths": [f"/{n}"]}}]} for n in range(3)]
    assert denial(policy(rules)).nearest_miss.startswith("ns[demo]-policy[p]-rule[0] ")


def test_of_rules_with_equally_many_clauses_holding_the_one_that_lacks_fewer_is_named() -> None:
    far = {"to": [{"operation": {"methods": ["GET"], "paths": ["/x"], "hosts": ["x"]}}]}
    near = {"to": [{"operation": {"methods": ["GET"], "paths": ["/y"]}}]}
    assert denial(policy([far, near])).nearest_miss.startswith("ns[demo]-policy[p]-rule[1] ")


def test_what_a_deny_rule_decided_has_no_nearest_miss_however_many_rules_would_allow_it() -> None:
    shut = policy([{"to": [{"operation": {"paths": ["/items"]}}]}], "DENY", name="shut")
    decision = denial(ALLOW, shut, path="/items", method="GET")
    assert (decision.rule, decision.nearest_miss) == ("ns[demo]-policy[shut]-rule[0]", "")
