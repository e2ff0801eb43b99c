"""The tour: who calls whom, what must come of it, and whether it did.

Each step makes one call and then waits for the access records of the sidecars that judged it. What is shown comes from
there and from the caller; what is expected stands in `STEPS` and is compared by `faults_of`, which does nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from demo.callers import Sight, ask_in_plain_text, ask_over_tls, ask_web
from demo.layout import Layout, identity_of
from demo.records import Access, AccessLogs

_ON_RECORD_WITHIN: Final = 5.0
"""A sidecar writes records out at least every second."""
_BETWEEN_LOOKS: Final = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the sidecar of `by` must have on record: who called, what was decided, by which reason and rule."""

    by: str
    source: str
    decision: str
    reason: str
    policy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call: `outcome` names it in a word or two, `story` in a sentence; the rest is what must come of it."""

    outcome: str
    story: str
    call: Callable[[Layout], Sight]
    saw: str
    said: str = ""
    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        return all(verdict.decision == "allow" and verdict.reason == "ok" for verdict in self.verdicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a step; `faults` says what differs from what must come of it, each in a sentence."""

    step: Step
    sight: Sight
    accesses: tuple[Access, ...]
    faults: tuple[str, ...]


def _denied(by: str, caller: str, reason: str = "denied_by_policy", policy: str = "none") -> tuple[Verdict, ...]:
    return (Verdict(by=by, source=identity_of(caller), decision="deny", reason=reason, policy=policy),)


def _refused(source: str, reason: str) -> tuple[Verdict, ...]:
    """Nobody was let in, so there was nothing for a policy to decide."""
    return (Verdict(by="orders", source=source, decision="none", reason=reason),)


_RBAC: Final = "RBAC: access denied"

READS_ORDER_7: Final = (
    Verdict(
        by="orders",
        source=identity_of("web"),
        decision="allow",
        reason="ok",
        policy="ns[shop]-policy[orders]-rule[0]",
    ),
    Verdict(
        by="ledger",
        source=identity_of("orders"),
        decision="allow",
        reason="ok",
        policy="ns[shop]-policy[ledger]-rule[0]",
    ),
)
"""Who judges a request for an order, and what each says."""

STEPS: Final[tuple[Step, ...]] = (
    Step(
        outcome="allowed",
        story="web reads order 7, orders asks the ledger for it",
        call=lambda layout: ask_web(layout, "GET", "/orders/7"),
        saw="200 OK",
        said=f'"caller": "{identity_of("web")}"',
        verdicts=READS_ORDER_7,
    ),
    Step(
        outcome="denied by identity",
        story="batch, a workload of the mesh, reads the same order",
        call=lambda layout: ask_over_tls(layout, "orders", "batch", "/orders/7"),
        saw="403 Forbidden",
        said=_RBAC,
        verdicts=_denied("orders", "batch"),
    ),
    Step(
        outcome="denied by default",
        story="batch calls web, and no policy speaks of web",
        call=lambda layout: ask_over_tls(layout, "web", "batch", "/"),
        saw="403 Forbidden",
        said=_RBAC,
        verdicts=_denied("web", "batch", "denied_by_default"),
    ),
    Step(
        outcome="denied by route",
        story="web deletes order 7: right caller, wrong method",
        call=lambda layout: ask_web(layout, "DELETE", "/orders/7"),
        saw="403 Forbidden",
        said=_RBAC,
        verdicts=_denied("orders", "web"),
    ),
    Step(
        outcome="denied by route",
        story="web reads /admin/stock, and a DENY rule shuts it",
        call=lambda layout: ask_web(layout, "GET", "/admin/stock"),
        saw="403 Forbidden",
        said=_RBAC,
        verdicts=_denied("orders", "web", policy="ns[shop]-policy[no-admin]-rule[0]"),
    ),
    Step(
        outcome="denied on TCP",
        story="web dials the ledger itself; no byte reaches it",
        call=lambda layout: ask_web(layout, "GET", "/ledger"),
        saw="502 Bad Gateway",
        said="the ledger hung up without a greeting",
        verdicts=_denied("ledger", "web"),
    ),
    Step(
        outcome="denied, no identity",
        story="somebody speaks plain HTTP to orders' sidecar",
        call=lambda layout: ask_in_plain_text(layout, "orders", "/orders/7"),
        saw="hung up, no answer",
        verdicts=_refused("", "not_tls"),
    ),
    Step(
        outcome="denied, no identity",
        story="somebody speaks TLS to it, with no certificate",
        call=lambda layout: ask_over_tls(layout, "orders", None, "/orders/7"),
        saw="TLS alert certificate_required",
        verdicts=_refused("", "certificate_required"),
    ),
    Step(
        outcome="denied, no identity",
        story="a stranger's own authority says that it is web",
        call=lambda layout: ask_over_tls(layout, "orders", "stranger", "/orders/7"),
        saw="TLS alert unknown_ca",
        verdicts=_refused(f"unverified {identity_of('web')}", "issuer_unknown"),
    ),
)


def walk(layout: Layout, logs: AccessLogs, steps: Sequence[Step] = STEPS) -> Iterator[Result]:
    """Make the steps one after the other and yield what came of each."""
    logs.new()
    for step in steps:
        sight = step.call(layout)
        accesses = _on_record(logs, len(step.verdicts))
        yield Result(step=step, sight=sight, accesses=accesses, faults=tuple(faults_of(step, sight, accesses)))


def _on_record(logs: AccessLogs, count: int) -> tuple[Access, ...]:
    """Wait until as many verdicts are on record as there must be; the order is that of the hops."""
    found: list[Access] = []
    deadline = time.monotonic() + _ON_RECORD_WITHIN
    while len(found := found + logs.new_verdicts()) < count and time.monotonic() < deadline:
        time.sleep(_BETWEEN_LOOKS)
    return tuple(sorted(found, key=lambda access: access.began))


def faults_of(step: Step, sight: Sight, accesses: Sequence[Access]) -> list[str]:
    """Compare what came of a step with what must come of it; [] when nothing differs."""
    faults = []
    if sight.saw != step.saw:
        faults.append(f"the caller saw {sight.saw!r}, and should have seen {step.saw!r}")
    elif step.said not in sight.said:
        faults.append(f"the answer lacks {step.said!r}")
    left = list(accesses)
    for wanted in step.verdicts:
        found = next((access for access in left if _matches(access, wanted)), None)
        if found is None:
            faults.append(
                f"not on record: {wanted.by} says {_words(wanted.decision, wanted.reason)} to "
                f"{wanted.source or 'nobody'}" + (f" by {wanted.policy}" if wanted.policy else "")
            )
        else:
            left.remove(found)
    faults += [
        f"on record, and should not be: {access.workload} says {_words(access.decision, access.reason)} to "
        f"{access.source or 'nobody'} for {access.what}" + (f" by {access.policy}" if access.policy else "")
        for access in left
    ]
    return faults


def _matches(access: Access, wanted: Verdict) -> bool:
    return (
        access.workload == wanted.by
        and access.source == wanted.source
        and access.decision == wanted.decision
        and access.reason == wanted.reason
        and wanted.policy in ("", access.policy)
    )


def _words(decision: str, reason: str) -> str:
    return reason if decision == "none" else f"{decision} ({reason})"
