"""A set of files is taken whole or not at all, with every fault at its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from policy_world import allows, faults, judge, policy, snapshot, workload

from proxy.errors import ConfigError
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, load
from proxy.types import Generation

CORPUS = Path(__file__).parents[2] / "corpus" / "policies"
BAD = sorted((CORPUS / "bad").iterdir())
GOOD = sorted((CORPUS / "good").iterdir())


def load_files(files: dict[str, bytes]) -> PolicySnapshot:
    settings = PolicySettings(default=PolicyDefault.DENY)
    return load(files, workload=workload(), settings=settings, generation=Generation(1), tcp_ports=(3306,))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_every_fault_at_its_place(path: Path) -> None:
    content = path.read_bytes()
    expected = re.findall(r"^# expect: (.*)$", content.decode(), re.MULTILINE)
    with pytest.raises(ConfigError) as raised:
        load_files({path.name: content})
    assert [str(fault) for fault in raised.value.faults] == [f"{path.name}:{line}" for line in expected]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_document_as_users_have_it_is_taken(path: Path) -> None:
    compiled = load_files({path.name: path.read_bytes()})
    assert allows(compiled, path="/orders/1")
    assert not allows(compiled, path="/admin")


def test_one_bad_file_refuses_the_whole_set() -> None:
    with pytest.raises(ConfigError) as raised:
        load_files({"good.json": policy([{}]), "b.yaml": b"kind: 1\n", "a.yaml": b"- 1\n"})
    assert [fault.file for fault in raised.value.faults] == ["a.yaml", "b.yaml", "b.yaml"]


def test_which_files_are_read() -> None:
    broken = b"{"
    compiled = load_files(
        {
            "a.yaml": policy([{"to": [{"operation": {"paths": ["/a"]}}]}], name="a"),
            "b.yml": policy([{"to": [{"operation": {"paths": ["/b"]}}]}], name="b"),
            "c.json": policy([{"to": [{"operation": {"paths": ["/c"]}}]}], name="c"),
            ".d.yaml": broken,
            "..data": broken,
            "README.md": broken,
            "e.yaml~": broken,
        }
    )
    assert [allows(compiled, path=path) for path in ("/a", "/b", "/c")] == [True, True, True]


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
        'a.yaml:3:1: a "ConfigMap" of "v1" is no policy: skipped',
        'a.yaml:8:1: a "AuthorizationPolicy" of "policy.linkerd.io/v1alpha1" is no policy: skipped',
    ]


def test_the_digest_tells_sets_apart() -> None:
    sets = [{}, {"a.yaml": b""}, {"b.yaml": b""}, {"a.yaml": b"\n"}, {"a.yaml": b"", "b.yaml": b""}]
    digests = {load_files(dict(files)).source_digest for files in sets}
    assert len(digests) == len(sets)
    assert load_files({"a.yaml": b"", ".x": b"1"}).source_digest == load_files({"a.yaml": b""}).source_digest


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
    assert "a second policy demo/p (the first: 000.json:1)" in str(compiled.warnings[0])


def test_a_snapshot_says_what_decisions_depend_on() -> None:
    path = [{"to": [{"operation": {"paths": ["/a"], "ports": ["1"], "hosts": ["h"], "methods": ["GET"]}}]}]
    header = [{"when": [{"key": "request.headers[x]", "values": ["1"]}]}]
    address = [{"from": [{"source": {"notIpBlocks": ["10.0.0.1"]}}]}]
    assert snapshot(policy(path)).cacheable
    assert not snapshot(policy(header)).cacheable
    assert snapshot(policy(header)).looks_at_headers
    assert not snapshot(policy(address, "AUDIT")).cacheable
    assert snapshot(policy(address)).looks_at_source_ip
    assert snapshot(policy(header, selector={"app": "web"})).cacheable
