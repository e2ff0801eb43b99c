"""The root of the mesh is replaced while requests run, and no request may fail: one order, and the rest by itself.

    root             bundle           leaves      what the authority waits for
    first            first            of first
    second made      first, second    of first    that all say they hold this bundle, and three refresh hints more
    second used      first, second    of either   the end of the last leaf of the first
    first removed    second           of second

In every state between two of these whoever calls is trusted by whoever is called. The demo only gives the order and
looks: sidecars renew and poll by themselves, and `remora authority status` says in words where it stands.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from demo import authority
from demo.inside import eventually, in_force
from demo.layout import AUTHORITY, MEMBERS, WORKLOADS, Layout, identity_of
from demo.records import Access, AccessLogs
from demo.traffic import ANSWERED, Traffic

OUTCOME: Final = "rotated in traffic"
STORY: Final = "the root and every certificate change while web keeps asking"
ORDER: Final = f"remora authority rotate root --directory {AUTHORITY}"
SERVED: Final = 30
"""Requests that must be answered before the order, and on the last bundle, which comes with a sidecar's renewal."""
_SERVED_WITHIN: Final = 5.0
_ENDS_WITHIN: Final = 60.0
"""It takes 15 seconds, most of them for the last certificate of the first root to end; a busy machine takes longer."""
_ON_RECORD_WITHIN: Final = 5.0
_BETWEEN_LOOKS: Final = 0.3
_DIGITS: Final = 6

_USED: Final = "no rotation is under way"
_ALONE: Final = " with 1 root;"

Tell = Callable[[str, str], None]
"""Takes a word and what happened, in the order in which it happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What came of it: `faults` says what is not as it must be, each in a sentence."""

    faults: tuple[str, ...]


def rotate(layout: Layout, logs: AccessLogs, tell: Tell) -> Rotation:
    """Have the root replaced under traffic, tell how it goes, compare with what must be. Raises MeshError."""
    first, before = authority.roots(layout), _serials(layout)
    known = authority.issued(authority.audit_lines(layout))
    faults: list[str] = []
    logs.new()
    with Traffic(layout) as traffic:
        faults += _served(traffic, "before the order")
        began = time.monotonic()
        tell("order", f"{ORDER}; after it `status`, until the first root has gone")
        said = authority.standing(authority.order(layout, "rotate root"))
        _tell_standing(tell, said, time.monotonic() - began)
        if not any("have not confirmed" in line for line in said):
            faults.append("the new root was not waited for: nobody had to confirm it")
        for moment, holds in (("used", lambda text: _USED in text), ("left alone", lambda text: _ALONE in text)):
            said, reached = _until(layout, holds, began + _ENDS_WITHIN)
            if not reached:
                faults.append(f"the new root is not {moment} after {_ENDS_WITHIN:g} s: {'; '.join(said)}")
                break
            _tell_standing(tell, said, time.monotonic() - began)
        seconds = time.monotonic() - began
        held = _serials(layout)
        if not eventually(lambda: all(_serials(layout)[name] != held[name] for name in WORKLOADS), _SERVED_WITHIN):
            faults.append(f"a sidecar has not renewed its certificate within {_SERVED_WITHIN:g} s")
        faults += _served(traffic, "on the last bundle")
    authority.publish_bundle(layout)
    second, after = authority.roots(layout), _serials(layout)
    if len(second) != 1 or second == first:
        faults.append(f"the bundle holds {', '.join(second)}, and should hold one new root")
    tell("root", f"{', '.join(first)} → {', '.join(second)}")
    issued = authority.issued(authority.audit_lines(layout)) - known
    tell(
        "issued",
        f"{issued.total()} certificates in {seconds:.1f} s: "
        + ", ".join(f"{name} {issued[identity_of(name)]}" for name in MEMBERS),
    )
    tell("serials", ", ".join(f"{name} {_short(before[name])} → {_short(after[name])}" for name in WORKLOADS))
    accesses = _on_record(logs, traffic.count)
    seen, twice = traffic.seen, sum(access.retries for access in accesses)
    failed = seen.total() - seen[ANSWERED]
    tell("requests", f"{seen.total()} through web, orders and the ledger: {failed} failed, {twice} sent twice")
    faults += faults_of(seen, accesses)
    return Rotation(faults=tuple(faults))


def _tell_standing(tell: Tell, lines: Sequence[str], seconds: float) -> None:
    for number, line in enumerate(lines):
        tell("" if number else f"+ {seconds:.1f} s", line)


def _until(layout: Layout, holds: Callable[[str], bool], deadline: float) -> tuple[list[str], bool]:
    """Ask for the status until it says something; give what it said last, and whether it said that."""
    while True:
        said = authority.standing(authority.order(layout, "status"))
        if holds("\n".join(said)):
            return said, True
        if time.monotonic() > deadline:
            return said, False
        time.sleep(_BETWEEN_LOOKS)


def _served(traffic: Traffic, when: str) -> list[str]:
    then = traffic.count
    served = eventually(lambda: traffic.count - then >= SERVED, _SERVED_WITHIN)
    return [] if served else [f"requests are too slow {when}, or stand still"]


def _on_record(logs: AccessLogs, requests: int) -> list[Access]:
    """Wait until every request is on record at both sidecars that judged it."""
    found: list[Access] = []

    def complete() -> bool:
        found.extend(logs.new())
        return min(_judged(found)[name] for name in ("orders", "ledger")) >= requests

    eventually(complete, _ON_RECORD_WITHIN)
    return found


def _judged(accesses: Sequence[Access]) -> Counter[str]:
    return Counter(access.workload for access in accesses if access.is_verdict)


def faults_of(seen: Counter[str], accesses: Sequence[Access]) -> list[str]:
    """Compare what the callers saw and the sidecars recorded with what must be: everything answered and allowed once.

    >>> faults_of(Counter({"200 OK": 2, "502 Bad Gateway": 1}), ())[0]
    '1 of 3 requests failed: 502 Bad Gateway (1)'
    """
    faults, requests = [], seen.total()
    if failed := {saw: times for saw, times in seen.items() if saw != ANSWERED}:
        words = ", ".join(f"{saw} ({times})" for saw, times in failed.items())
        faults.append(f"{sum(failed.values())} of {requests} requests failed: {words}")
    judged = _judged(accesses)
    faults += [
        f"{requests} requests were made, and on record at {name} are {judged[name]}"
        for name in ("orders", "ledger")
        if judged[name] != requests
    ]
    others = Counter(
        f"{access.workload} says {access.decision} ({access.reason}) to {access.source or 'nobody'}"
        for access in accesses
        if access.is_verdict and not (access.allowed and access.reason == "ok")
    )
    faults += [f"on record, and should not be: {words}, {times} times" for words, times in others.items()]
    if twice := sum(access.retries for access in accesses):
        faults.append(f"{twice} requests were sent twice")
    return faults


def _serials(layout: Layout) -> dict[str, str]:
    return {name: in_force(layout, name, "certificates").name for name in WORKLOADS}


def _short(serial: str) -> str:
    return f"{serial[:_DIGITS]}…"
