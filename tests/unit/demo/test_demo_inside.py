"""What sidecars and the authority say of themselves is found in their logs, and told once."""

from __future__ import annotations

import json
from pathlib import Path

from demo.inside import AuthorityLogs, InForce, SidecarLogs, in_force, last_in_force
from demo.layout import WORKLOADS, Layout

TAKEN = "2030-01-01T00:00:00.000Z INFO    remora: {} generation {} in force: {}\n"
REJECTED = "policy rejected, the last valid ones stay in force: policies/a.yaml:3:1: no such key"
BOTH = TAKEN.format("certificates", 2, "serial 5fa, 24.0 h left") + TAKEN.format("policy", 7, "digest 00ff")


def layout_with_logs(directory: Path) -> Layout:
    layout = Layout(directory=directory, base=21_000)
    for name in WORKLOADS:
        layout.home(name).mkdir()
        layout.sidecar_log(name).write_text(BOTH)
    return layout


def say(layout: Layout, workload: str, text: str) -> None:
    with layout.sidecar_log(workload).open("a") as log:
        log.write(text)


def warning(sentence: str) -> str:
    return f"2030-01-01T00:00:00.000Z WARNING remora: {sentence}\n"


def test_the_last_set_of_each_kind_counts(tmp_path: Path) -> None:
    layout = layout_with_logs(tmp_path)
    assert in_force(layout, "web", "certificates") == InForce(generation=2, name="5fa")
    say(layout, "web", TAKEN.format("certificates", 3, "serial 60, 24.0 h left"))
    assert in_force(layout, "web", "certificates") == InForce(generation=3, name="60")
    assert in_force(layout, "web", "policy") == InForce(generation=7, name="00ff")


def test_nothing_in_force_is_generation_0() -> None:
    assert last_in_force(warning("not ready: policy: no such directory"), "policy") == InForce(generation=0, name="")


def test_what_all_say_is_told_at_once_and_once(tmp_path: Path) -> None:
    layout = layout_with_logs(tmp_path)
    logs = SidecarLogs(layout)
    assert logs.news(0.0) == {}, "what was said before is not new"
    for name in WORKLOADS:
        say(layout, name, TAKEN.format("policy", 8, "digest 0a"))
    assert logs.news(0.1) == {"policy generation 8 in force": list(WORKLOADS)}
    assert logs.news(9.0) == {}


def test_what_one_says_waits_for_the_others(tmp_path: Path) -> None:
    layout = layout_with_logs(tmp_path)
    logs = SidecarLogs(layout)
    say(layout, "orders", warning(REJECTED))
    assert logs.news(0.0) == {}
    say(layout, "web", warning(REJECTED))
    assert logs.news(0.9) == {}
    assert logs.news(1.0) == {REJECTED: ["web", "orders"]}


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    layout = layout_with_logs(tmp_path)
    logs = SidecarLogs(layout)
    text = warning("policy: what is mounted is again what is in force")
    say(layout, "web", text[:60])
    assert logs.news(0.0) == {}
    say(layout, "web", text[60:])
    logs.news(0.5)
    assert logs.news(2.0) == {"policy: what is mounted is again what is in force": ["web"]}


def test_a_renewal_is_no_news_and_one_that_fails_is(tmp_path: Path) -> None:
    layout = layout_with_logs(tmp_path)
    logs = SidecarLogs(layout)
    fault = "our certificate cannot be renewed, the one in force has 9 s left: no answer"
    say(layout, "web", TAKEN.format("certificates", 3, "serial 60, 24.0 h left"))
    say(layout, "web", f"2030-01-01T00:00:00.000Z WARNING remora.enrolment: {fault}\n")
    logs.news(0.0)
    assert logs.news(1.0) == {fault: ["web"]}


def test_the_authority_tells_its_steps_and_whom_it_refuses(tmp_path: Path) -> None:
    layout = Layout(directory=tmp_path, base=21_000)
    layout.authority_log.write_text("I remora.authority: rotation: of before\n")
    layout.audit_log.touch()
    logs = AuthorityLogs(layout)
    with layout.authority_log.open("a") as log:
        log.write("I remora.authority: serving\nI remora.authority: rotation: made a root\n")
    nobody = {"event": "refused", "caller": None, "presented_unverified": None, "message": "bring a token"}
    lines = (
        {"event": "issued", "caller": "spiffe://td/a"},
        nobody,
        nobody | {"presented_unverified": "spiffe://td/b"},
        nobody | {"caller": "spiffe://td/c", "presented_unverified": "spiffe://td/b"},
    )
    layout.audit_log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert logs.news() == [
        "rotation: made a root",
        "refused somebody: bring a token",
        "refused spiffe://td/b: bring a token",
        "refused spiffe://td/c: bring a token",
    ]
    assert logs.news() == []
