"""THE page: the way of a connection, inbound and outbound, from accept to the last record.

    inbound    accept -> handshake + identity -> [detect] -> policy(connection) -> ( policy(request) -> forward )*
                      '-> no mesh TLS, where plaintext is taken: nobody is known, and the rest is the same
    outbound   accept -> [detect] -> dial -> handshake + server's identity -> Permit -> forward

First bytes are looked at where PeerAuthentication takes plaintext: PERMISSIVE takes both, DISABLE terminates no TLS.
TLS that is not ours goes to the application as opaque bytes, under policy(connection), whatever the port speaks.

A connection has a task only while it is being set up. Then its wires call the forwarder. Whatever the end, a
connection leaves one record of its own, and each of its requests one.
"""

from __future__ import annotations

import functools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from proxy.accept.first_bytes import look_at
from proxy.config import Address, InboundPort, Service
from proxy.constants import ALPN_MESH
from proxy.detect.opening import Opens
from proxy.errors import HandshakeError, Reason, UpstreamError, reason_of
from proxy.forward.balance import Balancer
from proxy.forward.dial import dial
from proxy.forward.names import Names
from proxy.forward.pool import Pool, UpstreamConnection
from proxy.handshake.contexts import TlsGeneration
from proxy.handshake.drive import perform
from proxy.handshake.engine import Session
from proxy.interfaces import ByteEnd
from proxy.policy import outbound as permit_outbound
from proxy.policy.model import MtlsMode
from proxy.routes import InboundRoute, OutboundRoute, not_ready
from proxy.runtime.wire import LoopWire, PlainEnd
from proxy.sidecar import NO_TLS, Arrival, Sidecar, ip_text
from proxy.standing import Standing
from proxy.types import ConnectionAttributes, PeerIdentity, Permit, Protocol

_log = logging.getLogger("remora.connection")

