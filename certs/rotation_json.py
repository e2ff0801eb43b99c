"""Writes the state of a rotation as JSON and reads it back, whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from certs.rotation import Confirmation, Pace, RotationError, RotationState, Signer, Status, Wanted

VERSION: Final = 1

_Kind = TypeVar("_Kind")


def state_to_json(state: RotationState) -> bytes:
    """Writes a state without its confirmations, which have a file of their own; the same state gives the same bytes.

    >>> from certs.rotation import IntermediateMade, RootMade, begin
    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 0.0)
    >>> state_from_json(state_to_json(state), "state.json") == state
    True
    """
    document = {
        "version": VERSION,
        "sequence": state.sequence,
        "published_at": state.published_at,
        "refresh_hint": state.refresh_hint,
        "root_offline": state.root_offline,
        "wanted": state.wanted.value,
        "left_behind": sorted(state.left_behind),
        "pace": {"hints": state.pace.hints, "window": state.pace.window, "margin": state.pace.margin},
        "roots": [_write(signer) for signer in state.roots],
        "intermediates": [_write(signer) for signer in state.intermediates],
    }
    return json.dumps(document, indent=1, sort_keys=True).encode("utf-8") + b"\n"


def state_from_json(data: bytes, source: str) -> RotationState:
    """Reads a state; raises RotationError naming `source` when anything in it is not as it must be."""
    try:
        state = _read(json.loads(data))
        _check(state)
    except RotationError as error:
        raise RotationError(f"{source}: {error}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RotationError(
            f"{source}: it is no state of an authority ({type(error).__name__}: {error}); restore it from a copy"
        ) from None
    return state


def confirmations_to_json(confirmations: Mapping[str, Confirmation]) -> bytes:
    """Writes who has confirmed what and when, without blanks: they may be a hundred thousand.

    >>> known = {"orders": Confirmation(sequence=2, seen_at=1000.0)}
    >>> confirmations_to_json(known)
    b'{"version":1,"confirmations":{"orders":[2,1000.0]}}\\n'
    >>> confirmations_from_json(confirmations_to_json(known), "confirmations.json") == known
    True
    """
    known = {name: [report.sequence, report.seen_at] for name, report in confirmations.items()}
    document = {"version": VERSION, "confirmations": known}
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def confirmations_from_json(data: bytes, source: str) -> Mapping[str, Confirmation]:
    """Reads what `confirmations_to_json` wrote; raises RotationError naming `source`."""
    try:
        members = _a(json.loads(data), dict)
        if members["version"] != VERSION:
            raise ValueError(f"version {members['version']!r}")
        known = {
            _a(name, str): Confirmation(sequence=_whole(sequence), seen_at=_seconds(seen_at))
            for name, (sequence, seen_at) in _a(members["confirmations"], dict).items()
        }
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RotationError(
            f"{source}: it is no list of confirmations ({type(error).__name__}: {error}); restore it from a copy"
        ) from None
    return MappingProxyType(known)


def _read(document: object) -> RotationState:
    members = _a(document, dict)
    if members["version"] != VERSION:
        raise RotationError(f"it has version {members['version']!r}, this program reads {VERSION}; use its own program")
    pace = _a(members["pace"], dict)
    return RotationState(
        roots=tuple(_signer(signer) for signer in _a(members["roots"], list)),
        intermediates=tuple(_signer(signer) for signer in _a(members["intermediates"], list)),
        sequence=_whole(members["sequence"]),
        published_at=_seconds(members["published_at"]),
        refresh_hint=_whole(members["refresh_hint"]),
        root_offline=_a(members["root_offline"], bool),
        wanted=Wanted(members["wanted"]),
        left_behind=frozenset(_a(name, str) for name in _a(members["left_behind"], list)),
        pace=Pace(hints=_whole(pace["hints"]), window=_seconds(pace["window"]), margin=_seconds(pace["margin"])),
    )


def _check(state: RotationState) -> None:
    for signers, what in ((state.roots, "root"), (state.intermediates, "intermediate")):
        names = [signer.name for signer in signers]
        if len(set(names)) != len(names):
            raise RotationError(f"one {what} stands there twice; restore it from a copy")
        for status, most in ((Status.ACTIVE, 1), (Status.PREPARED, 1)):
            count = sum(signer.status is status for signer in signers)
            if count > most or (status is Status.ACTIVE and count != 1):
                raise RotationError(f"{count} {what}s are {status.value}; restore it from a copy")
    if state.active.root != next(root.name for root in state.roots if root.status is Status.ACTIVE):
        raise RotationError("the active intermediate is not of the active root; restore it from a copy")


def _write(signer: Signer) -> dict[str, object]:
    return {
        "name": signer.name,
        "status": signer.status.value,
        "not_after": signer.not_after,
        "root": signer.root,
        "issued_until": signer.issued_until,
        "published": signer.published,
        "not_before": signer.not_before,
        "retired_at": signer.retired_at,
    }


def _signer(value: object) -> Signer:
    members = _a(value, dict)
    return Signer(
        name=_a(members["name"], str),
        status=Status(members["status"]),
        not_after=_seconds(members["not_after"]),
        root=_a(members["root"], str),
        issued_until=_seconds(members["issued_until"]),
        published=_whole(members["published"]),
        not_before=_seconds(members["not_before"]),
        retired_at=_seconds(members["retired_at"]),
    )


def _a(value: object, kind: type[_Kind]) -> _Kind:
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} must stand where a {type(value).__name__} stands")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("a whole number of 0 or more must stand there")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("a number of seconds must stand there")
    return float(value)
