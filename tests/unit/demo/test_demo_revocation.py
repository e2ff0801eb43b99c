"""What must come of a revocation stands in its steps, and what does not is named."""

from __future__ import annotations

from demo_samples import access, spiffe

from demo import revocation
from demo.callers import Sight
from demo.tour import faults_of


def test_what_comes_of_it_is_expected_step_by_step() -> None:
    cut, refused, again = revocation.STEPS
    assert [step.allowed for step in revocation.STEPS] == [False, False, True]
    assert [verdict.reason for step in (cut, refused) for verdict in step.verdicts] == ["certificate_revoked"] * 2
    assert [verdict.by for verdict in again.verdicts] == ["orders", "ledger"]


def test_a_connection_that_goes_on_is_a_fault() -> None:
    ended = access(
        workload="ledger",
        source=spiffe("orders"),
        decision="allow",
        reason="ok",
        policy="ns[shop]-policy[ledger]-rule[0]",
    )
    faults = faults_of(revocation.STEPS[0], Sight(saw="its connection still open 5 s after the revocation"), [ended])
    assert len(faults) == 3
    assert "still open" in faults[0]
    assert "not on record: ledger says allow (certificate_revoked)" in faults[1]


def test_a_refusal_that_the_authority_did_not_say_is_a_fault() -> None:
    refused = access(
        workload="ledger",
        source=f"unverified {spiffe('orders')}",
        decision="none",
        reason="certificate_revoked",
        policy="",
    )
    sight = Sight(saw="hung up, no answer", said="")
    assert faults_of(revocation.STEPS[1], sight, [refused]) == ["the answer lacks 'identity_revoked: '"]
