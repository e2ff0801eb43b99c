"""The key sets of every `jwksUri` in force: fetched at once, fetched anew, kept for a while when that fails.

    follow(URIs) -> fetch --keys----> keys(uri), changed() -- 5 min --> fetch ...
                          --failure-> the last keys for an hour -- 1 s, 2 s, 4 s ... 30 s --> fetch ...

A failed fetch never leads to other keys than those that the same URI gave before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from proxy.authn.keys import KeySet
from proxy.jwks.target import FetchError

REFRESH_INTERVAL: Final = 300.0
"""Seconds between two fetches, as Istio's sidecars do. Longer, and a key that its issuer took back verifies longer;
shorter, and every sidecar of a cluster is a load for the issuer."""
FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 30.0
"""Seconds after a failed fetch, doubled each time: an issuer that restarts is asked again before callers give up."""
KEPT_FOR: Final = 3_600.0
"""Seconds that keys outlive the last fetch that gave them. Shorter, and an issuer's maintenance becomes ours; longer,
and whoever can keep us from the issuer can keep a key alive that was taken back."""

_log = logging.getLogger("remora.jwks")


class _Followed:
    """One URI: its last keys, when they came, what is wrong now ("" when nothing is)."""

    __slots__ = ("came_at", "fault", "keys", "task", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.keys: KeySet | None = None
        self.came_at = 0.0
        self.fault = ""
        self.task: asyncio.Task[Any] | None = None


class KeyStore:
    """Follows the URIs that policy names. `changed` is called when other keys count than before."""

    def __init__(
        self,
        *,
        fetch: Callable[[str, float], Awaitable[KeySet]],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[Any]],
        changed: Callable[[], object],
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`fetch` takes a URI and seconds and raises FetchError; `now` gives seconds that never go back."""
        self._fetch = fetch
        self._spawn = spawn
        self._changed = changed
        self._now = now
        self._sleep = sleep
        self._followed: dict[str, _Followed] = {}

    def follow(self, uris: Mapping[str, float]) -> None:
        """Follow these from now on, URI -> seconds for a fetch; all others are forgotten, keys and all."""
        for uri in [uri for uri in self._followed if uri not in uris]:
            self._stop(self._followed.pop(uri))
        for uri, timeout in uris.items():
            followed = self._followed.get(uri)
            if followed is None:
                followed = self._followed[uri] = _Followed(timeout)
                followed.task = self._spawn(self._fetch_for_ever(uri, followed), f"fetch keys of {uri}")
            followed.timeout = timeout

    def keys(self, uri: str) -> KeySet | None:
        """Give the keys that count now; None when there are none (yet, or any more)."""
        followed = self._followed.get(uri)
        return followed.keys if followed is not None else None

    def up(self) -> dict[tuple[str, ...], float]:
        """Say for each URI whether its last fetch gave keys: 1 or 0."""
        return {
            (uri,): float(followed.keys is not None and not followed.fault) for uri, followed in self._followed.items()
        }

    @staticmethod
    def _stop(followed: _Followed) -> None:
        if followed.task is not None:
            followed.task.cancel()

    async def _fetch_for_ever(self, uri: str, followed: _Followed) -> None:
        retry = FIRST_RETRY
        while True:
            try:
                keys = await self._fetch(uri, followed.timeout)
            except FetchError as failure:
                self._failed(uri, followed, str(failure))
                await self._sleep(retry)
                retry = min(2 * retry, LONGEST_RETRY)
            else:
                self._came(uri, followed, keys)
                retry = FIRST_RETRY
                await self._sleep(REFRESH_INTERVAL)

    def _came(self, uri: str, followed: _Followed, keys: KeySet) -> None:
        before, followed.keys = followed.keys, keys
        followed.came_at = self._now()
        if followed.fault:
            followed.fault = ""
            _log.info("the key set %s can be fetched again", uri)
        if before is None or before.digest != keys.digest:
            _log.info("the key set %s has %d keys", uri, len(keys.keys))
            for sentence in keys.skipped:
                _log.warning("the key set %s: %s", uri, sentence)
            self._changed()

    def _failed(self, uri: str, followed: _Followed, why: str) -> None:
        lost = followed.keys is not None and self._now() - followed.came_at >= KEPT_FOR
        if why != followed.fault or lost:
            followed.fault = why
            standing = "its tokens are refused" if followed.keys is None or lost else "its last keys still count"
            _log.warning("the key set %s cannot be fetched, %s: %s", uri, standing, why)
        if lost:
            followed.keys = None
            self._changed()
