"""A set of files is taken whole or not at all, with every fault at its place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from policy_corpus import BadFile, bad_files
from policy_world import allows, faults, judge, policy, snapshot, token, workload

from proxy.errors import ConfigError
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, load
from proxy.types import Generation, Permit

CORPUS = Path(__file__).parents[2] / "corpus" / "policies"
GOOD = sorted((CORPUS / "good").iterdir())


def load_files(files: dict[str, bytes]) -> PolicySnapshot:
    settings = PolicySettings(default=PolicyDefault.DENY)
    return load(files, workload=workload(), settings=settings, generation=Generation(1), tcp_ports=(3306,))


@pytest.mark.parametrize("bad", bad_files(), ids=lambda bad: bad.name)
def test_a_bad_file_is_refused_with_every_fault_at_its_place(bad: BadFile) -> None:
    with pytest.raises(ConfigError) as raised:
        load_files({bad.name: bad.content})
    assert [str(fault) for fault in raised.value.faults] == bad.faults(bad.name)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_document_as_users_have_it_is_taken(path: Path) -> None:
    compiled = load_files({path.name: path.read_bytes()})
    assert allows(compiled, path="/orders/1")
    assert not allows(compiled, path="/admin")


def test_one_bad_file_refuses_the_whole_set() -> None:
    with pytest.raises(ConfigError) as raised:
        load_files({"good.json": policy([{}]), "b.yaml": b"kind: 1\n", "a.yaml": b"- 1\n"})
    assert [fault.file for fault in raised.value.faults] == ["a.yaml", "b.yaml", "b.yaml"]


def test_every_file_that_is_given_counts_whatever_its_name() -> None:
    names = ("./policy/a.yaml", "../policy/a.yml", "/etc/.policy/a.json", "<stdin>", "/dev/fd/63")
    files = {
        name: policy([{"to": [{"operation": {"paths": [f"/{i}"]}}]}], name=f"p{i}") for i, name in enumerate(names)
    }
    compiled = load_files(files)
    assert all(allows(compiled, path=f"/{i}") for i in range(len(names)))


def test_no_file_is_a_valid_set() -> None:
    assert not allows(load_files({}))


def test_other_kinds_are_skipped_and_named() -> None:
    others = b"""
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
data: {a: b}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: x}
spec: {anything: goes}
---
"""
    compiled = load_files({"a.yaml": others})
    assert [str(warning) for warning in compiled.warnings] == [
        'a.yaml:3:1: a "ConfigMap" of "v1" is no policy: skipped [RM0506]',
        'a.yaml:8:1: a "AuthorizationPolicy" of "policy.linkerd.io/v1alpha1" is no policy: skipped [RM0506]',
    ]


def test_the_digest_tells_sets_apart() -> None:
    sets = [{}, {"a.yaml": b""}, {"b.yaml": b""}, {"a.yaml": b"\n"}, {"a.yaml": b"", "b.yaml": b""}]
    assert len({load_files(dict(files)).source_digest for files in sets}) == len(sets)


@pytest.mark.parametrize(("count", "fault"), [(512, False), (513, True)])
def test_the_number_of_rules_is_limited(count: int, fault: bool) -> None:
    assert bool(faults(policy([{"to": [{"operation": {"paths": ["/a"]}}]}] * count))) is fault


@pytest.mark.parametrize(("count", "fault"), [(512, False), (513, True)])
def test_the_number_of_sources_is_limited(count: int, fault: bool) -> None:
    assert bool(faults(policy([{"from": [{"source": {"namespaces": ["a"]}}] * count}]))) is fault


@pytest.mark.parametrize(("count", "fault"), [(16, False), (17, True)])
def test_the_number_of_service_accounts_is_limited(count: int, fault: bool) -> None:
    accounts = [f"sa{n}" for n in range(count)]
    assert bool(faults(policy([{"from": [{"source": {"serviceAccounts": accounts}}]}]))) is fault


@pytest.mark.parametrize(("length", "fault"), [(320, False), (321, True)])
def test_the_length_of_a_service_account_is_limited(length: int, fault: bool) -> None:
    assert bool(faults(policy([{"from": [{"source": {"serviceAccounts": ["a" * length]}}]}]))) is fault


def test_a_set_of_impossible_size_is_refused() -> None:
    files = {f"{n:02}.yaml": b"#" * (1024 * 1024) for n in range(17)}
    with pytest.raises(ConfigError, match="more than 16777216"):
        load_files(files)


def test_a_thousand_named_ports_are_judged_alike() -> None:
    """Above a limit ports are compared at run time instead of having a table each."""
    rules = [{"to": [{"operation": {"ports": [str(n)], "paths": [f"/{n}"]}}]} for n in range(1, 501)]
    compiled = snapshot(policy(rules))
    assert compiled.http.by_port == {}
    assert allows(compiled, port=77, path="/77")
    assert not allows(compiled, port=78, path="/77")
    assert judge(compiled, port=500, path="/500").rule == "ns[demo]-policy[p]-rule[499]"


def test_two_policies_of_one_name_both_count_and_are_pointed_out() -> None:
    first = policy([{"to": [{"operation": {"paths": ["/a"]}}]}])
    second = policy([{"to": [{"operation": {"paths": ["/b"]}}]}])
    compiled = snapshot(first, second)
    assert [allows(compiled, path=path) for path in ("/a", "/b", "/c")] == [True, True, False]
    assert "a second AuthorizationPolicy demo/p (the first: 000.json:1)" in str(compiled.warnings[0])


def test_a_snapshot_says_what_decisions_depend_on() -> None:
    path = [{"to": [{"operation": {"paths": ["/a"], "ports": ["1"], "hosts": ["h"], "methods": ["GET"]}}]}]
    header = [{"when": [{"key": "request.headers[x]", "values": ["1"]}]}]
    address = [{"from": [{"source": {"notIpBlocks": ["10.0.0.1"]}}]}]
    assert snapshot(policy(path)).cacheable
    assert not snapshot(policy(header)).cacheable
    assert not snapshot(policy(address, "AUDIT")).cacheable
    assert snapshot(policy(header, selector={"app": "web"})).cacheable


@pytest.mark.parametrize(
    ("key", "value", "proxies"),
    [
        ("source.ip", "::/0", 1),
        ("remote.ip", "::/0", 0),
        ("remote.ip", "::/0", 1),
        ("destination.ip", "::/0", 0),
        ("connection.sni", "a", 0),
        ("request.auth.principal", "a/b", 0),
        ("request.auth.audiences", "a", 0),
        ("request.auth.presenter", "a", 0),
        ("request.auth.claims[a]", "a", 0),
    ],
)
@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_what_is_of_one_connection_or_request_alone_is_not_remembered(
    action: str, key: str, value: str, proxies: int
) -> None:
    compiled = snapshot(policy([{"when": [{"key": key, "notValues": [value]}]}], action), trusted_proxies=proxies)
    assert not compiled.cacheable


@pytest.mark.parametrize("key", ["source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"])
def test_what_is_of_the_peer_is_remembered(key: str) -> None:
    assert snapshot(policy([{"when": [{"key": key, "values": ["a"]}]}])).cacheable


def test_a_snapshot_lists_its_policies_and_rules_in_the_order_of_decisions() -> None:
    compiled = snapshot(
        policy([{}, {}], "DENY", name="b"),
        policy([{}], name="a"),
        policy([{}], "AUDIT", name="a", namespace="istio-system"),
        policy([{}], name="z", dry_run="true"),
        policy([{}], name="c", selector={"app": "web"}),
    )
    assert [(each.namespace, each.name) for each in compiled.policies] == [
        ("demo", "a"),
        ("demo", "b"),
        ("demo", "z"),
        ("istio-system", "a"),
    ]
    assert [rule.id for rule in compiled.rules] == [
        "ns[demo]-policy[a]-rule[0]",
        "ns[demo]-policy[b]-rule[0]",
        "ns[demo]-policy[b]-rule[1]",
        "ns[demo]-policy[z]-rule[0]",
        "ns[istio-system]-policy[a]-rule[0]",
    ]
    assert [rule.id for rule in compiled.allow_rules] == ["ns[demo]-policy[a]-rule[0]"]


@pytest.mark.parametrize("default", ["deny", "allow-all"])
def test_a_permit_ends_with_the_token_of_its_request(default: str) -> None:
    compiled = snapshot(*([policy([{}])] if default == "deny" else []), default=default)
    ends = judge(compiled, token=token(expires_at=1000.0))
    endless = judge(compiled, token=token())
    without = judge(compiled)
    for permit, end in ((ends, 1000.0), (endless, math.inf), (without, math.inf)):
        assert isinstance(permit, Permit)
        assert permit.expires_at == end
