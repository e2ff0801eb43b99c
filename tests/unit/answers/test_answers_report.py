"""What an explanation says, in words and for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from explain_world import NO_ADMIN, ORDERS, PERMISSIVE, WEB, allow, explained, world

from proxy.answers.question import Step
from proxy.answers.report import Report
from proxy.answers.told import MAX_SHOWN, as_json, as_text
from proxy.protocol.path import PathNormalization

NEAR_MISS = f"""\
denied: POST "/public/../orders/7?x=1" from {WEB} to port 8080, no ALLOW rule matches
  403 denied_by_policy

path
  sent             /public/../orders/7?x=1
  dot segments go  /orders/7

rules  (of the policies that select the workload)
  ✗ ALLOW demo/orders rule 0 does not match  a.yaml:12
      ✓ principals  "{WEB}"
      ✗ methods     saw "POST", wanted "GET"
      ✓ paths       "/orders/7" matches "/orders/*"
  ✗ ALLOW demo/orders rule 1 does not match  a.yaml:19
      ✗ serviceAccounts  saw "demo/web", wanted "demo/billing"
      1 other item of `from`: no nearer
  ✗ DENY  demo/no-admin rule 0 does not match  b.yaml:7
      ✗ paths  saw "/orders/7", wanted "/admin*"

policies that do not select the workload
  demo/carts: its selector wants app="carts", the workload has "orders"  c.yaml:1

nearest miss
  ns[demo]-policy[orders]-rule[0] (a.yaml:17): `methods`: saw "POST", wanted "GET"

what would allow it
  add "POST" to `methods` of demo/orders rule 0 (a.yaml:12)
    opens: all whom the rule allows may then use method "POST"

--- a/a.yaml
+++ b/a.yaml
@@ -14,7 +14,7 @@
         principals: ["cluster.local/ns/demo/sa/web"]
     to:
     - operation:
-        methods: ["GET"]
+        methods: ["GET", "POST"]
         paths: ["/orders/*"]   # reading
   - from:
     - source: {{serviceAccounts: [billing]}}
"""

DENIED = f"""\
denied: GET "/admin" from {WEB} to port 8080, by demo/no-admin rule 0 (b.yaml:7)
  403 denied_by_policy

rules  (of the policies that select the workload)
  ✓ DENY  demo/no-admin rule 0 matches  b.yaml:7
      ✓ paths  "/admin" matches "/admin*"
  ✗ ALLOW demo/orders rule 0 does not match  a.yaml:12
      ✓ principals  "{WEB}"
      ✓ methods     "GET"
      ✗ paths       saw "/admin", wanted "/orders/*"
  ✗ ALLOW demo/orders rule 1 does not match  a.yaml:19
      ✗ serviceAccounts  saw "demo/web", wanted "demo/billing"
      1 other item of `from`: no nearer

what would allow it
  a DENY rule is meant to deny: ask who wrote it before exempting anybody
"""

WITHOUT_TLS = """\
denied: GET "/orders/7" from a peer without identity to port 8080, the connection is refused before any request is read
  certificate_required: port 8080 takes mutual TLS only (no PeerAuthentication says otherwise) and the peer
    showed no verified certificate

what would allow it
  let the caller speak mutual TLS: give it a sidecar, or a certificate of the mesh
"""

ALLOWED = f"""\
allowed: GET "/orders/7" from {WEB} to port 8080, by demo/orders rule 0 (a.yaml:12)
  audit: ns[demo]-policy[look]-rule[0]

rules  (of the policies that select the workload)
  ✓ ALLOW demo/orders rule 0 matches  a.yaml:12
      ✓ principals  "{WEB}"
      ✓ methods     "GET"
      ✓ paths       "/orders/7" matches "/orders/*"
  ✓ AUDIT demo/look rule 0 matches  b.yaml:4
      the rule has no condition: it matches everything
  ✗ ALLOW demo/orders rule 1 does not match  a.yaml:19
      ✗ serviceAccounts  saw "demo/web", wanted "demo/billing"
      1 other item of `from`: no nearer