_NOT_ABOUT_IDENTITY: Final = frozenset(
    {
        Reason.NOT_TLS,
        Reason.TLS_VERSION_UNSUPPORTED,
        Reason.TLS_NO_COMMON_PARAMETERS,
        Reason.ALPN_UNKNOWN,
        Reason.HANDSHAKE_FAILED,
        Reason.HANDSHAKE_TIMEOUT,
        Reason.HANDSHAKE_PEER_CLOSED,
        Reason.INTERNAL_ERROR,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """An inbound connection whose content can be read: through which end, as what, and who sends it, if that is known.

    `server_name` is what a TLS client asked for, of us or of the application.
    """

    end: ByteEnd
    protocol: Protocol
    peer: PeerIdentity | None = None
    server_name: str = ""


class Inbound:
    """One inbound port: peers come in over mutual TLS, or in plaintext where that is taken, to the application."""

    def __init__(
        self, sidecar: Sidecar, port: InboundPort, app: Address, *, source: str = "", counted_as: str = ""
    ) -> None:
        """Lead to `app`, coming from the address `source`; "" leaves the choice to the kernel.

        `counted_as` is its name in metrics where that must not be the port's.
        """
        self._sidecar = sidecar
        self._port = port
        self._app = app
        self._source = source
        self.cluster = f"inbound|{port.port}"
        self._counted_as = counted_as or self.cluster
        self._pool = sidecar.pool(
            f"the application on {app}",
            self._dial_http,
            idle=sidecar.limits.upstream_idle_timeout,
            generation=lambda: NO_TLS,
        )

    def admit(self, sock: socket.socket, destination: Address | None = None) -> None:
        """Take an accepted connection, unless a limit is reached; `destination` is where it went before its capture."""
        sidecar = self._sidecar
        if sidecar.registry.count("inbound") >= sidecar.limits.inbound_connections:
            sidecar.refuse(sock, "inbound", self.cluster, Reason.CONNECTION_LIMIT, destination)
        elif sidecar.handshaking >= sidecar.limits.handshakes:
            sidecar.refuse(sock, "inbound", self.cluster, Reason.HANDSHAKE_LIMIT, destination)
        elif sidecar.serve(sock, "inbound", self.cluster, self._serve, destination):
            sidecar.handshaking += 1

    async def _serve(self, arrival: Arrival) -> None:
        sidecar, record, entry = self._sidecar, arrival.record, arrival.entry
        try:
            opened = await self._open(arrival)
        finally:
            sidecar.handshaking -= 1
        if opened is None:
            return None

        entry.peer = peer = opened.peer
        if peer is not None:
            arrival.scope.source_is(peer.spiffe_id)
        arrival.scope.asks_for(opened.server_name)
        arrival.wire = wire = sidecar.wire(arrival.sock, opened.end)
        ends_at = sidecar.loop_time(peer.not_after) if peer is not None else math.inf
        attributes = ConnectionAttributes(
            peer=peer,
            source_ip=ip_text(arrival.sock.getpeername()),
            destination_ip=arrival.destination_ip,
            destination_port=self._port.port,
            sni=opened.server_name,
        )
        standing = Standing(sidecar, attributes, record)
        entry.judge = standing.fault
        if (reason := standing.fault()) is not None:
            return sidecar.end(arrival, reason)

        protocol, first = opened.protocol, b""
        if protocol is Protocol.AUTO:
            protocol, first = await sidecar.detect(wire, self._counted_as)
        if protocol is Protocol.HTTP:
            route = InboundRoute(sidecar, arrival.scope, attributes, self._pool)
            return sidecar.start_http(arrival, wire, route, first=first, ends_at=ends_at)

        standing.opaque = True
        if (reason := standing.fault()) is not None:
            return sidecar.end(arrival, reason)
        return await sidecar.join(arrival, wire, standing.permit, self._dial_opaque, first=first, ends_at=ends_at)

    async def _open(self, arrival: Arrival) -> _Opened | None:
        """Find out who comes, and in what; None when that failed and the connection has been closed with its record."""
        sidecar, port = self._sidecar, self._port
        if sidecar.tls is None or sidecar.policy is None:
            sidecar.end(arrival, Reason.NOT_READY, not_ready().explanation)
            return None
        began = time.perf_counter_ns()
        try:
            mode = sidecar.policy.mode(port.port)
            if mode is MtlsMode.STRICT:
                return await self._handshake(arrival, sidecar.tls, began)
            look = await look_at(
                arrival.sock,
                mesh=ALPN_MESH if mode is MtlsMode.PERMISSIVE else frozenset(),
                silence=sidecar.limits.detection_timeout if port.speaks_first == "server" else math.inf,
                within=sidecar.limits.handshake_timeout,
            )
            arrival.record.detected()
            if look.opening.opens is Opens.MESH_TLS:
                return await self._handshake(arrival, sidecar.tls, time.perf_counter_ns())
        except HandshakeError as failure:
            reason, remote = failure.reason, arrival.entry.remote
            sidecar.metrics.handshake("inbound", reason)
            _log.log(reason.consequence.level, "refused %s on port %d: %s", remote, port.port, failure)
            arrival.record.handshaken()
            arrival.scope.source_claims(failure.presented)
            sidecar.end(arrival, reason, str(failure))
            return None
        protocol = port.protocol
        if look.opening.opens is Opens.OTHER_TLS or (look.silent and protocol is Protocol.AUTO):
            protocol = Protocol.TCP
        if look.silent:
            sidecar.metrics.detection_timeout(self._counted_as)
        return _Opened(end=PlainEnd(arrival.sock), protocol=protocol, server_name=look.opening.server_name)

    async def _handshake(self, arrival: Arrival, tls: TlsGeneration, began: int) -> _Opened:
        """Prove who both sides are. Raises HandshakeError; the session is released then."""
        sidecar, port = self._sidecar, self._port
        session = Session(tls, arrival.sock, server_side=True, protocol=port.protocol)
        try:
            await perform(session, arrival.sock, timeout=sidecar.limits.handshake_timeout)
        except BaseException:
            session.release()
            raise
        sidecar.metrics.handshake("inbound", Reason.OK, time.perf_counter_ns() - began)
        arrival.record.handshaken()
        return _Opened(end=session, protocol=port.protocol, peer=session.peer, server_name=session.sni.lower())

    def close(self) -> None:
        """Close the connections to the application that wait for a request; busy ones are closed after their answer."""
        self._pool.close()

    async def _dial_opaque(self) -> tuple[LoopWire, Permit | None]:
        sidecar, app = self._sidecar, self._app
        sock = await dial(app.host, app.port, seconds=sidecar.limits.upstream_connect_timeout, source=self._source)
        return sidecar.wire(sock, PlainEnd(sock)), None

    async def _dial_http(self) -> UpstreamConnection:
        wire, _ = await self._dial_opaque()
        return self._sidecar.upstream(wire, self._app, permit=None)


class Outbound:
    """One service that the application calls: plaintext in, mutual TLS out to who must answer, at one of its endpoints.

    `service` is what the configuration in force says; `balancer` has the endpoints.
    """

    def __init__(self, sidecar: Sidecar, service: Service) -> None:
        self._sidecar = sidecar
        self.service = service
        self.cluster = f"outbound|{service.name}"
        self.balancer = Balancer(
            service.name,
            make_pool=self._make_pool,
            clock=sidecar.clock,
            wait=sidecar.limits.upstream_connect_timeout,
        )
        self.balancer.probes = service.protocol is Protocol.HTTP
        self._names = Names(
            resolve=functools.partial(sidecar.loop.getaddrinfo, type=socket.SOCK_STREAM),
            spawn=sidecar.tasks.spawn,
            found=self.balancer.set_endpoints,
            failed=self.balancer.unresolved,
        )
        self._names.follow(service.endpoints)

    def admit(self, sock: socket.socket, destination: Address | None = None) -> None:
        """Take a connection of the application, unless the limit is reached; `destination`: before its capture."""
        sidecar = self._sidecar
        if sidecar.registry.count("outbound") >= sidecar.limits.outbound_connections:
            sidecar.refuse(sock, "outbound", self.cluster, Reason.CONNECTION_LIMIT, destination)
        else:
            sidecar.serve(sock, "outbound", self.cluster, self._serve, destination)

    def update(self, service: Service) -> None:
        """Follow a changed configuration.

        Endpoints that are gone finish what they carry; a server whose identity may not answer any more is left at
        once; everything else holds from the next request and the next connection.
        """
        before, self.service = self.service, service
        self.balancer.probes = service.protocol is Protocol.HTTP
        if service.mutual is not before.mutual:
            self.balancer.renew()
            self._sidecar.registry.drain("outbound", self.cluster)
        self._names.follow(service.endpoints)
        if service.identities != before.identities:
            self.judge_again(lambda peer: True)

    def judge_again(self, vouched: Callable[[PeerIdentity], bool]) -> None:
        """Close the connections, busy ones too, whose server is not vouched for or may not answer any more."""
        self.balancer.judge_again(lambda peer: vouched(peer) and self._may_answer(peer))

    def addresses(self) -> Iterator[Address]:
        """Give the addresses of its endpoints, as far as they are known."""
        return (endpoint.address for endpoint in self.balancer.endpoints)

    def close(self) -> None:
        """Close the connections that wait for a request; busy ones are closed after their answer."""
        self._names.close()
        self.balancer.close()

    def _may_answer(self, peer: PeerIdentity) -> bool:
        return not self.service.mutual or peer.spiffe_id in self.service.identities

    async def _serve(self, arrival: Arrival) -> None:
        sidecar = self._sidecar
        arrival.wire = wire = sidecar.wire(arrival.sock, PlainEnd(arrival.sock))
        protocol, first = self.service.protocol, b""
        if protocol is Protocol.AUTO:
            protocol, first = await sidecar.detect(wire, self.cluster)
        if protocol is Protocol.HTTP:
            route = OutboundRoute(sidecar, arrival.scope, lambda: self.service, self.balancer)
            return sidecar.start_http(arrival, wire, route, first=first, ends_at=math.inf)
        return await sidecar.join(arrival, wire, None, self._dial_opaque, first=first, ends_at=math.inf)

    def _make_pool(self, endpoint: Address) -> Pool:
        sidecar, limits = self._sidecar, self._sidecar.limits
        mutual = self.service.mutual
        return sidecar.pool(
            f"service {self.service.name} at {endpoint}",
            functools.partial(self._dial_http, endpoint),
            idle=limits.mesh_idle_timeout if mutual else limits.upstream_idle_timeout,
            generation=(lambda: sidecar.tls_generation) if mutual else (lambda: NO_TLS),
        )

    async def _dial_opaque(self) -> tuple[LoopWire, Permit | None]:
        return await self.balancer.connect(lambda endpoint: self._dial(endpoint, Protocol.TCP))

    async def _dial_http(self, endpoint: Address) -> UpstreamConnection:
        wire, permit = await self._dial(endpoint, Protocol.HTTP)
        return self._sidecar.upstream(wire, endpoint, permit)

    async def _dial(self, endpoint: Address, protocol: Protocol) -> tuple[LoopWire, Permit]:
        """Dial until a connection stands that is still right: trust or the service may change meanwhile."""
        while True:
            tls = self._sidecar.tls
            wire, permit = await self._dial_one(endpoint, protocol)
            now, peer = self._sidecar.tls, permit.peer
            vouched = peer is None or now is None or now is tls or now.trust.vouches_for(peer)
            if vouched and (peer is None or self._may_answer(peer)):
                return wire, permit
            wire.abort()

    async def _dial_one(self, endpoint: Address, protocol: Protocol) -> tuple[LoopWire, Permit]:
        sidecar, service, tls = self._sidecar, self.service, self._sidecar.tls
        if service.mutual and tls is None:
            raise UpstreamError(not_ready().explanation, Reason.NOT_READY)
        sock = await dial(endpoint.host, endpoint.port, seconds=sidecar.limits.upstream_connect_timeout)
        if tls is None or not service.mutual:
            permit = permit_outbound(service.name, None, sidecar.policy_generation)
            return sidecar.wire(sock, PlainEnd(sock)), permit
        session = Session(
            tls,
            sock,
            server_side=False,
            protocol=protocol,
            expected=service.identities,
            server_name=service.hosts[0] if service.hosts else "",
        )
        began = time.perf_counter_ns()
        try:
            await perform(session, sock, timeout=sidecar.limits.handshake_timeout)
            _hear_refusal(session, sock)
        except BaseException as failure:
            session.release()
            sock.close()
            if not isinstance(failure, HandshakeError):
                raise
            reason = failure.reason
            sidecar.metrics.handshake("outbound", reason)
            _log.log(reason.consequence.level, "service %s at %s: %s", service.name, endpoint, failure)
            raise UpstreamError(f"{reason.word}: {failure}", _for_request(reason)) from failure
        sidecar.metrics.handshake("outbound", Reason.OK, time.perf_counter_ns() - began)
        permit = permit_outbound(service.name, session.peer, sidecar.policy_generation)
        return sidecar.wire(sock, session), permit


def _hear_refusal(session: Session, sock: socket.socket) -> None:
    """Raise HandshakeError when the server has reset the connection right after our side of the handshake was done.

    Under TLS 1.3 a server judges our certificate after that. One that closes behind its alert with our bytes unread
    (Envoy) resets the connection; the alert can still be read, but not once a write has failed: OpenSSL gives up then.
    """
    try:
        sock.getpeername()
    except OSError:
        try:
            while session.read():
                continue
        except OSError as failure:
            raise HandshakeError(str(failure), reason_of(failure, Reason.HANDSHAKE_PEER_CLOSED)) from failure
        raise HandshakeError("the server reset the connection", Reason.HANDSHAKE_PEER_CLOSED) from None


def _for_request(reason: Reason) -> Reason:
    """Say what a failed handshake with an endpoint means for a request: its refusal, ours, or no identity at all."""
    if reason is Reason.PEER_REJECTED_US:
        return reason
    return Reason.UPSTREAM_HANDSHAKE_FAILED if reason in _NOT_ABOUT_IDENTITY else Reason.UPSTREAM_IDENTITY_REJECTED
