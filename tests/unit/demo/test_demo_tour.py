"""A step says every way in which it came out otherwise than it should."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_samples import LAYOUT, access, empty_logs, line, spiffe

from demo.callers import Sight
from demo.cli import exit_code
from demo.layout import Layout
from demo.records import AccessLogs
from demo.rotation import Rotation
from demo.tour import STEPS, Step, Verdict, faults_of, walk

DENIED = Step(
    outcome="denied by route",
    story="web deletes an order",
    call=lambda layout: Sight(saw="403 Forbidden", said="RBAC: access denied"),
    saw="403 Forbidden",
    said="RBAC: access denied",
    verdicts=(Verdict(by="orders", source=spiffe("web"), decision="deny", reason="denied_by_policy", policy="none"),),
)
SIGHT = DENIED.call(LAYOUT)


def test_nothing_is_wrong_when_all_is_as_it_should_be() -> None:
    assert faults_of(DENIED, SIGHT, [access()]) == []


def test_another_answer_is_a_fault() -> None:
    [fault] = faults_of(DENIED, Sight(saw="200 OK"), [access()])
    assert fault == "the caller saw '200 OK', and should have seen '403 Forbidden'"


def test_other_words_are_a_fault() -> None:
    [fault] = faults_of(DENIED, Sight(saw="403 Forbidden", said="no"), [access()])
    assert fault == "the answer lacks 'RBAC: access denied'"


def test_a_missing_record_is_a_fault() -> None:
    [fault] = faults_of(DENIED, SIGHT, [])
    assert fault == f"not on record: orders says deny (denied_by_policy) to {spiffe('web')} by none"


def test_a_record_too_many_is_a_fault() -> None:
    extra = access(workload="ledger", what="TCP", decision="allow", reason="ok", policy="rule")
    [fault] = faults_of(DENIED, SIGHT, [access(), extra])
    assert fault == f"on record, and should not be: ledger says allow (ok) to {spiffe('web')} for TCP by rule"


def test_the_same_record_twice_is_a_fault() -> None:
    assert len(faults_of(DENIED, SIGHT, [access(), access()])) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": "web"},
        {"source": spiffe("batch")},
        {"source": ""},
        {"decision": "allow"},
        {"reason": "denied_by_default"},
        {"policy": "ns[shop]-policy[orders]-rule[0]"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_record_that_differs_is_missing_and_too_many(changes: dict[str, object]) -> None:
    missing, extra = faults_of(DENIED, SIGHT, [access(**changes)])
    assert missing.startswith("not on record:")
    assert extra.startswith("on record, and should not be:")


def test_the_tour_reads_what_the_sidecars_wrote_and_fails_by_what_differs(tmp_path: Path) -> None:
    layout = empty_logs(tmp_path)
    layout.access_log("orders").write_text(line())  # from before the tour: nobody's business

    def call(layout: Layout) -> Sight:
        with layout.access_log("orders").open("a") as log:
            log.write(
                line(method="DELETE", response_code=403, decision="deny", reason="denied_by_policy", policy="none")
            )
        return SIGHT

    good = Step(outcome=DENIED.outcome, story="", call=call, saw=DENIED.saw, said=DENIED.said, verdicts=DENIED.verdicts)
    bad = Step(outcome=DENIED.outcome, story="", call=call, saw="200 OK", verdicts=DENIED.verdicts)
    results = list(walk(layout, AccessLogs(layout), [good, bad]))
    assert [len(result.accesses) for result in results] == [1, 1]
    assert [bool(result.faults) for result in results] == [False, True]
    assert exit_code(results) == 1
    assert exit_code(results[:1]) == 0
    assert exit_code([*results[:1], Rotation(faults=())]) == 0
    assert exit_code([*results[:1], Rotation(faults=("a request failed",))]) == 1


def test_no_result_is_no_success() -> None:
    assert exit_code([]) == 1


def test_the_tour_shows_every_outcome() -> None:
    outcomes = {step.outcome for step in STEPS}
    assert outcomes == {
        "allowed",
        "denied by identity",
        "denied by default",
        "denied by route",
        "denied on TCP",
        "denied, no identity",
    }
    assert {verdict.reason for step in STEPS for verdict in step.verdicts if not step.allowed} == {
        "denied_by_policy",
        "denied_by_default",
        "not_tls",
        "certificate_required",
        "issuer_unknown",
    }
    assert all(step.verdicts for step in STEPS)
