"""Reads what the sidecars wrote down: the access logs, one JSON object a line.

Every hop is on record twice, outbound by the caller's sidecar and inbound by the callee's. The verdict is the callee's,
so the tour looks at inbound; the connection of an HTTP request has a record of its own, which tells nothing new.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from demo.layout import TRUST_DOMAIN, WORKLOADS, Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One access as the sidecar of `workload` recorded it.

    `began` sorts by time, `what` is "GET /orders/7" or "TCP", `source` and `destination` are identities ("" for
    none), `status` is 0 where there is none, `why` and `nearest` are the sidecar's own words, `micros` how long it
    took, `retries` how often it was sent again. `telling` is false for what repeats another record.
    """

    workload: str
    began: str
    direction: str
    telling: bool
    what: str
    source: str
    destination: str
    status: int
    decision: str
    policy: str
    reason: str
    why: str
    nearest: str
    micros: int
    retries: int

    @property
    def allowed(self) -> bool:
        return self.decision == "allow"

    @property
    def is_verdict(self) -> bool:
        """Whether this is what the callee's sidecar decided."""
        return self.direction == "inbound" and self.telling

    @property
    def hop(self) -> str:
        """Who called whom, identities without what all of them share."""
        return f"{short_identity(self.source)} → {short_identity(self.destination)}"


def short_identity(spiffe_id: str) -> str:
    """Leave out of an identity what all identities of the demo share.

    >>> short_identity("spiffe://cluster.local/ns/shop/sa/web"), short_identity("")
    ('ns/shop/sa/web', 'nobody')
    """
    return spiffe_id.replace(f"spiffe://{TRUST_DOMAIN}/", "") or "nobody"


def parse_access(workload: str, line: str) -> Access:
    """Read one line of the access log of a workload's sidecar. Raises ValueError and KeyError for anything else."""
    record: dict[str, Any] = json.loads(line)
    is_request = record["kind"] == "request"
    refusal = record["upstream_transport_failure_reason"]
    return Access(
        workload=workload,
        began=record["start_time"],
        direction=record["direction"],
        telling=is_request or record["protocol"] == "TCP",
        what=f"{record['method']} {record['path']}" if is_request else "TCP",
        source=record["source_principal"] or "",
        destination=record["destination_principal"] or "",
        status=record["response_code"],
        decision=record["decision"],
        policy=record["policy"] or "",
        reason=record["reason"],
        why=record["explanation"] or refusal or "",
        nearest=record["nearest_miss"] or "",
        micros=record["stage_us"]["total"],
        retries=record["retries"],
    )


class AccessLogs:
    """Follows the access logs of all sidecars; `counts` says how many records each has written."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._read = dict.fromkeys(WORKLOADS, 0)
        self.counts: Counter[str] = Counter()

    def new(self) -> list[Access]:
        """Give what was written since the last call, whole lines only."""
        found: list[Access] = []
        for workload in WORKLOADS:
            with self._layout.access_log(workload).open("rb") as log:
                log.seek(self._read[workload])
                whole = log.read().rpartition(b"\n")[0:2]
            data = b"".join(whole)
            self._read[workload] += len(data)
            lines = data.decode().splitlines()
            self.counts[workload] += len(lines)
            found += [parse_access(workload, line) for line in lines]
        return found

    def new_verdicts(self) -> list[Access]:
        """Give of these what a callee's sidecar decided, in the order in which it began."""
        verdicts = [access for access in self.new() if access.is_verdict]
        return sorted(verdicts, key=lambda access: access.began)
