"""`remora check` against an API server over sockets (tests/kube_server.py, a stand-in for a real one)."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checked_cluster import IMAGE, PLAN, injected, installed, nodes, plain

from certs.kube import KubeClient, KubeError
from certs.kube import KubeServer as KubeAddress
from injector import names
from injector.check_cli import main
from tests.kube_server import KubeServer

Check = Callable[..., tuple[int, list[str]]]
OURS = PLAN.namespace


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with KubeServer() as server:
        yield server


@pytest.fixture
def check(kube: KubeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command; gives the exit code and the lines."""
    token = tmp_path / "token"
    token.write_text(kube.token)

    def run(*arguments: str) -> tuple[int, list[str]]:
        code = main(["--kube", kube.url, "--kube-token-file", str(token), *arguments])
        told = capsys.readouterr()
        return code, (told.out + told.err).splitlines()

    return run


def only(lines: list[str], word: str) -> str:
    """Give the one line that is not ok and has a word."""
    (line,) = [line for line in lines if word in line and not line.startswith("ok")]
    return line


def test_an_empty_cluster_is_told_that_it_can_have_a_mesh(kube: KubeServer, check: Check) -> None:
    nodes(kube)
    code, lines = check()
    assert code == 0, lines
    assert "ok    the API server answers, Kubernetes v1.31.4" in lines
    assert "ok    we may do everything in this cluster" in lines
    assert "ok    no other mesh puts sidecars into pods" in lines
    assert only(lines, "no namespace asks").endswith("-> kubectl label namespace NAME remora.io/inject=enabled")


def test_an_installation_that_works_has_nothing_but_ok(kube: KubeServer, check: Check) -> None:
    installed(kube)
    code, lines = check()
    assert code == 0
    assert [line for line in lines if not line.startswith("ok")] == []
    assert "ok    namespace shop: 3 pods with a ready sidecar, none without" in lines
    assert "ok    the API server calls the webhook: a pod for trial in shop got its sidecar" in lines
    # Nothing was written: reads, questions about rights, and the one pod that is not kept.
    assert [call for call in kube.calls if call[0] != "GET"] == [
        ("POST", "/api/v1/namespaces/shop/pods?dryRun=All"),
    ]


def test_what_is_broken_is_named_each_with_its_mend(kube: KubeServer, check: Check) -> None:
    installed(kube)
    kube.remove("endpointslices", OURS, f"{names.INJECTOR}-x1")
    kube.remove("configmaps", OURS, names.TRUST_BUNDLE_MAP)
    kube.remove("configmaps", "shop", names.SERVICES)
    kube.remove("poddisruptionbudgets", OURS, names.AUTHORITY)
    kube.objects["deployments", OURS, names.AUTHORITY]["status"] = {}
    kube.objects["mutatingwebhookconfigurations", "", names.INJECTOR]["webhooks"].pop()
    kube.put("pods", "shop", "late", plain({names.INJECT: "enabled"}))
    kube.put("pods", "shop", "sick", injected(ready=False))
    kube.put("pods", "shop", "old", injected("registry.example/remora:0.9"))
    kube.put("pods", "other", "asks", plain({names.INJECT: "enabled"}))
    code, lines = check()
    assert code == 1
    assert only(lines, "no ready endpoint").startswith(f"fail  the Service {names.INJECTOR}")
    assert only(lines, f"no ConfigMap {names.TRUST_BUNDLE_MAP}").startswith("fail")
    assert only(lines, f"no ConfigMap {names.SERVICES}").endswith("--mesh-namespace shop | kubectl apply -f -")
    assert only(lines, "PodDisruptionBudget").startswith("warn")
    assert only(lines, "0 of 2 replicas").startswith(f"fail  Deployment {names.AUTHORITY}")
    assert only(lines, "lacks the entry").startswith("fail")
    assert "1 pod of shop should have a sidecar and has none: late" in only(lines, "late")
    assert "rollout restart" in only(lines, "late")
    assert only(lines, "sick").startswith("fail  1 pod of shop whose sidecar is not ready: sick")
    assert f"with the sidecar registry.example/remora:0.9 instead of {IMAGE}: old" in only(lines, "0.9")
    assert "1 pod of other should have a sidecar and has none: asks" in only(lines, "asks  ->")


def test_a_ca_bundle_that_does_not_verify_the_certificate_is_found(kube: KubeServer, check: Check) -> None:
    installed(kube)
    secret = kube.objects["secrets", OURS, names.INJECTOR_TLS]
    installed(kube)
    kube.objects["secrets", OURS, names.INJECTOR_TLS] = secret
    code, lines = check()
    assert code == 1
    assert len([line for line in lines if "does not verify the injector's certificate" in line]) == 2


