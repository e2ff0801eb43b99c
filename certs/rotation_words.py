"""Says in words where a rotation stands, what it waits for, and who has not confirmed."""

from __future__ import annotations

import math

from certs.rotation import RotationState, Status, Wanted, end_of, maybe_signer, unconfirmed


def status_words(state: RotationState, now: float) -> list[str]:
    """Says where the rotation stands, what it waits for and who has not confirmed.

    >>> from certs.rotation import IntermediateMade, RootMade, begin
    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 0.0)
    >>> status_words(state, 1.0)
    ['bundle sequence 1 with 1 root; intermediate i signs under root r', 'no rotation is under way']
    """
    count = len(state.bundle)
    words = [
        f"bundle sequence {state.sequence} with {count} root{'s' if count != 1 else ''}; "
        f"intermediate {state.active.name[:12]} signs under root {state.active.root[:12]}"
    ]
    words += _waiting_words(state, now)
    for signer in state.intermediates:
        if signer.status is Status.RETIRING:
            words.append(f"intermediate {signer.name[:12]} goes {_in(end_of(state, signer) - now)}")
    for signer in state.roots:
        if signer.status is Status.RETIRING:
            end = end_of(state, signer)
            words.append(f"root {signer.name[:12]} leaves the bundle {_in(end - now)}, after its last certificate")
    return words


def _waiting_words(state: RotationState, now: float) -> list[str]:
    prepared = maybe_signer(state.roots, Status.PREPARED)
    if state.wanted is Wanted.NOTHING:
        return ["no rotation is under way"]
    if state.wanted is Wanted.ROOT and prepared is None:
        how = (
            "make it and an intermediate where roots are kept (`remora certs root`, `remora certs intermediate`) "
            "and import it with `remora authority rotate import`"
            if state.root_offline
            else "it is about to be made"
        )
        return [f"a new root is wanted; {how}"]
    if prepared is not None:
        words = []
        left = state.published_at + state.pace.hints * state.refresh_hint - now
        if left > 0:
            words.append(f"root {prepared.name[:12]} is published; it waits {math.ceil(left)} s for refreshes")
        silent = unconfirmed(state, now)
        if silent:
            words.append(f"{len(silent)} sidecars have not confirmed sequence {state.sequence}: {', '.join(silent)}")
        if words:
            return words
    if state.root_offline:
        return [
            "a new intermediate is wanted; sign it with the offline root (`remora certs intermediate`) and "
            "import it with `remora authority rotate import`"
        ]
    return ["a new intermediate is about to be made"]


def _in(seconds: float) -> str:
    return f"in {math.ceil(seconds)} s" if seconds > 0 else "now"
