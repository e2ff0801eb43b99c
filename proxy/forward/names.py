"""DNS names of endpoints: looked up off the byte path, again and again, each address of an answer an endpoint.

    follow(addresses) -> literal addresses at once, names as they are found -> found(all addresses), when they change

A lookup that fails keeps the last answer: a name server that is away for a while takes nobody's endpoints with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from proxy.config import Address

LOOKUP_INTERVAL: Final = 5.0
"""Seconds between two lookups of a name: CoreDNS lets answers about a cluster's services live for 5 s. Longer, and
pods that are gone are dialled; shorter, and the same answer comes again."""
RETRY_INTERVAL: Final = 1.0
"""Seconds after a lookup that failed: until there is an answer, every request is refused."""

_log = logging.getLogger("remora.forward")

Resolve = Callable[[str, int], Awaitable[Sequence[tuple[Any, ...]]]]
"""Looks up a name and a port, as `loop.getaddrinfo` does: rows whose last item begins with an address and the port."""


class Names:
    """Follows the addresses of one service. `found` gets all of them, `failed` why there is none at all.

    None at all, and no word from `failed`, means that a first answer is still awaited.
    """

    def __init__(
        self,
        *,
        resolve: Resolve,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[Any]],
        found: Callable[[tuple[Address, ...]], None],
        failed: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._resolve = resolve
        self._spawn = spawn
        self._found = found
        self._failed = failed
        self._sleep = sleep
        self._addresses: tuple[Address, ...] = ()
        self._answers: dict[Address, tuple[Address, ...]] = {}
        self._faults: dict[Address, str] = {}
        self._tasks: dict[Address, asyncio.Task[Any]] = {}

    def follow(self, addresses: Iterable[Address]) -> None:
        """Follow these from now on; what is known of a name that stays is kept."""
        self._addresses = tuple(addresses)
        names = [address for address in self._addresses if not _is_literal(address.host)]
        for name in [name for name in self._tasks if name not in names]:
            self._tasks.pop(name).cancel()
            self._answers.pop(name, None)
            self._faults.pop(name, None)
        for name in names:
            if name not in self._tasks:
                self._tasks[name] = self._spawn(self._look_up_for_ever(name), f"look up {name.host}")
        self._tell()

    def close(self) -> None:
        """Look nothing up any more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _look_up_for_ever(self, name: Address) -> None:
        while True:
            try:
                rows = await self._resolve(name.host, name.port)
            except OSError as failure:
                self._note_fault(name, failure.strerror or str(failure))
                await self._sleep(RETRY_INTERVAL)
                continue
            if self._faults.pop(name, None) is not None:
                _log.info("the name %s resolves again", name.host)
            found = tuple(dict.fromkeys(Address(host=str(row[4][0]), port=name.port) for row in rows))
            if set(found) != set(self._answers.get(name, ())):
                _log.info("%s is %s", name.host, ", ".join(address.host for address in found))
                self._answers[name] = found
            self._tell()
            await self._sleep(LOOKUP_INTERVAL)

    def _note_fault(self, name: Address, why: str) -> None:
        if name not in self._faults:
            kept = ": its last addresses are kept" if name in self._answers else ""
            _log.warning("the name %s does not resolve: %s%s", name.host, why, kept)
        self._faults[name] = f"the name {name.host} does not resolve: {why}"
        self._tell()

    def _tell(self) -> None:
        known = [
            found
            for address in self._addresses
            for found in (self._answers.get(address, ()) if address in self._tasks else (address,))
        ]
        self._found(tuple(dict.fromkeys(known)))
        if not known and self._tasks and self._faults.keys() == self._tasks.keys():
            self._failed("; ".join(self._faults.values()))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
