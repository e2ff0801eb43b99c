"""Several endpoints of one service: the one that is least busy gets the next request, one that fails is left alone.

    take -> _choose: fewest requests under way, of those not ejected, ties in turn -> its pool
    a dial fails, or takes too long -> ejected; the streams that waited there are tried elsewhere
    an ejection is over             -> a dial that no request waits for tries the endpoint first (HTTP)

Facts true between events:

1. A stream that waits, waits in exactly one pool, or in `_unplaced` while no address is known.
2. A stream is tried at each endpoint once, and may go back once to one whose dial still runs. Nothing of it has been
   sent: it waits for a connection. What was sent is the exchange's to send again, or not.
3. When every endpoint is ejected, the one whose ejection ends first is tried: a service is never refused untried.
4. With one endpoint `take` is the method of its pool itself: balancing costs who does not use it nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol, TypeVar

from proxy.config import Address
from proxy.errors import Reason, RemoraError, UpstreamError
from proxy.forward.endpoint import Endpoint
from proxy.forward.pool import Pool, Waiter
from proxy.forward.upstream import Stream, UpstreamConnection
from proxy.interfaces import Clock, Wire
from proxy.types import PeerIdentity, Permit

PATIENCE: Final = 1.0
"""Seconds that a stream waits for a dial before it is tried elsewhere. A lost SYN is sent again after one, and TCP and
TLS across the world take most of one: who has no connection by then may have nobody at the other end."""
LOOKED_AT: Final = 8
"""Endpoints compared for one request: two already spread load well, and a look at hundreds would cost 0.2 µs each."""

_BLAMED: Final = frozenset(
    {
        Reason.UPSTREAM_CONNECT_FAILED,
        Reason.UPSTREAM_CONNECT_TIMEOUT,
        Reason.UPSTREAM_NAME_UNRESOLVED,
        Reason.UPSTREAM_HANDSHAKE_FAILED,
        Reason.UPSTREAM_IDENTITY_REJECTED,
        Reason.PEER_REJECTED_US,
    }
)
"""Failures of a dial that are the endpoint's: another one may do better."""

_log = logging.getLogger("remora.forward")
_Wire = TypeVar("_Wire", bound=Wire)


class Take(Protocol):
    """How a stream gets its connection, as `Pool.take`."""

    def __call__(self, stream: Stream, *, fresh: bool = False) -> UpstreamConnection | None: ...


