"""What the subcommands of `remora policy` are given: files as people have them, and the workload."""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import ConfigError
from proxy.policy_commands.inputs import add_options, read_file, read_files, read_surroundings, read_world

POLICY = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: demo}
spec: {rules: [{}]}
"""

CONFIG = """
workload: {namespace: demo, service_account: orders, labels: {app: orders}}
trust_domain: mesh.example
trust_domain_aliases: [old.example]
identity: {files: {directory: /nowhere}}
inbound:
  mode: ports
  ports:
    - {listen: "127.0.0.1:15443", port: 8080, app: "127.0.0.1:8080", protocol: http}
    - {listen: "127.0.0.1:15444", port: 5432, app: "127.0.0.1:5432", protocol: tcp}
policy: {directory: policy, default: allow-all, path_normalization: merge_slashes, root_namespace: mesh}
"""


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def faults(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        call(*arguments)
    return [str(fault) for fault in raised.value.faults]


# --- files ---


def test_a_directory_is_read_as_a_sidecar_reads_it_and_names_are_as_given(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yaml").write_bytes(b"")
    for given in (str(tmp_path), f"{tmp_path}/"):
        assert sorted(read_files([given])) == [f"{tmp_path}/{name}" for name in ("a.yml", "b.yaml", "c.json")]


def test_a_mounted_config_map_is_read_through_its_link(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "a.yaml").write_bytes(b"x")
    os.symlink("..2026", tmp_path / "..data")
    os.symlink("..data/a.yaml", tmp_path / "a.yaml")
    assert read_files([str(tmp_path)]) == {f"{tmp_path}/a.yaml": b"x"}


def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path: Path) -> None:
    for name in (".hidden", "policy.txt"):
        (tmp_path / name).write_bytes(b"x")
    paths = [str(tmp_path / name) for name in (".hidden", "policy.txt")]
    assert read_files(paths) == dict.fromkeys(paths, b"x")


def test_standard_input_and_files_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_bytes(b"x")
    stdin(monkeypatch, b"y")
    assert read_files(["-", str(tmp_path)]) == {"<stdin>": b"y", f"{tmp_path}/a.yaml": b"x"}


def test_what_was_given_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"x")
    assert list(read_files([str(tmp_path), str(tmp_path / "a.yaml")])) == [f"{tmp_path}/a.yaml"]


def test_every_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert faults(read_files, [str(tmp_path / "a"), str(tmp_path / "b")]) == [
        f"{tmp_path}/a: the file cannot be read: No such file or directory; "
        "give a file, a directory, or - for standard input",
        f"{tmp_path}/b: the file cannot be read: No such file or directory; "
        "give a file, a directory, or - for standard input",
    ]


def test_no_more_is_read_than_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_file(str(tmp_path / "a"), 10) == (f"{tmp_path}/a", b"x" * 11)
    assert len(read_file("/dev/zero", 10)[1]) == 11


def test_no_policies_at_all() -> None:
    assert faults(read_world, options()) == ["remora policy: no policies are given; name them with -f PATH"]


# --- the workload ---


def test_the_workload_by_options() -> None:
    words = (
        "--namespace demo --account orders --labels app=orders,tier= --name orders-1 --trust-domain mesh.example "
        "--aliases old.example,older.example --default audit --root-namespace mesh --path-normalization none "
        "--tcp-ports 5432,6379 --trusted-proxies 2"
    )
    found = read_surroundings(options(*words.split()))
    workload = found.workload
    assert (workload.namespace, workload.service_account, workload.name) == ("demo", "orders", "orders-1")
    assert workload.labels == {"app": "orders", "tier": ""}
    assert (workload.trust_domain, workload.trust_domain_aliases) == ("mesh.example", ("old.example", "older.example"))
    assert (found.settings.default.value, found.settings.root_namespace) == ("audit", "mesh")
    assert (found.normalization.value, found.tcp_ports, found.settings.trusted_proxies) == ("none", (5432, 6379), 2)


def test_the_workload_that_nobody_described() -> None:
    found = read_surroundings(options())
    assert (found.workload.namespace, found.workload.service_account) == ("default", "default")
    assert (found.workload.trust_domain, found.settings.default.value) == ("cluster.local", "deny")
    assert (found.normalization.value, found.settings.root_namespace) == ("base", "istio-system")


def test_the_workload_by_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("remora.yaml").write_text(CONFIG)
    Path("policy").mkdir()
    Path("policy/p.yaml").write_bytes(POLICY)
    world = read_world(options("--config", "remora.yaml"))
    assert (world.workload.namespace, world.workload.service_account) == ("demo", "orders")
    assert (world.workload.trust_domain, world.workload.trust_domain_aliases) == ("mesh.example", ("old.example",))
    assert (world.settings.default.value, world.settings.root_namespace) == ("allow-all", "mesh")
    assert (world.normalization.value, world.tcp_ports) == ("merge_slashes", {5432})
    assert list(world.files) == ["policy/p.yaml"]
    assert [rule.id for rule in world.snapshot.rules] == ["ns[demo]-policy[p]-rule[0]"]


def test_policies_of_the_command_line_instead_of_those_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "remora.yaml").write_text(CONFIG)
    stdin(monkeypatch, POLICY)
    world = read_world(options("--config", str(tmp_path / "remora.yaml"), "-f", "-"))
    assert list(world.files) == ["<stdin>"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--labels app",
            "--labels: 'app' is no label; write KEY=VALUE, several with commas: app=orders,tier=api",
        ),
        ("--tcp-ports 0", "--tcp-ports: '0' is not a number from 1 to 65535"),
        ("--tcp-ports x", "--tcp-ports: 'x' is not a number from 1 to 65535"),
        ("--trusted-proxies 99", "--trusted-proxies: '99' is not a number from 0 to 32"),
        ("--jwks x", "--jwks: 'x' is not URI=FILE"),
    ],
)
def test_what_is_wrong_with_an_option(words: str, expected: str) -> None:
    assert faults(read_surroundings, options(*words.split())) == [expected]


def test_every_option_that_is_wrong_is_named() -> None:
    found = faults(read_surroundings, options("--trust-domain", "A b", "--labels", "x", "--aliases", "UPPER"))
    assert [text.partition(":")[0] for text in found] == ["--trust-domain", "--labels", "--aliases"]


def test_a_namespace_that_makes_no_identity() -> None:
    (found,) = faults(read_surroundings, options("--namespace", "a b"))
    assert found.startswith("--namespace: namespace and account make no SPIFFE ID: ")


def test_a_configuration_and_options_of_the_workload_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "remora.yaml").write_text(CONFIG)
    words = ("--config", str(tmp_path / "remora.yaml"), "--namespace", "x", "--default", "deny")
    assert faults(read_surroundings, options(*words)) == [
        "--namespace: --config says this already; leave one of the two out",
        "--default: --config says this already; leave one of the two out",
    ]


def test_faults_of_policies_carry_the_name_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, b"kind: 1\n")
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_bytes(b"- 1\n")
    found = faults(read_world, options("-f", "./a.yaml", "-f", "-"))
    assert {text.partition(":")[0] for text in found} == {"./a.yaml", "<stdin>"}


def test_key_sets_of_files(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"{}")
    (found,) = faults(read_surroundings, options("--jwks", f"https://issuer.test/k?a=b={tmp_path}/bad.json"))
    assert found.startswith(f"{tmp_path}/bad.json: no key set: ")
    key = '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'
    (tmp_path / "good.json").write_text(key)
    found_keys = read_surroundings(options("--jwks", f"https://issuer.test/k?a=b={tmp_path}/good.json")).keys
    assert list(found_keys) == ["https://issuer.test/k?a=b"]