@pytest.mark.parametrize(
    ("status", "message", "level", "words"),
    [
        (
            500,
            'Internal error occurred: failed calling webhook "pod.injector.remora.io": context deadline exceeded',
            "fail",
            "the API server cannot call the webhook: Internal error",
        ),
        (
            422,
            'admission webhook "pod.injector.remora.io" denied the request: the trust bundle is not known yet',
            "fail",
            "the injector refuses a pod for trial in shop: admission webhook",
        ),
        (
            403,
            'pods "remora-check-x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities',
            "fail",
            "a pod with a sidecar is refused in shop",
        ),
        (403, 'pods "remora-check-x" is forbidden: exceeded quota: q', "warn", "a pod for trial is refused in shop"),
        (
            403,
            'pods is forbidden: User "me" cannot create resource "pods" in API group ""',
            "warn",
            "not looked at: we may not create pods in shop",
        ),
    ],
    ids=["unreachable", "refused", "pod-security", "quota", "no-right"],
)
def test_a_pod_for_trial_that_is_not_admitted_is_told_in_the_words_of_who_refused_it(
    kube: KubeServer, check: Check, status: int, message: str, level: str, words: str
) -> None:
    installed(kube)
    kube.admit = lambda document: (status, {"kind": "Status", "message": message, "reason": "Any"})
    code, lines = check()
    assert only(lines, words).startswith(level)
    assert code == (1 if level == "fail" else 0)


def test_a_webhook_that_adds_nothing_is_found(kube: KubeServer, check: Check) -> None:
    installed(kube)
    kube.admit = lambda document: (201, document)
    code, lines = check()
    assert code == 1
    assert only(lines, "got no sidecar").startswith("fail  a pod for trial in shop")


@pytest.mark.parametrize(
    ("resource", "right"),
    [
        ("nodes", "list nodes"),
        ("namespaces", "list namespaces"),
        ("secrets", "get the Secret remora-injector-tls in remora-system"),
        ("deployments", "get deployments in remora-system"),
        ("configmaps", "get the ConfigMap remora-trust-bundle in remora-system"),
        ("pods", "list pods in shop"),
        ("mutatingwebhookconfigurations", "get the MutatingWebhookConfiguration remora-injector"),
    ],
)
def test_a_right_that_lacks_is_a_line_and_the_rest_goes_on(
    kube: KubeServer, check: Check, resource: str, right: str
) -> None:
    installed(kube)
    kube.forbidden.add(("GET", resource))
    code, lines = check("--after")
    assert any(line.startswith(f"warn  not looked at: we may not {right}") for line in lines), lines
    assert any(line.startswith("ok    the API server answers") for line in lines)
    assert any("the webhook: a pod for trial" in line for line in lines)
    assert code == 0


def test_rights_that_lack_are_named_kind_by_kind(kube: KubeServer, check: Check) -> None:
    nodes(kube)
    kube.not_allowed |= {
        ("create", "clusterroles"),
        ("patch", "clusterroles"),
        ("escalate", "roles"),
        ("get", "leases"),
    }
    code, lines = check("--before")
    assert code == 1
    assert "we may not create, patch a ClusterRole" in only(lines, "ClusterRole as")
    assert "grant what we do not have ourselves: get leases remora-authority" in only(lines, "grant")


def test_a_long_list_is_read_to_its_end(kube: KubeServer, check: Check) -> None:
    installed(kube)
    for number in range(120):
        kube.put("pods", "shop", f"web-{number:03}", injected())
    _, lines = check()
    assert "ok    namespace shop: 123 pods with a ready sidecar, none without" in lines
    assert len([call for call in kube.calls if call[1].startswith("/api/v1/namespaces/shop/pods?limit")]) == 3


def test_before_can_be_asked_for_where_something_is_installed_already(kube: KubeServer, check: Check) -> None:
    installed(kube)
    code, lines = check("--before")
    assert code == 0
    assert lines[-1] == "ok    we may do everything in this cluster"


def test_defaults_that_cannot_be_read_are_told_with_their_place(kube: KubeServer, check: Check) -> None:
    installed(kube)
    kube.put("configmaps", OURS, names.DEFAULTS, {"data": {names.DEFAULTS_FILE: "capture: ports\nlog-level: loud\n"}})
    code, lines = check()
    assert code == 1
    assert only(lines, "log-level").startswith("fail  remora-defaults/defaults.yaml:2:12: `log-level` is loud")