class Balancer:
    """The endpoints of one service, with the face of a pool."""

    __slots__ = (
        "_clock",
        "_endpoints",
        "_known",
        "_make_pool",
        "_name",
        "_patience",
        "_random",
        "_retired",
        "_ring",
        "_turn",
        "_unplaced",
        "_unresolved",
        "_wait",
        "closed",
        "deadline",
        "probes",
        "slot",
        "take",
    )

    def __init__(
        self,
        name: str,
        *,
        make_pool: Callable[[Address], Pool],
        clock: Clock,
        wait: float,
        patience: float = PATIENCE,
        rand: Callable[[], float] = random.random,
    ) -> None:
        """`wait` is the time, in seconds, that a stream waits for a first address.

        `probes` is to be set when an endpoint may be tried by a pooled connection that no request waits for.
        """
        self._name = name
        self._make_pool = make_pool
        self._clock = clock
        self._wait = wait
        self._patience = patience
        self._random = rand
        self._endpoints: dict[Address, Endpoint] = {}
        self._ring: list[Endpoint] = []
        self._retired: list[Endpoint] = []
        self._turn = 0
        self._unplaced: deque[Waiter] = deque()
        self._unresolved = ""
        self._known = asyncio.Event()
        self.probes = False
        self.closed = False
        self.deadline = self.slot = math.inf
        self.take: Take = self._take_least

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints in use."""
        return tuple(self._ring)

    # --- which endpoints there are ---

    def set_endpoints(self, addresses: Iterable[Address]) -> None:
        """Use these addresses: what is new is added, what is gone finishes what it carries and gets nothing new.

        None means that they are not known yet: requests wait.
        """
        wanted = dict.fromkeys(addresses)
        if wanted.keys() == self._endpoints.keys() or self.closed:
            return
        before = self._endpoints
        self._endpoints = {
            address: before.get(address) or Endpoint(self, address, self._make_pool(address)) for address in wanted
        }
        self._ring = list(self._endpoints.values())
        self.take = self._ring[0].pool.take if len(self._ring) == 1 else self._take_least
        for address, endpoint in before.items():
            if address not in wanted:
                self._retire(endpoint)
        self._unresolved = ""
        if not self._ring:
            self._known.clear()
        else:
            self._known.set()
            placed, self._unplaced = self._unplaced, deque()
            for waiter in placed:
                self._place(waiter, UpstreamError(f"service {self._name} has no endpoint"))
            self._clock.arm(self, self._patience)

    def renew(self) -> None:
        """Begin anew with the same addresses: no connection that stands takes another request."""
        addresses = tuple(self._endpoints)
        self.set_endpoints(())
        self.set_endpoints(addresses)

    def unresolved(self, why: str) -> None:
        """Say why no address is known; who waits for one learns it, and who comes, until there is one."""
        if self._ring or self.closed:
            return
        self._unresolved = why
        self._known.set()
        while self._unplaced:
            self._unplaced.popleft().stream.upstream_failed(UpstreamError(why, Reason.UPSTREAM_NAME_UNRESOLVED))

    def _retire(self, endpoint: Endpoint) -> None:
        pool = endpoint.pool
        pool.owner = None
        moved = pool.waiters
        for waiter in moved:
            pool.remove(waiter)
        pool.close()
        self._retired = [other for other in self._retired if not other.pool.empty] + [endpoint]
        for waiter in moved:
            self._place(waiter, UpstreamError(f"service {self._name} has no other endpoint"))

    def judge_again(self, accept: Callable[[PeerIdentity], bool]) -> None:
        """Close the connections whose server is not accepted any more, those to endpoints that are gone too."""
        for endpoint in (*self._ring, *self._retired):
            endpoint.pool.judge_again(accept)

    def close(self) -> None:
        """Close what idles, tell who waits; what is busy is closed when it comes back."""
        self.closed = True
        self._clock.disarm(self)
        for endpoint in self._ring:
            endpoint.pool.close()
        while self._unplaced:
            self._unplaced.popleft().stream.upstream_failed(_shutting_down())

    # --- a request ---

    def _take_least(self, stream: Stream, *, fresh: bool = False) -> UpstreamConnection | None:
        endpoint = self._choose(())
        if endpoint is None:
            if self.closed:
                raise _shutting_down()
            if self._unresolved:
                raise UpstreamError(self._unresolved, Reason.UPSTREAM_NAME_UNRESOLVED)
            self._unplaced.append(Waiter(stream, self._clock.now))
            if self.deadline == math.inf:
                self._clock.arm(self, self._wait)
            return None
        connection = endpoint.pool.take(stream, fresh=fresh)
        if connection is None and self.deadline == math.inf:
            self._clock.arm(self, self._patience)
        return connection

    def cancel(self, stream: Stream) -> None:
        """Forget a stream that waits."""
        for waiter in self._unplaced:
            if waiter.stream is stream:
                self._unplaced.remove(waiter)
                return
        for endpoint in self._ring:
            endpoint.pool.cancel(stream)

    def _choose(self, tried: tuple[object, ...]) -> Endpoint | None:
        """Give the least busy endpoint that was not tried; None when there is none left."""
        ring, now = self._ring, self._clock.now
        count = len(ring)
        chosen: Endpoint | None = None
        soonest: Endpoint | None = None
        least = 0
        looked_at = 0
        for index in range(self._turn, self._turn + count):
            endpoint = ring[index % count]
            if tried and endpoint in tried:
                continue
            if endpoint.ejected and not self._may_try(endpoint, now):
                if soonest is None or endpoint.ejected_until < soonest.ejected_until:
                    soonest = endpoint
                continue
            load = endpoint.pool.load
            if chosen is None or load < least:
                chosen, least, self._turn = endpoint, load, (index + 1) % count
                if not load:
                    break
            looked_at += 1
            if looked_at == LOOKED_AT:
                break
        return chosen or soonest

    def _may_try(self, endpoint: Endpoint, now: float) -> bool:
        """Say whether an ejected endpoint gets this one: when its time is over, one at a time, and never a request."""
        if now < endpoint.ejected_until:
            return False
        if self.probes:
            if endpoint.pool.oldest_dial == math.inf:
                endpoint.pool.warm()
            return False
        return not endpoint.pool.load

    # --- what fails ---

    def dial_ended(self, endpoint: Endpoint, failure: RemoraError | None) -> None:
        """Take the word of a pool on one of its dials."""
        if failure is None:
            endpoint.connected(self._clock.now)
            return
        waiter = endpoint.pool.next_waiter()
        if failure.reason in _BLAMED:
            self.eject(endpoint, str(failure), by_dial=True)
            if waiter is not None:
                waiter.tried += (endpoint,)
                self._place(waiter, failure)
        elif waiter is not None:
            waiter.stream.upstream_failed(failure)

    def eject(self, endpoint: Endpoint, why: str, *, by_dial: bool) -> None:
        """Leave an endpoint alone for a while; what waits there is tried elsewhere."""
        seconds = endpoint.eject(self._clock.now, self._random(), by_dial=by_dial)
        if seconds and len(self._ring) > 1:
            _log.info("service %s: %s gets no requests for %.1f s: %s", self._name, endpoint.address, seconds, why)
        if by_dial:
            self._move(endpoint)

    def _move(self, endpoint: Endpoint) -> None:
        pool = endpoint.pool
        for waiter in pool.waiters:
            tried = (*waiter.tried, endpoint)
            if not self.closed and self._is_another(tried):
                pool.remove(waiter)
                waiter.tried = tried
                self._place(waiter, UpstreamError(f"service {self._name} has no other endpoint"))

    def _is_another(self, tried: tuple[object, ...]) -> bool:
        return any(endpoint not in tried for endpoint in self._ring)

    def _place(self, waiter: Waiter, failure: RemoraError) -> None:
        """Let a stream wait where it has not waited yet; where that is nowhere, it learns of the last failure."""
        if self.closed:
            waiter.stream.upstream_failed(_shutting_down())
            return
        if not self._ring:
            self._unplaced.append(waiter)
            return
        endpoint = self._choose(waiter.tried)
        if endpoint is None and not waiter.returned:
            waiter.returned = True
            others = (other for other in self._ring if other is not waiter.tried[-1])
            endpoint = next((other for other in others if other.pool.oldest_dial < math.inf), None)
        if endpoint is None:
            waiter.stream.upstream_failed(failure)
            return
        try:
            endpoint.pool.take_over(waiter)
        except RemoraError as full:
            waiter.stream.upstream_failed(full)
        else:
            if self.deadline == math.inf:
                self._clock.arm(self, self._patience)

    def deadline_passed(self) -> None:
        """Move streams on whose dial takes too long, and tell those that waited long enough for an address."""
        now = self._clock.now
        look_again = math.inf
        while self._unplaced:
            left = self._unplaced[0].since + self._wait - now
            if left > 0:
                look_again = left
                break
            self._unplaced.popleft().stream.upstream_failed(
                UpstreamError(
                    f"no address of service {self._name} was found within {self._wait:g} s",
                    Reason.UPSTREAM_NAME_UNRESOLVED,
                )
            )
        for endpoint in tuple(self._ring) if len(self._ring) > 1 else ():
            pool = endpoint.pool
            if not pool.waiting or pool.oldest_dial == math.inf:
                continue
            left = pool.oldest_dial + self._patience - now
            if left <= 0:
                self.eject(endpoint, f"no connection within {self._patience:g} s", by_dial=True)
                left = self._patience
            look_again = min(look_again, left)
        if look_again < math.inf:
            self._clock.arm(self, look_again)

    # --- an opaque connection ---

    async def connect(
        self, dial: Callable[[Address], Coroutine[Any, Any, tuple[_Wire, Permit]]]
    ) -> tuple[_Wire, Permit]:
        """Dial endpoints, the least busy first, until a connection stands. Raises RemoraError: the last failure.

        Each is given `patience`; the last one, and then the first that was given up on, as long as `dial` takes.
        """
        await self._until_known()
        tried: tuple[Endpoint, ...] = ()
        slow: Endpoint | None = None
        failure = RemoraError(f"service {self._name} has no endpoint", Reason.UPSTREAM_CONNECT_FAILED)
        while (endpoint := self._choose(tried)) is not None:
            tried = (*tried, endpoint)
            try:
                return await self._connect_to(endpoint, dial, self._patience if self._is_another(tried) else None)
            except TimeoutError:
                slow = slow or endpoint
            except RemoraError as fault:
                if fault.reason not in _BLAMED:
                    raise
                failure = fault
        if slow is not None:
            return await self._connect_to(slow, dial, None)
        raise failure

    async def _connect_to(
        self,
        endpoint: Endpoint,
        dial: Callable[[Address], Coroutine[Any, Any, tuple[_Wire, Permit]]],
        seconds: float | None,
    ) -> tuple[_Wire, Permit]:
        pool = endpoint.pool
        pool.opening += 1
        try:
            async with asyncio.timeout(seconds):
                wire, permit = await dial(endpoint.address)
        except TimeoutError:
            self.eject(endpoint, f"no connection within {self._patience:g} s", by_dial=True)
            raise
        except RemoraError as fault:
            if fault.reason in _BLAMED:
                self.eject(endpoint, str(fault), by_dial=True)
            raise
        finally:
            pool.opening -= 1
        pool.hold(wire, permit.peer)
        endpoint.connected(self._clock.now)
        endpoint.answered()
        return wire, permit

    async def _until_known(self) -> None:
        if not self._ring:
            try:
                async with asyncio.timeout(self._wait):
                    await self._known.wait()
            except TimeoutError:
                why = f"no address of service {self._name} was found within {self._wait:g} s"
                raise UpstreamError(why, Reason.UPSTREAM_NAME_UNRESOLVED) from None
        if not self._ring:
            raise UpstreamError(self._unresolved, Reason.UPSTREAM_NAME_UNRESOLVED)


def _shutting_down() -> UpstreamError:
    return UpstreamError("the sidecar is shutting down", Reason.DRAINED)
