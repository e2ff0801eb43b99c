"""The boolean form of a policy, the order of evaluation and the defaults."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, allows, connection, document, faults, judge, policy, snapshot

from proxy.errors import Reason
from proxy.types import Denial, Generation, Permit

FROM_WEB = {"from": [{"source": {"principals": [WEB]}}]}
TO_A = {"to": [{"operation": {"paths": ["/a"]}}]}
ANYTHING: dict[str, Any] = {}


class TestShape:
    def test_an_allow_policy_without_rules_allows_nothing(self) -> None:
        assert not allows(snapshot(document("AuthorizationPolicy", {}), default="allow-all"))

    def test_an_allow_policy_with_an_empty_rule_allows_everything(self) -> None:
        assert allows(snapshot(policy([ANYTHING])))

    def test_allow_policies_add_up(self) -> None:
        assert allows(snapshot(policy(None, name="nothing"), policy([ANYTHING], name="everything")))

    def test_a_deny_policy_with_an_empty_rule_denies_everything(self) -> None:
        both = snapshot(policy([ANYTHING]), policy([ANYTHING], "DENY", name="d"))
        decision = judge(both)
        assert isinstance(decision, Denial)
        assert decision.rule == "ns[demo]-policy[d]-rule[0]"
        assert "the rule has no condition and denies everything" in decision.explanation

    @pytest.mark.parametrize("rules", [None, []])
    def test_a_deny_policy_without_rules_is_a_fault(self, rules: Any) -> None:
        assert any("a DENY policy without rules never denies" in fault for fault in faults(policy(rules, "DENY")))

    def test_an_audit_policy_without_rules_loads_and_matches_nothing(self) -> None:
        decision = judge(snapshot(policy([ANYTHING]), policy(None, "AUDIT", name="w")))
        assert isinstance(decision, Permit)
        assert decision.audited == ()

    def test_rules_are_alternatives(self) -> None:
        compiled = snapshot(policy([TO_A, {"to": [{"operation": {"paths": ["/b"]}}]}]))
        assert [allows(compiled, path=path) for path in ("/a", "/b", "/c")] == [True, True, False]

    def test_from_to_and_when_must_all_hold(self) -> None:
        when = {"when": [{"key": "request.headers[x]", "values": ["1"]}, {"key": "destination.port", "values": ["80"]}]}
        compiled = snapshot(policy([FROM_WEB | TO_A | when]))
        good: dict[str, Any] = {"path": "/a", "headers": [(b"x", b"1")], "port": 80}
        assert allows(compiled, **good)
        changes: list[dict[str, Any]] = [
            {"path": "/b"},
            {"headers": []},
            {"port": 81},
            {"principal": "cluster.local/ns/demo/sa/x"},
        ]
        for change in changes:
            assert not allows(compiled, **(good | change))

    def test_two_items_are_alternatives_and_two_fields_of_one_item_are_not(self) -> None:
        joined = snapshot(policy([{"from": [{"source": {"namespaces": ["demo"], "ipBlocks": ["10.0.0.7"]}}]}]))
        stray_dash = snapshot(
            policy([{"from": [{"source": {"namespaces": ["demo"]}}, {"source": {"ipBlocks": ["10.0.0.7"]}}]}])
        )
        assert not allows(joined, ip="10.9.9.9")
        assert allows(stray_dash, ip="10.9.9.9")

    def test_values_and_not_values_of_one_field_must_both_hold(self) -> None:
        compiled = snapshot(policy([{"to": [{"operation": {"paths": ["/a/*"], "notPaths": ["/a/secret*"]}}]}]))
        assert [allows(compiled, path=path) for path in ("/a/b", "/a/secrets", "/b")] == [True, False, False]

    def test_an_empty_list_beside_a_full_one_restricts_nothing_and_is_pointed_out(self) -> None:
        compiled = snapshot(policy([{"from": [{"source": {"principals": [], "namespaces": ["demo"]}}]}]))
        assert allows(compiled)
        assert "is an empty list and restricts nothing" in str(compiled.warnings[0])


class TestOrder:
    def test_deny_comes_before_allow(self) -> None:
        compiled = snapshot(policy([ANYTHING], name="a"), policy([TO_A], "DENY", name="z"))
        assert not allows(compiled, path="/a")
        assert allows(compiled, path="/b")

    def test_audit_is_noted_and_changes_nothing(self) -> None:
        audit = policy([TO_A], "AUDIT", name="w")
        allowed = judge(snapshot(policy([ANYTHING]), audit), path="/a")
        denied = judge(snapshot(audit), path="/a")
        assert isinstance(allowed, Permit)
        assert isinstance(denied, Denial)
        assert allowed.audited == denied.audited == ("ns[demo]-policy[w]-rule[0]",)

    def test_the_named_rule_is_the_first_by_name_and_number(self) -> None:
        rules = [{"to": [{"operation": {"paths": [f"/{n}", "/x"]}}]} for n in range(12)]
        compiled = snapshot(policy(rules, "DENY", name="b"), policy(rules, "DENY", name="a", namespace="istio-system"))
        assert judge(compiled, path="/x").rule == "ns[demo]-policy[b]-rule[0]"
        assert judge(compiled, path="/10").rule == "ns[demo]-policy[b]-rule[10]"

    def test_a_permit_names_rule_peer_and_generation(self) -> None:
        permit = judge(snapshot(policy([ANYTHING])))
        assert isinstance(permit, Permit)
        assert (permit.rule, permit.generation) == ("ns[demo]-policy[p]-rule[0]", Generation(7))
        assert permit.peer is not None
        assert permit.peer.principal == WEB


class TestDefault:
    """What holds when no ALLOW policy selects the workload."""

    @pytest.mark.parametrize(
        ("default", "principal", "rule"),
        [
            ("deny", WEB, None),
            ("allow-authenticated", WEB, "default[allow-authenticated]"),
            ("allow-all", WEB, "default[allow-all]"),
            ("allow-all", None, "default[allow-all]"),
            ("audit", WEB, "default[audit]"),
        ],
    )
    def test_the_default_decides(self, default: str, principal: str | None, rule: str | None) -> None:
        decision = judge(snapshot(default=default), principal=principal)
        if rule is None:
            assert isinstance(decision, Denial)
            assert (decision.reason, decision.rule) == (Reason.DENIED_BY_DEFAULT, "none")
            assert "policy.default is deny" in decision.explanation
        else:
            assert isinstance(decision, Permit)
            assert decision.rule == rule

    def test_audit_says_what_deny_would_have_done(self) -> None:
        decision = judge(snapshot(default="audit"))
        assert isinstance(decision, Permit)
        assert decision.audited == ("default[deny]",)

    @pytest.mark.parametrize("default", ["deny", "allow-authenticated", "allow-all", "audit"])
    def test_an_allow_policy_takes_the_place_of_every_default(self, default: str) -> None:
        decision = judge(snapshot(policy([TO_A]), default=default), path="/b")
        assert isinstance(decision, Denial)
        assert (decision.reason, decision.rule) == (Reason.DENIED_BY_POLICY, "none")
        assert decision.details == "rbac_access_denied_matched_policy[none]"

    @pytest.mark.parametrize("default", ["allow-authenticated", "allow-all", "audit"])
    def test_deny_rules_hold_under_every_default(self, default: str) -> None:
        assert not allows(snapshot(policy([TO_A], "DENY"), default=default), path="/a")

    def test_the_same_default_holds_for_opaque_connections(self) -> None:
        assert isinstance(snapshot().connection(connection()), Denial)
        assert isinstance(snapshot(default="allow-authenticated").connection(connection()), Permit)


class TestDryRun:
    @pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
    def test_a_dry_run_policy_notes_and_does_not_decide(self, word: str) -> None:
        decision = judge(snapshot(policy([ANYTHING]), policy([ANYTHING], "DENY", name="d", dry_run=word)))
        assert isinstance(decision, Permit)
        assert decision.audited == ("dry-run-denied[ns[demo]-policy[d]-rule[0]]",)

    @pytest.mark.parametrize("word", ["0", "f", "F", "FALSE", "false", "False"])
    def test_a_false_dry_run_is_enforced(self, word: str) -> None:
        assert not allows(snapshot(policy([ANYTHING]), policy([ANYTHING], "DENY", name="d", dry_run=word)))

    @pytest.mark.parametrize("word", ["yes", "TRue", "", "2"])
    def test_any_other_word_is_a_fault(self, word: str) -> None:
        assert any("istio.io/dry-run" in fault for fault in faults(policy([ANYTHING], dry_run=word)))

    def test_a_dry_run_allow_policy_does_not_turn_the_default_off(self) -> None:
        compiled = snapshot(policy([TO_A], dry_run="true"), default="allow-all")
        outside, inside = judge(compiled, path="/b"), judge(compiled, path="/a")
        assert isinstance(outside, Permit)
        assert isinstance(inside, Permit)
        assert (outside.audited, inside.audited) == (("dry-run-denied[none]",), ())

    def test_a_dry_run_allow_policy_without_rules_would_deny_everything(self) -> None:
        decision = judge(snapshot(policy(None, dry_run="true"), default="allow-all"))
        assert isinstance(decision, Permit)
        assert decision.audited == ("dry-run-denied[none]",)


class TestScope:
    @pytest.mark.parametrize(
        ("namespace", "selector", "selects"),
        [
            ("demo", None, True),
            ("demo", {"app": "orders"}, True),
            ("demo", {"app": "orders", "version": "v1"}, True),
            ("demo", {"app": "orders", "version": "v2"}, False),
            ("demo", {"app": "web"}, False),
            ("demo", {"tier": "a"}, False),
            ("istio-system", None, True),
            ("istio-system", {"app": "orders"}, True),
            ("istio-system", {"app": "web"}, False),
            ("other", None, False),
            ("other", {"app": "orders"}, False),
        ],
    )
    def test_which_workloads_a_policy_speaks_to(
        self, namespace: str, selector: dict[str, str] | None, selects: bool
    ) -> None:
        compiled = snapshot(policy([ANYTHING], "DENY", namespace=namespace, selector=selector), default="allow-all")
        assert allows(compiled) is not selects

    def test_root_and_namespace_policies_add_up(self) -> None:
        mesh = policy([TO_A], "DENY", namespace="istio-system", name="mesh")
        compiled = snapshot(mesh, policy([ANYTHING]))
        assert not allows(compiled, path="/a")
        assert allows(compiled, path="/b")

    def test_an_empty_selector_takes_all_and_is_pointed_out(self) -> None:
        compiled = snapshot(policy([ANYTHING], selector={}))
        assert allows(compiled)
        assert "an empty selector takes every workload" in str(compiled.warnings[0])

    def test_a_policy_without_namespace_is_of_the_workloads(self) -> None:
        text = b"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {rules: [{}]}"
        assert judge(snapshot(text)).rule == "ns[demo]-policy[p]-rule[0]"

    def test_target_refs_are_for_gateways_and_are_named(self) -> None:
        spec = {"targetRefs": [{"kind": "Gateway", "name": "g"}], "action": "DENY", "rules": [{}]}
        compiled = snapshot(document("AuthorizationPolicy", spec, name="gate"), default="allow-all")
        assert allows(compiled)
        assert '"gate" has targetRefs' in str(compiled.warnings[0])
