"""The command `remora policy explain`: what it takes, what it refuses, and with which exit code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from explain_world import NO_ADMIN, ORDERS, WEB

from proxy.policy_commands.cli import main

Captured = pytest.CaptureFixture[str]
WORKLOAD = ("--namespace", "demo", "--labels", "app=orders")


@pytest.fixture(name="policies")
def _policies(tmp_path: Path) -> str:
    directory = tmp_path / "policy"
    directory.mkdir()
    (directory / "orders.yaml").write_text(ORDERS)
    (directory / "no-admin.yaml").write_text(NO_ADMIN)
    return str(directory)


def run(policies: str, *arguments: str) -> int:
    return main(["explain", "-f", policies, *WORKLOAD, *arguments])


def told(capsys: Captured, policies: str, *arguments: str) -> dict[str, Any]:
    assert run(policies, "--output", "json", *arguments) == 0
    out = json.loads(capsys.readouterr().out)
    assert isinstance(out, dict)
    return out


def refused(capsys: Captured, *arguments: str) -> str:
    assert main(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_single_options(policies: str, capsys: Captured) -> None:
    options = ("--identity", WEB, "--method", "POST", "--path", "/orders/7", "--host", "orders", "--port", "9090")
    assert run(policies, *options, "--source", "10.0.0.7", "--destination", "10.0.0.8", "--sni", "orders") == 0
    out = capsys.readouterr().out
    assert out.startswith(f'denied: POST "/orders/7" from {WEB} to port 9090, no ALLOW rule matches\n')
    assert '+        methods: ["GET", "POST"]' in out
    assert "\x1b" not in out


def test_headers_and_tcp(policies: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "header.yaml"
    file.write_text(
        ORDERS.replace("orders\n", "tags\n", 1) + '    when: [{key: "request.headers[x-a]", values: ["b: c"]}]\n'
    )
    options = ("--identity", "cluster.local/ns/ops/sa/x", "--header", "X-A: b: c", "--header", "x-a:d")
    assert told(capsys, str(file), *options)["decision"] == "allow"
    connection = told(capsys, policies, "--identity", WEB, "--tcp")
    assert (connection["decision"], connection["path"]) == ("deny", None)


def test_a_request_document(policies: str, tmp_path: Path, capsys: Captured) -> None:
    request = tmp_path / "request.yaml"
    request.write_text(f"identity: spiffe://{WEB}\npath: /orders/7\n")
    answer = told(capsys, policies, "--request", str(request))
    assert (answer["decision"], answer["rule"]) == ("allow", "ns[demo]-policy[orders]-rule[0]")


def test_a_request_from_standard_input(policies: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"path": "/admin"}')))
    assert told(capsys, policies, "--request", "-")["step"] == "mutual TLS"


def record(**changes: Any) -> str:
    line = {
        "kind": "request",
        "direction": "inbound",
        "method": "GET",
        "path": "/carts",
        "upstream_cluster": "inbound|8080",
        "downstream_local_address": "127.0.0.1:15443",
        "downstream_remote_address": "127.0.0.1:4711",
        "source_principal": f"spiffe://{WEB}",
        "request_id": "mine",
        "decision": "deny",
        "policy": "none",
        "reason": "denied_by_policy",
    }
    return json.dumps(line | changes) + "\n"


def test_a_record(policies: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "record.json"
    file.write_text(record())
    answer = told(capsys, policies, "--record", str(file))
    assert answer["nearest_miss"]["clause"] == "paths"
    assert len(answer["notes"]) == 1


def test_a_record_that_says_otherwise(policies: str, tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "record.json"
    file.write_text(record(path="/orders/7", reason="token_expired", explanation="the token expired"))
    answer = told(capsys, policies, "--record", str(file))
    assert answer["decision"] == "allow"
    assert answer["notes"][0] == (
        "the record says denied by none (token_expired: the token expired); these policies answer otherwise"
    )
    file.write_text(record(decision="allow", policy="ns[demo]-policy[old]-rule[0]", reason="ok", explanation=None))
    [note, *_] = told(capsys, policies, "--record", str(file))["notes"]
    assert note == "the record says allowed by ns[demo]-policy[old]-rule[0] (ok); these policies answer otherwise"


def test_the_record_of_a_request_id(
    policies: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = (
        record(request_id="other")
        + 'no json with "mine"\n'
        + record(path="/one")
        + record(decision="allow")
        + record(path="/two")
    )
    log += record(decision="allow", path="/three") + record(request_id=None, user_agent="mine")
    (tmp_path / "access.log").write_text(log)
    for source in (str(tmp_path / "access.log"), "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(log.encode())))
        answer = told(capsys, policies, "--request-id", "mine", "--log", source)
        assert answer["path"]["sent"] == "/two"
    (tmp_path / "access.log").write_text(record(decision="allow", path="/three"))
    answer = told(capsys, policies, "--request-id", "mine", "--log", str(tmp_path / "access.log"))
    assert answer["path"]["sent"] == "/three"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--request", "r", "--record", "r"), "--request: --request and --record both say what is asked"),
        (("--request", "r", "--path", "/"), "--request: --request and --path both say what is asked"),
        (("--record", "r", "--tcp"), "--record and --tcp both say what is asked"),
        (("--request-id", "i"), "--request-id: it is looked for in one place; give --log FILE or --admin ADDR"),
        (("--request-id", "i", "--log", "l", "--admin", "a"), "--request-id: it is looked for in one place"),
        (("--log", "l"), "--log: a log has many requests; say which one with --request-id ID"),
        (("--admin", "a:1", "-f", "p"), "--admin: a running sidecar has its own policies"),
        (("--admin", "a:1", "--record", "r"), "--admin: a running sidecar finds its records itself"),
        (("-f", "-", "--request", "-"), "-: standard input can be read once only"),
        (("--admin", "nowhere", "--path", "/"), "--admin: "),
        (("--admin", "127.0.0.1:1", "--port", "x"), "`request.port` must be an integer"),
        (("--header", "x"), "--header: 'x' is no header; write 'NAME: VALUE'"),
        (("--identity", "a b"), "`request.identity` is no SPIFFE ID"),
        (("--port", "0"), "`request.port` must be between 1 and 65535"),
        (("--request", "/nowhere/r.yaml"), "/nowhere/r.yaml: the file cannot be read"),
        (("--record", "/nowhere/r"), "/nowhere/r: the file cannot be read"),
        (("--request-id", "i", "--log", "/nowhere/l"), "/nowhere/l: the log cannot be read"),
    ],
)
def test_what_is_refused(policies: str, capsys: Captured, arguments: tuple[str, ...], says: str) -> None:
    given = arguments if "-f" in arguments or "--admin" in arguments else ("-f", policies, *WORKLOAD, *arguments)
    assert says in refused(capsys, *given)


@pytest.mark.parametrize(
    ("text", "option", "says"),
    [
        ("a: [", "--request", "not YAML"),
        ("", "--request", "a request is one document"),
        ("a: b\n---\nc: d\n", "--request", "a request is one document"),
        ("{pfad: /}", "--request", 'unknown key "pfad" in `request`'),
        ("", "--record", "0 lines are no single record"),
        ("a\nb\n", "--record", "2 lines are no single record; pick one by its request id"),
        ("{}", "--record", "the line is no record of the access log"),
        (record(direction="outbound"), "--record", "the record is of an outbound call"),
    ],
)
def test_files_that_say_nothing(
    policies: str, tmp_path: Path, capsys: Captured, text: str, option: str, says: str
) -> None:
    file = tmp_path / "given"
    file.write_text(text)
    error = refused(capsys, "-f", policies, *WORKLOAD, option, str(file))
    assert error.startswith(f"{file}")
    assert says in error


def test_a_request_id_that_is_not_in_the_log(policies: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "access.log").write_text(record())
    arguments = ("--request-id", "yours", "--log", str(tmp_path / "access.log"))
    assert "no record has the request id 'yours'" in refused(capsys, "-f", policies, *WORKLOAD, *arguments)


def test_nobody_answers(capsys: Captured) -> None:
    assert main(["explain", "--admin", "127.0.0.1:1", "--path", "/"]) == 1
    assert "remora policy explain: nothing listens on 127.0.0.1:1" in capsys.readouterr().err


def test_colour_on_a_terminal_only(policies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for variable, is_coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", variable)
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        assert run(policies, "--identity", WEB) == 0
        assert ("\x1b[31m" in screen.getvalue()) is is_coloured
