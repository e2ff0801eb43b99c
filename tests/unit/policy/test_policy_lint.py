"""What a sidecar says of a set that it takes: errors and warnings of lint about what concerns this workload."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import document, policy, snapshot

from proxy.policy.lint.catalogue import Severity, severity_of


def codes(*documents: bytes, **options: Any) -> list[str]:
    return [warning.code for warning in snapshot(*documents, **options).warnings]


def paths(*values: str) -> dict[str, Any]:
    return {"to": [{"operation": {"paths": list(values)}}]}


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def test_a_warning_has_its_place_its_mend_and_its_id() -> None:
    (warning,) = snapshot(policy([paths("/public*")])).warnings
    place, _, text = str(warning).partition(": ")
    assert place.startswith("000.json:1:")
    assert text == (
        '`paths`: "/public*" also matches "/publicsecret"; '
        'write "/public" and "/public/*" to stop at the slash [RM0101]'
    )


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (paths("/public", "/public/*", "*.png", "/a/{*}"), "ALLOW"),
        ({"to": [{"operation": {"hosts": ["a.com", "a.com:*", "*.b.com"], "methods": ["GET"]}}]}, "DENY"),
        (source(principals=["cluster.local/ns/a/sa/b", "*/sa/x"]), "DENY"),
        (source(namespaces=["a", "b-*"], notPrincipals=["cluster.local/ns/a/sa/x"]), "ALLOW"),
    ],
)
def test_nothing_is_found_in_what_is_well_written(rule: dict[str, Any], action: str) -> None:
    assert codes(policy([rule], action)) == []


WEB = "cluster.local/ns/a/sa/web"


@pytest.mark.parametrize(
    ("fields", "action", "found"),
    [
        ({"notNamespaces": ["x"]}, "ALLOW", ["RM0205"]),
        ({"notPrincipals": [WEB]}, "DENY", ["RM0205"]),
        ({"principals": [WEB]}, "DENY", ["RM0206"]),
        ({"principals": [WEB]}, "ALLOW", []),
        ({"notPrincipals": ["*"]}, "DENY", []),
    ],
)
def test_identity_rules_that_plain_text_slips_by(fields: dict[str, Any], action: str, found: list[str]) -> None:
    rule = policy([source(**fields)], action)
    assert codes(rule, default="allow-all") == found
    assert codes(rule, default="deny") == []


def peers(mode: str, **ports: str) -> bytes:
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": "orders"}}, "mtls": {"mode": mode}}
    if ports:
        spec["portLevelMtls"] = {port.removeprefix("p"): {"mode": of_port} for port, of_port in ports.items()}
    return document("PeerAuthentication", spec, "modes")


@pytest.mark.parametrize(
    ("modes", "port", "found"),
    [
        (peers("STRICT", p8080="PERMISSIVE"), "8080", ["RM0206"]),
        (peers("STRICT", p8080="PERMISSIVE"), "8081", []),
        (peers("STRICT", p8080="PERMISSIVE"), None, ["RM0206"]),
        (peers("DISABLE", p8080="STRICT"), "8080", []),
        (peers("DISABLE", p8080="STRICT"), "8081", ["RM0206"]),
    ],
)
def test_only_ports_of_the_rule_count(modes: bytes, port: str | None, found: list[str]) -> None:
    rule = source(principals=[WEB])
    if port is not None:
        rule["to"] = [{"operation": {"ports": [port]}}]
    assert codes(policy([rule], "DENY"), modes) == found


def test_rules_of_neighbours_are_none_of_its_business() -> None:
    rules = [paths("/public*")]
    assert codes(policy(rules, selector={"app": "ledger"})) == []
    assert codes(policy(rules, selector={"app": "orders"})) == ["RM0101"]


def test_a_policy_of_another_namespace_is_pointed_out() -> None:
    (warning,) = snapshot(policy([{}], namespace="other")).warnings
    assert warning.code == "RM0504"
    assert "is of namespace other and has no effect here; this workload is in demo" in str(warning)


def test_what_is_only_worth_knowing_is_left_out() -> None:
    assert severity_of("RM0308") is Severity.INFO
    assert codes(policy([{}])) == []


def test_trust_domains_are_known_to_a_sidecar() -> None:
    assert codes(policy([source(principals=["far.example/ns/a/sa/b"])])) == ["RM0201"]
    assert codes(policy([source(principals=["cluster.local/ns/a/sa/b"])])) == []
