"""The rules of the policy benchmark say what they are measured for, and its sheet compares a thousand with ten."""

from __future__ import annotations

import pytest

from benchmarks.host import Build, Cores, Machine
from benchmarks.policy import SIZES, Decisions, Requests, sheet
from benchmarks.rule_sets import KINDS, UNFILED, Kind, as_text, compiled, documents
from proxy.documents import parse
from proxy.policy.facts import Facts
from proxy.types import Denial, Permit

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_request_is_allowed_by_its_own_rule_alone(kind: Kind) -> None:
    snapshot = compiled(kind, 120)
    for number in (0, 57, 119):
        permit = snapshot.request(*kind.call(number))
        assert isinstance(permit, Permit)
        first = number // 100 * 100
        assert permit.rule == f"ns[bench]-policy[rules-{first:05}]-rule[{number - first}]"
    assert isinstance(snapshot.request(*kind.call(1_001)), Denial)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_decision_tries_a_few_rules_wherever_something_can_be_looked_up(kind: Kind) -> None:
    table = compiled(kind, 300).http.other.allow
    assert table is not None
    tried = table.tried(Facts(*kind.call(150)))
    assert tried == 300 if kind is UNFILED else 1 <= tried <= 8


def test_a_set_is_spread_over_documents() -> None:
    assert [len(each["spec"]["rules"]) for each in documents(KINDS[0], 250)] == [100, 100, 50]
    read, faults = parse(as_text(KINDS[0], 250).encode(), "rules.yaml")
    assert not faults
    assert len([node for node in read if node.value]) == 3


def measured(many: float) -> tuple[list[Decisions], list[Requests]]:
    decisions = [
        Decisions(kind=kind.name, rules=rules, allowed=2_000.0, denied=20_000.0 if rules < 1_000 else many)
        for kind in KINDS
        for _ in range(2)
        for rules in SIZES
    ]
    requests = [
        Requests(rules=rules, allowed=50_000.0, denied=60_000.0 if rules == 10 else 63_000.0, foreign_share=0.0)
        for _ in range(2)
        for rules in (10, 1_000)
    ]
    return decisions, requests


@pytest.mark.parametrize(("many", "ratio", "verdict"), [(24_000.0, 1.08, "met"), (30_000.0, 1.2, "missed")])
def test_what_a_decision_takes_more_is_set_against_a_request(many: float, ratio: float, verdict: str) -> None:
    rows = {row.name: row for row in sheet(MACHINE, *measured(many)).rows}
    assert rows["request, denied, 1,000 : 10 rules"].figure.median == pytest.approx(1.05)
    row = rows[f"{KINDS[0].name}, denied request, 1,000 : 10"]
    assert row.figure.median == pytest.approx(ratio)
    assert row.verdict == verdict
    assert rows[f"{UNFILED.name}, denied request, 1,000 : 10"].verdict == ""
