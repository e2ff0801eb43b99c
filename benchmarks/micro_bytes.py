"""The hot functions around bytes: records and counters, TLS records, sockets and wires, the pool of connections."""

from __future__ import annotations

import functools
import itertools
import json
import math
import socket
import time
from typing import Any

from benchmarks.micro_world import LIMITS, Case, Closing, World
from benchmarks.processes import BenchError
from proxy.errors import Reason
from proxy.forward.pool import Pool, PoolLimits
from proxy.forward.upstream import UpstreamConnection
from proxy.handshake.engine import Session
from proxy.protocol.http1 import ClientCodec
from proxy.runtime.wire import LoopWire, PlainEnd
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import Naming
from proxy.telemetry.record import Record, Scope
from proxy.types import Generation, Protocol, RequestAttributes


def cases(world: World, closing: Closing) -> list[Case]:
    """Build the cases; `closing` takes what must be closed afterwards."""
    return [*_records(world), *_tls(world, closing), *_wires(world, closing), *_pool(world, closing)]


# --- records and metrics ----------------------------------------------------------------------------------------------


def _records(world: World) -> list[Case]:
    lines: list[str] = []
    metrics = Metrics(Naming.of(world.config))

    def sink(line: str) -> None:
        lines[:] = [line]

    scope = Scope(
        direction="inbound",
        metrics=metrics,
        sink=sink,
        local="10.0.0.8:15443",
        remote="10.0.0.7:41234",
        upstream_cluster="inbound|8080",
    )
    peer = world.attributes.peer
    if peer is None:
        raise BenchError("the caller of the benchmark has no identity")
    scope.source_is(peer.spiffe_id)
    scope.destination_is(peer.spiffe_id)
    request = RequestAttributes(method="GET", path="/orders/42", host="orders:8080", headers=())
    permit = world.policy.request(world.attributes, request)

    def begin() -> Record:
        record = Record(scope, protocol="HTTP/1.1", method="GET", path="/orders/42?currency=EUR")
        record.authority, record.user_agent = "orders:8080", "curl/8.5.0"
        record.request_id = "7d9fa1c2-0b54-4c1e-9a3d-000000000042"
        record.judged(permit)
        record.reached("127.0.0.1:8080", "127.0.0.1:41300")
        record.responded(200)
        return record

    def whole() -> None:
        begin().finish(Reason.OK)

    finished = begin()
    ended = time.perf_counter_ns()
    whole()
    if len(lines) != 1 or json.loads(lines[0])["response_code"] != 200:
        raise BenchError("a finished record is not one line of JSON")
    return [
        Case(name="record/whole", what="begin, note and finish the record of a request", call=whole),
        Case(name="record/begin", what="the same without `finish`", call=begin),
        Case(
            name="metrics/count",
            what="count a request, its stages and sizes",
            call=functools.partial(scope.count_request, finished, Reason.OK, ended),
        ),
    ]


# --- bytes ------------------------------------------------------------------------------------------------------------


def _pair(closing: Closing) -> tuple[socket.socket, socket.socket]:
    """Connect two sockets over TCP on the loopback address, as hops do; both non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    for sock in (left, right):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        closing.callback(sock.close)
    return left, right


def _tls(world: World, closing: Closing) -> list[Case]:
    left, right = _pair(closing)
    client = Session(world.tls, left, server_side=False, protocol=Protocol.HTTP, expected=None)
    server = Session(world.tls, right, server_side=True, protocol=Protocol.HTTP)
    closing.callback(client.release)
    closing.callback(server.release)
    waiting: list[Session] = [client, server]
    for end in itertools.islice(itertools.cycle((client, server)), 40):
        if end in waiting and end.handshake() is None:
            waiting.remove(end)
        if not waiting:
            break
    client.read()  # session tickets come with the handshake and are no data
    found = []
    for size, name in ((128, "128 B"), (1_024, "1 KiB"), (16_384, "16 KiB")):
        data = bytes(size)

        def there(data: bytes = data) -> object:
            if client.write(data) != len(data):
                raise BenchError("the socket is full")
            return server.read()

        if there() != data:
            raise BenchError("a TLS record does not come through whole")
        found.append(Case(name=f"tls/{name}", what="encrypt and send a record, receive and decrypt it", call=there))
    return found


def _wires(world: World, closing: Closing) -> list[Case]:
    left, right = _pair(closing)
    found = []
    for size, name in ((128, "128 B"), (1_024, "1 KiB"), (16_384, "16 KiB")):
        data = bytes(size)

        def there(data: bytes = data) -> object:
            left.send(data)
            return right.recv(65_536)

        found.append(Case(name=f"socket/{name}", what="send and receive, without any of ours", call=there))
    near, far = _pair(closing)
    out = LoopWire(world.loop, world.clock, near, PlainEnd(near))
    into = LoopWire(world.loop, world.clock, far, PlainEnd(far))
    into.receiver = _Taking()
    into.start()
    closing.callback(out.close)
    closing.callback(into.close)
    data = bytes(1_024)

    def through() -> None:
        out.write(data)
        into.read_now()

    return [*found, Case(name="wire/1 KiB", what="write to one wire, read from another, plain", call=through)]


class _Taking:
    """Receives, and forgets."""

    def data_received(self, data: bytes) -> None:
        """Drop bytes."""

    def end_received(self) -> None:
        raise BenchError("a wire of the benchmark has ended")

    def wire_lost(self, reason: OSError) -> None:
        raise BenchError(f"a wire of the benchmark broke: {reason}")

    def write_ready(self) -> None:
        """Ignore the room."""


def _pool(world: World, closing: Closing) -> list[Case]:
    pool = Pool(
        "the application",
        dial=_never_dialled,
        spawn=lambda work, _: work.close(),
        clock=world.clock,
        limits=PoolLimits(connections=64, waiters=64, wait=1.0, idle=4.0, max_age=3600.0),
        generation=lambda: Generation(0),
    )
    near, far = socket.socketpair()
    near.setblocking(False)
    far.close()
    closing.callback(near.close)
    wire = LoopWire(world.loop, world.clock, near, PlainEnd(near))
    connection = UpstreamConnection(
        wire,
        ClientCodec(LIMITS),
        address="127.0.0.1:8080",
        local="127.0.0.1:41300",
        generation=Generation(0),
        permit=None,
        created_at=world.clock.now,
        expires_at=math.inf,
    )
    connection.pool = pool
    pool.release(connection)
    stream: Any = object()

    def take_and_release() -> None:
        taken = pool.take(stream)
        if taken is None:
            raise BenchError("the pool has no connection to give")
        pool.release(taken)

    take_and_release()
    return [
        Case(name="pool/take-release", what="take a connection of a pool and give it back", call=take_and_release),
        Case(
            name="clock/arm",
            what="set a deadline that was set before",
            call=functools.partial(world.clock.arm, connection, 5.0),
        ),
    ]


async def _never_dialled() -> UpstreamConnection:
    raise BenchError("the pool of the benchmark dials")
