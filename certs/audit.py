"""Writes the audit line of a decision: one JSON object on one line for each certificate issued and request refused.

Two readers matter: somebody who asks a year later who got a certificate, and an attacker who writes part of the line
himself, through a name in a certificate, a pod's name or an error message. Hence:

1. One decision is one line of printable ASCII. JSON escapes quotes and backslashes, and is asked to escape all
   that is not printable ASCII as well: a line ends at U+2028 for some readers, and a terminal obeys ESC.
2. What was proved and what was merely claimed stand in members of different names, and a claim is never written under
   `caller`: `presented_unverified` says it in its name.
3. Each text that comes from outside is cut at a length, so that nobody fills the log with one request.
4. A token is never in it: nothing here takes one.

Every member is always there, null when it is not known, so that a query need not guess. `event` is `issued` or
`refused`, `reason` the word of certs.refusals (null when issued). Pure: the line is returned, without a line break.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Final

from certs.caller import Caller
from certs.refusals import Refused
from certs.signing import Issued

MAX_TEXT_CHARACTERS: Final = 512
"""Enough for a message or an ordinary name; a SPIFFE ID that was proved is written whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """The circumstances of one request, as far as they were known when it was decided.

    `now` is aware of its time zone. `remote_address` is where the connection came from, `replica` which authority
    decided. `caller` is None until one was authenticated; `presented` is a name that was claimed and not proved, such
    as `certs.svid.presented_name` gives or the subject of a token with a wrong signature. `key_fingerprint` is None
    until the request was read.
    """

    now: datetime.datetime
    remote_address: str
    replica: str
    caller: Caller | None = None
    presented: str | None = None
    key_fingerprint: str | None = None


def issued_line(occasion: Occasion, issued: Issued) -> str:
    """Writes the line of a certificate that was issued.

    >>> from certs.testing import MemoryAuthority
    >>> from certs.caller import How
    >>> memory = MemoryAuthority("cluster.local", datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    >>> svid = memory.svid("demo", "orders")
    >>> issued = Issued(chain=svid.chain, spiffe_id=svid.spiffe_id, serial="2a", not_before=memory.now,
    ...     not_after=memory.now, key_fingerprint="00", was_shortened=False)
    >>> caller = Caller(spiffe_id=svid.spiffe_id, how=How.JOIN_TOKEN)
    >>> occasion = Occasion(now=memory.now, remote_address="192.0.2.7:4711", replica="authority-0", caller=caller)
    >>> json.loads(issued_line(occasion, issued))["serial"]
    '2a'
    """
    members = _members(occasion, "issued")
    members.update(
        identity=str(issued.spiffe_id),
        serial=issued.serial,
        not_before=_time(issued.not_before),
        not_after=_time(issued.not_after),
        key_fingerprint=issued.key_fingerprint,
    )
    return _line(members)


def refused_line(occasion: Occasion, refused: Refused) -> str:
    """Writes the line of a request that was refused, with its reason and what its author was told.

    >>> from certs.refusals import Refusal
    >>> now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    >>> occasion = Occasion(now=now, remote_address="192.0.2.7:4711", replica="authority-0", presented="a\\n{}")
    >>> line = refused_line(occasion, Refused(Refusal.CALLER_UNKNOWN, "send a token"))
    >>> line.count("\\n"), json.loads(line)["reason"], json.loads(line)["presented_unverified"]
    (0, 'caller_unknown', 'a\\n{}')
    """
    members = _members(occasion, "refused")
    members.update(reason=refused.reason.word, status=refused.reason.status, message=_cut(str(refused)))
    return _line(members)


def _members(occasion: Occasion, event: str) -> dict[str, object]:
    caller = occasion.caller
    pod = None if caller is None else caller.pod
    return {
        "time": _time(occasion.now),
        "event": event,
        "reason": None,
        "status": None,
        "message": None,
        "caller": None if caller is None else str(caller.spiffe_id),
        "authenticated_by": None if caller is None else caller.how.value,
        "peer": None if caller is None or caller.peer is None else str(caller.peer),
        "presented_unverified": _cut(occasion.presented),
        "identity": None,
        "serial": None,
        "not_before": None,
        "not_after": None,
        "key_fingerprint": _cut(occasion.key_fingerprint),
        "remote_address": _cut(occasion.remote_address),
        "pod_namespace": None if pod is None else _cut(pod.namespace),
        "pod_name": None if pod is None else _cut(pod.name),
        "pod_uid": None if pod is None else _cut(pod.uid),
        "replica": _cut(occasion.replica),
    }


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MAX_TEXT_CHARACTERS:
        return text
    return text[: MAX_TEXT_CHARACTERS - 3] + "..."


def _line(members: dict[str, object]) -> str:
    return json.dumps(members, ensure_ascii=True, separators=(",", ":"))
