"""Traffic that does not stop: callers that ask web for the same order over and over, and count what they saw."""

from __future__ import annotations

import threading
from collections import Counter
from types import TracebackType
from typing import Final

from demo.callers import ask_web
from demo.layout import Layout

ANSWERED: Final = "200 OK"
_CALLERS: Final = 4
_PAUSE: Final = 0.01
"""Seconds between two requests of a caller: some hundred a second in all, and a machine that stays usable."""


class Traffic:
    """A context manager: the callers ask within its block, each in a thread, and have their last answer after it.

    Each request goes from web to orders on connections that the sidecars keep, and on from orders to the ledger on a
    new connection, so every request makes a handshake with the certificates of its moment.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, name=f"caller {number}") for number in range(_CALLERS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def seen(self) -> Counter[str]:
        """What the callers saw so far -> how often."""
        with self._lock:
            return self._seen.copy()

    @property
    def count(self) -> int:
        """How many requests were answered or failed so far."""
        return self.seen.total()

    def _ask(self) -> None:
        while not self._over.wait(_PAUSE):
            sight = ask_web(self._layout, "GET", "/orders/7")
            with self._lock:
                self._seen[sight.saw] += 1
