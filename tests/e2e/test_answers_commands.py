"""`remora policy test` and `remora policy diff` as a user runs them: files in a directory, a shell, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

ROOT = Path(__file__).parents[2]
WORKLOAD = ("--namespace", "demo", "--account", "orders", "--labels", "app=orders")

ORDERS = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: demo}
spec:
  selector: {matchLabels: {app: orders}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/demo/sa/web]}}]
    to: [{operation: {methods: [GET, HEAD], paths: ["/orders/*"]}}]
  - from: [{source: {namespaces: [ops]}}]
    to: [{operation: {methods: [POST]}}]
    when: [{key: "request.headers[x-role]", values: [admin]}]
"""
NO_ADMIN = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: demo}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: ["/admin*"]}}]}]
"""
NO_ADMIN_JSON = json.dumps(
    {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-admin", "namespace": "demo"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/admin*"]}}]}]},
    }
)

TABLE = """\
policies: [policy/]
workload: {namespace: demo, service_account: orders, labels: {app: orders}}
request: {host: orders.demo, port: 8080, identity: cluster.local/ns/demo/sa/web}
tests:
  - name: web reads orders
    request: {method: [GET, HEAD], path: /orders/7}
    expect: allow
    rule: ns[demo]-policy[orders]-rule[0]
  - name: web writes orders
    request: {method: POST, path: /orders/7}
    expect: allow
  - name: nobody comes near /admin
    request: {path: [/admin, "/x/../admin"]}
    expect: {decision: deny, rule: "ns[demo]-policy[no-admin]-rule[0]"}
"""


def record(method: str, path: str, who: str = "web", **changed: object) -> str:
    return json.dumps(
        {
            "kind": "request",
            "direction": "inbound",
            "method": method,
            "path": path,
            "authority": "orders.demo",
            "upstream_cluster": "inbound|8080||",
            "downstream_remote_address": "10.0.0.7:40312",
            "downstream_local_address": "10.0.0.8:15443",
            "source_principal": f"spiffe://cluster.local/ns/demo/sa/{who}",
            "decision": "allow",
            "reason": "ok",
            **changed,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "orders.yaml").write_text(ORDERS)
    (tmp_path / "policy" / "no-admin.json").write_text(NO_ADMIN_JSON)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "orders.yaml").write_text(ORDERS.replace("GET, HEAD", "GET, PUT"))
    (tmp_path / "new" / "no-admin.json").write_text(NO_ADMIN_JSON)
    (tmp_path / "orders.test.yaml").write_text(TABLE)
    return tmp_path


def remora(folder: Path, *words: str, text: str = "") -> tuple[int, str, str]:
    """Run `remora policy WORDS` in the folder with `text` on standard input."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "remora.py"), "policy", *words],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# --- test ---


def test_a_failing_test_is_explained(folder: Path) -> None:
    code, out, err = remora(folder, "test", "orders.test.yaml")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == (
        "FAIL orders.test.yaml:9 web writes orders: expected allow, got deny 403 by none (denied_by_policy)"
    )
    assert lines[1] == "     cluster.local/ns/demo/sa/web POST /orders/7 port 8080 host orders.demo"
    assert any("nearest miss: ns[demo]-policy[orders]-rule[0]" in line and '"POST"' in line for line in lines)
    assert lines[-3:] == [
        "orders.test.yaml: 5 cases, 4 passed, 1 failed",
        "2 of 3 rules decide a case; without one:",
        "  policy/orders.yaml:9 ns[demo]-policy[orders]-rule[1]",
    ]


def test_the_exit_code_is_for_a_pipeline(folder: Path) -> None:
    passing = TABLE.replace(
        "method: POST, path: /orders/7}\n    expect: allow", "method: POST, path: /a}\n    expect: 403"
    )
    (folder / "orders.test.yaml").write_text(passing)
    assert remora(folder, "test", "orders.test.yaml")[0] == 0
    assert remora(folder, "test", "orders.test.yaml", "--require-coverage")[0] == 1
    assert remora(folder, "test", "orders.test.yaml", "missing.yaml")[0] == 2
    assert remora(folder, "test", "-", text=passing)[0] == 0
    # Other policies, from the command line: HEAD is no longer allowed.
    code, out, _ = remora(folder, "test", "orders.test.yaml", "-f", "new")
    assert code == 1
    assert "web reads orders [HEAD]: expected allow by ns[demo]-policy[orders]-rule[0], got deny 403" in out


