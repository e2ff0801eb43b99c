"""What all connections of one process share, and the steps that inbound and outbound have in common.

`tls` and `policy` are the snapshots in force. Each is replaced by one assignment and never changed; None means that
nothing valid has been loaded yet, and then traffic is refused. A connection keeps the `tls` it was accepted with, a
request takes the newest `policy`.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from certs.spiffe import SpiffeId
from proxy.accept.detector import Detector
from proxy.config import Address, Config
from proxy.errors import Reason, RemoraError, reason_of
from proxy.forward.http import HttpForward
from proxy.forward.pool import Pool, PoolLimits, UpstreamConnection
from proxy.forward.route import HttpTimes, Route
from proxy.forward.tunnel import Tunnel
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.engine import Session
from proxy.interfaces import ByteEnd
from proxy.jwks.fetch import Fetcher
from proxy.jwks.store import KeyStore
from proxy.policy import PolicySnapshot
from proxy.policy.decisions import Decisions
from proxy.protocol.fast import HeadReader
from proxy.protocol.http1 import ClientCodec, ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import HeadLimits
from proxy.runtime.clock import CoarseClock
from proxy.runtime.registry import Entry, Registry, SettingUp
from proxy.runtime.tasks import TaskSpawner
from proxy.runtime.wire import LoopWire, WaterMarks
from proxy.telemetry.access_log import AccessLog
from proxy.telemetry.decisions_log import DecisionLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.naming import Naming
from proxy.telemetry.record import Record, Scope
from proxy.types import Generation, Permit, Protocol

NO_TLS: Final = Generation(0)
"""The generation of a connection that stands on no certificate of ours: it never goes stale."""


@dataclass(slots=True)
class Arrival:
    """An accepted connection while it is being set up: who runs it takes it over, or it is closed here.

    `destination_ip` is the address that its peer dialled.
    """

    sock: socket.socket
    destination_ip: str
    entry: Entry
    scope: Scope
    record: Record
    wire: LoopWire | None = field(default=None)


class Sidecar:
    """One process: its configuration, snapshots, counters and open connections."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, access_log: AccessLog | None = None) -> None:
        """Open the access log unless one is given; raises OSError when its file cannot be opened."""
        self.config = config
        self.limits = limits = config.limits
        self.loop = loop
        self.clock = CoarseClock(loop)
        self.tasks = TaskSpawner(loop)
        self.registry = Registry()
        self.metrics = Metrics(Naming.of(config))
        self.access_log = AccessLog(loop, config.telemetry.access_log) if access_log is None else access_log
        self.identity = SpiffeId.for_service_account(
            config.trust_domain, config.workload.namespace, config.workload.service_account
        )
        self.tls: TlsGeneration | None = None
        self.policy: PolicySnapshot | None = None
        self.handshaking = 0
        self.draining = False
        self.pools: list[Pool] = []
        self.decisions = Decisions()
        self.key_fetcher = Fetcher(loop, allow_loopback=lambda: self.config.policy.jwks_allow_loopback)
        self.key_store = KeyStore(
            fetch=self.key_fetcher.fetch, spawn=self.tasks.spawn, changed=self.registry.judge_again, now=loop.time
        )
        self.decision_log = DecisionLog() if config.admin is not None else None
        self.marks = WaterMarks(high=limits.buffer_high_water, low=limits.buffer_low_water, limit=limits.buffer_limit)
        self.head_limits = HeadLimits(head_bytes=limits.head_bytes, fields=limits.head_fields)
        self.head_reader = HeadReader()
        self.normalization = PathNormalization(config.policy.path_normalization)
        self.http_times = HttpTimes(
            head=limits.head_timeout,
            idle=limits.http_idle_timeout,
            stream_idle=limits.stream_idle_timeout,
            tunnel_idle=limits.tcp_idle_timeout,
            finish=limits.drain_timeout,
            linger=limits.close_timeout,
        )

    @property
    def ready(self) -> bool:
        """Certificates, policy and services are loaded and no drain has begun."""
        is_loaded = self.tls is not None and self.policy is not None and self.config.outbound.is_whole
        return is_loaded and not self.draining

    @property
    def policy_generation(self) -> Generation:
        """The generation of the policy in force, 0 before there is one."""
        return self.policy.generation if self.policy is not None else Generation(0)

    @property
    def tls_generation(self) -> Generation:
        """The generation of certificates in force, 0 before there is one."""
        return self.tls.generation if self.tls is not None else NO_TLS

    def take_config(self, config: Config) -> None:
        """Take a configuration; new connections are served by it."""
        self.config = config
        self.metrics.naming = Naming.of(config)
        self.normalization = PathNormalization(config.policy.path_normalization)

    def loop_time(self, epoch: float) -> float:
        """Turn a point in time, seconds since the epoch, into the clock's seconds."""
        return self.loop.time() + (epoch - time.time())

    def close_revoked(self) -> float:
        """Say how many seconds a connection has to close that is no longer allowed; 0: it is reset."""
        return self.limits.close_timeout if self.config.policy.revoked == "close" else 0.0

    # --- an accepted connection ---

    def serve(
        self,
        sock: socket.socket,
        direction: str,
        cluster: str,
        work: Callable[[Arrival], Coroutine[Any, Any, None]],
        destination: Address | None = None,
    ) -> bool:
        """Enter the connection in the registry, then let `work` set it up; False when it is gone already.

        `destination` is where it was going, when it was captured.
        """
        arrival = self._arrive(sock, direction, cluster, destination)
        if arrival is None:
            return False
        self.registry.add(arrival.entry)
        self.tasks.spawn(self._set_up(arrival, work), f"{direction} {arrival.entry.remote}")
        return True

    def refuse(
        self, sock: socket.socket, direction: str, cluster: str, reason: Reason, destination: Address | None = None
    ) -> None:
        """Close a connection that a limit keeps out, with its record."""
        self.metrics.limit(reason)
        self.turn_away(sock, direction, cluster, reason, destination=destination)

    def turn_away(
        self,
        sock: socket.socket,
        direction: str,
        cluster: str,
        reason: Reason,
        detail: str = "",
        destination: Address | None = None,
    ) -> None:
        """Close a connection that is not taken, with its record."""
        arrival = self._arrive(sock, direction, cluster, destination)
        if arrival is not None:
            arrival.record.finish(reason, detail)
            sock.close()

    def end(self, arrival: Arrival, reason: Reason, detail: str = "", *, reset: bool = False) -> None:
        """Close a connection that nobody has taken over, with its record."""
        arrival.record.finish(reason, detail)
        if arrival.wire is None:
            arrival.sock.close()
        elif reset:
            arrival.wire.abort()
        else:
            arrival.wire.close_write()
            arrival.wire.close()
        self.registry.remove(arrival.entry)

    def _arrive(self, sock: socket.socket, direction: str, cluster: str, destination: Address | None) -> Arrival | None:
        try:
            remote, own = address_text(sock.getpeername()), sock.getsockname()
        except OSError:
            sock.close()  # it was reset while it waited to be accepted
            return None
        self.metrics.connection_opened(direction)
        scope = Scope(
            direction=direction,
            metrics=self.metrics,
            sink=self.access_log.sink,
            local=address_text(own) if destination is None else str(destination),
            remote=remote,
            upstream_cluster=cluster,
            decisions=self.decision_log,
        )
        if direction == "inbound":
            scope.destination_is(self.identity)
        else:
            scope.source_is(self.identity)
        destination_ip = ip_text(own) if destination is None else destination.host
        entry = Entry(direction, cluster, remote, time.time())
        return Arrival(sock, destination_ip, entry, scope, Record(scope, protocol="TCP"))

    async def _set_up(self, arrival: Arrival, work: Callable[[Arrival], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is set up by a task")
        setting_up = SettingUp(task)
        try:
            arrival.entry.attach(setting_up)
            if setting_up.ended_by is not None:
                raise asyncio.CancelledError  # it was ended before this task began
            await work(arrival)
        except OSError as failure:
            arrival.entry.break_off(reason_of(failure, Reason.DOWNSTREAM_RESET))
            self.end(arrival, reason_of(failure, Reason.DOWNSTREAM_RESET), failure.strerror or "", reset=True)
        except asyncio.CancelledError:
            reason = setting_up.ended_by or Reason.DRAIN_DEADLINE
            self.end(arrival, reason, reset=not (setting_up.is_revoked and self.close_revoked()))
            raise
        except Exception:
            arrival.entry.break_off(Reason.INTERNAL_ERROR)  # who took the connection over may have begun requests
            self.end(arrival, Reason.INTERNAL_ERROR, reset=True)
            raise

    # --- steps that both directions take ---

    def wire(self, sock: socket.socket, end: ByteEnd) -> LoopWire:
        """Make the wire of one side of a connection."""
        return LoopWire(self.loop, self.clock, sock, end, self.marks)

    async def detect(self, wire: LoopWire, cluster: str) -> tuple[Protocol, bytes]:
        """Read first bytes until they are HTTP/1 or opaque; silence until the deadline is opaque (the server speaks).

        Gives the protocol and the bytes read, which belong to the stream; `cluster` is where silence is counted. Raises
        OSError when the wire breaks.
        """
        detector = Detector(self.loop, wire)
        wire.receiver = detector

        def give_up() -> None:
            if not detector.found.done():
                self.metrics.detection_timeout(cluster)
                detector.give_up()

        timer = self.loop.call_later(self.limits.detection_timeout, give_up)
        try:
            wire.start()
            wire.read_now()
            return await detector.found
        finally:
            timer.cancel()
            wire.pause()

    def start_http(self, arrival: Arrival, wire: LoopWire, route: Route, *, first: bytes, ends_at: float) -> None:
        """Hand the connection to the HTTP pump."""
        record, entry = arrival.record, arrival.entry
        record.protocol = "HTTP/1.1"

        def ended(reason: Reason) -> None:
            record.requests = pump.requests
            self._taken_over_ended(entry, record, wire, reason)

        pump = HttpForward(
            wire,
            ServerCodec(self.head_limits, self.normalization, self.head_reader),
            route,
            clock=self.clock,
            times=self.http_times,
            ends_at=ends_at,
            close_revoked=self.close_revoked,
            on_end=ended,
        )
        entry.attach(pump)
        if not wire.closed:
            pump.start(first)

    async def join(
        self,
        arrival: Arrival,
        wire: LoopWire,
        permit: Permit | None,
        dial: Callable[[], Coroutine[Any, Any, tuple[LoopWire, Permit | None]]],
        *,
        first: bytes,
        ends_at: float,
    ) -> None:
        """Dial the next hop of an opaque connection and join both in a tunnel."""
        record, entry = arrival.record, arrival.entry
        record.is_opaque()
        try:
            upstream, server_permit = await dial()
        except RemoraError as failure:
            self.end(arrival, failure.reason, str(failure), reset=True)
            return
        if permit is None and server_permit is not None:
            record.judged(server_permit)
        permit = permit or server_permit
        if permit is None:
            upstream.abort()
            raise RemoraError("a connection would have been forwarded without a Permit")
        try:
            record.reached(address_text(upstream.socket.getpeername()), address_text(upstream.socket.getsockname()))
        except OSError as failure:  # it was reset since it stood
            upstream.abort()
            self.end(arrival, Reason.UPSTREAM_RESET, failure.strerror or "", reset=True)
            return
        record.carries(wire)
        if permit.peer is not None and entry.direction == "outbound":
            ends_at = min(ends_at, self.loop_time(permit.peer.not_after))
        tunnel = Tunnel(
            permit,
            wire,
            upstream,
            clock=self.clock,
            idle=self.limits.tcp_idle_timeout,
            ends_at=ends_at,
            close_revoked=self.close_revoked,
            on_end=lambda reason: self._taken_over_ended(entry, record, wire, reason),
        )
        entry.attach(tunnel)
        if not wire.closed:  # policy or trust may have changed while the next hop was dialled
            tunnel.start(from_downstream=first)

    def _taken_over_ended(self, entry: Entry, record: Record, wire: LoopWire, reason: Reason) -> None:
        record.bytes_received, record.bytes_sent = wire.bytes_read, wire.bytes_written
        record.finish(reason)
        self.registry.remove(entry)

    # --- the next hop ---

    def pool(
        self,
        name: str,
        open_one: Callable[[], Coroutine[Any, Any, UpstreamConnection]],
        *,
        idle: float,
        generation: Callable[[], Generation],
    ) -> Pool:
        """Make a pool of HTTP connections to one next hop."""
        limits = self.limits
        pool = Pool(
            name,
            dial=open_one,
            spawn=self.tasks.spawn,
            clock=self.clock,
            limits=PoolLimits(
                connections=limits.pool_connections,
                waiters=limits.pool_waiters,
                wait=limits.pool_wait_timeout,
                idle=idle,
                max_age=limits.pool_max_age,
            ),
            generation=generation,
        )
        self.pools = [*(known for known in self.pools if not known.closed), pool]
        return pool

    def upstream(self, wire: LoopWire, address: Address, permit: Permit | None) -> UpstreamConnection:
        """Make the pooled form of a connection to the next hop."""
        end = wire.end
        peer = permit.peer if permit is not None else None
        return UpstreamConnection(
            wire,
            ClientCodec(self.head_limits, self.head_reader),
            address=str(address),
            local=address_text(wire.socket.getsockname()),
            generation=end.generation if isinstance(end, Session) else NO_TLS,
            permit=permit,
            created_at=self.clock.now,
            expires_at=self.loop_time(peer.not_after) if peer is not None else math.inf,
        )


def address_text(name: Any) -> str:
    """Write the name of a socket as `host:port`; an IPv4 peer of a dual-stack socket is an IPv4 peer."""
    if not isinstance(name, tuple):
        return str(name) or "unix"
    host = ip_text(name)
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


def ip_text(name: Any) -> str:
    """The address of a socket's name as policy compares it."""
    return str(name[0]).removeprefix("::ffff:").split("%", 1)[0]