def test_defaults_that_are_planned_count_before_an_installation(kube: KubeServer, check: Check, tmp_path: Path) -> None:
    kube.version = "v1.28.9"
    assert check()[0] == 1
    planned = tmp_path / "defaults.yaml"
    planned.write_text("native-sidecar: false\n")
    assert check("--defaults", str(planned))[0] == 0


def test_options_that_do_nothing_and_files_that_are_not_there_are_refused(
    kube: KubeServer,
    check: Check,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check("--context", "c") == (2, ["remora check: --context does nothing beside --kube"])
    assert check("--namespace", "A b")[0] == 2
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.write_text("{}")
    monkeypatch.setenv("KUBECONFIG", f"{missing}")
    assert main([]) == 2
    assert f"there is no kubeconfig ({missing})" in capsys.readouterr().err
    monkeypatch.setenv("KUBECONFIG", f"{missing}:{empty}")
    assert main([]) == 2
    assert f"{empty}:1:1: there is no current-context" in capsys.readouterr().err
    assert main(["--kube-ca-file", str(empty)]) == 2
    assert "--kube-ca-file does nothing beside a kubeconfig" in capsys.readouterr().err
    assert not kube.calls


def test_json_has_the_same_findings(kube: KubeServer, check: Check) -> None:
    installed(kube)
    kube.remove("configmaps", OURS, names.TRUST_BUNDLE_MAP)
    code, lines = check("--json")
    found = json.loads("\n".join(lines))
    assert code == 1
    assert {"level", "check", "what", "mend"} == set(found[0])
    assert [each["check"] for each in found if each["level"] == "fail"] == ["trust-bundle"]


def test_who_is_not_known_and_a_server_that_is_not_there_end_with_two(
    kube: KubeServer, check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    kube.token = "another"
    code, lines = check()
    assert code == 2
    assert lines == [
        "remora check: GET /version: the API server answers 401 (Unauthorized); check that the token file holds a "
        "token of this cluster for the API server"
    ]
    assert main(["--kube", "https://127.0.0.1:1"]) == 2
    assert "no answer from https://127.0.0.1:1" in capsys.readouterr().err


def test_the_command_takes_a_kubeconfig_with_the_cluster_s_own_roots(tmp_path: Path) -> None:
    with KubeServer(tls_directory=tmp_path) as kube:
        installed(kube)
        assert kube.ca_file is not None
        roots = base64.b64encode(kube.ca_file.read_bytes()).decode()
        (tmp_path / "tokens").mkdir()
        (tmp_path / "tokens" / "me").write_text(kube.token + "\n")
        config = tmp_path / "config"
        config.write_text(
            f"""\
apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster:
    server: {kube.url}
    certificate-authority-data: {roots}
users:
- name: me
  user:
    tokenFile: tokens/me
contexts:
- name: test
  context: {{cluster: test, user: me}}
"""
        )
        done = subprocess.run(
            [sys.executable, "remora.py", "check"],
            env={"KUBECONFIG": str(config), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ok    the API server answers, Kubernetes v1.31.4" in done.stdout


def test_a_client_certificate_of_the_kubeconfig_proves_its_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with KubeServer(tls_directory=tmp_path, by_certificate=True) as kube:
        installed(kube)
        user = {"client-certificate": "kube-server.pem", "client-key": "kube-server.pem"}
        config = tmp_path / "config"
        document = {
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": kube.url, "certificate-authority": "kube-ca.crt"}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "me"}}],
        }
        config.write_text(json.dumps(document))
        assert main(["--kubeconfig", str(config)]) == 0
        assert "ok    the API server answers" in capsys.readouterr().out
        user.clear()
        config.write_text(json.dumps(document))
        assert main(["--kubeconfig", str(config)]) == 2
        assert "no answer from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (KubeAddress(url="https://127.0.0.1:1", certificate="no PEM"), "the client certificate and its key cannot be"),
        (KubeAddress(url="https://127.0.0.1:1", ca="no PEM"), "the given roots: no CA certificate can be read"),
    ],
    ids=["certificate", "roots"],
)
def test_what_is_no_pem_is_told_before_anything_is_sent(server: KubeAddress, words: str) -> None:
    with pytest.raises(KubeError, match=words):
        KubeClient(server).read("/version")


def test_the_page_shows_what_the_command_prints(kube: KubeServer, check: Check) -> None:
    installed(kube)
    page = (Path(__file__).parents[2] / "injector" / "README.md").read_text()
    shown = page.split("`remora check`\n", 1)[1].split("```text\n", 1)[1].split("```", 1)[0]
    _, lines = check()
    date = re.compile(r"\d{4}-\d\d-\d\d|differ by \d s")
    assert date.sub("", "\n".join(lines)) == date.sub("", shown.rstrip("\n"))
