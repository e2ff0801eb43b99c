"""Which edit is offered for a denial, what it opens, and where none is."""

from __future__ import annotations

import pytest
from explain_world import NO_ADMIN, NOW, ORDERS, PERMISSIVE, WEB, allow, explained, question, world

from proxy.answers.editing.edit import Edit, unified_diff
from proxy.answers.question import World, ask
from proxy.answers.report import Report
from proxy.policy import load
from proxy.types import Generation

TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: issuer, namespace: demo}
spec:
  jwtRules:
  - issuer: https://issuer.example
    jwks: '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
"""
ALICE = {"iss": "https://issuer.example", "sub": "alice"}


def edit_of(where: World, target: str = "/", **more: object) -> Edit:
    report = explained(where, target, **more)
    assert not report.allowed
    assert report.edit is not None, report.mend
    snapshot = load(
        report.edit.files,
        workload=where.workload,
        settings=where.settings,
        generation=Generation(2),
        tcp_ports=where.tcp_ports,
    )
    after = World(snapshot=snapshot, workload=where.workload, settings=where.settings, tcp_ports=where.tcp_ports)
    assert ask(after, question(target, **more), NOW).allowed
    return report.edit


def added(edit: Edit) -> str:
    return "\n".join(line for line in edit.diff.split("\n") if line.startswith("+") and not line.startswith("+++"))


def none_for(where: World, target: str = "/", **more: object) -> Report:
    report = explained(where, target, **more)
    assert not report.allowed
    assert report.edit is None, report.edit
    return report


# --- ALLOW ---


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"target": "/carts/7"}, '+        paths: ["/orders/*", "/carts/7"]   # reading'),
        ({"target": "/orders/7", "method": "PUT"}, '+        methods: ["GET", "PUT"]'),
        (
            {"target": "/orders/7", "principal": "cluster.local/ns/demo/sa/new"},
            '+        principals: ["cluster.local/ns/demo/sa/web", "cluster.local/ns/demo/sa/new"]',
        ),
    ],
)
def test_one_value_more_in_the_nearest_rule(asked: dict[str, str], line: str) -> None:
    edit = edit_of(world(ORDERS), **asked)
    assert added(edit) == line
    assert edit.summary[0].startswith("add ")
    assert "demo/orders rule 0 (a.yaml:12)" in edit.summary[0]


@pytest.mark.parametrize(
    ("rule", "asked", "value"),
    [
        ('to: [{operation: {ports: ["1"]}}]', {}, "8080"),
        ('to: [{operation: {hosts: ["h"]}}]', {}, "orders"),
        ('to: [{operation: {methods: ["GET"]}}], from: [{source: {namespaces: ["n"]}}]', {}, "demo"),
        ('to: [{operation: {methods: ["GET"]}}], from: [{source: {serviceAccounts: ["n"]}}]', {}, "demo/web"),
        ('to: [{operation: {methods: ["GET"]}}], from: [{source: {trustDomains: ["n"]}}]', {}, "cluster.local"),
        (
            'to: [{operation: {methods: ["GET"]}}], from: [{source: {ipBlocks: ["10.0.0.1"]}}]',
            {"source_ip": "10.0.0.2"},
            "10.0.0.2",
        ),
        (
            'to: [{operation: {methods: ["GET"]}}], from: [{source: {remoteIpBlocks: ["10.0.0.1"]}}]',
            {"source_ip": "::1"},
            "::1",
        ),
        ('when: [{key: destination.ip, values: ["10.0.0.1"]}]', {"destination_ip": "10.0.0.3"}, "10.0.0.3"),
        ('when: [{key: connection.sni, values: ["a"]}]', {"sni": "b"}, "b"),
        ('when: [{key: "request.headers[x-a]", values: ["a"]}]', {"headers": (("x-a", "b c"),)}, "b c"),
        ('when: [{key: "request.headers[:method]", values: ["PUT"]}]', {}, "GET"),
    ],
)
def test_a_value_of_every_attribute(rule: str, asked: dict[str, object], value: str) -> None:
    edit = edit_of(world(allow("p", f"[{{{rule}}}]")), **asked)  # type: ignore[arg-type]
    assert f'add "{value}" to ' in edit.summary[0]


@pytest.mark.parametrize(
    ("key", "claims", "value"),
    [
        ("request.auth.principal", {}, "https://issuer.example/alice"),
        ("request.auth.audiences", {"aud": ["x", "y"]}, "x"),
        ("request.auth.presenter", {"azp": "app"}, "app"),
        ("request.auth.claims[a][b]", {"a": {"b": ["x"]}}, "x"),
    ],
)
def test_a_value_of_a_token(key: str, claims: dict[str, object], value: str) -> None:
    rule = f'[{{to: [{{operation: {{methods: ["GET"]}}}}], when: [{{key: "{key}", values: ["https://x/y"]}}]}}]'
    edit = edit_of(world(TOKENS, allow("p", rule)), claims={**ALICE, **claims})
    assert f'add "{value}" to ' in edit.summary[0]


def test_a_condition_among_others_is_the_one_that_changes() -> None:
    conditions = (
        '{key: "request.headers[x-a]", values: ["a"], notValues: ["b"]},'
        ' {key: "request.headers[x-a]", notValues: ["c"]},'
        ' {key: "request.headers[x-b]", values: ["d"]}'
    )
    where = world(allow("p", f"[{{when: [{conditions}]}}]"))
    edit = edit_of(where, headers=(("x-a", "a"), ("x-b", "new")))
    assert '{key: "request.headers[x-b]", values: ["d", "new"]}' in added(edit)


def test_two_values_missing_are_a_rule_of_its_own() -> None:
    edit = edit_of(world(ORDERS), "/carts/7", method="DELETE")
    assert edit.summary == ("add a rule to demo/orders (a.yaml:2)",)
    assert edit.opens == (f'DELETE "/carts/7" from {WEB}, and nothing else',)
    assert added(edit).split("\n") == [
        "+  - from:",
        "+    - source:",
        f'+        principals: ["{WEB}"]',
        "+    to:",
        "+    - operation:",
        '+        methods: ["DELETE"]',
        '+        paths: ["/carts/7"]',
    ]


def test_a_rule_that_says_nothing_of_what_may_be_done_gets_no_further_caller() -> None:
    where = world(allow("billing", '[{from: [{source: {principals: ["cluster.local/ns/demo/sa/billing"]}}]}]'))
    assert edit_of(where).summary[0].startswith("add a rule to demo/billing")


@pytest.mark.parametrize("spec", ["{}", "{rules: []}", "\n  action: ALLOW"])
def test_a_policy_without_rules_gets_its_first(spec: str) -> None:
    text = f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: nothing}}\nspec: {spec}\n"
    edit = edit_of(world(text))
    assert edit.summary == ("add a rule to demo/nothing (a.yaml:1)",)
    assert edit.opens[0].endswith("and nothing else, at every workload of demo")


def test_a_rule_names_the_token_of_the_call() -> None:
    edit = edit_of(world(TOKENS, ORDERS), "/carts", method="PUT", claims=ALICE)
    assert 'requestPrincipals: ["https://issuer.example/alice"]' in added(edit)


def test_the_mesh_is_not_opened_for_one_workload() -> None:
    where = world(allow("all", '[{to: [{operation: {methods: ["GET"], paths: ["/a"]}}]}]', namespace="istio-system"))
    edit = edit_of(where, "/b", method="PUT")
    assert edit.summary == ("add a policy that allows it (allow-web.yaml)",)


def test_what_a_value_opens_at_other_workloads_is_said() -> None:
    rule = '[{to: [{operation: {methods: ["GET"]}}]}]'
    said = [
        edit_of(world(allow("p", rule, namespace="istio-system")), method="PUT").opens[0],
        edit_of(
            world(allow("p", rule, namespace="istio-system", more="selector: {matchLabels: {app: orders}}, ")),
            method="PUT",
        ).opens[0],
        edit_of(world(allow("p", rule)), method="PUT").opens[0],
        edit_of(world(allow("p", rule, more="selector: {matchLabels: {app: orders}}, ")), method="PUT").opens[0],
    ]
    who = 'all whom the rule allows may then use method "PUT"'
    assert said == [
        f"{who}, at the workloads of the whole mesh",
        f"{who}, in every namespace of the mesh",
        f"{who}, at every workload of demo",
        who,
    ]


def test_a_connection_is_allowed_by_its_port() -> None:
    edit = edit_of(world(ORDERS), opaque=True, port=5432)
    assert 'ports: ["5432"]' in added(edit)
    assert edit.opens == (f"connections of {WEB} to port 5432, whatever they carry, and nothing else",)


# --- a policy of its own ---


def test_a_new_file_where_no_policy_selects_the_workload() -> None:
    edit = edit_of(
        world(
            files={"policy/other.yaml": allow("allow-web", "[{}]", more="selector: {matchLabels: {app: x}}, ").encode()}
        )
    )
    assert edit.diff == (
        "--- /dev/null\n"
        "+++ b/policy/allow-web-2.yaml\n"
        "@@ -0,0 +1,17 @@\n"
        "+apiVersion: security.istio.io/v1\n"
        "+kind: AuthorizationPolicy\n"
        "+metadata:\n"
        "+  name: allow-web-2\n"
        "+  namespace: demo\n"
        "+spec:\n"
        "+  selector:\n"
        "+    matchLabels:\n"
        "+      app: orders\n"
        "+  rules:\n"
        "+  - from:\n"
        "+    - source:\n"
        f'+        principals: ["{WEB}"]\n'
        "+    to:\n"
        "+    - operation:\n"
        '+        methods: ["GET"]\n'
        '+        paths: ["/"]\n'
    )


def test_a_new_policy_selects_by_the_labels_there_are() -> None:
    named = edit_of(world(labels={"app.kubernetes.io/name": "orders", "pod-template-hash": "x"}))
    assert added(named).count("orders") == 1
    assert "pod-template-hash" not in named.diff
    assert "tier: api" in added(edit_of(world(labels={"tier": "api"})))
    bare = edit_of(world(labels={}))
    assert "selector" not in bare.diff
    assert "it has no label to select it by" in bare.opens[0]


def test_an_identity_whose_name_is_no_file_name() -> None:
    edit = edit_of(world(), principal="cluster.local/spire/agent")
    assert edit.diff.startswith("--- /dev/null\n+++ b/allow-caller.yaml\n")


# --- DENY ---


def deny(rule: str) -> World:
    return world(allow("denial", f"[{{{rule}}}]", action="DENY"), allow("all", "[{}]"))


@pytest.mark.parametrize(
    ("rule", "piece"),
    [
        ('to: [{operation: {paths: ["/"]}}]', f"notPrincipals: [{WEB}]"),
        ('from: [{source: {namespaces: ["demo"]}}]', f"notPrincipals: [{WEB}]"),
        ('from: [{source: {notPrincipals: ["a"]}}]', f'notPrincipals: ["a", "{WEB}"]'),
        (f'from: [{{source: {{principals: ["a", "{WEB}"]}}}}]', 'principals: ["a"]'),
        ('from: [{source: {serviceAccounts: ["web", "a"]}}]', 'serviceAccounts: ["a"]'),
        ('from: [{source: {notServiceAccounts: ["a"]}}]', 'notServiceAccounts: ["a", "demo/web"]'),
        (f'from: [{{source: {{principals: ["{WEB}"]}}}}]', "notPaths: [/]"),
        (f'from: [{{source: {{principals: ["{WEB}"]}}}}], to: [{{operation: {{methods: [GET]}}}}]', "notPaths: [/]"),
        (f'from: [{{source: {{principals: ["{WEB}"]}}}}], to: [{{operation: {{paths: [/, /a]}}}}]', "paths: [/a]"),
    ],
)
def test_the_narrowest_exemption(rule: str, piece: str) -> None:
    edit = edit_of(deny(rule))
    assert piece in added(edit)
    assert edit.summary[0].startswith("exempt ")
    assert edit.opens[0].endswith("; what ALLOW policies say holds as before")


def test_every_source_that_matches_is_exempted() -> None:
    edit = edit_of(deny('from: [{source: {namespaces: ["demo"]}}, {source: {namespaces: ["d*"]}}]'))
    assert edit.summary == (f'exempt "{WEB}" from demo/denial rule 0 (a.yaml:4)',) * 2
    assert edit.diff.count("notPrincipals") == 2


def test_a_denial_and_a_missing_permission_are_one_edit() -> None:
    edit = edit_of(world(ORDERS, NO_ADMIN), "/admin")
    assert [said.partition(" ")[0] for said in edit.summary] == ["exempt", "add"]
    assert edit.diff.count("--- a/") == 2


def test_a_rule_that_looks_at_http_leaves_out_the_port_that_has_none() -> None:
    assert 'notPorts: ["5432"]' in added(edit_of(deny('to: [{operation: {paths: ["/a"]}}]'), opaque=True, port=5432))
    by_header = 'when: [{key: "request.headers[x-a]", values: ["a"]}]'
    assert "notPorts: [" in added(edit_of(deny(by_header), opaque=True, port=5432))
    edit = edit_of(deny('to: [{operation: {ports: ["1"], paths: ["/a"]}}, {operation: {paths: ["/b"]}}]'), opaque=True)
    assert "+++ b/a.yaml" in edit.diff


def test_a_rule_that_denies_exactly_this_is_left_to_its_author() -> None:
    rule = f'from: [{{source: {{principals: ["{WEB}"]}}}}], to: [{{operation: {{paths: ["/"]}}}}]'
    assert "a DENY rule is meant to deny" in none_for(deny(rule)).mend


# --- where only the caller can mend it ---


def test_no_edit_opens_to_callers_without_identity() -> None:
    assert "let the caller speak mutual TLS" in none_for(world(ORDERS), principal="").mend
    assert "the caller has no identity" in none_for(world(PERMISSIVE, ORDERS), "/orders/7", principal="").mend
    assert "the caller has no identity" in none_for(world(PERMISSIVE), principal="").mend
    only_mtls = allow("mtls", '[{from: [{source: {notPrincipals: ["*"]}}]}]', action="DENY")
    assert (
        "the caller has no identity" in none_for(world(PERMISSIVE, only_mtls, allow("all", "[{}]")), principal="").mend
    )
    strict = world(PERMISSIVE, default="allow-authenticated")
    assert "verified identities only" in none_for(strict, principal="").mend or none_for(strict, principal="").mend


def test_no_edit_lets_a_call_past_a_rule_that_asks_for_a_token() -> None:
    wants = allow("wants", '[{from: [{source: {requestPrincipals: ["*"]}}], to: [{operation: {methods: ["GET"]}}]}]')
    assert "send one that it takes" in none_for(world(TOKENS, wants)).mend
    must = allow("must", '[{from: [{source: {notRequestPrincipals: ["*"]}}]}]', action="DENY")
    assert none_for(world(TOKENS, must, allow("all", "[{}]"))).mend == "the rule asks for a token: send one"


def test_no_edit_for_what_never_reaches_policy() -> None:
    assert "no policy can let this one through" in none_for(world(ORDERS), "/a b").mend
    assert "send a token that" in none_for(world(TOKENS, ORDERS), token="a.b.c").mend


def test_no_edit_by_a_value_that_would_mean_more() -> None:
    assert "a star at the end of a path" in none_for(world(ORDERS), "/carts*").mend
    assert none_for(deny(f'from: [{{source: {{principals: ["{WEB}"]}}}}]'), "/a*").edit is None


def test_no_secret_is_written_into_a_policy() -> None:
    rule = '[{when: [{key: "request.headers[authorization]", values: ["Bearer other"]}]}]'
    report = explained(world(allow("p", rule)), headers=(("authorization", "Bearer hidden"),))
    assert report.edit is not None
    assert report.edit.summary[0].startswith("add a rule")
    assert "hidden" not in repr(report)


def test_no_edit_without_files() -> None:
    where = world(ORDERS)
    bare = World(snapshot=where.snapshot, workload=where.workload, settings=where.settings)
    report = none_for(bare, "/carts")
    assert report.nearest_miss is not None
    assert report.unselecting == ()


# --- diffs ---


def test_names_and_ends_of_a_diff() -> None:
    before, after = {"/etc/my policy.yaml": b"a\nb", "same": b"x"}, {"/etc/my policy.yaml": b"a\nb\nc", "same": b"x"}
    assert unified_diff(before, after) == (
        "--- a/etc/my policy.yaml\t\n"
        "+++ b/etc/my policy.yaml\t\n"
        "@@ -1,2 +1,3 @@\n"
        " a\n"
        "-b\n"
        "\\ No newline at end of file\n"
        "+b\n"
        "+c\n"
        "\\ No newline at end of file\n"
    )
    assert unified_diff({}, {".././x/f": b"a\n"}) == "--- /dev/null\n+++ b/x/f\n@@ -0,0 +1 @@\n+a\n"
    assert unified_diff({"f": b"a\x0cb\r\n"}, {"f": b"a\x0cb\r\nc\r\n"}) == (
        "--- a/f\n+++ b/f\n@@ -1 +1,2 @@\n a\x0cb\r\n+c\r\n"
    )
