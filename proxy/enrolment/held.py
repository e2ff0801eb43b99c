"""What a source holds that works on a thread of its own: the newest identity, when the next is due, and what is wrong.

The thread calls `take` and `fail`, and whoever looks at what is mounted calls `read`, from any thread.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence

from certs.store import IdentitySet
from proxy.errors import ConfigError, Fault
from proxy.identity.renewal import Renewal

Files = Mapping[str, bytes]


class HeldIdentity:
    """The files of one identity. It is used until it ends, whatever becomes of its source.

    `renewal` says when the next one is due, `is_held` whether there has been one.
    """

    def __init__(self, source: str, waiting: str, now: Callable[[], float] = time.time) -> None:
        """`source` names where it comes from in faults, `waiting` says why there is nothing yet."""
        self._source = source
        self._now = now
        self._files: Files | None = None
        self._faults = [Fault(file=source, message=waiting)]
        self.renewal = Renewal()

    def read(self) -> Files:
        """Give the files. Raises ConfigError until there are any, and with what is wrong while something is.

        Whoever reads keeps what is in force then, and tells; that the identity has ended is told with it.
        """
        files, faults = self._files, self._faults
        if files is None:
            raise ConfigError(faults)
        if faults:
            has_ended = not self.renewal.left(self._now())
            ended = [Fault(file=self._source, message="the identity that was held has ended")] if has_ended else []
            raise ConfigError([*ended, *faults])
        return files

    def take(self, files: Files, identity: IdentitySet) -> None:
        """Hold what was judged; the next is due at half of its lifetime."""
        begins = identity.chain[0].not_valid_before_utc.timestamp()
        self.renewal = self.renewal.issued(begins, identity.not_after, self._now(), _jitter())
        self._files, self._faults = files, []

    def fail(self, faults: Sequence[Fault] = ()) -> None:
        """Plan another attempt after a growing wait; without `faults` what was said last stands."""
        self._faults = list(faults) or self._faults
        self.renewal = self.renewal.failed(self._now(), _jitter())


def _jitter() -> float:
    return random.random()  # noqa: S311 - it spreads load and guards nothing