def test_the_file_is_found_from_another_directory(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    code, out, _ = remora(folder / "elsewhere", "test", "../orders.test.yaml")
    assert code == 1
    assert "../policy/orders.yaml:9 ns[demo]-policy[orders]-rule[1]" in out


def test_reports_for_programs(folder: Path) -> None:
    code, out, _ = remora(folder, "test", "orders.test.yaml", "--output", "json", "--junit", "report.xml")
    assert code == 1
    found = json.loads(out)
    assert (found["passed"], found["failed"]) == (4, 1)
    failed = next(case for case in found["files"][0]["cases"] if not case["passed"])
    assert {key: failed[key] for key in ("name", "decision", "status", "rule", "reason", "expected")} == {
        "name": "web writes orders",
        "decision": "deny",
        "status": 403,
        "rule": "none",
        "reason": "denied_by_policy",
        "expected": {"decision": "allow"},
    }
    assert found["files"][0]["coverage"]["without_a_case"][0]["rule"] == "ns[demo]-policy[orders]-rule[1]"
    root = Xml.parse(folder / "report.xml").getroot()
    assert root is not None
    assert (root.get("tests"), root.get("failures")) == ("5", "1")
    code, out, _ = remora(folder, "test", "orders.test.yaml", "--output", "junit", "--require-coverage")
    assert code == 1
    assert Xml.fromstring(out).get("failures") == "2"


def test_every_fault_of_a_file_of_tests_is_a_line(folder: Path) -> None:
    (folder / "bad.yaml").write_text("polices: [a]\ntests:\n- {request: {methd: GET}, expect: alow}\n")
    code, out, err = remora(folder, "test", "bad.yaml")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        'bad.yaml:1:1: unknown key "polices" in `the file`; did you mean `policies`?',
        'bad.yaml:3:14: unknown key "methd" in `tests[0].request`; did you mean `method`?',
        'bad.yaml:3:35: `tests[0].expect` is the text "alow"; '
        "write allow, deny, a status such as 403, or {decision: deny, rule: ..., reason: ...}",
    ]


def test_a_file_of_tests_may_name_a_configuration(folder: Path) -> None:
    (folder / "remora.yaml").write_text(
        "workload: {namespace: demo, service_account: orders, labels: {app: orders}}\n"
        "identity: {files: {directory: /nowhere}}\n"
        f"policy: {{directory: {folder}/policy}}\n"
    )
    table = "config: remora.yaml\n" + TABLE.partition("\n")[2].partition("\n")[2]
    (folder / "with-config.yaml").write_text(table)
    code, out, err = remora(folder, "test", "with-config.yaml")
    assert (code, err) == (1, "")
    assert "with-config.yaml: 5 cases, 4 passed, 1 failed" in out
    assert remora(folder, "test", "--init", "--config", "remora.yaml", "-o", "made.yaml")[0] == 0
    assert "config: remora.yaml\n" in (folder / "made.yaml").read_text()
    assert remora(folder, "test", "made.yaml", "--require-coverage")[0] == 0


def test_the_first_file_passes_and_covers_every_rule(folder: Path) -> None:
    code, out, _ = remora(folder, "test", "--init", "-f", "policy/", *WORKLOAD, "-o", "first.test.yaml")
    assert code == 0
    assert out.endswith("tests; run them with: remora policy test first.test.yaml\n")
    code, out, _ = remora(folder, "test", "first.test.yaml", "--require-coverage")
    assert code == 0
    assert "every rule decides a case (3)" in out
    # The next change of the policies is seen.
    code, out, _ = remora(folder, "test", "first.test.yaml", "-f", "new")
    assert code == 0
    (folder / "new" / "orders.yaml").write_text(ORDERS.replace("GET, HEAD", "POST"))
    code, out, _ = remora(folder, "test", "first.test.yaml", "-f", "new")
    assert code == 1
    assert "demo/web may GET /orders/7: expected allow" in out
    assert "demo/web may not POST /orders/7: expected deny 403, got allow" in out


