"""Any order of events, found by hypothesis: several clients, several applications, everybody slow at any moment.

A run is a list of choices: what is said next, in which pieces, who takes how much, which of the possible events comes
first. At its end all obstacles are taken away, and then everything must come to a good end by itself: a wake-up that
was lost on the way leaves somebody waiting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import LIMITS, App, Client, Stage, denial, permit

from proxy.errors import Reason
from proxy.forward import exchange, http
from proxy.protocol.http1 import ClientCodec, ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import Data, End, RequestHead

HIGH, LOW = 60, 20
CLIENTS, REQUESTS = 3, 4
BACKLOG = 200
"""Small marks, so that short bodies reach them."""
SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)


@pytest.fixture(scope="module", autouse=True)
def _small_backlog() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "BACKLOG_LIMIT", BACKLOG)
        patch.setattr(http, "BACKLOG_LIMIT", BACKLOG)
        yield


@dataclass(slots=True)
class Order:
    """One request of a client: what it sends and what it must get. Its `name` is in the path and in both bodies."""

    name: bytes
    size: int
    chunked: bool
    answer_size: int
    denied: bool

    @property
    def body(self) -> bytes:
        return (self.name * (self.size // len(self.name) + 1))[: self.size]

    @property
    def answer(self) -> bytes:
        return b"RBAC: access denied" if self.denied else (self.name * self.answer_size)[: self.answer_size]

    def wire(self) -> bytes:
        path = b"/denied/" + self.name if self.denied else b"/%b/%d" % (self.name, self.answer_size)
        if self.chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (self.size, self.body) if self.size else b"0\r\n\r\n"
            return b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%b" % (path, body)
        return b"PUT %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (path, self.size, self.body)


@dataclass(slots=True)
class Caller:
    """A client with its orders: what it has still to say."""

    client: Client
    orders: list[Order]
    rest: bytes

    def say(self, count: int) -> None:
        piece, self.rest = self.rest[:count], self.rest[count:]
        if piece and not self.client.closed:
            self.client.say(piece)

    def answers(self) -> list[bytes]:
        """Read what came as answers; whatever is not one whole answer after the other fails here."""
        codec = ClientCodec(LIMITS)
        found: list[bytes] = []
        codec.receive(self.client.wire.taken)
        for order in self.orders:
            codec._state = 0
            codec._method = b"PUT"
            body = b""
            while (event := codec.next_event()) is not None:
                if isinstance(event, Data):
                    body += event.data
                elif isinstance(event, End):
                    found.append(body)
                    break
            assert len(found) <= self.orders.index(order) + 1
        assert not codec.buffered, "bytes of no answer came"
        return found


@dataclass(slots=True)
class Application:
    """One connection to the application, as its server sees it: it answers each request when it is whole, or early."""

    app: App
    codec: ServerCodec = field(default_factory=lambda: ServerCodec(LIMITS, PathNormalization.BASE))
    read: int = 0
    head: RequestHead | None = None
    body: bytes = b""
    complete: bool = False
    answered: bool = False
    rest: bytes = b""
    served: list[tuple[bytes, bytes]] = field(default_factory=list)

    def look(self) -> None:
        """Read what has come."""
        new, self.read = self.app.wire.taken[self.read :], len(self.app.wire.taken)
        if new:
            self.codec.receive(new)
        while (event := self.codec.next_event()) is not None:
            if isinstance(event, RequestHead):
                assert self.head is None, "a second request came before the first was answered"
                self.head, self.body = event, b""
                assert not event.path.startswith(b"/denied"), "a request went out that nobody permitted"
            elif isinstance(event, Data):
                self.body += event.data
            elif isinstance(event, End):
                self.complete = True

    def answer(self, chunked: bool) -> None:
        """Begin the answer to a request that is whole."""
        if self.head is None or not self.complete or self.answered:
            return
        name, size = self.head.path[1:].split(b"/")
        body = (name * int(size))[: int(size)]
        self.served.append((name, self.body))
        if chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.rest = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % framed
        else:
            self.rest = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        self.answered = True

    def say(self, count: int) -> None:
        piece, self.rest = self.rest[:count], self.rest[count:]
        if piece:
            if not self.rest:  # the whole answer is on its way: the next request may come
                self.head, self.complete, self.answered = None, False, False
                self.codec.start_next_stream()
            self.app.say(piece)


class World:
    """The stage with its callers and applications."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self.draw = draw
        self.stage = Stage(connections=2, waiters=CLIENTS, high=HIGH, low=LOW, dials_at_once=False)
        self.applications: dict[int, Application] = {}
        self.callers = [self._caller(number) for number in range(self.pick(1, CLIENTS))]

    def _caller(self, number: int) -> Caller:
        client = self.stage.client()
        client.route.verdict = lambda head: denial() if head.path.startswith(b"/denied") else permit()
        orders = [
            Order(
                name=b"%c%d" % (65 + number, index),
                size=self.pick(0, 600),
                chunked=bool(self.pick(0, 1)),
                answer_size=self.pick(0, 600),
                denied=self.pick(0, 4) == 0,
            )
            for index in range(self.pick(1, REQUESTS))
        ]
        return Caller(client, orders, b"".join(order.wire() for order in orders))

    def pick(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def application(self, app: App) -> Application:
        return self.applications.setdefault(id(app), Application(app))

    def step(self) -> None:
        """Do one thing of all that could be done."""
        stage = self.stage
        match self.pick(0, 7):
            case 0:
                self.callers[self.pick(0, len(self.callers) - 1)].say(self.pick(1, 90))
            case 1 if stage.apps:
                application = self.application(stage.apps[self.pick(0, len(stage.apps) - 1)])
                application.look()
                application.answer(bool(self.pick(0, 1)))
                application.say(self.pick(1, 90))
            case 2:
                wires = stage.wires()
                wires[self.pick(0, len(wires) - 1)].room = self.pick(0, 3) * 30
            case 3 if stage.dials:
                stage.accept()
            case _:
                steps = stage.steps()
                if steps:
                    steps[self.pick(0, len(steps) - 1)]()
        self.watch()

    def watch(self) -> None:
        """Hold what must be true after every single event."""
        for wire in self.stage.wires():
            assert not wire.misuse, f"{wire.name}: {wire.misuse}"
            # One read of what was on its way is let through after a wire turned congested, with its framing.
            assert len(wire._held) <= HIGH + BACKLOG + 2 * 90 + 150, f"{wire.name} holds {len(wire._held)} bytes"
        assert self.stage.pool.total <= 2
        live = [app for app in self.stage.apps if app.connection.pool is self.stage.pool]
        assert self.stage.pool.total == len(live) + len(self.stage.dials)

    def finish(self) -> None:
        """Take every obstacle away and let everything come to its end."""
        stage = self.stage
        stage.dials_at_once = True
        for _ in range(1_000):
            for wire in stage.wires():
                wire.room = math.inf
            for caller in self.callers:
                caller.say(1_000_000)
            for app in stage.apps:
                application = self.application(app)
                application.look()
                application.answer(False)
                application.say(1_000_000)
            stage.run()
            if all(len(caller.client.route.records) == len(caller.orders) for caller in self.callers) and not any(
                app.connection.stream for app in stage.apps
            ):
                return


@SETTINGS
@given(data=st.data())
def test_whatever_the_order_everybody_gets_what_is_theirs(data: st.DataObject) -> None:
    world = World(data.draw)
    try:
        for _ in range(world.pick(10, 150)):
            world.step()
        world.finish()
        everybody_got_what_is_theirs(world)
    finally:
        world.stage.close()


def everybody_got_what_is_theirs(world: World) -> None:
    served = [pair for application in world.applications.values() for pair in application.served]
    for caller in world.callers:
        assert caller.answers() == [order.answer for order in caller.orders]
        wanted = [Reason.DENIED_BY_POLICY if order.denied else Reason.OK for order in caller.orders]
        assert [record.reason for record in caller.client.route.records] == wanted
        assert all(len(record.reasons) == 1 for record in caller.client.route.records)
        assert caller.client.wire.reading, "a client is left paused and nothing is the cause"
    assert sorted(served) == sorted(
        (order.name, order.body) for caller in world.callers for order in caller.orders if not order.denied
    )
    assert world.stage.pool.total == world.stage.pool.idle
    world.stage.check()


@SETTINGS
@given(data=st.data())
def test_whatever_breaks_each_request_has_one_record_and_the_pool_its_places(data: st.DataObject) -> None:
    world = World(data.draw)
    try:
        break_things(world)
        everybody_ended(world.stage)
    finally:
        world.stage.close()


def break_things(world: World) -> None:
    stage = world.stage
    for _ in range(world.pick(10, 60)):
        match world.pick(0, 16):
            case 0:
                client = stage.clients[world.pick(0, len(stage.clients) - 1)]
                if not client.closed:
                    client.wire.inbox.append(ConnectionResetError(104, "reset"))
            case 1 if stage.apps:
                app = stage.apps[world.pick(0, len(stage.apps) - 1)]
                if not app.closed:
                    app.wire.inbox.append(b"" if world.pick(0, 1) else ConnectionResetError(104, "reset"))
            case 2 if stage.dials:
                stage.refuse()
            case 3:
                stage.clock.advance(world.pick(1, 20))
            case 4:
                client = stage.clients[world.pick(0, len(stage.clients) - 1)]
                if world.pick(0, 1):
                    client.pump.drain()
                else:
                    client.pump.break_off(Reason.DRAIN_DEADLINE)
            case 5 if world.pick(0, 5) == 0:
                stage.pool.close()
            case _:
                broken = {id(app) for app in stage.apps if app.closed or b"" in app.wire.inbox}
                world.applications = {key: value for key, value in world.applications.items() if key not in broken}
                world.step()


def everybody_ended(stage: Stage) -> None:
    for wire in stage.wires():
        wire.room = math.inf
    stage.dials_at_once = True
    stage.run()
    for _ in range(4):
        stage.wait(100)
    for client in stage.clients:
        assert client.closed, "a deadline was lost: nobody ends this connection"
        assert len(client.reasons) == 1
        assert all(record.reasons for record in client.route.records)
    assert not stage.clock.armed
    assert stage.pool.total == 0
    stage.check()
