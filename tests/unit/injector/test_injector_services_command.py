"""`remora services generate`: whole applications in, ConfigMaps out, and on standard error what could not be known.

tests/corpus/meshes/NAME.yaml is what somebody has, NAME.services what becomes of it: the notes as comments, then what
is printed. REMORA_GOLDEN=write writes them anew: look at the difference before you keep it.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from injector import names
from injector.documents import split
from injector.doors import World, inject_manifest
from injector.services_cli import main
from proxy.config import load_config
from proxy.config_files import ConfigFiles
from tests import schemas
from tests.services_reader import services_of

CORPUS = Path(__file__).parents[2] / "corpus" / "meshes"
MESHES = sorted(path.stem for path in CORPUS.glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["generate", *arguments])
    output, errors = capsys.readouterr()
    return code, output, errors


@pytest.mark.parametrize("name", MESHES)
def test_an_application_becomes_what_is_written_down(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = run(capsys, "-f", f"{name}.yaml")
    assert code == 0
    shown = "".join(f"# {line}\n" for line in errors.splitlines()) + "---\n" + output
    golden = CORPUS / f"{name}.services"
    if os.environ.get("REMORA_GOLDEN") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text(), "REMORA_GOLDEN=write writes it anew"


@pytest.mark.parametrize("name", MESHES)
def test_a_sidecar_takes_what_is_written(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for document in documents(run(capsys, "-f", f"{name}.yaml")[1]):
        text = document["data"]["services.yaml"]
        taken = services_of(text)
        for entry in yaml.safe_load(text)["services"]:
            service = taken.pop(entry["name"])
            assert [str(each) for each in service.addresses] == entry.get("addresses", [])
            assert [str(each) for each in service.endpoints] == entry["endpoints"]
            assert sorted(str(each) for each in service.identities) == entry.get("identities", [])
            assert service.mutual == (entry["tls"] == "mutual")
        assert not taken


def test_an_injected_pod_and_the_services_that_are_written_for_it_are_one_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = Path("unprivileged.yaml").read_text().replace(",quizz.lab=9003", "")
    text, report = inject_manifest(split(manifest.encode(), "x"), World(unasked=False))
    assert not report.is_refused
    injected = tmp_path / "injected.yaml"
    injected.write_text(text)
    [document] = documents(run(capsys, "-f", str(injected))[1])
    assert [document] == documents(run(capsys, "-f", "unprivileged.yaml")[1]), "before and after injection the same"
    [board] = [each for each in documents(text) if (each["kind"], each["metadata"]["name"]) == ("Deployment", "board")]
    whole = ConfigFiles(
        main=board["spec"]["template"]["metadata"]["annotations"][names.CONFIG].encode(),
        pod={"name": b"board-1", "namespace": b"lab", "labels": b'app="board"'},
        services={f"{names.SERVICES_DIRECTORY}/{names.SERVICES_FILE}": document["data"][names.SERVICES_FILE].encode()},
    )
    outbound = load_config(whole.pack(), names.CONFIG_FILE).outbound
    assert {str(each.listen): each.service for each in outbound.listeners} == {
        "127.0.0.1:9001": "quiz.lab",
        "127.0.0.1:9002": "9000.quiz.lab",
    }


@pytest.mark.parametrize("name", MESHES)
def test_what_is_printed_is_valid_in_every_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert schemas.faults_of_all([*documents(run(capsys, "-f", f"{name}.yaml")[1])]) == {}


def test_manifests_come_from_standard_input_and_several_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = run(capsys, "-f", "shop.yaml", "-f", "unprivileged.yaml")[1]
    assert [each["metadata"]["namespace"] for each in documents(both)] == ["lab", "shop"]
    stdin = io.TextIOWrapper(io.BytesIO(Path("shop.yaml").read_bytes()))
    monkeypatch.setattr("sys.stdin", stdin)
    code, output, errors = run(capsys, "-f", "-")
    assert (code, output) == (0, run(capsys, "-f", "shop.yaml")[1])
    assert "<stdin>:" in errors


def test_namespace_trust_domain_and_cluster_domain_are_what_options_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {containers: []}\n---\n"
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    )
    options = ("--namespace", "lab", "--trust-domain", "lab.example", "--cluster-domain", "k8s.lab")
    _, output, _ = run(capsys, "-f", str(manifest), *options)
    [document] = documents(output)
    assert document["metadata"]["namespace"] == "lab"
    [service] = yaml.safe_load(document["data"]["services.yaml"])["services"]
    assert service["identities"] == ["spiffe://lab.example/ns/lab/sa/default"]
    assert service["endpoints"] == ["web.lab.svc.k8s.lab:80"]


def test_into_names_the_namespaces_that_are_written_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, output, _ = run(capsys, "-f", "cluster.yaml", "--into", "batch")
    assert [each["metadata"]["namespace"] for each in documents(output)] == ["batch"]


def test_the_defaults_file_says_how_pods_are_injected_that_do_not_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    defaults = tmp_path / "defaults.yaml"
    defaults.write_text("capture: ports\nservices-config-map: calls\ntrust-domain: lab.example\n")
    _, output, _ = run(capsys, "-f", "unprivileged.yaml", "--defaults", str(defaults))
    [document] = documents(output)
    assert document["metadata"]["name"] == "calls"
    names = {each["name"]: each for each in yaml.safe_load(document["data"]["services.yaml"])["services"]}
    assert names["both.lab"]["endpoints"] == ["both.lab.svc.cluster.local:15443"], "now all of its pods are equal"
    assert names["both.lab"]["identities"] == ["spiffe://lab.example/ns/lab/sa/default"]


def test_without_any_sidecar_nothing_is_printed_and_it_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "plain.yaml"
    manifest.write_text(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---\n"
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: []}\n"
    )
    code, output, errors = run(capsys, "-f", str(manifest))
    assert (code, output) == (0, "")
    assert "no pod in these manifests has a sidecar" in errors
    code, output, errors = run(capsys, "-f", str(manifest), "--unasked")
    assert (code, errors) == (0, "")
    assert [each["metadata"]["namespace"] for each in documents(output)] == ["default"]


def test_faults_of_all_files_are_said_with_their_places_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("kind: [\n")
    (tmp_path / "b.yaml").write_text("kind: Service\nkind: Service\n")
    code, output, errors = run(capsys, "-f", str(tmp_path / "a.yaml"), "-f", str(tmp_path / "b.yaml"))
    assert (code, output) == (2, "")
    assert "a.yaml:2:1: " in errors
    assert 'b.yaml:2:1: the key "kind" stands twice' in errors
    (tmp_path / "c.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: x}]}\n")
    code, output, errors = run(capsys, "-f", str(tmp_path / "c.yaml"))
    assert (code, output) == (2, "")
    assert 'c.yaml:1:1: service default/x: spec.ports[0].port is "x"' in errors


@pytest.mark.parametrize(
    ("option", "value"), [("--trust-domain", "Not A Domain"), ("--cluster-domain", "http://x"), ("--defaults", "none")]
)
def test_an_option_that_cannot_be_meant_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, errors = run(capsys, "-f", "shop.yaml", option, value)
    assert (code, output) == (2, "")
    assert errors.startswith("remora services: ")


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each is not None]
