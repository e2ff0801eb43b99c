"""How an authority replaces the keys that it signs with, as a state machine without I/O.

A verifier believes a leaf when its chain ends in a root that the verifier holds. So a root is used late and removed
late, and between the two moments the bundle holds both:

    root           prepared ──published──▶ prepared, in the bundle ──everybody has it──▶ active
                                                                                           │ the next root is used
                                           removed ◀──last leaf ended──────────────── retiring
    intermediate   prepared ──its root is usable──▶ active ──the next is used──▶ retiring ──last leaf ended──▶ removed

Invariants, true of every state that `advance` returns, so of every state that is ever on disk:

1. One intermediate is active, and it stands under the one active root.
2. An intermediate becomes active only under a root that is in the bundle, that every sidecar seen within
   `Pace.window` has confirmed, and whose publication is `Pace.hints` refresh hints old (an operator may name the
   sidecars that are left behind, see `Force`).
3. A root leaves the bundle only after the last leaf under it has ended, and `Pace.margin` more.
4. The sequence of the bundle grows by one each time that its content changes, and never otherwise.
5. A signer that ceased to sign goes `Pace.margin` later at the earliest, even if no leaf of it is known: a replica of
   the authority that has not read the state for some minutes may still sign with it.

Each step of `advance` is one file to write, then one action to do. What an action does can be done again: after a
crash between the two, `advance` names it once more, or the state itself says it (the keys of removed signers).

Each rotation is asked for by an operator, but for one: an intermediate near its end (`Signer.renewal_at`) asks for its
own. If the root above ends no later, a new intermediate would live no longer, and the root is replaced instead.

An intermediate that is retired holds no key any more, hence the end of its leaves counts and not its own.
Moments are seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import assert_never

from certs.rotation_values import (
    MAX_INSTANCES,
    MAX_SIDECARS,
    Action,
    Confirmation,
    ConfirmedMany,
    Do,
    Event,
    Force,
    IntermediateMade,
    Pace,
    Revoked,
    RootMade,
    Rotate,
    RotationError,
    RotationState,
    Signer,
    Status,
    Wanted,
    identity_of,
    maybe_signer,
    only_signer,
    with_signer,
)

__all__ = [
    "MAX_SIDECARS",
    "Action",
    "Confirmation",
    "ConfirmedMany",
    "Do",
    "Event",
    "Force",
    "IntermediateMade",
    "Pace",
    "Revoked",
    "RootMade",
    "Rotate",
    "RotationError",
    "RotationState",
    "Signer",
    "Status",
    "Wanted",
    "advance",
    "begin",
    "crowds",
    "end_of",
    "is_waited_for",
    "maybe_signer",
    "unconfirmed",
]


def begin(
    root: RootMade,
    intermediate: IntermediateMade,
    now: float,
    pace: Pace | None = None,
    *,
    root_offline: bool = False,
) -> RotationState:
    """Makes the state of a new authority: one root, in the bundle at sequence 1, and one intermediate.

    With `root_offline` the root's key is elsewhere: whoever has it makes new signers, and they are imported.

    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 0.0)
    >>> state.bundle, state.active.name, state.sequence
    (('r',), 'i', 1)
    """
    if intermediate.root != root.name:
        raise RotationError("the intermediate stands under another root; import the two that belong together")
    return RotationState(
        roots=(dataclasses.replace(_root(root), status=Status.ACTIVE, published=1),),
        intermediates=(dataclasses.replace(_intermediate(intermediate), status=Status.ACTIVE),),
        sequence=1,
        published_at=now,
        root_offline=root_offline,
        pace=pace or Pace(),
    )


def advance(state: RotationState, now: float, events: Sequence[Event] = ()) -> list[tuple[RotationState, Action]]:
    """Takes in what happened, then every step that is due: write each state, then do its action, in this order.

    Raises RotationError for an event that does not fit; nothing is to be written then. The same event again, and the
    same moment again, change nothing more.

    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 0.0)
    >>> [action.do.name for _, action in advance(state, 1.0, [Rotate(what=Wanted.INTERMEDIATE)])]
    ['NOTHING', 'MAKE_INTERMEDIATE']
    """
    steps: list[tuple[RotationState, Action]] = []
    taken = state
    for event in events:
        taken = _take(taken, event, now)
    if taken != state:
        steps.append((taken, Action(do=Do.NOTHING)))
    while (step := _step(taken, now)) is not None:
        steps.append(step)
        if step[0] == taken:  # only the shell can go on from here
            break
        taken = step[0]
    return steps


def unconfirmed(state: RotationState, now: float) -> list[str]:
    """Names the sidecars, seen within the window, that have not confirmed the present bundle; sorted."""
    return sorted(
        sidecar
        for sidecar, confirmation in state.confirmations.items()
        if confirmation.sequence < state.sequence
        and confirmation.seen_at >= now - state.pace.window
        and state.left_behind.isdisjoint((sidecar, identity_of(sidecar)))
    )


def is_waited_for(state: RotationState, identities: Set[str]) -> bool:
    """Tells whether a new root waits for any of these identities."""
    return maybe_signer(state.roots, Status.PREPARED) is not None and any(
        identity_of(sidecar) in identities for sidecar in state.confirmations
    )


def crowds(state: RotationState) -> list[str]:
    """Names the identities of which no more instances are taken; sorted."""
    if len(state.confirmations) < MAX_INSTANCES:
        return []
    counted = Counter(map(identity_of, state.confirmations))
    return sorted(identity for identity, count in counted.items() if count >= MAX_INSTANCES)


def _take(state: RotationState, event: Event, now: float) -> RotationState:
    match event:
        case Rotate():
            if state.wanted not in (Wanted.NOTHING, event.what):
                raise RotationError(f"a rotation of the {state.wanted.value} is under way; let it end first")
            return dataclasses.replace(state, wanted=event.what)
        case Force():
            return _force(state, event, now)
        case RootMade():
            return _take_root(state, event)
        case IntermediateMade():
            return _take_intermediate(state, event)
        case ConfirmedMany():
            return _confirm(state, event.reports, now)
        case Revoked():
            kept = {
                name: known for name, known in state.confirmations.items() if identity_of(name) not in event.identities
            }
            return dataclasses.replace(state, confirmations=MappingProxyType(kept))
        case _:
            assert_never(event)


def _force(state: RotationState, event: Force, now: float) -> RotationState:
    if maybe_signer(state.roots, Status.PREPARED) is None:
        raise RotationError("no root waits for confirmations; there is nothing to force")
    named = event.left_behind
    missing = [sidecar for sidecar in unconfirmed(state, now) if named.isdisjoint((sidecar, identity_of(sidecar)))]
    if missing:
        raise RotationError(f"these have not confirmed and were not named: {', '.join(missing)}; name all, or wait")
    return dataclasses.replace(state, left_behind=state.left_behind | event.left_behind)


def _take_root(state: RotationState, event: RootMade) -> RotationState:
    if any(root.name == event.name for root in state.roots):
        return state
    if state.wanted is not Wanted.ROOT or maybe_signer(state.roots, Status.PREPARED) is not None:
        raise RotationError("no new root is awaited; ask for a rotation of the root first")
    return dataclasses.replace(state, roots=(*state.roots, _root(event)))


def _take_intermediate(state: RotationState, event: IntermediateMade) -> RotationState:
    if any(signer.name == event.name for signer in state.intermediates):
        return state
    if state.wanted is Wanted.NOTHING or maybe_signer(state.intermediates, Status.PREPARED) is not None:
        raise RotationError("no new intermediate is awaited; ask for a rotation first")
    awaits_root = state.wanted is Wanted.ROOT and maybe_signer(state.roots, Status.PREPARED) is None
    if awaits_root or event.root != _target(state).name:
        raise RotationError("the intermediate stands under a root that is not the next to be used; sign it anew")
    return dataclasses.replace(state, intermediates=(*state.intermediates, _intermediate(event)))


def _confirm(state: RotationState, reports: Mapping[str, Confirmation], now: float) -> RotationState:
    if not reports:
        return state
    kept = {name: known for name, known in state.confirmations.items() if known.seen_at >= now - 2 * state.pace.window}
    counted = Counter(map(identity_of, kept)) if len(kept) + len(reports) > MAX_INSTANCES else None
    for sidecar, report in reports.items():
        if counted is not None and sidecar not in kept:
            identity = identity_of(sidecar)
            if counted[identity] >= MAX_INSTANCES:
                continue
            counted[identity] += 1
        # A sequence that was never published is of another authority, or of before a restore: it confirms nothing.
        is_ours = 0 <= report.sequence <= state.sequence
        kept[sidecar] = report if is_ours else dataclasses.replace(report, sequence=0)
    if len(kept) > MAX_SIDECARS:
        raise RotationError(f"more than {MAX_SIDECARS} sidecars confirm; run another authority for some of them")
    return dataclasses.replace(state, confirmations=MappingProxyType(kept))


def _step(state: RotationState, now: float) -> tuple[RotationState, Action] | None:
    return _publish(state, now) or _retire(state, now) or _renew(state, now) or _ask_for_renewal(state, now)


def _publish(state: RotationState, now: float) -> tuple[RotationState, Action] | None:
    prepared = maybe_signer(state.roots, Status.PREPARED)
    if prepared is None or prepared.published:
        return None
    sequence = state.sequence + 1
    roots = with_signer(state.roots, dataclasses.replace(prepared, published=sequence))
    after = dataclasses.replace(state, roots=roots, sequence=sequence, published_at=now, left_behind=frozenset())
    return after, Action(do=Do.PUBLISH)


def _retire(state: RotationState, now: float) -> tuple[RotationState, Action] | None:
    for signer in state.intermediates:
        if signer.status is Status.RETIRING and now >= end_of(state, signer):
            gone = dataclasses.replace(signer, status=Status.REMOVED)
            after = dataclasses.replace(state, intermediates=with_signer(state.intermediates, gone))
            return after, Action(do=Do.DESTROY_KEY, signer=signer.name)
    if maybe_signer(state.roots, Status.PREPARED) is not None:
        return None  # a change of the bundle now would ask everybody to confirm once more
    for root in state.roots:
        above = [s for s in state.intermediates if s.root == root.name and s.status is not Status.REMOVED]
        if root.status is Status.RETIRING and not above:
            roots = with_signer(state.roots, dataclasses.replace(root, status=Status.REMOVED))
            after = dataclasses.replace(state, roots=roots, sequence=state.sequence + 1, published_at=now)
            return after, Action(do=Do.PUBLISH, signer=root.name)
    return None


def _renew(state: RotationState, now: float) -> tuple[RotationState, Action] | None:
    if state.wanted is Wanted.NOTHING:
        return None
    if state.wanted is Wanted.ROOT:
        if maybe_signer(state.roots, Status.PREPARED) is None:
            return state, Action(do=Do.AWAIT_IMPORT if state.root_offline else Do.MAKE_ROOT)
        waited = now >= state.published_at + state.pace.hints * state.refresh_hint
        if not waited or unconfirmed(state, now):
            return None
    target = _target(state)
    made = maybe_signer(state.intermediates, Status.PREPARED)
    if made is None:
        return state, Action(do=Do.AWAIT_IMPORT if state.root_offline else Do.MAKE_INTERMEDIATE, signer=target.name)
    intermediates = with_signer(state.intermediates, _retired(state.active, now))
    intermediates = with_signer(intermediates, dataclasses.replace(made, status=Status.ACTIVE))
    roots = state.roots
    if state.wanted is Wanted.ROOT:
        roots = with_signer(roots, _retired(only_signer(roots, Status.ACTIVE), now))
        roots = with_signer(roots, dataclasses.replace(target, status=Status.ACTIVE))
    after = dataclasses.replace(
        state, roots=roots, intermediates=intermediates, wanted=Wanted.NOTHING, left_behind=frozenset()
    )
    return after, Action(do=Do.USE, signer=made.name)


def _target(state: RotationState) -> Signer:
    prepared = maybe_signer(state.roots, Status.PREPARED)
    return only_signer(state.roots, Status.ACTIVE) if prepared is None else prepared


def _ask_for_renewal(state: RotationState, now: float) -> tuple[RotationState, Action] | None:
    if state.wanted is not Wanted.NOTHING or now < state.active.renewal_at:
        return None
    root = only_signer(state.roots, Status.ACTIVE)
    what = Wanted.ROOT if root.not_after <= state.active.not_after else Wanted.INTERMEDIATE
    return dataclasses.replace(state, wanted=what), Action(do=Do.NOTHING)


def end_of(state: RotationState, signer: Signer) -> float:
    """Says from when on a retiring signer may go: `Pace.margin` after its last leaf, and after it ceased to sign."""
    below = [each.issued_until for each in state.intermediates if signer.name in (each.name, each.root)]
    return max([signer.retired_at, *below]) + state.pace.margin


def _retired(signer: Signer, now: float) -> Signer:
    return dataclasses.replace(signer, status=Status.RETIRING, retired_at=now)


def _root(event: RootMade) -> Signer:
    return Signer(name=event.name, status=Status.PREPARED, not_before=event.not_before, not_after=event.not_after)


def _intermediate(event: IntermediateMade) -> Signer:
    return Signer(
        name=event.name,
        status=Status.PREPARED,
        not_before=event.not_before,
        not_after=event.not_after,
        root=event.root,
    )
