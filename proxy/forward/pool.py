"""Keep-alive connections to one next hop: taken and given back in O(1), never older than the keys they stand on.

    take(stream) -> an idle connection at once, or None and later stream.upstream_ready / stream.upstream_failed
    release      -> to the stream that waits longest, or to the idle stack (the warmest connection is used first)
    discard      -> closed; what waits may dial

A connection that idles is read: when the next hop closes it or sends bytes that nobody asked for, it leaves the pool
in the same instant. What is left is the race of a close that is still on its way, which the stream answers by
sending the request again where that is safe.

A pool that is one of several has an owner, which hears how its dials end, decides what becomes of the streams that
waited for them, and asks `load` before it sends another.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

from proxy.errors import Reason, RemoraError, TrustEnded, UpstreamError
from proxy.forward.upstream import NextHop, Stream, UpstreamConnection
from proxy.interfaces import Clock, Wire
from proxy.types import Generation, PeerIdentity

__all__ = ["NextHop", "Owner", "Pool", "PoolLimits", "Stream", "UpstreamConnection", "Waiter"]


TRUST_GRACE: Final = 1.0
"""Seconds that a request under way may still take when its server is no longer vouched for: most end within, and a
change of trust is to take effect within two."""


class Owner(Protocol):
    """Who answers for a pool that is one of several."""

    def dial_ended(self, failure: RemoraError | None) -> None:
        """Learn that a connection stands (None), or that none came; then a stream may wait for it in the pool."""

    def unanswered(self, *, refused: bool) -> None:
        """Learn that a request was sent and no byte of an answer came; `refused`, that our certificate was."""

    def answered(self) -> None:
        """Learn of the first answer since there was trouble."""


class Waiter:
    """A stream that waits for a connection, since when, and where it has waited in vain.

    `returned`: it went back to wait for a dial that it had given up on.
    """

    __slots__ = ("returned", "since", "stream", "tried")

    def __init__(self, stream: Stream, since: float = 0.0) -> None:
        self.stream = stream
        self.since = since
        self.tried: tuple[object, ...] = ()
        self.returned = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """`connections` and `waiters` are counts, the rest seconds."""

    connections: int
    waiters: int
    wait: float
    idle: float
    max_age: float


class Pool:
    """The connections to one next hop, which `name` says in words. `dial` opens one or raises a `RemoraError`."""

    __slots__ = (
        "_clock",
        "_connections",
        "_dial",
        "_dials",
        "_generation",
        "_idle",
        "_limits",
        "_numbers",
        "_opaque",
        "_spawn",
        "_total",
        "_waiters",
        "closed",
        "deadline",
        "name",
        "opening",
        "owner",
        "slot",
        "troubled",
    )

    def __init__(
        self,
        name: str,
        *,
        dial: Callable[[], Coroutine[Any, Any, UpstreamConnection]],
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
        clock: Clock,
        limits: PoolLimits,
        generation: Callable[[], Generation],
    ) -> None:
        self.name = name
        self._dial = dial
        self._spawn = spawn
        self._clock = clock
        self._limits = limits
        self._generation = generation
        self._connections: set[UpstreamConnection] = set()
        self._idle: dict[UpstreamConnection, None] = {}
        self._opaque: dict[Wire, PeerIdentity | None] = {}
        self._waiters: deque[Waiter] = deque()
        self._dials: dict[int, float] = {}
        """When each dial that has not ended began, the oldest first."""
        self._numbers = itertools.count()
        self._total = 0
        self.owner: Owner | None = None
        self.troubled = False
        """The owner wants to hear of the next answer."""
        self.opening = 0
        """Opaque connections that are being dialled."""
        self.closed = False
        self.deadline = self.slot = math.inf

    @property
    def total(self) -> int:
        """Connections that stand or are being dialled."""
        return self._total

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiters)

    @property
    def load(self) -> int:
        """Requests that are under way or wait, and opaque connections."""
        pooled = self._total - len(self._dials) - len(self._idle) + len(self._waiters)
        return pooled + len(self._opaque) + self.opening

    @property
    def oldest_dial(self) -> float:
        """When the dial began that has taken longest, in the clock's time; infinity when there is none."""
        return next(iter(self._dials.values()), math.inf)

    @property
    def waiters(self) -> tuple[Waiter, ...]:
        """The streams that wait, the oldest first."""
        return tuple(self._waiters)

    @property
    def empty(self) -> bool:
        """Nothing stands, is being dialled or waits."""
        return not (self._total or self._opaque or self.opening or self._waiters)

    def take(self, stream: Stream, *, fresh: bool = False, waiter: Waiter | None = None) -> UpstreamConnection | None:
        """Give `stream` an idle connection now, or None: it will hear of one, or of a failure, later.

        `fresh` passes over idle connections: one of them has just proved stale. `waiter` is the stream's, if it has
        waited elsewhere.
        """
        if not fresh:
            idle = self._idle
            while idle:
                connection, _ = idle.popitem()
                if self._may_carry(connection):
                    connection.deadline = math.inf
                    connection.stream = stream
                    connection.uses += 1
                    return connection
                idle[connection] = None  # by this `discard` knows that nothing is missing
                self.discard(connection)
        self._enqueue(waiter or Waiter(stream))
        return None

    def take_over(self, waiter: Waiter) -> None:
        """Serve a stream that waited elsewhere, now or later. Raises UpstreamError when there is no room."""
        if (connection := self.take(waiter.stream, waiter=waiter)) is not None:
            waiter.stream.upstream_ready(connection)

    def _enqueue(self, waiter: Waiter) -> None:
        if self.closed:
            raise UpstreamError("the sidecar is shutting down", Reason.DRAINED)
        dialing = len(self._dials)
        if self._total >= self._limits.connections:
            if len(self._waiters) >= self._limits.waiters + dialing:
                raise UpstreamError(
                    f"all {self._total} connections to {self.name} are busy and {len(self._waiters)} requests wait; "
                    "raise limits.pool_connections or find out why it answers slowly",
                    Reason.POOL_LIMIT,
                )
            if len(self._waiters) <= dialing:  # later ones follow when this one is served or refused
                self._clock.arm(self, self._limits.wait)
        waiter.since = self._clock.now
        self._waiters.append(waiter)
        self._dial_more()

    def remove(self, waiter: Waiter) -> None:
        """Let a stream go that is to wait elsewhere."""
        self._waiters.remove(waiter)

    def next_waiter(self) -> Waiter | None:
        """Let the stream go that has waited longest."""
        return self._waiters.popleft() if self._waiters else None

    def cancel(self, stream: Stream) -> None:
        """Forget a stream that waits."""
        for waiter in self._waiters:
            if waiter.stream is stream:
                self._waiters.remove(waiter)
                return

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is complete and that can carry another request."""
        connection.stream = None
        if self.troubled:
            self._answered()
        if self.closed or connection.wire.closed or not self._may_carry(connection):
            self.discard(connection)
        else:
            self._offer(connection)

    def _offer(self, connection: UpstreamConnection) -> None:
        if self._waiters:
            self._hand_over(connection)
        else:
            self._idle[connection] = None
            seconds = connection.expires_at - self._clock.now
            idle = self._limits.idle
            self._clock.arm(connection, idle if seconds > idle else max(seconds, 0.0))

    def discard(self, connection: UpstreamConnection) -> None:
        """Close a connection and forget it."""
        if connection.pool is not self:
            return
        connection.pool = None
        connection.stream = None
        self._connections.discard(connection)
        self._clock.disarm(connection)
        if connection in self._idle:
            del self._idle[connection]
            connection.wire.close_write()  # nothing is missing, and the peer may know it
        elif self.troubled and connection.wire.bytes_read:
            self._answered()
        self._total -= 1
        connection.wire.close()
        self._dial_more()

    def detach(self, connection: UpstreamConnection) -> None:
        """Let a connection go that became a tunnel: it is the tunnel's to close."""
        self._clock.disarm(connection)
        connection.pool = None
        connection.stream = None
        self._connections.discard(connection)
        self._total -= 1
        self.hold(connection.wire, connection.peer)
        self._dial_more()

    def hold(self, wire: Wire, peer: PeerIdentity | None) -> None:
        """Count an opaque connection to the next hop until it is closed, by whoever runs it."""
        self._opaque[wire] = peer
        wire.on_close = functools.partial(self._opaque.pop, wire, None)

    def judge_again(self, accept: Callable[[PeerIdentity], bool]) -> None:
        """Close every connection whose server is not accepted any more; whoever uses it hears of it.

        A request that is under way has `TRUST_GRACE` to end: when roots change with overlap, its server was right when
        it was asked. An opaque connection has no end to wait for.
        """
        for connection in list(self._connections):
            peer = connection.peer
            if peer is None or accept(peer):
                continue
            if connection.stream is None:
                self.discard(connection)
            elif connection.expires_at > self._clock.now:
                connection.expires_at = self._clock.now  # no other request after this one
                self._clock.arm(connection, TRUST_GRACE)
        failure = TrustEnded()
        for wire, peer in list(self._opaque.items()):
            if peer is not None and not accept(peer):
                receiver = wire.receiver
                wire.abort()
                receiver.wire_lost(failure)

    def close(self) -> None:
        """Close what idles; what is busy is discarded when it comes back, and those that wait are told."""
        self.closed = True
        for connection in list(self._idle):
            self.discard(connection)
        while self._waiters:
            waiter = self._waiters.popleft()
            waiter.stream.upstream_failed(UpstreamError("the sidecar is shutting down", Reason.DRAINED))

    def deadline_passed(self) -> None:
        """Refuse the streams that waited for a full pool as long as they may."""
        now = self._clock.now
        while len(self._waiters) > len(self._dials):
            waiter = self._waiters[0]
            if now - waiter.since < self._limits.wait:
                self._clock.arm(self, self._limits.wait - (now - waiter.since))
                return
            self._waiters.popleft()
            waiter.stream.upstream_failed(
                UpstreamError(
                    f"no connection to {self.name} came free within {self._limits.wait:g} s; "
                    "raise limits.pool_connections or find out why it answers slowly",
                    Reason.POOL_LIMIT,
                )
            )

    def _may_carry(self, connection: UpstreamConnection) -> bool:
        """Say whether a connection may carry another request: our keys, the server's certificate and its age."""
        now = self._clock.now
        return (
            connection.generation == self._generation()
            and now < connection.expires_at
            and now - connection.created_at < self._limits.max_age
        )

    def unanswered(self, *, refused: bool = False) -> None:
        """Note a request that was sent and of whose answer no byte came."""
        if self.owner is not None:
            self.owner.unanswered(refused=refused)

    def _answered(self) -> None:
        self.troubled = False
        if self.owner is not None:
            self.owner.answered()

    def warm(self) -> None:
        """Dial a connection for which nobody waits yet, if there is room."""
        if self._total < self._limits.connections and not self.closed:
            self._dial_one()

    def _dial_more(self) -> None:
        while len(self._dials) < len(self._waiters) and self._total < self._limits.connections and not self.closed:
            self._dial_one()

    def _dial_one(self) -> None:
        number = next(self._numbers)
        self._dials[number] = self._clock.now
        self._total += 1
        self._spawn(self._open(number), f"dial {self.name}")

    async def _open(self, number: int) -> None:
        connection: UpstreamConnection | None = None
        failure = RemoraError("dialling ended without a result; the log has the fault", Reason.INTERNAL_ERROR)
        try:
            connection = await self._dial()
        except RemoraError as fault:
            failure = fault
        except asyncio.CancelledError:
            failure = UpstreamError("the sidecar is shutting down", Reason.DRAINED)
            raise
        finally:
            del self._dials[number]
            if connection is None:
                self._total -= 1
                self._dial_failed(failure)
                self._dial_more()
            else:
                self._connections.add(connection)
                connection.pool = self
                connection.wire.receiver = connection
                connection.wire.start()
                if self.owner is not None:
                    self.owner.dial_ended(None)
                if self.closed or connection.generation != self._generation():
                    self.discard(connection)
                else:  # however short its certificate lasts: to dial anew would bring the same
                    self._offer(connection)
                    connection.wire.read_now()

    def _dial_failed(self, failure: RemoraError) -> None:
        if self.owner is not None:
            self.owner.dial_ended(failure)
        elif self._waiters:
            self._waiters.popleft().stream.upstream_failed(failure)

    def _hand_over(self, connection: UpstreamConnection) -> None:
        stream = self._waiters.popleft().stream
        connection.stream = stream
        connection.deadline = math.inf
        connection.uses += 1
        stream.upstream_ready(connection)
