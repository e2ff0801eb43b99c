"""What loads and is probably not meant."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import policy, snapshot


def warnings(rule: dict[str, Any], action: str = "ALLOW", **options: Any) -> list[str]:
    return [str(warning) for warning in snapshot(policy([rule], action), **options).warnings]


def paths(*values: str) -> dict[str, Any]:
    return {"to": [{"operation": {"paths": list(values)}}]}


@pytest.mark.parametrize(
    ("rule", "action", "text"),
    [
        (paths("/public*"), "ALLOW", '"/public*" also matches "/publicmore"; write "/public" and "/public/*"'),
        (paths("api"), "ALLOW", '"api" does not begin with / and matches no path; write "/api"'),
        (paths("/a?b"), "ALLOW", "holds a ? or #, which the compared path never does"),
        (paths("/a/*/b"), "ALLOW", 'the star inside "/a/*/b" is a plain character'),
        ({"to": [{"operation": {"hosts": ["a.com"]}}]}, "DENY", '"a.com" does not match the same host with a port'),
        ({"to": [{"operation": {"methods": ["get"]}}]}, "ALLOW", '"get" matches no usual method'),
        ({"from": [{"source": {"principals": ["td/ns/*/sa/a"]}}]}, "ALLOW", "the star inside"),
    ],
)
def test_findings(rule: dict[str, Any], action: str, text: str) -> None:
    assert any(text in warning for warning in warnings(rule, action))


@pytest.mark.parametrize(
    ("rule", "action"),
    [
        (paths("/public", "/public/*", "*.png", "*", "/a/{*}"), "ALLOW"),
        ({"to": [{"operation": {"hosts": ["a.com", "a.com:*", "*.b.com"], "methods": ["GET"]}}]}, "DENY"),
        ({"from": [{"source": {"principals": ["cluster.local/ns/a/sa/b", "*/sa/x"]}}]}, "DENY"),
    ],
)
def test_nothing_is_found_in_what_is_well_written(rule: dict[str, Any], action: str) -> None:
    assert warnings(rule, action) == []


@pytest.mark.parametrize(
    ("source", "action", "found"),
    [
        ({"notNamespaces": ["x"]}, "ALLOW", True),
        ({"notPrincipals": ["x"]}, "DENY", True),
        ({"principals": ["x"]}, "DENY", True),
        ({"principals": ["x"]}, "ALLOW", False),
        ({"notPrincipals": ["*"]}, "DENY", False),
    ],
)
def test_identity_rules_that_plain_text_slips_by(source: dict[str, Any], action: str, found: bool) -> None:
    rule = {"from": [{"source": source}]}
    assert any("peer without identity" in text for text in warnings(rule, action, default="allow-all")) is found
    assert warnings(rule, action, default="deny") == []


def test_a_policy_of_another_namespace_is_pointed_out() -> None:
    (warning,) = snapshot(policy([{}], namespace="other")).warnings
    assert "is of namespace other and has no effect here; this workload is in demo" in str(warning)
