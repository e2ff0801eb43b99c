"""`remora netpol generate` and `verify`: files in, NetworkPolicies or findings out, and the exit codes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector.netpol_cli import main
from injector.yaml_text import dump
from tests import schemas
from tests.netpol_meshes import ME, namespace, policy, source, workload

MESH = (namespace("shop"), namespace("front"), workload("orders"), workload("web", "front"))
POLICY = policy(source(principals=[f"{ME}/front/sa/web"]), app="orders")
WIDE = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "wide", "namespace": "shop"},
    "spec": {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]},
}


@pytest.fixture(autouse=True)
def _in_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write("mesh.yaml", *MESH)
    write("policies/orders.yaml", POLICY)


def write(name: str, *documents: dict[str, Any]) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("---\n".join(map(dump, documents)))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    output, errors = capsys.readouterr()
    return code, output, errors


def generated(capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    code, output, _ = run(capsys, "generate", "-f", "mesh.yaml", "-p", "policies", *more)
    assert code == 0
    return list(yaml.safe_load_all(output))


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# --- generate ---


def test_policies_are_written_and_are_valid_in_every_version(capsys: pytest.CaptureFixture[str]) -> None:
    made = generated(capsys)
    assert [f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in made] == [
        "front/default-deny-all",
        "front/allow-dns",
        "front/web-egress",
        "shop/default-deny-all",
        "shop/allow-dns",
        "shop/orders-ingress",
        "shop/orders-egress",
    ]
    assert schemas.faults_of_all([*made]) == {}


def test_policies_among_the_manifests_count(capsys: pytest.CaptureFixture[str]) -> None:
    write("all.yaml", *MESH, POLICY)
    code, output, _ = run(capsys, "generate", "-f", "all.yaml")
    assert (code, list(yaml.safe_load_all(output))) == (0, generated(capsys))


def test_manifests_or_policies_come_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generated(capsys)
    feed(monkeypatch, Path("mesh.yaml").read_text())
    code, output, _ = run(capsys, "generate", "-f", "-", "-p", "policies/orders.yaml")
    assert (code, list(yaml.safe_load_all(output))) == (0, whole)
    feed(monkeypatch, Path("policies/orders.yaml").read_text())
    code, output, _ = run(capsys, "generate", "-f", "mesh.yaml", "-p", "-")
    assert (code, list(yaml.safe_load_all(output))) == (0, whole)


def test_options_say_what_the_cluster_is_like(capsys: pytest.CaptureFixture[str]) -> None:
    made = generated(
        capsys, "--only", "shop", "--dns-namespace", "dns", "--dns-labels", "app=dns,tier=core", "--metrics-from", "mon"
    )
    assert {each["metadata"]["namespace"] for each in made} == {"shop"}
    rules = {each["metadata"]["name"]: each["spec"] for each in made}
    [servers] = rules["allow-dns"]["egress"][0]["to"]
    assert servers == {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dns"}},
        "podSelector": {"matchLabels": {"app": "dns", "tier": "core"}},
    }
    assert {"port": 15020, "protocol": "TCP"} in rules["orders-ingress"]["ingress"][-1]["ports"]


def test_the_control_plane_may_be_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    Path("defaults.yaml").write_text("authority: https://remora-authority.mesh:8443\n")
    made = generated(capsys, "--own-namespace", "mesh", "--defaults", "defaults.yaml")
    [egress] = [each["spec"]["egress"] for each in made if each["metadata"]["name"] == "orders-egress"]
    assert egress[0]["to"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "mesh"}


def test_what_cannot_be_said_is_named_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    stranger = policy(source(principals=[f"{ME}/pay/sa/ledger"]), name="s", app="orders")
    write("policies/more.yaml", stranger)
    code, _, errors = run(capsys, "generate", "-f", "mesh.yaml", "-p", "policies")
    assert code == 0
    assert "names cluster.local/ns/pay/sa/ledger, and no pod with a sidecar" in errors


# --- verify ---


def test_what_was_generated_verifies_clean(capsys: pytest.CaptureFixture[str]) -> None:
    write("network.yaml", *generated(capsys))
    arguments = ("-f", "mesh.yaml", "-p", "policies", "--network-policies", "network.yaml")
    code, output, errors = run(capsys, "verify", *arguments)
    assert (code, output) == (0, "")
    assert errors.splitlines()[-2:] == [
        "only pods of these manifests are judged: of others in the cluster nothing is known here",
        "7 NetworkPolicies, no findings",
    ]


def test_a_hole_is_said_with_its_place_and_gives_one(capsys: pytest.CaptureFixture[str]) -> None:
    write("network.yaml", *generated(capsys), WIDE)
    arguments = ("-f", "mesh.yaml", "-p", "policies", "--network-policies", "network.yaml")
    code, output, errors = run(capsys, "verify", *arguments)
    assert code == 1
    [hole] = output.splitlines()
    number = int(hole.split(":")[1])
    assert "from:" in Path("network.yaml").read_text().splitlines()[number - 1]
    assert ": hole: networkpolicy shop/wide: it lets shop/orders, other pods of " in hole
    assert errors.endswith("8 NetworkPolicies, 1 finding\n")


def test_network_policies_among_the_manifests_count_unless_others_are_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = generated(capsys)
    write("mesh.yaml", *MESH, *made)
    assert run(capsys, "verify", "-f", "mesh.yaml", "-p", "policies")[0] == 0
    feed(monkeypatch, "---\n".join(map(dump, [*made, WIDE])))
    assert run(capsys, "verify", "-f", "mesh.yaml", "-p", "policies", "--network-policies", "-")[0] == 1


def test_without_any_network_policy_every_pod_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = run(capsys, "verify", "-f", "mesh.yaml", "-p", "policies")
    assert code == 1
    assert [each.split(": ")[3].split(" ")[4] for each in output.splitlines()] == ["ingress", "egress"] * 2
    assert errors.endswith("0 NetworkPolicies, 4 findings\n")


# --- what cannot be read ---


@pytest.mark.parametrize("command", ["generate", "verify"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", "none.yaml"), "none.yaml: No such file"),
        (("-f", "mesh.yaml", "-p", "bad.yaml"), 'bad.yaml:7:3: unknown key "rulez"'),
        (("-f", "-", "-p", "-"), "- stands twice: standard input can be read once"),
        (("-f", "mesh.yaml", "-p", "mesh.yaml"), "mesh.yaml stands with -f and with -p"),
        (("-f", "mesh.yaml", "--dns-labels", "kube-dns"), "write labels such as k8s-app=kube-dns"),
        (("-f", "mesh.yaml", "--dns-namespace", "Kube"), "--dns-namespace 'Kube': write the name of a namespace"),
        (("-f", "empty.yaml"), "no pod in these manifests has a sidecar"),
    ],
    ids=range(7),
)
def test_what_cannot_be_read_gives_two_and_a_sentence(
    command: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("empty.yaml", namespace("shop"))
    write("bad.yaml", {**POLICY, "spec": {"rulez": []}})
    code, output, errors = run(capsys, command, *arguments)
    assert (code, output) == (2, "")
    assert message in errors
    assert all(each.startswith("remora netpol: ") for each in errors.splitlines())


def test_faults_of_network_policies_are_told_with_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    write("network.yaml", {**WIDE, "spec": {"podSelectr": {}}})
    code, output, errors = run(capsys, "verify", "-f", "mesh.yaml", "--network-policies", "network.yaml")
    assert (code, output) == (2, "")
    assert (
        errors == 'remora netpol: network.yaml:7:3: unknown key "podSelectr" in `spec`; did you mean `podSelector`?\n'
    )


def test_a_command_that_is_not_known_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["vrify"])
    assert left.value.code == 2
    assert "generate" in capsys.readouterr().err