# --- every way to give policies ---

AS_LIST = "apiVersion: v1\nkind: List\nitems:\n" + "".join(
    "- " + text.rstrip("\n").replace("\n", "\n  ") + "\n" for text in (ORDERS, NO_ADMIN)
)
AS_JSON_LIST = json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(NO_ADMIN_JSON)]})


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (ORDERS, 2),
        (f"{ORDERS}---\n{NO_ADMIN}", 3),
        (NO_ADMIN_JSON, 1),
        (AS_LIST, 3),
        (AS_JSON_LIST, 1),
        ("", 0),
    ],
    ids=["one document", "several documents", "JSON", "List", "JSON List", "nothing"],
)
def test_policies_on_standard_input(folder: Path, text: str, rules: int) -> None:
    code, out, err = remora(folder, "test", "--init", "-f", "-", *WORKLOAD, text=text)
    assert (code, err) == (0, "")
    assert out.count("\n  # <stdin>:") == rules
    (folder / "made.yaml").write_text(out)
    code, out, _ = remora(folder, "test", "made.yaml", "-f", "-", text=text)
    assert code == 0
    assert (f"every rule decides a case ({rules})" if rules else "there are no rules") in out
    (folder / "same.yaml").write_text(text)
    code, out, _ = remora(folder, "diff", "-", "same.yaml", *WORKLOAD, "--fail-on", "any", text=text)
    assert code == 0
    assert " 0 gained, 0 lost, " in out


@pytest.mark.parametrize("words", [("test", "--init", "-f", "-"), ("diff", "-", "policy")])
def test_faults_of_standard_input_have_its_name(folder: Path, words: tuple[str, ...]) -> None:
    code, out, err = remora(folder, *words, *WORKLOAD, text=ORDERS.replace("rules:", "rule:"))
    assert (code, out) == (2, "")
    assert err == '<stdin>:6:3: unknown key "rule" in `spec`; did you mean `rules`?\n'


# --- diff ---


def test_who_gains_and_who_loses_on_a_grid(folder: Path) -> None:
    code, out, err = remora(folder, "diff", "policy", "new", *WORKLOAD)
    assert (code, err) == (0, "")
    web = "  cluster.local/ns/demo/sa/web"
    none, rule = "denied (denied_by_policy)", "allowed by ns[demo]-policy[orders]-rule[0]"
    lines = out.splitlines()
    gains = lines.index(next(line for line in lines if line.startswith("gains access: ")))
    loses = lines.index(next(line for line in lines if line.startswith("loses access: ")))
    assert lines[gains + 1 : gains + 5] == [
        web,
        f"    {none} -> {rule}",
        "      PUT /orders/7 port 8080",
        "      PUT /orders/7/7 port 8080",
    ]
    assert lines[loses + 1 : loses + 5] == [
        web,
        f"    {rule} -> {none}",
        "      HEAD /orders/7 port 8080",
        "      HEAD /orders/7/7 port 8080",
    ]
    assert "calls: what either set names, and neighbours" in lines[0]


@pytest.mark.parametrize(
    ("new", "codes"),
    [
        ("policy", {"any": 0}),
        ("new", {"never": 0, "lose": 1}),
        ("more", {"gain": 1, "lose": 0, "any": 1}),
    ],
)
def test_what_a_pipeline_fails_on(folder: Path, new: str, codes: dict[str, int]) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "orders.yaml").write_text(ORDERS.replace("GET, HEAD", "GET, HEAD, PUT"))
    (folder / "more" / "no-admin.json").write_text(NO_ADMIN_JSON)
    assert {fail: remora(folder, "diff", "policy", new, *WORKLOAD, "--fail-on", fail)[0] for fail in codes} == codes


