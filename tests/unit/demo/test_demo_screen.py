"""How it looks: within the width, coloured only on request, and in the sidecar's own words."""

from __future__ import annotations

import re
import shlex

import pytest
from demo_samples import LAYOUT, access, spiffe

from demo import screen as draw
from demo.callers import Sight, alert_in
from demo.picture import draw as picture
from demo.picture import spans
from demo.records import Access
from demo.rotation import OUTCOME, STORY, Rotation
from demo.screen import Screen
from demo.tour import STEPS, Result, Step

PLAIN = Screen(width=80, colour=False)
WIDE = Screen(width=100, colour=False)
COLOURED = Screen(width=80, colour=True)
REJECTED = "policy rejected, the last valid ones stay in force: /somewhere/mesh/policies/orders.yaml:3:1: no such key"
ISSUED = {"event": "issued", "identity": spiffe("orders"), "serial": "5f" * 20, "reason": None}
REFUSED = {"event": "refused", "identity": spiffe("orders"), "reason": "join_token_used"}
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def result(step: Step = STEPS[3], faults: tuple[str, ...] = (), accesses: tuple[Access, ...] | None = None) -> Result:
    sight = Sight(saw="403 Forbidden", said="RBAC: access denied")
    return Result(step=step, sight=sight, accesses=(access(),) if accesses is None else accesses, faults=faults)


def everything(screen: Screen) -> list[str]:
    results = [result(step) for step in STEPS]
    lines = draw.topology(screen, LAYOUT, shipped_policies=True)
    lines += draw.identities(screen, LAYOUT, ["0123456789ab"], [REFUSED, ISSUED], "10s")
    for number, each in enumerate(results, start=1):
        lines += draw.step(screen, number, each, LAYOUT)
    rotated = Rotation(faults=("one of a hundred requests failed, and that is one too many",))
    lines += draw.heading(screen, len(results) + 1, OUTCOME, STORY, draw.GREEN)
    lines += draw.faults(screen, rotated.faults)
    lines += draw.verdict(screen, [*results, rotated])
    lines += draw.places(screen, LAYOUT, {"web": 1, "orders": 2, "ledger": 3}, kept=False)
    lines += draw.commands(screen, LAYOUT, "remora")
    lines += draw.news(screen, {REJECTED: ["web", "orders"]}, LAYOUT, "12:00:00")
    return lines + draw.live(screen, access(), LAYOUT, "12:00:00")


@pytest.mark.parametrize("width", [60, 79, 80, 100])
def test_nothing_is_wider_than_the_screen(width: int) -> None:
    lines = everything(Screen(width=width, colour=True))
    assert [line for line in lines if len(ESCAPES.sub("", line)) > width] == []


def test_colours_change_nothing_but_colours() -> None:
    plain, coloured = everything(PLAIN), everything(COLOURED)
    assert not any("\x1b" in line for line in plain)
    assert any("\x1b" in line for line in coloured)
    assert [ESCAPES.sub("", line) for line in coloured] == plain


def test_a_terminal_without_letters_gets_ascii() -> None:
    screen = Screen(width=80, colour=False, unicode=False)
    text = "\n".join(screen.encode(line) for line in everything(screen))
    assert text.isascii()
    assert "?" not in text, "a letter of the drawing has no ASCII form"


def test_the_boxes_are_straight() -> None:
    boxes = [
        line
        for line in draw.topology(PLAIN, LAYOUT, shipped_policies=True)
        if line.startswith((" ┌", " │", " ├", " └"))
    ]
    assert len(boxes) == 6
    assert {len(line) for line in boxes} == {77}
    assert ":21021" in "\n".join(boxes)


def test_policies_of_ones_own_are_not_described() -> None:
    text = "\n".join(draw.topology(PLAIN, LAYOUT, shipped_policies=False))
    assert "are yours" in text
    assert "web may GET" not in text


def test_the_audit_line_of_one_certificate_is_shown_as_it_stands() -> None:
    text = " ".join("\n".join(draw.identities(WIDE, LAYOUT, ["0123456789ab"], [REFUSED, ISSUED], "10s")).split())
    assert "https://127.0.0.1:21001 as ns/remora-system/sa/remora-authority of cluster.local" in text
    assert "0123456789ab" in text
    assert f'audit.log {{"event": "issued", "identity": "{spiffe("orders")}", "serial": "{"5f" * 20}"}}' in text
    assert "join_token_used" not in text


def test_what_the_sidecar_said_is_what_is_shown() -> None:
    text = "\n".join(draw.step(WIDE, 4, result(), LAYOUT))
    assert " 4  DENIED BY ROUTE" in text
    assert "ns/shop/sa/web → ns/shop/sa/orders  DELETE /orders/7 → 403" in text
    assert "denied_by_policy: no ALLOW rule allows it" in text
    assert "ns[shop]-policy[orders]-rule[0] (policies/orders.yaml:15): `methods`" in text
    assert "saw 403 Forbidden  RBAC: access denied" in text


