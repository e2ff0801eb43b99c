"""What the benchmark of the webhook sends, what it takes for an answer, and what it makes of the waits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.processes import BenchError
from benchmarks.webhook import Plan, Round, sheet
from benchmarks.webhook_calls import Answer, Waits, request
from injector.doors import World
from injector.review import Verdict, review
from tests.benchmark_runs import MACHINE

BODY = b'{"response":{"patchType":"JSONPatch"}}'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
ROUND = Round(
    p50_ms=1.8,
    p99_ms=2.4,
    longest_ms=4.0,
    cpu_ms=1.4,
    rate=700.0,
    core_share=0.99,
    resident_mib=50.0,
    foreign_share=0.0,
)
PLAN = Plan(seconds=5, repetitions=2, connections=16)


def test_what_is_sent_is_a_review_whose_pod_gets_a_sidecar() -> None:
    head, _, body = request("injector.svc", 7).partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    answered = review(body, World())
    assert answered.audit.verdict is Verdict.INJECTED
    assert answered.audit.uid.endswith("-000000000007")


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_an_answer_is_whole_with_its_last_byte_and_not_before(size: int) -> None:
    answer, pieces = Answer(), [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
    assert [answer.take(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (WHOLE.replace(b"200 OK", b"503 Busy"), "answered b'HTTP/1.1 503"),
        (WHOLE.replace(b"JSONPatch", b"jsonpatch"), "injected nothing"),
        (WHOLE.replace(b"content-length", b"content-lengths"), "does not say how long"),
    ],
    ids=["status", "no-patch", "no-length"],
)
def test_what_injects_nothing_is_no_answer(data: bytes, told: str) -> None:
    with pytest.raises(BenchError, match=told):
        Answer().take(data)


def test_waits_are_counted_in_milliseconds_whatever_their_order() -> None:
    waits = Waits(waits=[0.004, 0.001, 0.003, 0.002], seconds=2.0)
    assert waits.rate == 2.0
    assert waits.percentile_ms(0.5) == pytest.approx(2.0)
    assert waits.percentile_ms(1.0) == pytest.approx(4.0)


def test_the_target_is_held_against_every_round() -> None:
    rows = {row.name: row for row in sheet(MACHINE, PLAN, [ROUND, replace(ROUND, p99_ms=51.0)]).rows}
    assert rows["a review at 200/s, p99"].verdict == "not settled"
    rows = {row.name: row for row in sheet(MACHINE, PLAN, [ROUND, ROUND]).rows}
    assert rows["a review at 200/s, p99"].verdict == "met"


def test_a_core_that_had_time_left_is_told() -> None:
    told = sheet(MACHINE, PLAN, [ROUND, replace(ROUND, core_share=0.5)]).remarks
    assert told == ["the webhook's core was only 50% used: it can carry more than is said"]
    assert json.loads(json.dumps(sheet(MACHINE, PLAN, [ROUND]).remarks)) == []
