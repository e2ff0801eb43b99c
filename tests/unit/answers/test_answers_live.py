"""A denial that was kept, explained by policies that may have changed since."""

from __future__ import annotations

from dataclasses import replace

from explain_world import NO_ADMIN, NOW, ORDERS, allow, question, world

from proxy.answers.live import explain_kept
from proxy.answers.question import World, ask
from proxy.answers.report import Report
from proxy.types import Asked, Denial, Generation


def denied(where: World, target: str) -> tuple[Asked, str]:
    verdict = ask(where, question(target), NOW).verdict
    assert isinstance(verdict, Denial)
    assert verdict.asked is not None
    return replace(verdict.asked, target=target), verdict.rule


def later(where: World) -> World:
    return replace(where, snapshot=replace(where.snapshot, generation=Generation(2)))


def explained(then: World, now: World, target: str) -> Report:
    asked, rule = denied(then, target)
    return explain_kept(now, asked, rule=rule, generation=then.snapshot.generation)


def test_by_the_policies_that_denied() -> None:
    where = world(ORDERS)
    report = explained(where, where, "/x/../carts")
    assert report.notes == ()
    assert report.path is not None
    assert (report.path.sent, report.path.judged) == ("/x/../carts", "/carts")
    assert report.edit is not None
    assert report.edit.summary == ('add "/carts" to `paths` of demo/orders rule 0 (a.yaml:12)',)


def test_by_other_policies_with_the_same_answer() -> None:
    report = explained(world(ORDERS), later(world(ORDERS)), "/carts")
    assert report.notes == ("policy generation 1 denied it; this is judged by 2, which is in force now",)


def test_by_other_policies_with_another_answer() -> None:
    report = explained(world(ORDERS), later(world(ORDERS, NO_ADMIN)), "/admin")
    assert report.notes[1] == "it was denied by none, and would be denied by ns[demo]-policy[no-admin]-rule[0] now"
    report = explained(world(ORDERS), later(world(allow("all", "[{}]"))), "/admin")
    assert report.allowed
    assert report.notes[1] == "the policies in force now would allow it"


def test_what_was_too_long_to_keep_is_said() -> None:
    where = world(ORDERS)
    report = explained(where, where, "/" + "a" * 5_000)
    assert "too long to keep" in report.notes[0]
