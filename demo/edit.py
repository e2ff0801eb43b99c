"""A policy edit while a connection stands: it is cut, the next call is denied, and with the edit undone all is well.

The edit is one more file among the mounted policies, a DENY rule. It appears by a rename and goes by an unlink, so a
sidecar sees the set with it or without it and nothing between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Final

from demo.callers import LedgerCall, Sight, ask_web, failed
from demo.inside import PROMISED, eventually, in_force
from demo.layout import EDIT, Layout, identity_of
from demo.tour import READS_ORDER_7, Step, Verdict

_CLOSED: Final = "its open connection closed"
_SHUT: Final = Verdict(
    by="ledger",
    source=identity_of("orders"),
    decision="deny",
    reason="denied_by_policy",
    policy="ns[shop]-policy[ledger-shut]-rule[0]",
)


def make(layout: Layout) -> None:
    """Put the file among the policies, whole from its first moment."""
    # Names with a dot before them are none of a policy's.
    unseen = layout.policies / f".{EDIT}"
    unseen.write_text((resources.files("demo") / "files" / "edits" / EDIT).read_text("utf-8"))
    os.replace(unseen, layout.policies / EDIT)


def undo(layout: Layout) -> None:
    """Take the file away, if it is there."""
    (layout.policies / EDIT).unlink(missing_ok=True)


@contextmanager
def undone(layout: Layout) -> Iterator[None]:
    """Take the file away at the end of the block, whatever ends it."""
    try:
        yield
    finally:
        undo(layout)


def cut_a_call(layout: Layout) -> Sight:
    """Hold a connection from orders to the ledger, make the edit, see the connection end."""
    try:
        with LedgerCall(layout) as call:
            heard = f"{call.greeting}, {call.ask('AMOUNT 7')}"
            began = time.monotonic()
            make(layout)
            if not call.ends_within(PROMISED):
                return Sight(saw=f"its connection still open {PROMISED:g} s after the edit")
            seconds = time.monotonic() - began
    except OSError as failure:
        return failed(failure)
    return Sight(saw=_CLOSED, said=f"{seconds:.1f} s after policies/{EDIT} appeared; before: {heard}")


def undo_and_ask(layout: Layout) -> Sight:
    """Undo the edit, wait until the ledger's sidecar follows, ask again."""
    before = in_force(layout, "ledger", "policy").generation
    undo(layout)
    if not eventually(lambda: in_force(layout, "ledger", "policy").generation > before):
        return Sight(saw=f"no new policy in force {PROMISED:g} s after the edit was undone")
    return ask_web(layout, "GET", "/orders/7")


STEPS: Final[tuple[Step, ...]] = (
    Step(
        outcome="cut by an edit",
        story="orders talks to the ledger, and a new policy shuts it out",
        call=cut_a_call,
        saw=_CLOSED,
        said="200 4.20 EUR",
        verdicts=(_SHUT,),
    ),
    Step(
        outcome="denied by the edit",
        story="web reads order 7 again: the next call is judged by it",
        call=lambda layout: ask_web(layout, "GET", "/orders/7"),
        saw="502 Bad Gateway",
        said="the ledger hung up without a greeting",
        verdicts=(READS_ORDER_7[0], _SHUT),
    ),
    Step(
        outcome="allowed again",
        story="the edit is undone, and web reads it once more",
        call=undo_and_ask,
        saw="200 OK",
        said=f'"caller": "{identity_of("web")}"',
        verdicts=READS_ORDER_7,
    ),
)