def test_a_rule_that_denies_has_no_nearest_miss() -> None:
    denied = access(policy="ns[shop]-policy[no-admin]-rule[0]")
    assert "nearest" not in "\n".join(draw.step(PLAIN, 5, result(accesses=(denied,)), LAYOUT))


def test_an_allowed_hop_names_its_rule() -> None:
    allowed = access(decision="allow", status=200, policy="ns[shop]-policy[orders]-rule[0]", reason="ok", why="")
    text = "\n".join(draw.step(PLAIN, 1, result(STEPS[0], accesses=(allowed,)), LAYOUT))
    assert "ALLOWED" in text
    assert "ns[shop]-policy[orders]-rule[0], 1.5 ms" in text
    assert "reason" not in text


def test_faults_are_shown_and_counted() -> None:
    faulty = result(faults=("the caller saw too much",))
    assert "FAULT     the caller saw too much" in "\n".join(draw.step(PLAIN, 2, faulty, LAYOUT))
    assert draw.verdict(PLAIN, [result(), faulty])[-1] == "1 of 2 did not come out as they should: 2."
    assert draw.verdict(PLAIN, [result(STEPS[0]), result()])[-1].endswith("as they should: 1 allowed, 1 denied.")


def test_a_rotation_counts_as_neither_allowed_nor_denied() -> None:
    good, bad = Rotation(faults=()), Rotation(faults=("a request failed",))
    assert draw.verdict(PLAIN, [result(STEPS[0]), good])[-1] == (
        "All 2 came out as they should: 1 allowed, 0 denied, the root and every certificate rotated."
    )
    assert draw.verdict(PLAIN, [result(STEPS[0]), bad])[-1] == "1 of 2 did not come out as they should: 2."


def test_what_sidecars_take_or_reject_is_told_with_who_says_it() -> None:
    taken = {"policy generation 2 in force": ["web", "orders", "ledger"]}
    assert draw.news(PLAIN, taken, LAYOUT, "12:00:00") == [
        "  12:00:00  new   policy generation 2 in force (web, orders, ledger)"
    ]
    text = " ".join(" ".join(draw.news(PLAIN, {REJECTED: ["web"]}, LAYOUT, "12:00:00")).split())
    assert text.startswith(
        "12:00:00 fault policy rejected, the last valid ones stay in force: policies/orders.yaml:3:1"
    )
    assert text.endswith("(web)")


def test_a_command_that_was_broken_is_still_the_command() -> None:
    command = "curl -ik --cert batch/identity/tls.crt --key batch/identity/tls.key https://127.0.0.1:21021/orders/7"
    lines = draw.shell_lines(command, 60)
    assert len(lines) > 1
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_command_to_try_survives_being_broken(width: int) -> None:
    lines = draw.commands(Screen(width=width, colour=False), LAYOUT, "remora")
    block = "\n".join(lines).partition("\n\nEdit policies/")[0].replace("\\\n", "")
    commands = [shlex.split(line) for line in block.splitlines()[2:] if not line.strip().startswith("#")]
    assert ["sed", "-i", 's/"POST"/"POST","DELETE"/', "policies/orders.yaml"] in commands
    assert ["remora", "status", "--admin", "127.0.0.1:21023"] in commands
    assert ["remora", "authority", "rotate", "root", "--directory", "authority"] in commands
    assert all(command[0] in ("cd", "curl", "remora", "sed", "tail") for command in commands)


@pytest.mark.parametrize(
    ("reason", "message", "alert"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "", "unknown_ca"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "", "bad_certificate"),
        ("SSL/TLS_ALERT_BAD_CERTIFICATE", "", "bad_certificate"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "", "certificate_required"),
        ("None", "[SSL] tlsv13 alert certificate required (_ssl.c:2580)", "certificate_required"),
        ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed: self-signed certificate", ""),
    ],
)
def test_an_alert_is_found_by_its_name(reason: str, message: str, alert: str) -> None:
    assert alert_in(reason, message) == alert


def test_the_picture_keeps_columns_and_colours() -> None:
    assert [(column, text) for column, _, text in spans("ab\x1b[1;32mcd\x1b[0m  ef")] == [
        (0, "ab"),
        (2, "cd"),
        (4, "  ef"),
    ]
    svg = picture("one \x1b[31m<two>\x1b[0m\n\n\x1b[1mWhere it all is\x1b[0m\nnot shown\n")
    assert '<text x="51.6" y="31" textLength="42.0" fill="#ff7b72">&lt;two&gt;</text>' in svg
    assert "not shown" not in svg
