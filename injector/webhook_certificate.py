"""Looks after the webhook's own certificate in a cluster, again and again, in threads that hold nothing up.

    first     until it succeeds: a second, two, four ... between two attempts; meanwhile /readyz says what fails
    follow    every minute, and sooner after a failure; what is shown stays, and readiness, log and a metric say why

A look calls the API server, which may be slow to answer or silent. Each has a thread of its own that does not keep the
process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import threading
from collections.abc import Callable
from typing import Final

from certs.kube import KubeError
from injector.bootstrap import Looked
from injector.webhook_metrics import Counts
from proxy.admin.pages import Readiness

KIND: Final = "cluster certificate"

INTERVAL: Final = 60.0
"""Seconds between two looks. Certificates live for weeks; but whoever takes the caBundle away (an installation that is
applied anew) has every pod refused until the next look."""
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 30.0
"""Seconds from a failed look to the next: at first an API server may only just be coming up, then it is in trouble."""

_log = logging.getLogger("remora.injector")


class Renewals:
    """The looks of one process. `first`, then `follow` until cancelled."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        look: Callable[[datetime.datetime], Looked],
        readiness: Readiness,
        counts: Counts,
    ) -> None:
        """`look` blocks, and raises KubeError or OSError (`Bootstrap.look`)."""
        self._loop = loop
        self._look = look
        self._readiness = readiness
        self._counts = counts
        self._failures = 0
        readiness.missing[KIND] = ["it was not looked for yet"]

    async def first(self) -> None:
        """Look until it succeeds once."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(self.delay)

    async def follow(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(self.delay)
            await self._try()

    @property
    def delay(self) -> float:
        """Seconds to the next look."""
        if self._failures == 0:
            return INTERVAL
        return delay_after(self._failures)

    async def _try(self) -> bool:
        try:
            looked = await self._in_thread()
        except (KubeError, OSError) as fault:
            self._failed(str(fault))
            return False
        except Exception as fault:  # the next look must not wait for a restart
            _log.exception("a fault of our own at the cluster's certificate; it is tried again")
            self._failed(f"a fault of our own: {fault!r}")
            return False
        for what in looked.did:
            _log.info("%s: %s", KIND, what)
        if self._failures and KIND not in self._readiness.missing:
            _log.info("%s: it works again", KIND)
        self._failures = 0
        self._counts.looks["ok"] += 1
        self._readiness.missing.pop(KIND, None)
        self._readiness.rejected.pop(KIND, None)
        return True

    def _failed(self, sentence: str) -> None:
        self._failures += 1
        self._counts.looks["failed"] += 1
        is_first = KIND in self._readiness.missing
        place = self._readiness.missing if is_first else self._readiness.rejected
        if place.get(KIND) != [sentence]:
            _log.warning("%s: %s", KIND, sentence)
        place[KIND] = [sentence]

    async def _in_thread(self) -> Looked:
        # No executor: at the end of the process Python waits for the threads of executors, and so for an API server.
        made: asyncio.Future[Looked] = self._loop.create_future()

        def work() -> None:
            try:
                looked = self._look(datetime.datetime.now(datetime.UTC))
            except Exception as fault:
                self._tell(made, fault)
            else:
                self._tell(made, looked)

        threading.Thread(target=work, name="cluster certificate", daemon=True).start()
        return await made

    def _tell(self, made: asyncio.Future[Looked], result: Looked | Exception) -> None:
        def tell() -> None:
            if made.done():  # nobody waits any more
                return
            if isinstance(result, Exception):
                made.set_exception(result)
            else:
                made.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(tell)


def delay_after(failures: int) -> float:
    """Say how many seconds to wait after so many failures in a row, one or more.

    >>> [delay_after(failures) for failures in (1, 2, 3, 6, 1000)]
    [1.0, 2.0, 4.0, 30.0, 30.0]
    """
    return min(FIRST_DELAY * 2.0 ** min(failures - 1, 10), LONGEST_DELAY)
