"""The stage of the playbook: whole connections without a socket, a loop or a task.

    client >> b"GET / HTTP/1.1\\r\\n..."      the client says something, and everything that follows from it happens
    assert app << b"GET / HTTP/1.1\\r\\n..."  the application heard exactly this since it was last asked

Pool, exchange, pump, tunnel and codecs are the real ones. Wires, clock and dialling are the stage's: a wire delivers
when it is its turn, a peer takes as many bytes as the play lets it, a dial ends when the play says so.
"""

from __future__ import annotations

import errno
import math
import socket
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ClassVar

from fake_clock import FakeClock

from proxy.errors import Reason, RemoraError
from proxy.forward.http import HttpForward
from proxy.forward.pool import NextHop, Pool, PoolLimits, UpstreamConnection
from proxy.forward.route import HttpTimes
from proxy.interfaces import Receiver
from proxy.policy import outbound
from proxy.protocol.fast import HeadReader
from proxy.protocol.http1 import ClientCodec, ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits, RequestHead
from proxy.types import Denial, Generation, Permit

HIGH, LOW = 65_536, 16_384
TIMES = HttpTimes(head=10.0, idle=60.0, stream_idle=30.0, tunnel_idle=100.0, finish=30.0, linger=1.0)
ANSWER_TIMEOUT = 15.0
LIMITS = HeadLimits()


def permit() -> Permit:
    return outbound("orders", None, Generation(1))


def denial(reason: Reason = Reason.DENIED_BY_POLICY) -> Denial:
    return Denial(reason=reason, rule="none", generation=Generation(1), explanation="no rule allows it")


class Nobody:
    """Receives for a wire that nobody has taken yet."""

    def data_received(self, data: bytes) -> None:
        raise AssertionError("bytes were delivered to nobody")

    def end_received(self) -> None:
        raise AssertionError("an end was delivered to nobody")

    def wire_lost(self, reason: OSError) -> None:
        raise AssertionError("a break was delivered to nobody")

    def write_ready(self) -> None:
        raise AssertionError("room was reported to nobody")


class StageWire:
    """A `Wire` whose other end the play holds.

    `taken` is what the peer has, `room` how many more bytes it takes (infinite at first), `misuse` what the code under
    test must never do to a wire.
    """

    def __init__(self, name: str, *, high: int = HIGH, low: int = LOW) -> None:
        self.name = name
        self.receiver: Receiver = Nobody()
        self.congested = False
        self.bytes_read = 0
        self.bytes_written = 0
        self.read_ended = False
        self.closed = False
        self.on_close: Callable[[], object] | None = None
        self.aborted = False
        self.reading = False
        self.ending = False
        self.end_sent = False
        self.taken = b""
        self.room: float = math.inf
        self.inbox: deque[bytes | OSError] = deque()
        self.misuse: list[str] = []
        self._held = b""
        self._high, self._low = high, low
        self._started = False
        self._broken: OSError | None = None

    @property
    def socket(self) -> socket.socket:
        raise AssertionError("a forwarder has no business with the socket")

    @property
    def flushed(self) -> bool:
        return not self._held and self.ending is self.end_sent and self._broken is None

    # --- the face that the code under test sees ---

    def start(self) -> None:
        self._started = True
        self.resume()

    def read_now(self) -> None:
        if self.reading and self.inbox:
            self._deliver()

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = self._started and not self.closed and not self.read_ended

    def write(self, data: bytes) -> None:
        if self.closed:
            self.misuse.append(f"{len(data)} bytes were written after the close")
        elif self.ending:
            self.misuse.append(f"{len(data)} bytes were written after our side had ended")
        elif self._broken is None and self.inbox and isinstance(self.inbox[-1], OSError):
            self._broken = self.inbox[-1]
            self.reading = False
        elif self._broken is None:
            self._held += data
            self._take()
            self.congested = self.congested or len(self._held) > self._high

    def close_write(self) -> None:
        if not self.closed and not self.ending:
            self.ending = True
            self.end_sent = not self._held

    def close(self) -> None:
        self.closed = True
        self.reading = False
        self._held = b""
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def abort(self) -> None:
        if not self.closed:
            self.aborted = True
            self.close()

    # --- what the play does ---

    def _take(self) -> None:
        count = int(min(self.room, len(self._held)))
        self.taken += self._held[:count]
        self._held = self._held[count:]
        self.bytes_written += count
        self.room -= count

    def _deliver(self) -> None:
        item = self.inbox.popleft()
        if isinstance(item, OSError):
            self._lose(item)
        elif item:
            self.bytes_read += len(item)
            self.receiver.data_received(item)
        else:
            self.read_ended = True
            self.reading = False
            self.receiver.end_received()

    def _lose(self, failure: OSError) -> None:
        receiver = self.receiver
        self.close()
        receiver.wire_lost(failure)

    def readable(self) -> bool:
        return self.reading and bool(self.inbox)

    def writable(self) -> bool:
        return not self.closed and (self._broken is not None or (bool(self._held) and self.room > 0))

    def step_read(self) -> None:
        """Deliver one thing that the peer said."""
        self._deliver()

    def step_write(self) -> None:
        """Let the peer take what it has room for."""
        if self._broken is not None:
            self._lose(self._broken)
            return
        self._take()
        if self._held:
            if self.congested and len(self._held) <= self._low:
                self.congested = False
                self.receiver.write_ready()
        elif self.congested or self.ending:
            self.congested = False
            self.end_sent = self.ending
            self.receiver.write_ready()


