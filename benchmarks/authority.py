"""Measures what one authority on one core can carry, and computes from it the replicas that a large cluster needs.

A real `remora authority serve` has a core to itself; all simulated sidecars run on the other one.

    new authority --> first certificates --> rounds: renewals, one at a time, kept; polls, kept  (authority_callers)
                                        \\--> ends: are all certificates in the index and in the audit log?
    start with nothing, grow to a cluster's size, start again; what is done by the clock         (authority_service)

The rate limits are raised by the authority's own flags, for all callers come from one address. What is timed is what
was answered as it must be: a certificate (200), or "not changed" (304).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.authority_callers import Crowd, make_sidecars
from benchmarks.authority_report import (
    POLLS,
    POLLS_KEPT,
    REFRESH_HINT,
    RENEWALS,
    RENEWALS_ALONE,
    RENEWALS_KEPT,
    Fresh,
    Grown,
    Load,
    Start,
    sheet,
)
from benchmarks.authority_service import RATE, AuthorityDirectory
from benchmarks.host import Machine
from benchmarks.processes import BenchError, bound_to
from benchmarks.sheet import Sheet
from certs.confirmations import FLUSH_SECONDS

CALLERS: Final = 8
"""At once: enough that the authority always has somebody to serve, and few enough that its queue says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: sidecars, seconds of each load, rounds, and the certificates of the grown authority."""

    sidecars: int
    seconds: float
    repetitions: int
    entries: int


def run(machine: Machine, plan: Plan, directory: Path, tell: Callable[[str], None]) -> Sheet:
    """Measure; `directory` takes the files, `tell` hears of the progress. Raises BenchError when work was not done."""
    core = machine.cores.proxies
    with bound_to(machine.cores.others):
        made = AuthorityDirectory(directory / "authority", core)
        tell("a first start, which is not counted")
        with made.served():
            pass
        fresh, rounds = _loads(made, plan, tell)
        grown = _grown(AuthorityDirectory(directory / "grown", core), plan, tell)
    return sheet(machine, how(plan), fresh, rounds, grown)


def how(plan: Plan) -> list[str]:
    """Say how it was measured."""
    return [
        f"{plan.sidecars:,} sidecars, each with an identity, a ServiceAccount token (verified offline) and two keys;",
        f"{plan.repetitions} rounds of {plan.seconds:g} s for each load, {CALLERS} callers at a time, a new mTLS "
        "connection each time;",
        "a renewal brings the certificate and the token; a poll asks for bundle and revocation list, and confirms;",
        f"rate limits raised: --address-rate {RATE} --identity-rate {RATE}; nobody is revoked",
    ]


def _loads(made: AuthorityDirectory, plan: Plan, tell: Callable[[str], None]) -> tuple[Fresh, list[Mapping[str, Load]]]:
    tell(f"{plan.sidecars} sidecars")
    core, seconds = made.core, plan.seconds
    crowd = Crowd(make_sidecars(made, plan.sidecars), made.bundle, CALLERS)
    sync_ms = made.sync_seconds() * 1000
    rounds: list[Mapping[str, Load]] = []
    with made.served() as serving:
        lines, size, audit_lines, audit_size = made.written()
        before = serving.resident_mib()
        first = crowd.enrol(serving, core)
        after = serving.resident_mib()
        for number in range(1, plan.repetitions + 1):
            tell(f"round {number} of {plan.repetitions}")
            rounds.append(
                {
                    RENEWALS: crowd.renewals(serving, core, seconds, callers=CALLERS),
                    POLLS: crowd.polls(serving, core, seconds, callers=CALLERS),
                    RENEWALS_ALONE: crowd.renewals(serving, core, seconds, callers=1),
                    RENEWALS_KEPT: crowd.renewals(serving, core, seconds, callers=CALLERS, kept=True),
                    POLLS_KEPT: crowd.polls(serving, core, seconds, callers=CALLERS, kept=True),
                }
            )
        loaded = serving.resident_mib()
    more_lines, more_size, more_audit_lines, more_audit_size = made.written()
    issued = more_lines - lines
    for what, found in (("index", issued), ("audit log", more_audit_lines - audit_lines)):
        if found != crowd.certificates:
            raise BenchError(f"{crowd.certificates} certificates were answered and {found} stand in the {what}")
    if (confirmed := made.confirmed()) != plan.sidecars:
        raise BenchError(f"{plan.sidecars} sidecars confirmed their bundle and the authority knows of {confirmed}")
    fresh = Fresh(
        first=first,
        before_mib=before,
        after_mib=after,
        loaded_mib=loaded,
        index_bytes=(more_size - size) / issued,
        audit_bytes=(more_audit_size - audit_size) / issued,
        sync_ms=sync_ms,
    )
    return fresh, rounds


def _grown(made: AuthorityDirectory, plan: Plan, tell: Callable[[str], None]) -> Grown:
    starts: list[list[Start]] = []
    for words, entries in (("nothing", 0), (f"{plan.entries:,} certificates", plan.entries)):
        if entries:
            made.grow(entries)
        starts.append([])
        for number in range(1, plan.repetitions + 1):
            tell(f"start with {words}, {number} of {plan.repetitions}")
            with made.served() as serving:
                starts[-1].append(serving.start)
    tell("what is done by the clock")
    said = round(plan.entries / REFRESH_HINT * FLUSH_SECONDS)
    return Grown(
        entries=plan.entries,
        empty=starts[0],
        grown=starts[1],
        reports=[made.take_reports(plan.entries, said) for _ in range(plan.repetitions)],
        forget=[made.forget() for _ in range(plan.repetitions)],
    )