"""

CARTS = allow("carts", "[{}]", more="selector: {matchLabels: {app: carts}}, ")


def test_a_near_miss() -> None:
    report = explained(world(ORDERS, NO_ADMIN, CARTS), "/public/../orders/7?x=1", method="POST")
    assert as_text(report) == NEAR_MISS


def test_a_deny_rule_that_matched() -> None:
    report = explained(world(ORDERS, NO_ADMIN), "/admin")
    assert report.edit is not None
    assert as_text(replace(report, edit=None)) == DENIED


def test_a_caller_without_mutual_tls() -> None:
    assert as_text(explained(world(ORDERS), "/orders/7", principal="")) == WITHOUT_TLS


def test_a_permission() -> None:
    assert as_text(explained(world(ORDERS, allow("look", "[{}]", action="AUDIT")), "/orders/7")) == ALLOWED


def test_colour_adds_nothing_but_colour() -> None:
    report = explained(world(ORDERS, NO_ADMIN, CARTS), "/orders/7", method="POST")
    coloured = as_text(report, colour=True)
    assert "\x1b[31m" in coloured
    plain = coloured
    for code in ("0", "1", "2", "31", "32", "36"):
        plain = plain.replace(f"\x1b[{code}m", "")
    assert plain == as_text(report)


def test_what_programs_get() -> None:
    told = as_json(explained(world(ORDERS, NO_ADMIN, CARTS), "/public/../orders/7?x=1", method="POST"))
    assert json.loads(json.dumps(told)) == told
    assert {key: told[key] for key in ("decision", "policy", "rule", "path", "nearest_miss")} == {
        "decision": "deny",
        "policy": None,
        "rule": "none",
        "path": {
            "sent": "/public/../orders/7?x=1",
            "judged": "/orders/7",
            "steps": [{"step": "dot segments go", "path": "/orders/7"}],
        },
        "nearest_miss": {
            "rule": "ns[demo]-policy[orders]-rule[0]",
            "file": "a.yaml",
            "line": 17,
            "clause": "methods",
            "seen": '"POST"',
            "wanted": '"GET"',
            "more": 0,
        },
    }
    assert (told["step"], told["reason"], told["status"]) == ("ALLOW", "denied_by_policy", 403)
    assert told["edit"]["diff"].startswith("--- a/a.yaml\n")
    by_rule = {rule["rule"]: rule for rule in told["rules"]}
    several = by_rule["ns[demo]-policy[orders]-rule[1]"]["failed"]
    assert [(each["item"], each["clause"], each["seen"]) for each in several] == [
        ("from[0]", "serviceAccounts", '"demo/web"'),
        ("from[1]", "namespaces", '"demo"'),
    ]
    assert [each["clause"] for each in by_rule["ns[demo]-policy[orders]-rule[0]"]["held"]] == ["principals", "paths"]
    assert told["other_policies"] == [
        {
            "policy": "demo/carts",
            "kind": "AuthorizationPolicy",
            "file": "c.yaml",
            "line": 1,
            "why": 'its selector wants app="carts", the workload has "orders"',
        }
    ]


def test_what_programs_get_of_a_permission() -> None:
    told = as_json(explained(world(ORDERS), "/orders/7"))
    assert (told["decision"], told["policy"], told["rule"]) == (
        "allow",
        "demo/orders",
        "ns[demo]-policy[orders]-rule[0]",
    )
    assert (told["file"], told["line"], told["nearest_miss"], told["edit"]) == ("a.yaml", 12, None, None)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            explained(world(ORDERS), "/a b"),
            f'GET "/a b" from {WEB} to port 8080, answered 400 (request_line_invalid) before policy',
        ),
        (explained(world(default="audit")), "/ allowed"),
        (
            explained(world(NO_ADMIN), opaque=True),
            f"a connection from {WEB} to port 8080, by demo/no-admin rule 0 (a.yaml:7)",
        ),
        (explained(world()), f'GET "/" from {WEB} to port 8080, no ALLOW policy selects the workload'),
        (
            explained(world(PERMISSIVE, ORDERS), principal=""),
            "from a peer without identity to port 8080, no ALLOW rule matches",
        ),
    ],
)
def test_the_first_line(report: Report, sentence: str) -> None:
    first = as_text(report).split("\n")[0]
    if report.allowed:
        assert first == f'allowed: GET "/" from {WEB} to port 8080, by default[audit]'
        assert report.audited == ("default[deny]",)
    else:
        assert first.startswith("denied: ")
        assert first.endswith(sentence)


def test_rules_that_look_at_http_where_there_is_none() -> None:
    report = explained(
        world(
            ORDERS,
            NO_ADMIN,
            allow(
                "by-ns", '[{from: [{source: {namespaces: ["x"]}}], to: [{operation: {paths: ["/"]}}]}]', action="DENY"
            ),
        ),
        opaque=True,
    )
    by_policy = {(rule.policy, rule.number): rule for rule in report.rules}
    assert "nobody can tell whether it matches" in by_policy["demo/no-admin", 0].note
    assert by_policy["demo/no-admin", 0].matches
    assert not by_policy["demo/by-ns", 0].matches
    assert "the whole of it allows nothing" in by_policy["demo/orders", 0].note
    assert not by_policy["demo/orders", 0].matches


def test_the_nearest_miss_of_a_connection_may_be_a_rule_without_failure() -> None:
    report = explained(world(allow("p", '[{to: [{operation: {hosts: ["*"]}}]}]')), opaque=True)
    assert report.nearest_miss is not None
    assert report.step is Step.ALLOW
    assert "no HTTP on this connection" in as_text(report)


def test_dry_run_rules_are_told_of_and_decide_nothing() -> None:
    dry = allow("dry", "[{}]", action="DENY").replace(
        "namespace: demo}", 'namespace: demo, annotations: {istio.io/dry-run: "true"}}'
    )
    report = explained(world(ORDERS, dry), "/orders/7")
    assert report.allowed
    assert report.audited == ("dry-run-denied[ns[demo]-policy[dry]-rule[0]]",)
    assert "✓ DENY (dry-run) demo/dry rule 0 matches" in as_text(report)


def test_policies_of_other_namespaces_and_with_other_labels() -> None:
    tokens = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: t, namespace: demo}\n"
        "spec: {selector: {matchLabels: {tier: api}}, jwtRules: []}\n"
    )
    report = explained(world(ORDERS, allow("far", "[{}]", namespace="far"), tokens))
    assert [(each.policy, each.kind, each.why) for each in report.unselecting] == [
        ("far/far", "AuthorizationPolicy", 'it is of namespace "far", the workload of "demo"'),
        ("demo/t", "RequestAuthentication", 'its selector wants tier="api", the workload has no such label'),
    ]


def test_a_refused_path_has_no_judged_form() -> None:
    report = explained(world(ORDERS), "/a/%00")
    assert report.path is not None
    assert (report.path.sent, report.path.judged, report.path.steps) == ("/a/%00", "", ())
    assert as_json(report)["path"] == {"sent": "/a/%00", "judged": None, "steps": []}
    assert as_json(explained(world(ORDERS), opaque=True))["path"] is None


def test_every_step_of_a_path_is_shown() -> None:
    where = world(ORDERS, normalization=PathNormalization.DECODE_AND_MERGE_SLASHES)
    text = as_text(explained(where, "/x%2f..%5Corders//%37"))
    for step in ("%2F and %5C are /", "unreserved characters are decoded", "dot segments go", "// is /"):
        assert step in text
    assert "/orders/7\n" in text


def test_long_sets_are_cut_in_words_and_whole_for_programs() -> None:
    rules = ", ".join(f'{{to: [{{operation: {{paths: ["/{i}"]}}}}]}}' for i in range(30))
    others = "---\n".join(allow(f"o{i}", "[{}]", more="selector: {matchLabels: {app: x}}, ") for i in range(12))
    report = explained(world(allow("many", f"[{rules}]"), others), "/orders")
    text = as_text(report)
    assert text.count("does not match") == MAX_SHOWN
    assert "and 22 more that are further away; --output json has them all" in text
    assert "  and 4 more" in text
    assert len(as_json(report)["rules"]) == 30
    assert len(as_json(report)["other_policies"]) == 12


def test_what_a_caller_sent_cannot_write_on_the_terminal() -> None:
    report = explained(
        world(allow("p", '[{when: [{key: "request.headers[x-a]", values: ["a"]}]}]')),
        "/\x1b[2J",
        headers=(("x-a", "\u202e\x9b"),),
        method="\x1b[1m",
    )
    text = as_text(report)
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))


def test_a_long_path_is_cut() -> None:
    text = as_text(explained(world(ORDERS), "/a/../" + "b" * 5_000))
    assert max(map(len, text.split("\n\n")[1].split("\n"))) < 300
