"""Endpoints by hand: a balancer over real pools whose dials end when the test says so, and the streams that ask it."""

from __future__ import annotations

import math
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import pytest
from fake_clock import FakeClock

from certs.spiffe import SpiffeId
from proxy.config import Address
from proxy.errors import Reason, RemoraError, UpstreamError
from proxy.forward.balance import Balancer
from proxy.forward.endpoint import Endpoint
from proxy.forward.pool import Pool, PoolLimits
from proxy.forward.upstream import UpstreamConnection
from proxy.interfaces import Receiver, Wire
from proxy.policy import outbound
from proxy.protocol.http1 import ClientCodec
from proxy.protocol.stream import HeadLimits
from proxy.types import Generation, PeerIdentity

REFUSED = UpstreamError("connection refused", Reason.UPSTREAM_CONNECT_FAILED)


def address(number: int) -> Address:
    return Address(host=f"10.0.0.{number}", port=15443)


def peer(account: str) -> PeerIdentity:
    spiffe_id = SpiffeId.parse(f"spiffe://cluster.local/ns/demo/sa/{account}")
    return PeerIdentity(spiffe_id=spiffe_id, not_after=2e9, serial="1", fingerprint="ab")


class QuietWire:
    """A wire on which nothing happens but what the test does."""

    def __init__(self) -> None:
        self.receiver: Receiver | None = None
        self.bytes_read = 0
        self.closed = False
        self.aborted = False
        self.on_close: Callable[[], object] | None = None

    @property
    def face(self) -> Wire:
        return cast(Wire, self)

    def start(self) -> None:
        """Nothing will come."""

    def read_now(self) -> None:
        """Nothing has come."""

    def close_write(self) -> None:
        """Nobody listens."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.on_close is not None:
                self.on_close()

    def abort(self) -> None:
        self.aborted = True
        self.close()


class User:
    """A stream: what it got, or what it was told."""

    def __init__(self) -> None:
        self.connection: UpstreamConnection | None = None
        self.failure: RemoraError | None = None
        self.lost: OSError | None = None

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        assert self.connection is None
        assert self.failure is None
        self.connection = connection

    def upstream_failed(self, failure: RemoraError) -> None:
        assert self.connection is None
        assert self.failure is None
        self.failure = failure

    def upstream_data(self, data: bytes) -> None:
        """The answer does not matter here."""

    def upstream_lost(self, reason: OSError) -> None:
        self.lost = reason

    def upstream_writable(self) -> None:
        """Nothing is written here."""

    @property
    def at(self) -> str:
        assert self.connection is not None
        return self.connection.address.rpartition(".")[2]

    def done(self) -> None:
        """Its answer is complete."""
        assert self.connection is not None
        assert self.connection.pool is not None
        cast(QuietWire, self.connection.wire).bytes_read += 1
        self.connection.pool.release(self.connection)

    def breaks(self) -> None:
        """Its connection breaks before any answer."""
        assert self.connection is not None
        assert self.connection.pool is not None
        connection = self.connection
        connection.wire.closed = True
        connection.wire_lost(ConnectionResetError())
        connection.drop()


@types.coroutine
def _park() -> Generator[None, Any, Any]:
    return (yield)


class Field:
    """A balancer whose dials end when the test says so."""

    def __init__(self, *numbers: int, connections: int = 8, waiters: int = 8, probes: bool = True) -> None:
        self.clock = FakeClock()
        self.connections, self.waiters = connections, waiters
        self.dials: dict[str, deque[Coroutine[Any, Any, Any]]] = {}
        self.account = "orders"
        self.jitter = 0.0
        self.balancer = Balancer(
            "orders", make_pool=self._make_pool, clock=self.clock, wait=5.0, rand=lambda: self.jitter
        )
        self.balancer.probes = probes
        if numbers:
            self.balancer.set_endpoints(map(address, numbers))

    def _make_pool(self, to: Address) -> Pool:
        key = to.host.rpartition(".")[2]
        dials = self.dials.setdefault(key, deque())

        async def dial() -> UpstreamConnection:
            return cast(UpstreamConnection, await _park())

        return Pool(
            key,
            dial=dial,
            spawn=lambda work, name: dials.append(work),
            clock=self.clock,
            limits=PoolLimits(connections=self.connections, waiters=self.waiters, wait=1.0, idle=60.0, max_age=1_000.0),
            generation=lambda: Generation(1),
        )

    def endpoint(self, number: int) -> Endpoint:
        return next(item for item in self.balancer.endpoints if item.address == address(number))

    def ask(self, *, fresh: bool = False) -> User:
        """Let a stream ask for a connection."""
        user = User()
        user.connection = self.balancer.take(user, fresh=fresh)
        return user

    def accept(self, number: int) -> UpstreamConnection:
        """Let the oldest dial of an endpoint succeed."""
        connection = UpstreamConnection(
            QuietWire().face,
            ClientCodec(HeadLimits()),
            address=address(number).host,
            local="",
            generation=Generation(1),
            permit=outbound("orders", peer(self.account), Generation(1)),
            created_at=self.clock.now,
            expires_at=math.inf,
        )
        self._end(number, lambda work: work.send(connection))
        return connection

    def refuse(self, number: int, failure: BaseException = REFUSED) -> None:
        """Let the oldest dial of an endpoint fail."""
        self._end(number, lambda work: work.throw(failure))

    def _end(self, number: int, how: Callable[[Coroutine[Any, Any, Any]], object]) -> None:
        work = self.dials[str(number)].popleft()
        work.send(None)
        with pytest.raises(StopIteration):
            how(work)

    def dialling(self) -> dict[str, int]:
        return {key: len(dials) for key, dials in self.dials.items() if dials}

    def close(self) -> None:
        for dials in self.dials.values():
            for work in dials:
                work.close()


def at_endpoint_1(field: Field, *, fresh: bool = False) -> User:
    """Let requests be asked and answered until one is at endpoint 1."""
    while True:
        user = field.ask(fresh=fresh)
        for number in (1, 2):
            if user.connection is None and str(number) in field.dialling():
                field.accept(number)
        if user.at == "1":
            return user
        user.done()


def unanswered(field: Field, count: int) -> None:
    """Let requests to endpoint 1 break on fresh connections."""
    for _ in range(count):
        at_endpoint_1(field, fresh=True).breaks()
