"""Rules that another rule makes superfluous, found in bounded time whatever the number of rules."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import policy, workload

from proxy.errors import Fault
from proxy.policy.lint.scene import COMPARISONS, Scene
from proxy.policy.lint.shadows import shadow_findings
from proxy.policy.model import PolicyDefault, PolicySettings
from proxy.policy.read import read_files

SETTINGS = PolicySettings(default=PolicyDefault.DENY)


def found(*documents: bytes, comparisons: int = COMPARISONS) -> list[Fault]:
    files = {f"{index:03}.json": each for index, each in enumerate(documents)}
    policies, faults, _ = read_files(files, workload(), SETTINGS)
    assert faults == []
    scene = Scene(settings=SETTINGS, trust_domains=("mesh.example", "old.example"), comparisons=comparisons)
    return list(shadow_findings(policies.authorization, scene))


def rule(paths: list[str] | None = None, source: dict[str, Any] | None = None, **fields: list[str]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    if source is not None:
        whole["from"] = [{"source": source}]
    operation = fields | ({"paths": paths} if paths is not None else {})
    if operation:
        whole["to"] = [{"operation": operation}]
    return whole


def codes(*rules: dict[str, Any], action: str = "ALLOW") -> list[str]:
    return [fault.code for fault in found(policy(rules, action))]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (rule(), rule(["/a"])),
        (rule(["/a*"]), rule(["/a/b", "/ab"])),
        (rule(["/a/*", "/b"]), rule(["/a/{*}"])),
        (rule(["/a/{**}"]), rule(["/a/b/c"])),
        (rule(["/a"]), rule(["/a"], methods=["GET"])),
        (rule(notPaths=["/a"]), rule(notPaths=["/a", "/b"])),
        (rule(notPaths=["/a/*"]), rule(["/b"])),
        (rule(hosts=["A.example"]), rule(hosts=["a.example"], methods=["GET"])),
        (rule(source={"namespaces": ["a*"]}), rule(source={"namespaces": ["ab", "a-*"]})),
        (rule(source={"namespaces": ["a"]}), rule(source={"principals": ["cluster.local/ns/a/sa/b"]})),
        (rule(source={"serviceAccounts": ["a/b"]}), rule(source={"principals": ["x.example/ns/a/sa/b"]})),
        (rule(source={"principals": ["*"]}), rule(source={"namespaces": ["a"]})),
        (
            rule(source={"principals": ["mesh.example/ns/a/sa/b"]}),
            rule(["/x"], source={"principals": ["old.example/ns/a/sa/b"]}),
        ),
        (rule(source={"ipBlocks": ["10.0.0.0/8"]}), rule(source={"ipBlocks": ["10.1.0.0/16", "10.2.3.4"]})),
        ({"when": [{"key": "destination.port", "values": ["80", "81"]}]}, rule(ports=["80"])),
        (rule(ports=["80", "81"]), {"when": [{"key": "destination.port", "values": ["80"]}]}),
    ],
)
def test_a_covered_rule_is_found_wherever_it_stands(wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    assert codes(wide, narrow) == ["RM0304"]
    assert codes(narrow, wide) == ["RM0304"]
    assert codes(narrow, wide, action="DENY") == ["RM0304"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rule(["/a"]), rule(["/b"])),
        (rule(["/a", "/b"]), rule(["/b", "/c"])),
        (rule(["/a*"]), rule(["*a"])),
        (rule(["/a/{*}"]), rule(["/b/{*}"])),
        (rule(["/a"], methods=["GET"]), rule(["/a"], methods=["PUT"])),
        (rule(notPaths=["/a", "/b"]), rule(notPaths=["/a", "/c"])),
        (rule(source={"namespaces": ["a"]}), rule(source={"principals": ["cluster.local/ns/b/sa/a"]})),
        (rule(source={"namespaces": ["*a*"]}), rule(source={"namespaces": ["b*"]})),
        (rule(source={"ipBlocks": ["10.1.0.0/16"]}), rule(source={"ipBlocks": ["10.0.0.0/8"]}, ports=["80"])),
        (rule(["/a"]), {"when": [{"key": "request.headers[x]", "values": ["a"]}]}),
        (
            {"when": [{"key": "request.headers[x]", "values": ["a"]}]},
            {"when": [{"key": "request.headers[y]", "values": ["a"]}]},
        ),
        # a header may have several lines: one that is `b` does not exclude one that is `a`
        (
            {"when": [{"key": "request.headers[x]", "notValues": ["a"]}]},
            {"when": [{"key": "request.headers[x]", "values": ["b"]}]},
        ),
    ],
)
def test_rules_that_each_add_something_are_left_alone(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert codes(one, other) == []


def test_of_two_equal_rules_the_later_is_named() -> None:
    (fault,) = found(policy([rule(["/a"])], name="a"), policy([rule(["/a"])], name="b"))
    assert fault.file == "001.json"
    assert "ns[demo]-policy[a]-rule[0] (000.json:1) matches too" in fault.message


def test_a_deny_counts_before_an_allow_and_never_the_other_way_round() -> None:
    wide, narrow = [rule(["/a*"])], [rule(["/a"])]
    (fault,) = found(policy(wide, "DENY", name="d"), policy(narrow))
    assert (fault.code, fault.file) == ("RM0305", "001.json")
    assert found(policy(narrow, "DENY", name="d"), policy(wide)) == []
    assert found(policy(wide, "DENY", name="d", dry_run="true"), policy(narrow)) == []
    assert found(policy(wide, "AUDIT", name="d"), policy(narrow)) == []


def test_scopes_must_cover_too() -> None:
    wide, narrow = [rule()], [rule(["/a"])]
    app = {"app": "orders"}
    assert found(policy(wide, namespace="shop"), policy(narrow)) == []
    assert found(policy(wide, name="w", selector=app), policy(narrow)) == []
    assert len(found(policy(wide, namespace="istio-system"), policy(narrow))) == 1
    assert len(found(policy(wide, name="w"), policy(narrow, selector=app))) == 1
    assert found(policy(wide, name="w", dry_run="true"), policy(narrow)) == []


def test_a_rule_that_never_matches_is_not_called_covered() -> None:
    assert codes(rule(["/a"], notPaths=["/a"]), rule()) == []


def test_thousands_of_rules_with_words_of_their_own_are_compared_completely() -> None:
    documents = [
        policy([rule([f"/{p}/{n}"], source={"namespaces": ["a"]}) for n in range(500)], name=f"p{p}") for p in range(8)
    ]
    again = policy([rule(["/3/77"], source={"namespaces": ["a"]})], name="z")
    assert [fault.code for fault in found(*documents, again)] == ["RM0304"]


def test_what_has_to_be_compared_with_everything_is_bounded_and_said() -> None:
    rules = [rule([f"/{n}x*"]) for n in range(400)]
    assert found(policy(rules), comparisons=10**9) == []
    faults = found(policy(rules), comparisons=1000)
    assert [fault.code for fault in faults] == ["RM0002"]
