"""Every certificate of the mesh is replaced while requests run, the root included, and no request may fail.

A root is replaced with an overlap, in three moves of which each may take as long as it likes, because in every state
between two of them whoever calls is trusted by whoever is called:

    set   leaves signed under   roots that are trusted
    1     first                 first                    what the mesh began with
    2     first                 first                    new leaves and keys: the everyday rotation
    3     first                 first, second            all must trust the second root before anybody shows it
    4     second                first, second            new leaves
    5     second                second                   the first root vouches for nobody any more
"""

from __future__ import annotations

import datetime
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from certs.authority import Authority, Svid
from certs.bundle import TrustBundle
from demo.inside import PROMISED, eventually, in_force
from demo.layout import WORKLOADS, Layout
from demo.prepare import MEMBERS, issue, publish_identity
from demo.records import Access, AccessLogs
from demo.traffic import ANSWERED, Traffic

OUTCOME: Final = "rotated in traffic"
STORY: Final = "every certificate and the root change while web keeps asking"
SERVED: Final = 30
"""Requests that must be answered on each set before the next one comes."""
_SERVED_WITHIN: Final = 5.0
_ON_RECORD_WITHIN: Final = 5.0
_DIGITS: Final = 6

Tell = Callable[[str, str], None]
"""Takes a word and what happened, in the order in which it happens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What came of it: `faults` says what is not as it must be, each in a sentence."""

    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """What all workloads are given at once; `signer` is None when they keep their leaves."""

    label: str
    what: str
    signer: Authority | None
    roots: TrustBundle


def rotate(layout: Layout, logs: AccessLogs, tell: Tell) -> Rotation:
    """Replace every identity and the root under traffic, tell each move as it is made, compare with what must be."""
    now = datetime.datetime.now(datetime.UTC)
    first = Authority.load(layout.authority)
    second = Authority.create(first.trust_domain, now)
    svids = {name: issue(first, name, now) for name in MEMBERS}
    faults: list[str] = []
    before = _serials(layout)
    logs.new()
    with Traffic(layout) as traffic:
        for each in sets(first, second):
            if each.signer is not None:
                svids = {name: issue(each.signer, name, now) for name in MEMBERS}
            faults += _put_in_force(layout, traffic, each, svids, tell)
    # Who is given an identity from now on must have it from the root that is trusted.
    shutil.rmtree(layout.authority)
    second.save(layout.authority)
    after = _serials(layout)
    tell("serials", ", ".join(f"{name} {_short(before[name])} → {_short(after[name])}" for name in WORKLOADS))
    accesses = _on_record(logs, traffic.count)
    seen, twice = traffic.seen, sum(access.retries for access in accesses)
    failed = seen.total() - seen[ANSWERED]
    tell("requests", f"{seen.total()} through web, orders and the ledger: {failed} failed, {twice} sent twice")
    faults += faults_of(seen, accesses)
    return Rotation(faults=tuple(faults))


def sets(first: Authority, second: Authority) -> tuple[Set, ...]:
    """Give the sets 2 to 5 in their order."""
    both = TrustBundle(
        trust_domain=first.trust_domain,
        certificates=(*first.bundle.certificates, *second.bundle.certificates),
        sequence=None,
    )
    return (
        Set(label="leaves", what="new ones from the same authority", signer=first, roots=first.bundle),
        Set(label="roots", what="a second one is trusted beside the first", signer=None, roots=both),
        Set(label="leaves", what="new ones under the second root", signer=second, roots=both),
        Set(label="roots", what="the first one is trusted no more", signer=None, roots=second.bundle),
    )


def _put_in_force(layout: Layout, traffic: Traffic, new: Set, svids: Mapping[str, Svid], tell: Tell) -> list[str]:
    """Mount a set everywhere, wait until all sidecars hold it and requests were answered on it; give the faults."""
    generations = {name: in_force(layout, name, "certificates").generation + 1 for name in WORKLOADS}
    serials = {name: f"{svids[name].leaf.serial_number:x}" for name in WORKLOADS}
    asked, began = traffic.count, time.monotonic()
    for name, svid in svids.items():
        publish_identity(layout.identity(name), svid, new.roots)

    def lagging() -> list[str]:
        wanted = {name: (generations[name], serials[name]) for name in WORKLOADS}
        held = {name: in_force(layout, name, "certificates") for name in WORKLOADS}
        return [name for name in WORKLOADS if (held[name].generation, held[name].name) != wanted[name]]

    if not eventually(lambda: not lagging()):
        return [
            f"the sidecar of {name} has not taken this set {PROMISED:g} s after it was mounted: {new.what}"
            for name in lagging()
        ]
    seconds, then = time.monotonic() - began, traffic.count
    served = eventually(lambda: traffic.count - then >= SERVED, _SERVED_WITHIN)
    generation = "/".join(sorted({str(number) for number in generations.values()}))
    tell(new.label, f"{new.what}: generation {generation} in {seconds:.1f} s, {traffic.count - asked} requests")
    return [] if served else [f"requests are too slow with this set, or stand still: {new.what}"]


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
