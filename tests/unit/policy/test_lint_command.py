"""`remora policy lint`: exit codes, output, and what it is asked with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from proxy.policy_commands.cli import main

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: orders, namespace: demo}\n"
WARNED = HEAD + "spec:\n  rules:\n  - to:\n    - operation: {paths: ['/public*']}\n"
ERRED = HEAD + "spec:\n  rules:\n  - to:\n    - operation: {paths: [public]}\n"
NOTED = HEAD + "spec:\n  rules:\n  - {}\n"
CLEAN = HEAD + "spec:\n  rules:\n  - to:\n    - operation: {paths: [/public]}\n"
BROKEN = HEAD + "spec:\n  rule: []\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lint(*words: str) -> int:
    return main(["lint", *words])


@pytest.mark.parametrize(
    ("text", "fails_on"),
    [
        (CLEAN, set()),
        (NOTED, {"info"}),
        (WARNED, {"info", "warning"}),
        (ERRED, {"info", "warning", "error"}),
        (BROKEN, {"info", "warning", "error"}),
    ],
)
def test_the_exit_code_follows_the_threshold(directory: Path, text: str, fails_on: set[str]) -> None:
    (directory / "a.yaml").write_text(text)
    for threshold in ("error", "warning", "info", "never"):
        assert lint("a.yaml", "--fail-on", threshold) == (1 if threshold in fails_on else 0)
    assert lint("a.yaml") == (1 if "error" in fails_on else 0)


def test_text(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(WARNED)
    assert lint("-f", "a.yaml") == 0
    assert capsys.readouterr().out == (
        'a.yaml:7:19: warning RM0101: `paths`: "/public*" also matches "/publicsecret"; '
        'write "/public" and "/public/*" to stop at the slash\n'
        "1 file: 1 warning\n"
        "remora policy lint --explain RM0101 says more\n"
    )
    (directory / "a.yaml").write_text(CLEAN)
    assert lint("a.yaml") == 0
    assert capsys.readouterr().out == "1 file: nothing found\n"


def test_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(WARNED)
    lint("a.yaml", "--output", "json")
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": "RM0101",
            "severity": "warning",
            "file": "a.yaml",
            "line": 7,
            "column": 19,
            "message": '`paths`: "/public*" also matches "/publicsecret"',
            "hint": 'write "/public" and "/public/*" to stop at the slash',
            "page": "proxy/policy/lint/pages/RM0101.md",
        }
    ]
    (directory / "a.yaml").write_text(CLEAN)
    lint("a.yaml", "--output", "json")
    assert json.loads(capsys.readouterr().out) == []


def test_sarif(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(WARNED)
    (directory / "b.yaml").write_bytes(b"\xff")
    assert lint("a.yaml", "b.yaml", "--output", "sarif") == 1
    report = json.loads(capsys.readouterr().out)
    (run,) = report["runs"]
    (result,) = run["results"]
    assert report["version"] == "2.1.0"
    assert (result["ruleId"], result["level"]) == ("RM0001", "error")
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "b.yaml"},
        "region": {"startLine": 1, "startColumn": 1},
    }
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["RM0001"]


def test_files_that_do_not_load_are_findings(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "policy").mkdir()
    (directory / "policy" / "a.yaml").write_text(BROKEN)
    (directory / "policy" / "b.yaml").write_text(WARNED)
    assert lint("policy", "--output", "json") == 1
    findings = json.loads(capsys.readouterr().out)
    assert [(each["id"], each["file"], each["line"]) for each in findings] == [("RM0001", "policy/a.yaml", 5)]
    assert findings[0]["hint"] == "did you mean `rules`?"


def test_standard_input(directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stdin:
        buffer = io.BytesIO(WARNED.encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert lint("-f", "-", "--fail-on", "warning") == 1
    assert capsys.readouterr().out.startswith("<stdin>:7:19: warning RM0101")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["missing.yaml"], "missing.yaml: the file cannot be read"),
        ([], "no policies are given"),
        (["a.yaml", "--ignore", "RM9"], "no finding is called 'RM9'"),
        (["--explain", "RM9999"], "no finding is called 'RM9999'"),
        (["a.yaml", "--known", "bad.yaml"], "unknown key"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    (directory / "a.yaml").write_text(WARNED)
    (directory / "bad.yaml").write_text("names: []\n")
    assert lint(*words) == 2
    outputs = capsys.readouterr()
    assert outputs.out == ""
    assert text in outputs.err


def test_findings_can_be_ignored(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(WARNED)
    assert lint("a.yaml", "--fail-on", "info", "--ignore", "rm0101") == 0
    assert capsys.readouterr().out == "1 file: nothing found\n"


def test_explain_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("--explain", "rm0306") == 0
    assert capsys.readouterr().out.startswith("# RM0306: a stray dash that turns AND into OR\n")
    assert lint("--list") == 0
    assert "RM0306  warning  a stray dash that turns AND into OR\n" in capsys.readouterr().out


def test_boolean(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(WARNED)
    assert lint("a.yaml", "--boolean") == 0
    assert capsys.readouterr().out == (
        'a.yaml:7:5: ns[demo]-policy[orders]-rule[0]: ALLOW if path begins with "/public"\n'
    ).replace(":7:5", ":6:5")
    (directory / "a.yaml").write_text(BROKEN)
    assert lint("a.yaml", "--boolean") == 1


# --- a workload at hand ---


def config(directory: Path, **changes: Any) -> str:
    whole = {
        "workload": {"namespace": "demo", "service_account": "orders", "labels": {"app": "orders"}},
        "identity": {"files": {"directory": "certs"}},
        "inbound": {"ports": [{"listen": "[::]:15443", "port": 8080, "protocol": "tcp"}]},
        "policy": {"directory": str(directory / "policy")},
    }
    (directory / "remora.yaml").write_text(json.dumps(whole | changes))
    return "remora.yaml"


def ids(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    lint(*words, "--output", "json")
    return [finding["id"] for finding in json.loads(capsys.readouterr().out)]


def test_a_configuration_gives_policies_and_ports(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "policy").mkdir()
    (directory / "policy" / "a.yaml").write_text(HEAD + "spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}\n")
    assert ids(capsys, "--config", config(directory)) == ["RM0403"]
    (directory / "policy" / "a.yaml").write_text(
        HEAD + "spec: {action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}\n"
    )
    assert ids(capsys, "--config", config(directory)) == ["RM0001"]
    assert ids(capsys, "policy") == ["RM0402"]


def test_services_of_a_configuration_show_slips(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(HEAD + "spec: {rules: [{from: [{source: {namespaces: [ledgerr, other]}}]}]}\n")
    service = {
        "name": "ledger",
        "endpoints": ["10.0.0.1:1"],
        "identities": ["spiffe://cluster.local/ns/ledger/sa/ledger"],
    }
    assert ids(capsys, "a.yaml", "--config", config(directory, outbound={"services": [service]})) == ["RM0203"]
    assert ids(capsys, "a.yaml") == []


def test_a_workload_by_options(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "a.yaml").write_text(CLEAN.replace("spec:", "spec:\n  selector: {matchLabels: {app: ledger}}", 1))
    assert ids(capsys, "a.yaml") == []
    assert ids(capsys, "a.yaml", "--namespace", "demo", "--labels", "app=ledger") == []
    assert ids(capsys, "a.yaml", "--namespace", "demo", "--labels", "app=orders") == ["RM0503"]
    assert ids(capsys, "a.yaml", "--namespace", "shop") == ["RM0504"]
