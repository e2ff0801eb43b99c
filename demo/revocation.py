"""A workload's identity is revoked while it holds a connection: it is cut, it is refused, and later it may come again.

What is revoked is on the authority's list; sidecars have a new list within a poll. Nothing forgives: when the
revocation is lifted, certificates from before stay refused, and the workload needs a token as on its first day.
"""

from __future__ import annotations

import time
from typing import Final

from demo import authority
from demo.callers import LedgerCall, Sight, ask_web, failed
from demo.inside import eventually, in_force
from demo.layout import AUTHORITY, WORKLOADS, Layout, identity_of
from demo.tour import READS_ORDER_7, Step, Verdict

REVOKED: Final = "orders"
_WORDS: Final = ("--identity", identity_of(REVOKED), "--reason", "key-compromise")
ORDER: Final = f"remora authority revoke --directory {AUTHORITY} {' '.join(_WORDS)}"
WITHIN: Final = 5.0
"""Seconds in which a new list is in force everywhere: a poll at the shortest interval."""
_AGAIN_WITHIN: Final = 40.0
"""A sidecar that was refused asks again after a growing while, 1 s to 16 s by then."""
_A_SECOND: Final = 1.05
"""A certificate counts the seconds of its issue: one of the second of the lifting may be from before."""

_CLOSED: Final = "its open connection closed"
_HUNG_UP: Final = "hung up, no answer"
_LET_IN_BEFORE: Final = Verdict(
    by="ledger",
    source=identity_of(REVOKED),
    decision="allow",
    reason="certificate_revoked",
    policy="ns[shop]-policy[ledger]-rule[0]",
)
"""Its record has the rule that let the connection in, and the reason for which it ended."""
_NOT_LET_IN: Final = Verdict(
    by="ledger", source=f"unverified {identity_of(REVOKED)}", decision="none", reason="certificate_revoked"
)


def cut_a_call(layout: Layout) -> Sight:
    """Hold a connection from orders to the ledger, revoke orders, see the connection end."""
    try:
        with LedgerCall(layout) as call:
            heard = f"{call.greeting}, {call.ask('AMOUNT 7')}"
            authority.order(layout, "revoke", *_WORDS)
            began = time.monotonic()
            if not call.ends_within(WITHIN):
                return Sight(saw=f"its connection still open {WITHIN:g} s after the revocation")
            seconds = time.monotonic() - began
    except OSError as failure:
        return failed(failure)
    return Sight(saw=_CLOSED, said=f"{seconds:.1f} s after `{ORDER}`; before: {heard}")


def call_again(layout: Layout) -> Sight:
    """Make the next call, and see what the authority says to whoever asks it for that identity."""
    try:
        with LedgerCall(layout):
            return Sight(saw="a greeting")
    except OSError as failure:
        saw = failed(failure).saw
    refused = ""

    def is_refused() -> bool:
        nonlocal refused
        for line in authority.audit_lines(layout):
            if line["event"] == "refused" and line["presented_unverified"] == identity_of(REVOKED):
                refused = f"the authority to its sidecar: {line['reason']}: {line['message']}"
        return bool(refused)

    eventually(is_refused, WITHIN)
    return Sight(saw=saw, said=refused)


def enrol_again_and_ask(layout: Layout) -> Sight:
    """Lift the revocation, bring a new token, wait until all sidecars follow, ask as before."""
    authority.order(layout, "lift", "--identity", identity_of(REVOKED))
    time.sleep(_A_SECOND)
    before = {name: in_force(layout, name, "certificates").name for name in WORKLOADS}
    authority.admit(layout, [REVOKED])

    def all_follow() -> bool:
        # The answer with a certificate brings the list of its moment.
        return all(in_force(layout, name, "certificates").name != serial for name, serial in before.items())

    if not eventually(all_follow, _AGAIN_WITHIN):
        return Sight(saw=f"no new certificate at every sidecar {_AGAIN_WITHIN:g} s after orders got a new token")
    return ask_web(layout, "GET", "/orders/7")


STEPS: Final[tuple[Step, ...]] = (
    Step(
        outcome="cut by a revocation",
        story="orders talks to the ledger, and the authority revokes orders",
        call=cut_a_call,
        saw=_CLOSED,
        said="200 4.20 EUR",
        verdicts=(_LET_IN_BEFORE,),
    ),
    Step(
        outcome="refused, revoked",
        story="orders dials the ledger again, and asks for a new certificate",
        call=call_again,
        saw=_HUNG_UP,
        said="identity_revoked: ",
        verdicts=(_NOT_LET_IN,),
    ),
    Step(
        outcome="enrolled again",
        story="lifted, with a new join token orders gets a certificate, and web reads",
        call=enrol_again_and_ask,
        saw="200 OK",
        said=f'"caller": "{identity_of("web")}"',
        verdicts=READS_ORDER_7,
    ),
)
