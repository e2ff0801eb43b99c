"""Fetches a key set: looks its host up, judges every address, downloads and parses in a thread."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from proxy.authn.keys import KeySet, parse_key_set
from proxy.jwks.target import FetchError, is_literal, read_target, refuse_address

AT_ONCE: Final = 4
"""Fetches at the same time, each with a thread. A workload trusts few issuers; one that hangs holds one place."""

Resolve = Callable[[str, int], Awaitable[Sequence[tuple[Any, ...]]]]
"""Looks up a host and a port, as `loop.getaddrinfo` does."""


class Fetcher:
    """Fetches key sets; `allow_loopback` is asked each time. `close` when no fetch runs any more."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, allow_loopback: Callable[[], bool], resolve: Resolve | None = None
    ) -> None:
        self._loop = loop
        self._allow_loopback = allow_loopback
        self._resolve = resolve or functools.partial(loop.getaddrinfo, type=socket.SOCK_STREAM)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._executor: ThreadPoolExecutor | None = None

    async def fetch(self, uri: str, seconds: float) -> KeySet:
        """Fetch within `seconds`, looking up included. Raises FetchError; cancelled, it ends its thread."""
        async with self._turns:
            try:
                async with asyncio.timeout(seconds):
                    return await self._fetch(uri, seconds)
            except TimeoutError:
                raise FetchError(f"there was no whole answer within {seconds:g} s") from None

    def close(self) -> None:
        """End the threads."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    async def _fetch(self, uri: str, seconds: float) -> KeySet:
        # Imported when a policy names a jwksUri: HTTP's client and its mail parser are 0.3 MiB of an idle process.
        from proxy.jwks.download import Download

        allow_loopback = self._allow_loopback()
        target = read_target(uri, allow_loopback=allow_loopback)
        rows = await self._look_up(target.host, target.port)
        for row in rows:
            refuse_address(str(row[4][0]), secure=target.secure, allow_loopback=allow_loopback)
        download = Download(target, rows, seconds=seconds)

        def work() -> KeySet:
            body = download.run()
            try:
                return parse_key_set(body)
            except ValueError as failure:
                raise FetchError(f"what it answered is no key set: {failure}") from failure

        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="jwks")
        try:
            return await self._loop.run_in_executor(self._executor, work)
        except asyncio.CancelledError:
            download.abort()
            raise

    async def _look_up(self, host: str, port: int) -> Sequence[tuple[Any, ...]]:
        if is_literal(host):  # the loop looks everything up in its threads, addresses too
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        try:
            return await self._resolve(host, port)
        except (OSError, ValueError) as failure:  # ValueError: IDNA takes no such name
            why = getattr(failure, "strerror", None) or failure
            raise FetchError(f"the name {host} does not resolve: {why}") from failure
