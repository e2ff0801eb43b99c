"""Opaque connections: no HTTP to look at, and no condition that is lost in silence."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import WEB, connection, faults, judge, policy, snapshot

from proxy.errors import Reason
from proxy.types import Denial, Permit

OTHER = "cluster.local/ns/demo/sa/other"
GET = {"operation": {"methods": ["GET"]}}
ROLE = {"when": [{"key": "request.headers[x-role]", "values": ["admin"]}]}


def from_web(*operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    rule: dict[str, Any] = {"from": [{"source": {"principals": [WEB]}}], **more}
    return rule | ({"to": list(operations)} if operations else {})


def port(*ports: str, **fields: Any) -> dict[str, Any]:
    return {"operation": {"ports": list(ports), **fields}}


def source(**fields: Any) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


EITHER = {"from": [{"source": {"namespaces": ["demo"]}}, {"source": {"requestPrincipals": ["*"]}}]}


class TestAllow:
    @pytest.mark.parametrize(
        ("rule", "number", "allowed"),
        [
            (from_web(), 3306, True),
            (from_web(port("3306")), 3306, True),
            (from_web(port("3307")), 3306, False),
            (from_web(GET), 3306, False),
            (from_web(port("3306"), GET), 3306, False),  # one item with HTTP takes the whole rule out
            (from_web(port("3306", paths=["/a"])), 3306, False),
            (from_web({"operation": {"notHosts": ["a"]}}), 3306, False),
            (from_web(**ROLE), 3306, False),
            ({"when": [{"key": "source.ip", "values": ["10.0.0.0/8"]}]}, 3306, True),
            ({"from": [{"source": {"principals": ["*/sa/web"]}}]}, 3306, True),
            (source(requestPrincipals=["*"]), 3306, False),
            (source(notRequestPrincipals=["*"]), 3306, False),
            ({"from": [{"source": {"namespaces": ["demo"]}}, {"source": {"requestPrincipals": ["*"]}}]}, 3306, False),
            ({"when": [{"key": "request.auth.claims[a]", "notValues": ["b"]}]}, 3306, False),
            ({"when": [{"key": "request.auth.audiences", "notValues": ["b"]}]}, 3306, False),
            ({"when": [{"key": "request.auth.presenter", "notValues": ["b"]}]}, 3306, False),
            (source(trustDomains=["cluster.local"]), 3306, True),
            (source(remoteIpBlocks=["10.0.0.0/8"]), 3306, True),
            ({"when": [{"key": "destination.ip", "values": ["10.0.0.8"]}]}, 3306, True),
            ({"when": [{"key": "connection.sni", "notValues": ["*"]}]}, 3306, True),
        ],
    )
    def test_a_rule_that_looks_at_http_allows_no_opaque_connection(
        self, rule: dict[str, Any], number: int, allowed: bool
    ) -> None:
        decision = snapshot(policy([rule]), default="allow-all").connection(connection(port=number))
        assert isinstance(decision, Permit) is allowed

    def test_the_denial_says_that_http_was_missing(self) -> None:
        decision = snapshot(policy([from_web(port("3306"), GET)])).connection(connection(port=3306))
        assert isinstance(decision, Denial)
        assert "looks at HTTP (`methods`)" in decision.nearest_miss

    def test_a_clause_about_http_is_named_as_one_that_has_nothing_to_see(self) -> None:
        decision = snapshot(policy([from_web(GET)])).connection(connection())
        assert isinstance(decision, Denial)
        assert '`methods`: saw no HTTP on this connection, wanted "GET"' in decision.nearest_miss


class TestDeny:
    @pytest.mark.parametrize(
        ("rule", "call", "reason"),
        [
            (from_web(), {}, Reason.DENIED_BY_POLICY),
            (from_web(), {"principal": OTHER}, None),
            (from_web(port("3306")), {"port": 3306}, Reason.DENIED_BY_POLICY),
            (from_web(GET), {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (from_web(GET), {"principal": OTHER}, None),  # whatever the bytes say, the rule speaks of somebody else
            (from_web(port("3306", methods=["GET"])), {"port": 3306}, Reason.DENIED_PROTOCOL_OPAQUE),
            (from_web(port("3306", methods=["GET"])), {"port": 3307}, None),
            (from_web(port("3306"), GET), {"port": 3306}, Reason.DENIED_BY_POLICY),
            (from_web(port("3306"), GET), {"port": 3307}, Reason.DENIED_PROTOCOL_OPAQUE),
            (from_web(**ROLE), {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (from_web(port("3306"), **ROLE), {"port": 3307}, None),
            ({"to": [GET]}, {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (source(notRequestPrincipals=["*"]), {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (source(namespaces=["demo"], requestPrincipals=["*"]), {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (source(namespaces=["ops"], requestPrincipals=["*"]), {}, None),
            (EITHER, {}, Reason.DENIED_BY_POLICY),
            (EITHER, {"principal": "cluster.local/ns/ops/sa/x"}, Reason.DENIED_PROTOCOL_OPAQUE),
            (EITHER | {"to": [GET]}, {}, Reason.DENIED_PROTOCOL_OPAQUE),
            (EITHER | {"to": [port("3306"), GET]}, {"port": 3306}, Reason.DENIED_BY_POLICY),
            (EITHER | {"to": [port("3306"), GET]}, {"port": 3307}, Reason.DENIED_PROTOCOL_OPAQUE),
            ({"when": [{"key": "request.auth.claims[a]", "values": ["b"]}]}, {}, Reason.DENIED_PROTOCOL_OPAQUE),
            ({"from": [{"source": {"principals": ["*/sa/web"]}}]}, {}, Reason.DENIED_BY_POLICY),  # CVE-2020-16844
            ({"from": [{"source": {"principals": ["cluster.local/*"]}}]}, {}, Reason.DENIED_BY_POLICY),
        ],
    )
    def test_what_cannot_be_judged_is_denied_by_name(
        self, rule: dict[str, Any], call: dict[str, Any], reason: Reason | None
    ) -> None:
        decision = snapshot(policy([rule], "DENY"), default="allow-all").connection(connection(**call))
        if reason is None:
            assert isinstance(decision, Permit)
        else:
            assert isinstance(decision, Denial)
            assert (decision.reason, decision.rule) == (reason, "ns[demo]-policy[p]-rule[0]")

    def test_the_sentence_names_rule_and_field(self) -> None:
        decision = snapshot(policy([from_web(GET)], "DENY"), default="allow-all").connection(connection())
        assert isinstance(decision, Denial)
        assert decision.explanation.startswith("ns[demo]-policy[p]-rule[0] (000.json:1) denies some HTTP by `methods`")

    def test_the_same_rule_is_judged_whole_on_http(self) -> None:
        compiled = snapshot(policy([from_web(GET)], "DENY"), default="allow-all")
        assert isinstance(judge(compiled, method="POST"), Permit)
        assert isinstance(judge(compiled, method="GET"), Denial)

    def test_an_audit_rule_that_cannot_be_judged_is_noted(self) -> None:
        decision = snapshot(policy([from_web(GET)], "AUDIT"), default="allow-all").connection(connection())
        assert isinstance(decision, Permit)
        assert decision.audited == ("ns[demo]-policy[p]-rule[0]",)


class TestKnownTcpPorts:
    @pytest.mark.parametrize("action", ["DENY", "AUDIT"])
    @pytest.mark.parametrize(
        "rule",
        [
            {"to": [GET]},
            from_web(GET),
            from_web(port("3306"), GET),
            from_web(port("3306", paths=["/a"])),
            from_web(port("3306"), **ROLE),
            {"to": [{"operation": {"notPaths": ["/a"], "notPorts": ["8080"]}}]},
        ],
    )
    def test_a_rule_that_would_lose_a_condition_is_a_fault(self, action: str, rule: dict[str, Any]) -> None:
        (fault,) = faults(policy([rule], action), tcp_ports=(3306,))
        assert f"this {action} rule looks at HTTP" in fault
        assert 'write `notPorts: ["3306"]`' in fault

    @pytest.mark.parametrize(
        "rule",
        [
            from_web(),
            from_web(port("8080", methods=["GET"])),
            from_web({"operation": {"methods": ["GET"], "notPorts": ["3306"]}}),
            from_web(port("3306"), port("8080", methods=["GET"])),
            from_web(GET, when=[{"key": "destination.port", "values": ["8080"]}]),
        ],
    )
    def test_a_rule_that_names_its_http_ports_loads(self, rule: dict[str, Any]) -> None:
        assert faults(policy([rule], "DENY"), tcp_ports=(3306,)) == []

    def test_a_policy_of_other_workloads_is_not_held_against_this_one(self) -> None:
        assert faults(policy([{"to": [GET]}], "DENY", selector={"app": "web"}), tcp_ports=(3306,)) == []

    def test_an_allow_rule_only_loses_itself(self) -> None:
        compiled = snapshot(policy([from_web(GET)]), tcp_ports=(3306,))
        assert isinstance(compiled.connection(connection(port=3306)), Denial)
