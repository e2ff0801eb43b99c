"""Principals under trust-domain aliases."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import allows, policy, snapshot

from certs.spiffe import TrustDomain
from proxy.policy.principals import expand_aliases

BUNDLE = ("new.td", "old.td")


@pytest.mark.parametrize(
    ("value", "expanded"),
    [
        ("new.td/ns/a/sa/b", ("new.td/ns/a/sa/b", "old.td/ns/a/sa/b")),
        ("old.td/ns/a/sa/b", ("new.td/ns/a/sa/b", "old.td/ns/a/sa/b")),
        ("cluster.local/ns/a/sa/b", ("new.td/ns/a/sa/b", "old.td/ns/a/sa/b")),
        ("cluster.local/ns/a/sa/*", ("new.td/ns/a/sa/*", "old.td/ns/a/sa/*")),
        ("*.td/ns/a/sa/b", ("*.td/ns/a/sa/b",)),
        ("*w.td/ns/a/sa/b", ("*w.td/ns/a/sa/b", "old.td/ns/a/sa/b")),
        ("new*/ns/a/sa/b", ("new.td/ns/a/sa/b", "old.td/ns/a/sa/b")),
        ("foreign.td/ns/a/sa/b", ("foreign.td/ns/a/sa/b",)),
        ("*/ns/a/sa/b", ("*/ns/a/sa/b",)),
        ("*", ("*",)),
        ("cluster.local/*", ("cluster.local/*",)),
        ("cluster.local/ns/a/*", ("cluster.local/ns/a/*",)),
        ("sa/b", ("sa/b",)),
    ],
)
def test_expansion(value: str, expanded: tuple[str, ...]) -> None:
    assert expand_aliases([value], BUNDLE) == expanded


def test_no_value_stands_twice() -> None:
    values = ["new.td/ns/a/sa/b", "old.td/ns/a/sa/b", "cluster.local/ns/a/sa/b"]
    assert expand_aliases(values, BUNDLE) == ("new.td/ns/a/sa/b", "old.td/ns/a/sa/b")


MESH: dict[str, Any] = {"trust_domain": TrustDomain("new.td"), "trust_domain_aliases": (TrustDomain("old.td"),)}


@pytest.mark.parametrize(
    ("caller", "matches"),
    [("new.td", True), ("old.td", True), ("cluster.local", False), ("foreign.td", False)],
)
def test_a_policy_written_for_cluster_local_means_the_mesh(caller: str, matches: bool) -> None:
    written = ["cluster.local/ns/demo/sa/web"]
    caller = f"{caller}/ns/demo/sa/web"
    allow = snapshot(policy([{"from": [{"source": {"principals": written}}]}]), **MESH)
    deny = snapshot(policy([{"from": [{"source": {"notPrincipals": written}}]}], "DENY"), default="audit", **MESH)
    when = snapshot(policy([{"when": [{"key": "source.principal", "values": written}]}]), **MESH)
    assert [allows(each, principal=caller) for each in (allow, deny, when)] == [matches] * 3


def test_a_foreign_trust_domain_is_pointed_out() -> None:
    compiled = snapshot(policy([{"from": [{"source": {"principals": ["foreign.td/ns/a/sa/b"]}}]}]), **MESH)
    assert ['"foreign.td" is neither the trust domain' in str(warning) for warning in compiled.warnings] == [True]