def test_records_are_replayed(folder: Path) -> None:
    log = "\n".join(
        [
            "starting",
            record("GET", "/orders/7?page=1"),
            record("GET", "/orders/7"),
            record("HEAD", "/orders/7", request_id="a"),
            record("HEAD", "/orders/7", request_id="b"),
            record("PUT", "/orders/7", decision="deny"),
            record("GET", "/", direction="outbound"),
            record("POST", "/run", who="x", source_principal="spiffe://cluster.local/ns/ops/sa/job"),
        ]
    )
    (folder / "access.log").write_text(log)
    words = ("diff", "policy", "new", *WORKLOAD, "--records")
    code, out, err = remora(folder, *words, "access.log")
    assert (code, err) == (0, "")
    assert out == (
        "6 calls of access.log, 4 different ones\n"
        "skipped: 1 lines that are no access record\n"
        "skipped: 1 outbound calls, which policies do not speak of\n"
        "\n"
        "gains access: 1 recorded call\n"
        "  cluster.local/ns/demo/sa/web\n"
        "    denied (denied_by_policy) -> allowed by ns[demo]-policy[orders]-rule[0]\n"
        "      PUT /orders/7 port 8080\n"
        "\n"
        "loses access: 1 recorded call\n"
        "  cluster.local/ns/demo/sa/web\n"
        "    allowed by ns[demo]-policy[orders]-rule[0] -> denied (denied_by_policy)\n"
        "      HEAD /orders/7 port 8080 (2 times)\n"
        "\n"
        "4 recorded calls: 1 gained, 1 lost, 2 as before (1 allowed, 1 denied)\n"
    )
    assert remora(folder, *words, "-", text=log)[1] == out.replace("access.log", "<stdin>")


def test_a_record_that_hangs_on_a_header_is_not_guessed(folder: Path) -> None:
    (folder / "new" / "orders.yaml").write_text(ORDERS.replace("values: [admin]", "values: [boss]"))
    (folder / "access.log").write_text(record("POST", "/run", source_principal="spiffe://cluster.local/ns/ops/sa/job"))
    words = ("diff", "policy", "new", *WORKLOAD, "--records", "access.log")
    code, out, _ = remora(folder, *words, "--fail-on", "lose")
    assert code == 1
    assert "depends on what the record does not hold: 1 recorded call" in out
    assert (
        "POST /run port 8080: depends on header x-role (stays without it; loses with x-role: admin; "
        "gains with x-role: boss)"
    ) in out
    found = json.loads(remora(folder, *words, "--output", "json")[1])
    assert found["changes"][0]["depends_on"] == ["header x-role"]


def test_a_grid_that_is_cut_says_so(folder: Path) -> None:
    code, out, _ = remora(folder, "diff", "policy", "new", *WORKLOAD, "--grid-limit", "40")
    assert code == 0
    assert out.startswith("a grid of 40 calls: what either set names, and neighbours; ")
    assert "further combinations are left out (--grid-limit)" in out.splitlines()[0]
    found = json.loads(remora(folder, "diff", "policy", "new", *WORKLOAD, "--grid-limit", "40", "--output", "json")[1])
    assert found["left_out"]["combinations beyond the limit"] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("diff", "policy", "gone"), "gone: the file cannot be read: No such file or directory"),
        (("diff", "policy", "new", "--records", "gone.log"), "gone.log: the records cannot be read: No such file"),
        (("diff", "policy", "new", "--records", "orders.test.yaml"), "orders.test.yaml: no access record in it; "),
    ],
)
def test_what_cannot_be_compared(folder: Path, words: tuple[str, ...], expected: str) -> None:
    code, out, err = remora(folder, *words, *WORKLOAD)
    assert (code, out) == (2, "")
    assert err.startswith(expected)


def test_the_faults_of_both_sets_are_said_at_once(folder: Path) -> None:
    for name in ("policy", "new"):
        (folder / name / "orders.yaml").write_text("kind: AuthorizationPolicy\n")
    code, _, err = remora(folder, "diff", "policy", "new", *WORKLOAD)
    assert code == 2
    assert [line.partition(":")[0] for line in err.splitlines()] == ["policy/orders.yaml", "new/orders.yaml"]