class Peer:
    """Who holds the other end of a wire: the client, or the application."""

    def __init__(self, stage: Stage, wire: StageWire) -> None:
        self.stage = stage
        self.wire = wire
        self._heard = 0

    def __rshift__(self, data: bytes) -> Peer:
        """Say something, and let everything happen that follows."""
        self.say(data)
        self.stage.run()
        return self

    def __lshift__(self, expected: bytes) -> bool:
        heard = self.heard()
        if heard != expected:
            raise AssertionError(f"{self.wire.name} should have heard {expected!r} and heard {heard!r}")
        return True

    def heard(self) -> bytes:
        """Give what was heard since the last look."""
        new, self._heard = self.wire.taken[self._heard :], len(self.wire.taken)
        return new

    def say(self, data: bytes) -> None:
        """Put bytes on the way; they arrive when the stage runs."""
        self.wire.inbox.append(data)

    def ends(self) -> None:
        """Close this side cleanly."""
        self >> b""

    def resets(self) -> None:
        """Break the connection."""
        self.wire.inbox.append(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        self.stage.run()

    def takes(self, count: float) -> None:
        """Take so many bytes more and no others."""
        self.wire.room = count
        self.stage.run()

    @property
    def closed(self) -> bool:
        return self.wire.closed


class Client(Peer):
    """A client with the pump that serves it; `end` is why its connection ended, None while it stands."""

    def __init__(self, stage: Stage, wire: StageWire, route: StageRoute, ends_at: float) -> None:
        super().__init__(stage, wire)
        self.route = route
        self.ends: Any = super().ends
        self.reasons: list[Reason] = []
        self.pump = HttpForward(
            wire,
            ServerCodec(LIMITS, PathNormalization.BASE, stage.reader),
            route,
            clock=stage.clock,
            times=TIMES,
            ends_at=ends_at,
            on_end=self.reasons.append,
        )

    @property
    def end(self) -> Reason | None:
        return self.reasons[0] if self.reasons else None


class App(Peer):
    """One connection to the application."""

    def __init__(self, stage: Stage, wire: StageWire, connection: UpstreamConnection) -> None:
        super().__init__(stage, wire)
        self.connection = connection


class StageRecord:
    """A record that remembers what it was told; the first `finish` counts, as the interface says."""

    def __init__(self, method: bytes = b"") -> None:
        self.method = method
        self.bytes_received = 0
        self.bytes_sent = 0
        self.response_code = 0
        self.retries = 0
        self.request_id = "id"
        self.trace_lines = b""
        self.verdicts: list[Permit | Denial] = []
        self.reasons: list[Reason] = []
        self.detail = ""

    @property
    def reason(self) -> Reason | None:
        return self.reasons[0] if self.reasons else None

    def judged(self, verdict: Permit | Denial) -> None:
        self.verdicts.append(verdict)

    def reached(self, host: str, local: str) -> None:
        """Where it went does not matter here."""

    def responded(self, status: int) -> None:
        self.response_code = status

    def finish(self, reason: Reason, detail: str = "") -> None:
        if not self.reasons:
            self.detail = detail
        self.reasons.append(reason)


class StageRoute:
    """Judges by the play's word: `verdict` may be a value or a function of the head."""

    strip_reserved = True

    def __init__(self, pool: NextHop) -> None:
        self.pool = pool
        self.answer_timeout = ANSWER_TIMEOUT
        self.verdict: Permit | Denial | Callable[[RequestHead], Permit | Denial | None] | None = permit()
        self.records: list[StageRecord] = []
        self.extra = b""
        self.rewrite: Callable[[RequestHead], RequestHead] | None = None

    def begin(self, head: RequestHead) -> StageRecord:
        self.records.append(StageRecord(head.method))
        return self.records[-1]

    def begin_unread(self) -> StageRecord:
        self.records.append(StageRecord())
        return self.records[-1]

    def judge(self, head: RequestHead) -> Permit | Denial | None:
        return self.verdict(head) if callable(self.verdict) else self.verdict

    def forwarded(self, head: RequestHead) -> RequestHead:
        return head if self.rewrite is None else self.rewrite(head)

    def trailers(self, fields: Any) -> Any:
        return fields

    def lines(self, record: Any) -> bytes:
        return self.extra

    def ends_at(self, permit: Permit) -> float:
        return permit.expires_at


@types.coroutine
def _park() -> Generator[None, UpstreamConnection, UpstreamConnection]:
    connection = yield
    return connection


class Stage:
    """Everything around the code under test. With `dials_at_once` each dial succeeds when the stage runs."""

    reads_fast: ClassVar[bool] = True
    """Heads are understood by the fast path, and whole messages without events; else by the gate, event by event."""

    def __init__(
        self,
        *,
        connections: int = 4,
        waiters: int = 4,
        high: int = HIGH,
        low: int = LOW,
        upstream_permit: Permit | None = None,
        dials_at_once: bool = True,
    ) -> None:
        self.clock = FakeClock()
        self.reader = HeadReader() if self.reads_fast else None
        self.generation = Generation(1)
        self.dials: deque[Coroutine[Any, Any, Any]] = deque()
        self.dials_at_once = dials_at_once
        self.upstream_permit = upstream_permit
        self.upstream_expires_at = math.inf
        self.room_of_new_apps: float = math.inf
        self.clients: list[Client] = []
        self.apps: list[App] = []
        self._marks = {"high": high, "low": low}
        self.pool = Pool(
            "orders",
            dial=self._dial,
            spawn=lambda work, name: self.dials.append(work),
            clock=self.clock,
            limits=PoolLimits(connections=connections, waiters=waiters, wait=1.0, idle=4.0, max_age=1_000.0),
            generation=lambda: self.generation,
        )

    async def _dial(self) -> UpstreamConnection:
        return await _park()

    def route(self) -> StageRoute:
        """Make what a client's pump is told."""
        return StageRoute(self.pool)

    def client(self, *, ends_at: float = math.inf, start: bool = True) -> Client:
        """Let a client connect."""
        wire = StageWire(f"client {len(self.clients)}", **self._marks)
        client = Client(self, wire, self.route(), ends_at)
        self.clients.append(client)
        if start:
            client.pump.start()
        return client

    @property
    def app(self) -> App:
        """The newest connection to the application."""
        return self.apps[-1]

    def accept(self) -> App:
        """Let the oldest dial succeed."""
        wire = StageWire(f"app {len(self.apps)}", **self._marks)
        wire.room = self.room_of_new_apps
        connection = UpstreamConnection(
            wire,
            ClientCodec(LIMITS, self.reader),
            address="127.0.0.1:8080",
            local="127.0.0.1:40000",
            generation=self.generation,
            permit=self.upstream_permit,
            created_at=self.clock.now,
            expires_at=self.upstream_expires_at,
        )
        app = App(self, wire, connection)
        self.apps.append(app)
        work = self.dials.popleft()
        work.send(None)
        try:
            work.send(connection)
        except StopIteration:
            return app
        raise AssertionError("the pool waits for something else after the dial")

    def refuse(self, failure: BaseException | None = None) -> None:
        """Let the oldest dial fail."""
        work = self.dials.popleft()
        work.send(None)
        wanted = failure or RemoraError("connection refused", Reason.UPSTREAM_CONNECT_FAILED)
        try:
            work.throw(wanted)
        except StopIteration:
            return
        except BaseException as raised:
            if raised is not wanted:
                raise

    def wires(self) -> list[StageWire]:
        return [peer.wire for peer in (*self.clients, *self.apps)]

    def steps(self) -> list[Callable[[], object]]:
        """Name everything that could happen next."""
        found: list[Callable[[], object]] = []
        for wire in self.wires():
            if wire.readable():
                found.append(wire.step_read)
            if wire.writable():
                found.append(wire.step_write)
        if self.dials and self.dials_at_once:
            found.append(self.accept)
        return found

    def run(self) -> None:
        """Let everything happen that can."""
        for _ in range(10_000):
            steps = self.steps()
            if not steps:
                self.check()
                return
            steps[0]()
        raise AssertionError("the stage does not come to rest")

    def wait(self, seconds: float) -> None:
        """Let time go by."""
        self.clock.advance(seconds)
        self.run()

    def check(self) -> None:
        """Hold what must be true whenever nothing can happen."""
        for wire in self.wires():
            assert not wire.misuse, f"{wire.name}: {wire.misuse}"
        live = [app for app in self.apps if app.connection.pool is self.pool]
        assert self.pool.total == len(live) + len(self.dials)
        for app in live:
            assert not app.closed, f"{app.wire.name} is closed and still in the pool"
        for client in self.clients:
            assert len(client.reasons) <= 1
            if client.closed:
                assert client.reasons, f"{client.wire.name} is closed and nobody was told"
                for record in client.route.records:
                    assert record.reasons, f"{client.wire.name} is closed and a record of it is not finished"
                assert client.pump not in self.clock.armed, f"{client.wire.name} is closed and a deadline still runs"

    def close(self) -> None:
        """Drop what still waits, so that no coroutine is left."""
        while self.dials:
            self.dials.popleft().close()


def get(path: bytes = b"/", *fields: bytes) -> bytes:
    """Write a GET request."""
    return b"GET %b HTTP/1.1\r\nhost: a\r\n%b\r\n" % (path, b"".join(field + b"\r\n" for field in fields))


def post(body: bytes = b"", *fields: bytes, length: int | None = None, method: bytes = b"POST") -> bytes:
    """Write a POST request; with `length` more than the body, the rest is to follow."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"%b / HTTP/1.1\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n%b" % (
        method,
        lines,
        len(body) if length is None else length,
        body,
    )


def ok(body: bytes = b"", *fields: bytes, length: int | None = None) -> bytes:
    """Write an answer; with `length` more than the body, the rest is to follow."""
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (
        b"".join(field + b"\r\n" for field in fields),
        len(body) if length is None else length,
        body,
    )
