"""What sidecars say is gathered, taken at once, and never makes a rotation hurry."""

from __future__ import annotations

import pytest

from certs.confirmations import FLUSH_SECONDS, ConfirmationBatch, merge_confirmations
from certs.rotation import (
    MAX_SIDECARS,
    Confirmation,
    ConfirmedMany,
    IntermediateMade,
    RootMade,
    RotationError,
    RotationState,
    advance,
    begin,
)

FAR = 1e10


def first() -> RotationState:
    return begin(RootMade(name="a", not_after=FAR), IntermediateMade(name="i", root="a", not_after=FAR), 0.0)


def test_nothing_is_due_without_reports_or_before_ten_seconds() -> None:
    batch = ConfirmationBatch(local=100.0)
    assert not batch.is_due(1_000.0)
    batch.note("orders", 1, now=5.0)
    assert not batch.is_due(100.0 + FLUSH_SECONDS - 0.1)
    assert batch.is_due(100.0 + FLUSH_SECONDS)
    batch.drain(200.0)
    batch.note("orders", 1, now=5.0)
    assert not batch.is_due(200.0 + FLUSH_SECONDS - 0.1)


def test_the_last_report_counts_even_when_it_is_older() -> None:
    batch = ConfirmationBatch(local=0.0)
    for sequence in (3, 2):
        batch.note("orders", sequence, now=5.0)
    assert batch.drain(1.0).reports["orders"].sequence == 2


def test_what_was_not_saved_comes_back_below_what_was_said_since() -> None:
    batch = ConfirmationBatch(local=0.0)
    batch.note("orders", 1, now=1.0)
    batch.note("carts", 1, now=1.0)
    drained = batch.drain(1.0)
    batch.note("orders", 2, now=2.0)
    batch.restore(drained)
    reports = batch.drain(2.0).reports
    assert {name: report.sequence for name, report in reports.items()} == {"orders": 2, "carts": 1}


def test_a_sequence_that_was_never_published_confirms_nothing() -> None:
    for sequence in (-1, 2, 10**9):
        reports = {"orders": Confirmation(sequence=sequence, seen_at=1.0)}
        state = advance(first(), 1.0, [ConfirmedMany(reports=reports)])[-1][0]
        assert state.confirmations["orders"] == Confirmation(sequence=0, seen_at=1.0)


def test_no_reports_are_no_step() -> None:
    assert advance(first(), 1.0, [ConfirmedMany(reports={})]) == []


def test_too_many_sidecars_are_refused_and_not_forgotten_in_silence() -> None:
    many = {f"s{number}": Confirmation(sequence=1, seen_at=1.0) for number in range(MAX_SIDECARS + 1)}
    with pytest.raises(RotationError, match="run another authority"):
        advance(first(), 1.0, [ConfirmedMany(reports=many)])


def test_of_two_replicas_the_later_report_counts_and_of_one_moment_the_lower() -> None:
    low, high = Confirmation(sequence=1, seen_at=9.0), Confirmation(sequence=2, seen_at=9.0)
    late = Confirmation(sequence=1, seen_at=10.0)
    assert merge_confirmations([{"a": high}, {"a": low}])["a"] is low
    assert merge_confirmations([{"a": low}, {"a": high}])["a"] is low
    assert merge_confirmations([{"a": late}, {"a": high}])["a"] is late
