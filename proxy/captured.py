"""Captured connections: rules in the kernel brought them here, and where they were going decides what becomes of them.

    inbound    original destination -> the port's settings -> as at any inbound port; the application is dialled there,
               from 127.0.0.6 or ::6, by which the rules know that it is not to be captured again
    outbound   original destination -> address of a service    -> that service; if its endpoints are no others than its
                                                                  addresses, then at this one
                                    -> endpoint of a service   -> that service at this very endpoint (a headless one)
                                    -> none                    -> `outbound.unknown`: refused, or passed through

A connection that no rule has redirected is turned away: nobody knows where it was going. So is an inbound one for an
address that is none of ours: a neighbour on the wire could send the sidecar anywhere with it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from proxy.accept.original_destination import is_own, original_destination
from proxy.config import Address, InboundPort, OutboundConfig, Service
from proxy.connection import Inbound, Outbound
from proxy.constants import INBOUND_SOURCE_V4, INBOUND_SOURCE_V6
from proxy.errors import Reason
from proxy.forward.dial import dial
from proxy.policy import outbound as permit_outbound
from proxy.routes import UnknownServiceRoute, not_ready
from proxy.runtime.wire import LoopWire, PlainEnd
from proxy.sidecar import Arrival, Sidecar
from proxy.types import PeerIdentity, Permit, Protocol

INBOUND_CLUSTER: Final = "inbound|captured"
"""What ports are together, in metrics, that the configuration does not name: peers choose them."""
PASS_THROUGH: Final = "PassthroughCluster"  # noqa: S105
BLACK_HOLE: Final = "BlackHoleCluster"
"""Istio's names for what is passed through, and for what is refused: dashboards know them."""

_UNNAMED_PORTS: Final = 256
"""Addresses of ports that the configuration does not name whose connections to the application are kept. Beyond, the
one that was used longest ago is forgotten, which costs its next caller a connection."""

_NOT_REDIRECTED: Final = (
    "no capture rule has brought it here, so where it was going is not known; dial the service, not the sidecar"
)


