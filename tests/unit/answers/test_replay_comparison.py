"""Who gains and who loses: on a grid, on records, in text and in JSON."""

from __future__ import annotations

import json

import pytest
from answers_sets import NO_ADMIN, ORDERS, TOKENS, WEB, record, rules, world

from proxy.answers.calls.grid import make_grid
from proxy.answers.calls.points import Point, Scene, dropping_details
from proxy.answers.comparing.comparison import Ask, Comparison, Kind, Plain, Verdict, compare, json_of, text_of
from proxy.answers.comparing.replay import Unsaid, read_records
from proxy.answers.question import World, ask
from proxy.types import Permit

POSTS = ORDERS.replace("GET, HEAD", "GET, POST")


def asker(asked: World) -> Ask:
    def answer(point: Point) -> Verdict:
        verdict = ask(asked, point.question(), 0.0).verdict
        reason = "" if isinstance(verdict, Permit) else verdict.reason.word
        return Verdict(allowed=not reason, rule=verdict.rule, reason=reason)

    return answer


def on_grid(old: World, new: World, limit: int = 20_000) -> Comparison:
    known = [rule.rule for asked in (old, new) for rule in asked.snapshot.rules]
    grid = make_grid(known, Scene.of(old, new), limit)
    return compare(dict.fromkeys(grid.points, 1), asker(old), asker(new))


def on_records(old: World, new: World, *records: object) -> Comparison:
    known = [rule.rule for asked in (old, new) for rule in asked.snapshot.rules]
    found = read_records(json.dumps(line).encode() for line in records)
    calls = {dropping_details(known)(point): count for point, count in found.calls.items()}
    return compare(calls, asker(old), asker(new), Unsaid(known, Scene.of(old, new)))


def said(comparison: Comparison, kind: Kind) -> set[tuple[str, str, str]]:
    changes = [change for change in comparison.changes if change.kind is kind]
    return {(change.point.identity, change.point.method, change.point.path) for change in changes}


def test_a_changed_rule_on_the_grid() -> None:
    found = on_grid(world(ORDERS), world(POSTS))
    assert said(found, Kind.GAINS) == {(WEB, "POST", path) for path in ("/orders/7", "/orders/7/7")}
    assert said(found, Kind.LOSES) == {(WEB, "HEAD", path) for path in ("/orders/7", "/orders/7/7")}
    assert found.count(Kind.DEPENDS) == 0
    assert found.asked == found.allowed + found.denied + len(found.changes)


@pytest.mark.parametrize("texts", [[], [ORDERS], [ORDERS, NO_ADMIN], [TOKENS]])
def test_a_set_is_like_itself(texts: list[str]) -> None:
    found = on_grid(world(*texts), world(*texts))
    assert found.changes == ()
    assert found.asked == found.allowed + found.denied > 0


def test_another_deny_takes_and_another_allow_gives() -> None:
    wide = rules("[{}]", name="wide")
    assert {change.kind for change in on_grid(world(wide), world(wide, NO_ADMIN)).changes} == {Kind.LOSES}
    assert {change.kind for change in on_grid(world(ORDERS), world(ORDERS, wide)).changes} == {Kind.GAINS}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("paths: ['/a/*']", "paths: ['/a/{*}']"),
        ("paths: ['/a*']", "paths: ['/a', '/a/*']"),
        ("paths: ['/a/{**}']", "paths: ['/a/{*}']"),
        ("paths: ['/a']", "paths: ['/a*']"),
        ("paths: ['*.png']", "paths: ['/x.png']"),
        ("methods: ['*']", "methods: [GET]"),
        ("ports: ['80']", "notPorts: ['81']"),
        ("hosts: ['a.example']", "hosts: ['*.example']"),
    ],
)
def test_the_grid_finds_what_narrows(before: str, after: str) -> None:
    old, new = (world(rules(f"[{{to: [{{operation: {{{text}}}}}]}}]")) for text in (before, after))
    assert on_grid(old, new).changes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("principals: ['*']", "principals: ['cluster.local/ns/demo/*']"),
        ("namespaces: [demo]", "principals: ['cluster.local/ns/demo/sa/web']"),
        ("ipBlocks: ['10.0.0.0/8']", "ipBlocks: ['10.9.0.0/16']"),
        ("namespaces: ['*']", "notNamespaces: [demo]"),
    ],
)
def test_the_grid_finds_what_narrows_callers(before: str, after: str) -> None:
    old, new = (world(rules(f"[{{from: [{{source: {{{text}}}}}]}}]")) for text in (before, after))
    assert on_grid(old, new).changes


