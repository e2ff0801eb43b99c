"""What the service stands on: the keeper, the audit log, and the reports that wait for the office's next look."""

from __future__ import annotations

import datetime
from collections import deque

from certs.held import Held
from certs.keeper import Keeper
from certs.rotation import MAX_SIDECARS
from proxy.authority.audit_log import AuditLog


class Office:
    """The keeper and the audit log, for the service; `record` and `replace_joins` are for the office's one thread."""

    def __init__(self, keeper: Keeper, log: AuditLog) -> None:
        self._keeper = keeper
        # Of more than there may be sidecars the oldest go: while the store hangs, nobody fills the memory.
        self._said: deque[tuple[str, int | None, datetime.datetime]] = deque(maxlen=MAX_SIDECARS)
        self.audit = log.write
        self.record = keeper.record
        self.replace_joins = keeper.replace_joins

    @property
    def held(self) -> Held:
        """What is known at this moment."""
        return self._keeper.held

    def confirm(self, sidecar: str, sequence: int | None, now: datetime.datetime) -> None:
        """Take a report, from any thread."""
        self._said.append((sidecar, sequence, now))

    def settle(self) -> None:
        """Hand the reports on; in the thread of the office."""
        while self._said:
            self._keeper.confirm(*self._said.popleft())