class InboundCapture:
    """Every port of the pod, each made when its first connection comes."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._ports: dict[int, InboundPort] = {}
        self._behind: dict[Address, tuple[InboundPort, Inbound]] = {}

    def take(self, ports: Iterable[InboundPort]) -> None:
        """Follow a configuration: connections at a port whose settings have changed end after what runs."""
        self._ports = {port.port: port for port in ports}
        for destination, (standing, _) in list(self._behind.items()):
            if standing != self._settings(destination.port):
                self._forget(destination)

    def admit(self, sock: socket.socket) -> None:
        """Take an accepted connection, by where it was going."""
        destination = original_destination(sock)
        behind = self._find(destination, sock) if destination is not None else None
        if behind is not None:
            behind.admit(sock, destination)
            return
        why = _NOT_REDIRECTED if destination is None else f"{destination} is no address that this pod captures"
        self._sidecar.turn_away(sock, "inbound", INBOUND_CLUSTER, Reason.NOT_CAPTURED, why, destination)

    def close(self) -> None:
        """Close the connections to the application that wait for a request."""
        for _, inbound in self._behind.values():
            inbound.close()

    def drop(self) -> None:
        """End with the configuration: connections end after what runs."""
        for destination in list(self._behind):
            self._forget(destination)

    def _settings(self, port: int) -> InboundPort:
        return self._ports.get(port) or InboundPort(listen=None, port=port, app=None, protocol=Protocol.AUTO)

    def _find(self, destination: Address, sock: socket.socket) -> Inbound | None:
        is_named = destination.port in self._ports
        found = self._behind.get(destination)
        if found is not None:
            if not is_named:
                self._behind[destination] = self._behind.pop(destination)  # used last
            return found[1]
        if destination.port == sock.getsockname()[1] or not is_own(destination.host):
            return None
        port = self._settings(destination.port)
        app = port.app or destination
        source = INBOUND_SOURCE_V6 if ":" in app.host else INBOUND_SOURCE_V4
        inbound = Inbound(
            self._sidecar,
            port,
            app,
            source="" if app.is_name else source,
            counted_as="" if is_named else INBOUND_CLUSTER,
        )
        self._behind[destination] = port, inbound
        if not is_named:
            self._forget_oldest()
        return inbound

    def _forget_oldest(self) -> None:
        unnamed = [each for each in self._behind if each.port not in self._ports]
        for destination in unnamed[: len(unnamed) - _UNNAMED_PORTS]:
            self._behind.pop(destination)[1].close()

    def _forget(self, destination: Address) -> None:
        _, inbound = self._behind.pop(destination)
        self._sidecar.registry.drain("inbound", inbound.cluster)
        inbound.close()


class OutboundCapture:
    """Everything that the application dials; `services` gives those in force, by name."""

    def __init__(self, sidecar: Sidecar, services: Callable[[], Mapping[str, tuple[Service, Outbound]]]) -> None:
        self._sidecar = sidecar
        self._services = services
        self._by_address: dict[Address, str] = {}
        self._direct: dict[Address, Outbound] = {}

    def take(self, config: OutboundConfig) -> None:
        """Follow a configuration whose services are in force."""
        known = self._by_address
        self._by_address = {
            address: service.name for service in config.services.values() for address in service.addresses
        }
        for address, direct in list(self._direct.items()):
            service = config.services.get(direct.service.name)
            if service is None or (address in known and address not in self._by_address):
                self._forget(address)
            else:
                direct.update(dataclasses.replace(service, endpoints=(address,)))

    def admit(self, sock: socket.socket) -> None:
        """Take a connection of the application, by where it was going."""
        sidecar = self._sidecar
        destination = original_destination(sock)
        own = sock.getsockname()
        if destination is None or (destination.host, destination.port) == own[:2]:
            cluster = f"outbound|{BLACK_HOLE}"
            sidecar.turn_away(sock, "outbound", cluster, Reason.NOT_CAPTURED, _NOT_REDIRECTED, destination)
            return
        outbound = self._find(destination)
        if outbound is not None:
            outbound.admit(sock, destination)
        else:
            self._admit_unknown(sock, destination)

    def judge_again(self, vouched: Callable[[PeerIdentity], bool]) -> None:
        """Close the connections whose server is not vouched for any more."""
        for direct in self._direct.values():
            direct.judge_again(vouched)

    def close(self) -> None:
        """Close the connections that wait for a request."""
        for direct in self._direct.values():
            direct.close()

    def drop(self) -> None:
        """End with the configuration: connections end after what runs."""
        for address in list(self._direct):
            self._forget(address)

    # --- a service ---

    def _find(self, destination: Address) -> Outbound | None:
        name = self._by_address.get(destination)
        services = self._services()
        if name is not None and name in services:
            service, outbound = services[name]
            # A service that has two addresses, one of IPv4 and one of IPv6, is called at the one that was dialled.
            is_behind = set(service.endpoints) <= set(service.addresses) and service.endpoints != (destination,)
            return self._direct_to(destination, service) if is_behind else outbound
        for service, outbound in services.values():
            if destination in outbound.addresses():
                return self._direct_to(destination, service)
        if destination in self._direct:
            self._forget(destination)
        return None

    def _direct_to(self, destination: Address, service: Service) -> Outbound:
        """Lead to one endpoint of a service and to no other, which is the one that was dialled."""
        standing = self._direct.get(destination)
        if standing is None or standing.service.name != service.name:
            if standing is not None:
                self._forget(destination)
            standing = Outbound(self._sidecar, dataclasses.replace(service, endpoints=(destination,)))
            self._direct[destination] = standing
        return standing

    def _forget(self, address: Address) -> None:
        direct = self._direct.pop(address)
        self._sidecar.registry.drain("outbound", direct.cluster)
        direct.close()

    # --- no service ---

    def _admit_unknown(self, sock: socket.socket, destination: Address) -> None:
        sidecar, outbound = self._sidecar, self._sidecar.config.outbound
        passes = outbound.unknown == "passthrough"
        cluster = f"outbound|{PASS_THROUGH if passes else BLACK_HOLE}"
        if not outbound.is_whole:
            # It may be a service that is not read yet, and would leave in plaintext.
            sidecar.turn_away(sock, "outbound", cluster, Reason.NOT_READY, not_ready().explanation, destination)
        elif sidecar.registry.count("outbound") >= sidecar.limits.outbound_connections:
            sidecar.refuse(sock, "outbound", cluster, Reason.CONNECTION_LIMIT, destination)
        else:
            work = functools.partial(self._pass_through if passes else self._refuse, destination, cluster)
            sidecar.serve(sock, "outbound", cluster, work, destination)

    async def _pass_through(self, destination: Address, cluster: str, arrival: Arrival) -> None:
        sidecar = self._sidecar
        arrival.wire = wire = sidecar.wire(arrival.sock, PlainEnd(arrival.sock))

        async def open_one() -> tuple[LoopWire, Permit | None]:
            seconds = sidecar.limits.upstream_connect_timeout
            sock = await dial(destination.host, destination.port, seconds=seconds)
            permit = permit_outbound(PASS_THROUGH, None, sidecar.policy_generation)
            return sidecar.wire(sock, PlainEnd(sock)), permit

        await sidecar.join(arrival, wire, None, open_one, first=b"", ends_at=math.inf)

    async def _refuse(self, destination: Address, cluster: str, arrival: Arrival) -> None:
        """Answer what is HTTP, so that the application learns why; reset what is not."""
        sidecar = self._sidecar
        arrival.wire = wire = sidecar.wire(arrival.sock, PlainEnd(arrival.sock))
        protocol, first = await sidecar.detect(wire, cluster)
        why = (
            f"no service has the address {destination}, and outbound.unknown is reject: add it to the services that "
            "this sidecar knows, or write unknown: passthrough"
        )
        if protocol is Protocol.HTTP:
            route = UnknownServiceRoute(arrival.scope, why)
            sidecar.start_http(arrival, wire, route, first=first, ends_at=math.inf)
        else:
            sidecar.end(arrival, Reason.SERVICE_UNKNOWN, why, reset=True)