def test_headers_and_claims_that_rules_name_are_on_the_grid() -> None:
    role = '[{{when: [{{key: "request.headers[x-role]", values: [{}]}}]}}]'
    found = on_grid(world(rules(role.format("admin"))), world(rules(role.format("boss"))))
    assert {(change.kind, change.point.headers) for change in found.changes} == {
        (Kind.LOSES, (("x-role", "admin"),)),
        (Kind.GAINS, (("x-role", "boss"),)),
    }
    group = '[{{when: [{{key: "request.auth.claims[group]", values: [{}]}}]}}]'
    found = on_grid(world(TOKENS, rules(group.format("a"))), world(TOKENS, rules(group.format("b"))))
    assert {change.kind for change in found.changes} == {Kind.GAINS, Kind.LOSES}
    assert all(change.point.claims for change in found.changes)


def test_connections_that_are_not_http_are_on_the_grid() -> None:
    old, new = world(rules("[{}]"), tcp_ports=(5432,)), world(rules("[{}]", action="DENY"), tcp_ports=(5432,))
    assert any(change.point.opaque and change.point.port == 5432 for change in on_grid(old, new).changes)


def test_a_grid_is_cut_and_says_so_and_keeps_something_of_every_rule() -> None:
    many = [
        rules(f'[{{to: [{{operation: {{paths: ["/p{n}"], methods: [GET, PUT]}}}}]}}]', name=f"p{n}") for n in range(40)
    ]
    asked = world(*many)
    known = [rule.rule for rule in asked.snapshot.rules]
    grid = make_grid(known, Scene.of(asked), 100)
    assert len(grid.points) == 100
    assert grid.is_cut
    assert grid.combinations > 100
    assert {f"/p{n}" for n in range(40)} <= {point.path for point in grid.points}


def test_a_grid_that_fits_is_whole() -> None:
    asked = world(ORDERS)
    grid = make_grid([rule.rule for rule in asked.snapshot.rules], Scene.of(asked))
    assert not grid.is_cut
    assert len(grid.points) == grid.combinations
    exact = make_grid([rule.rule for rule in asked.snapshot.rules], Scene.of(asked), grid.combinations)
    assert (len(exact.points), exact.is_cut) == (grid.combinations, False)
    short = make_grid([rule.rule for rule in asked.snapshot.rules], Scene.of(asked), grid.combinations - 1)
    assert (len(short.points), short.is_cut) == (grid.combinations - 1, True)


def test_recorded_calls_gain_lose_and_stay() -> None:
    found = on_records(
        world(ORDERS),
        world(POSTS),
        record(),
        record(method="HEAD"),
        record(method="POST", decision="deny"),
        record(method="POST", decision="deny"),
    )
    assert [(change.kind, change.point.method, change.count) for change in found.changes] == [
        (Kind.LOSES, "HEAD", 1),
        (Kind.GAINS, "POST", 2),
    ]
    assert (found.asked, found.allowed, found.denied) == (3, 1, 0)


ROLE = '[{{to: [{{operation: {{paths: ["{}"]}}}}], when: [{{key: "request.headers[x-role]", values: [admin]}}]}}]'


def test_what_a_record_does_not_hold_is_not_guessed() -> None:
    found = on_records(world(rules("[{}]")), world(rules(ROLE.format("*"))), record())
    (change,) = found.changes
    assert (change.kind, change.on) == (Kind.DEPENDS, ("header x-role",))
    assert change.cases == ("loses without it", "stays with x-role: admin")


