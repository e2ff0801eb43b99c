"""Begins an authority: writes the first state, of a root and an intermediate that were made or imported."""

from __future__ import annotations

import dataclasses
import datetime

from certs.authority import Authority
from certs.joins import JoinBook
from certs.revocations import Revocations
from certs.revocations_json import revocations_to_json
from certs.rotation import Pace, begin
from certs.signers import intermediate_made, judge_pair, root_made
from certs.state_store import JOINS, REVOCATIONS, StateConflict, StateError, StateStore


def found(
    store: StateStore,
    authority: Authority,
    now: datetime.datetime,
    *,
    pace: Pace | None = None,
    refresh_hint: int = 300,
    root_offline: bool = False,
) -> None:
    """Writes the first state of an authority that was made (`Authority.create`) or imported (`Authority.load`).

    With `root_offline`, or without a root key, the store gets no root key and later rotations wait for an import.
    Raises StateError when an authority stands there or the store cannot be written, SignerError when the pair may not
    sign.
    """
    judge_pair(authority, authority.trust_domain, now)
    if store.has_state():
        # Asked before anything is written: an empty list in the place of its own would forgive what it has revoked.
        raise StateError("an authority stands there already; choose another place, or remove it if nobody uses it")
    kept = None if root_offline else authority.root_key
    store.add_signer(authority.root, kept)
    store.add_signer(authority.intermediate, authority.intermediate_key)
    state = begin(
        root_made(authority.root),
        intermediate_made(authority.intermediate, authority.root),
        now.timestamp(),
        pace,
        root_offline=kept is None,
    )
    for name, empty in ((JOINS, JoinBook().to_json()), (REVOCATIONS, revocations_to_json(Revocations()))):
        before = store.document(name)
        if before == empty:
            continue
        # What is in it was there before, or is of one who began meanwhile: the state is written before any of it, so
        # asking now tells which.
        if before is not None and store.has_state():
            raise StateConflict("another authority was begun meanwhile; let one begin")
        # Of two that begin at once one writes the empty list, and it is the other's as well: the state decides.
        if not store.replace_document(name, before, empty) and store.document(name) != empty:
            raise StateConflict(f"{name}: somebody else writes it; let one authority begin")
    # Last of all: an authority without a state is none yet, and is begun anew.
    store.save(dataclasses.replace(state, refresh_hint=refresh_hint))
