"""`remora status` on paper: it fits the terminal, colours only what is asked for, and says what is wrong in a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from proxy import status

PEER = "spiffe://cluster.local/ns/a-namespace-with-a-long-name/sa/an-account-with-a-long-name"


def data(**facts: Any) -> dict[str, Any]:
    usual = {
        "certificate_left_seconds": 86_340,
        "certificate_generation": 3,
        "policy_generation": 5,
        "policy_default": "deny",
        "policy_rules": 2,
        "policy_warnings": 0,
        "inbound_open": 4,
        "outbound_open": 1,
        "draining": False,
        "records_lost": 0,
        "up_seconds": 61,
        "process": 77,
    }
    row = {"direction": "inbound", "service": "", "requests": 1_234, "ok": 1_000, "4xx": 234, "5xx": 0, "tcp": 0}
    refusal = {
        "at": "10:11:12",
        "reason": "denied_by_policy",
        "status": 403,
        "method": "GET",
        "path": "/orders/" + "very-long-" * 20,
        "peer": PEER,
        "request_id": "019667f7-807b-45cf-a85a-fd8d646764ec",
        "explanation": "no ALLOW rule allows it " * 10,
        "nearest_miss": "",
        "detail": "",
    }
    return {
        "identity": {"name": "demo/orders", "spiffe_id": "spiffe://cluster.local/ns/demo/sa/orders"},
        "readiness": {"ready": True, "missing": {}, "rejected": {}},
        "facts": usual | facts,
        "services": [{"name": "ledger", "protocol": "tcp", "tls": "mutual", "endpoints": ["10.0.0.7:15443"] * 9}],
        "next_hops": [{"next_hop": "ledger", "connections": 3, "busy": 1, "idle": 2, "waiting": 0}],
        "traffic": [row | {"peer": PEER}],
        "refused": [{"direction": "inbound", "what": "requests", "reason": "denied_by_policy", "count": 234}],
        "refusals": [refusal] * 9,
        "footer": "As of now.",
    }


def test_workers_are_named_where_there_are_several() -> None:
    assert "workers" not in status.render(data(), 100)
    assert "workers      2\n" in status.render(data(workers=2), 100)
    assert "workers      2, without an answer: 1\n" in status.render(data(workers=2, workers_without_answer=[1]), 100)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_it_fits_the_terminal_and_loses_no_fact(width: int) -> None:
    shown = status.render(data(), width)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width, max(lines, key=len)
    for fact in ("demo/orders  ready", "23 h 59 min left, generation 3", "generation 5, 2 rules, default deny"):
        assert fact in shown
    assert "1234  1000  234" in shown
    assert "019667f7-807b-45cf-a85a-fd8d646764ec" in shown
    assert shown.count("10:11:12") == 5, "the last ones only"


def test_colour_is_for_terminals() -> None:
    plain, coloured = status.render(data(), 80), status.render(data(), 80, coloured=True)
    assert "\x1b" not in plain
    assert "\x1b[32mready\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_what_is_wrong_is_in_sight() -> None:
    asked = data(certificate_left_seconds=-120, records_lost=3, policy_warnings=2)
    asked["readiness"] = {"ready": False, "missing": {"policy": ["it is not there"]}, "rejected": {"config": ["bad"]}}
    shown = status.render(asked, 80)
    for words in (
        "not ready",
        "ended 2 min ago",
        "3 records lost",
        "2 warnings",
        "missing: policy: it is not there",
        "rejected: config: bad",
    ):
        assert words in shown
    assert "certificate  none" in status.render(data(certificate_left_seconds=None), 80)


@pytest.mark.parametrize("argument", ["nowhere", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:15000"])
def test_an_address_that_is_none_is_wrong_usage(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        status.main(["--admin", argument])
    assert ended.value.code == 2
    assert "--admin: " in capsys.readouterr().err


def test_nobody_at_a_unix_socket_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--admin", f"unix:{tmp_path}/none.sock"]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"remora status: nothing listens on unix:{tmp_path}/none.sock; name the admin listener with --admin\n"
    )