def test_a_header_that_changes_nothing_for_a_call_is_no_matter() -> None:
    """The rule about the header is about another path."""
    found = on_records(
        world(ORDERS), world(POSTS, rules(ROLE.format("/other"), name="q")), record(), record(method="HEAD")
    )
    assert [(change.kind, change.point.method) for change in found.changes] == [(Kind.LOSES, "HEAD")]


def test_a_token_may_be_what_is_missing() -> None:
    me = rules('[{from: [{source: {requestPrincipals: ["*"]}}]}]')
    (change,) = on_records(world(TOKENS), world(TOKENS, me), record()).changes
    assert (change.kind, change.on) == (Kind.DEPENDS, ("the token",))


def test_another_rule_that_says_the_same_is_counted() -> None:
    found = on_records(world(ORDERS), world(rules("[{}]", name="any")), record())
    assert (found.changes, found.other_rule) == ((), 1)


PLAIN = Plain(noun="call", usual=Point(port=8080, host="orders.demo"), joins=False)


def test_text_groups_by_identity_and_rules_and_joins_methods() -> None:
    old = world(ORDERS)
    new = world(rules(f"[{{from: [{{source: {{principals: ['{WEB}']}}}}], to: [{{operation: {{methods: [PUT]}}}}]}}]"))
    calls = [record(), record(), record(method="HEAD"), record(method="PUT", decision="deny", path="/x")]
    found = on_records(old, new, *calls)
    found = Comparison(
        changes=found.changes, asked=found.asked, allowed=found.allowed, denied=found.denied, other_rule=0
    )
    assert list(text_of(found, PLAIN)) == [
        "gains access: 1 call",
        f"  {WEB}",
        "    denied (denied_by_policy) -> allowed by ns[demo]-policy[p]-rule[0]",
        "      PUT /x port 8080",
        "",
        "loses access: 2 calls",
        f"  {WEB}",
        "    allowed by ns[demo]-policy[orders]-rule[0] -> denied (denied_by_policy)",
        "      GET, HEAD /orders/7 port 8080 (3 times)",
        "",
        "3 calls: 1 gained, 2 lost, 0 as before (0 allowed, 0 denied)",
    ]


def test_text_of_a_grid_shows_the_plainest_calls_and_counts_the_rest() -> None:
    old, new = world(rules("[{}]")), world(rules(ROLE.format("/a")))
    scene = Scene.of(old, new)
    known = [rule.rule for asked in (old, new) for rule in asked.snapshot.rules]
    usual = dropping_details(known)(scene.plain)
    lines = list(text_of(on_grid(old, new), Plain(noun="call", usual=usual, joins=True)))
    stranger = lines[lines.index("  cluster.local/ns/elsewhere/sa/stranger") :][:5]
    assert stranger[1] == "    allowed by ns[demo]-policy[p]-rule[0] -> denied (denied_by_policy)"
    assert "      GET /a port 8080" in stranger
    assert any("like these but for port, host, address, headers or token" in line for line in lines)
    assert not any("GET /elsewhere port 8080 x-role" in line for line in lines)


def test_text_is_bounded() -> None:
    old, new = world(rules("[{}]")), world()
    found = on_records(old, new, *(record(path=f"/{n}") for n in range(50)))
    lines = list(text_of(found, PLAIN))
    assert "      and 30 more lines; --output json has them all" in lines
    assert len(lines) < 30


def test_json_holds_every_change() -> None:
    found = on_records(world(ORDERS), world(), record(kind="request", authority="h"))
    assert json_of(found.changes) == [
        {
            "change": "loses",
            "count": 1,
            "identity": WEB,
            "protocol": "http",
            "port": 8080,
            "method": "GET",
            "path": "/orders/7",
            "before": {"decision": "allow", "rule": "ns[demo]-policy[orders]-rule[0]"},
            "after": {"decision": "deny", "rule": "none", "reason": "denied_by_default"},
        }
    ]
