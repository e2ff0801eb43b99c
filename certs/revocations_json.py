"""Writes a revocation list as JSON for the store and reads it back, whole or not at all.

What cannot be read might be what was revoked, so half of a list is no list: the message says which file and the mend.
"""

from __future__ import annotations

import datetime
import json
from types import MappingProxyType
from typing import Final

from certs.revocations import MAX_ENTRIES, Kind, Reason, Revocation, RevocationError, Revocations, sorted_entries
from certs.strict_json import parse_json

VERSION: Final = 1

_MEMBERS: Final = {"kind", "value", "when", "reason", "who", "not_after", "since", "key"}
_MAX_SECONDS: Final = 253_402_300_799  # the last second of the year 9999, where X.509 ends
_RESTORE: Final = "restore it from a backup; without it, whatever was revoked would be accepted again"


def revocations_to_json(revocations: Revocations) -> bytes:
    """Writes a list: ASCII, an entry a line, in a fixed order, with a final newline.

    >>> revocations_from_json(revocations_to_json(Revocations()), "revocations.json") == Revocations()
    True
    """
    lines = [json.dumps(_entry_members(entry), sort_keys=True) for _, entry in sorted_entries(revocations.entries)]
    body = ",\n".join(lines)
    return f'{{"version": {VERSION}, "sequence": {revocations.sequence}, "entries": [\n{body}\n]}}\n'.encode("ascii")


def revocations_from_json(data: bytes, source: str) -> Revocations:
    """Reads what `revocations_to_json` wrote; raises RevocationError naming `source` for anything else."""
    try:
        document = parse_json(data)
    except ValueError as error:
        raise RevocationError(f"{source}: it is no JSON ({error}); {_RESTORE}") from None
    members = _object(document, {"version", "sequence", "entries"}, source)
    if type(members["version"]) is not int or members["version"] != VERSION:
        raise RevocationError(f'{source}: "version" is not {VERSION}: another release wrote it; run that one')
    sequence, listed = members["sequence"], members["entries"]
    if type(sequence) is not int or sequence < 0:
        raise RevocationError(f'{source}: "sequence" is no whole number; {_RESTORE}')
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        raise RevocationError(f'{source}: "entries" is no list of at most {MAX_ENTRIES} entries; {_RESTORE}')
    entries: dict[tuple[Kind, str], Revocation] = {}
    for number, value in enumerate(listed, start=1):
        entry = _read_entry(value, f"{source}: entry {number}")
        if (entry.kind, entry.value) in entries:
            raise RevocationError(f"{source}: entry {number} stands there twice; {_RESTORE}")
        entries[entry.kind, entry.value] = entry
    return Revocations(sequence=sequence, entries=MappingProxyType(entries))


def _entry_members(entry: Revocation) -> dict[str, object]:
    times = {name: getattr(entry, name) for name in ("when", "not_after", "since")}
    return {
        "kind": entry.kind.value,
        "value": entry.value,
        "reason": entry.reason.value,
        "who": entry.who,
        "key": entry.key,
        **{name: None if moment is None else int(moment.timestamp()) for name, moment in times.items()},
    }


def _read_entry(value: object, source: str) -> Revocation:
    members = _object(value, _MEMBERS, source)
    for name in ("kind", "value", "reason", "who", "key"):
        if not isinstance(members[name], str) and not (name == "key" and members[name] is None):
            raise RevocationError(f'{source}: "{name}" is no text; {_RESTORE}')
    when = _moment(members["when"], "when", source)
    if when is None:
        raise RevocationError(f'{source}: "when" is missing; {_RESTORE}')
    key = members["key"]
    try:
        return Revocation(
            kind=Kind(members["kind"]),
            value=str(members["value"]),
            when=when,
            reason=Reason(members["reason"]),
            who=str(members["who"]),
            not_after=_moment(members["not_after"], "not_after", source),
            since=_moment(members["since"], "since", source),
            key=None if key is None else str(key),
        )
    except ValueError as error:
        raise RevocationError(f"{source}: {error}; {_RESTORE}") from None


def _moment(value: object, name: str, source: str) -> datetime.datetime | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_SECONDS:
        raise RevocationError(f'{source}: "{name}" is no whole number of seconds since the epoch; {_RESTORE}')
    return datetime.datetime.fromtimestamp(value, datetime.UTC)


def _object(value: object, wanted: set[str], source: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RevocationError(f"{source}: it is no object; {_RESTORE}")
    for name in sorted(wanted ^ value.keys()):
        verdict = "missing" if name in wanted else "not known"
        raise RevocationError(f"{source}: the member {name[:60]!r} is {verdict}; {_RESTORE}")
    return value
