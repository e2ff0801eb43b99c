"""Listeners and what stands behind them, made to fit a configuration: at the start, and again when it changes.

    apply(config):  bind what is new --all bound--> swap --> close what is gone, drain its connections
                        |
                        +-- one cannot be bound: close the others, change nothing, say which

A port or a service that stays under its name keeps its listener; what is behind it is exchanged by one assignment, and
connections that stand on the old one finish what they carry.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping

from proxy.accept.listener import Listener, open_listener
from proxy.captured import InboundCapture, OutboundCapture
from proxy.config import Address, Config, InboundPort, Service
from proxy.connection import Inbound, Outbound
from proxy.errors import ConfigError, Fault, LimitExceeded, Reason
from proxy.sidecar import Sidecar

Key = tuple[str, str, str]
"""Direction, listen address and, where the kernel chooses the port, what the listener is for: so it is found again."""

Opener = Callable[[Mapping[Key, Address], str], dict[Key, socket.socket]]
"""Gives a listening socket for each key. Raises ConfigError that names the file given when an address cannot be had."""


def listeners_of(config: Config) -> dict[Key, Address]:
    """Name every listener that a configuration wants: inbound ones first, in the order of the file."""
    wanted = {key: listen for key, listen, _ in _inbound_of(config)}
    return wanted | {_key("outbound", item.listen, item.service): item.listen for item in config.outbound.listeners}


def _inbound_of(config: Config) -> Iterator[tuple[Key, Address, InboundPort | None]]:
    """Give each listener for peers with its port, None for the one of capture."""
    if config.inbound_capture is not None:
        yield _key("inbound", config.inbound_capture, "capture"), config.inbound_capture, None
    for port in config.inbound:
        if port.listen is not None:
            yield _key("inbound", port.listen, str(port.port)), port.listen, port


def open_each(wanted: Mapping[Key, Address], file: str) -> dict[Key, socket.socket]:
    """Bind and listen on each address: all of them or none."""
    return {key: sock for key, [sock] in open_all(wanted, file, lambda at: [open_listener(at.host, at.port)]).items()}


def open_all(
    wanted: Mapping[Key, Address], file: str, open_some: Callable[[Address], list[socket.socket]]
) -> dict[Key, list[socket.socket]]:
    """Open what `open_some` opens on each address. Raises ConfigError that names `file`; then nothing is open."""
    opened: dict[Key, list[socket.socket]] = {}
    faults = []
    for key, listen in wanted.items():
        try:
            opened[key] = open_some(listen)
        except OSError as failure:
            hint = "end what listens there, or choose another address"
            faults.append(Fault(file=file, message=failure.strerror or str(failure), hint=hint))
    if faults:
        for socks in opened.values():
            for sock in socks:
                sock.close()
        raise ConfigError(faults)
    return opened


class Traffic:
    """Every listener of the mesh and of the application, by the configuration in force."""

    def __init__(
        self,
        sidecar: Sidecar,
        loop: asyncio.AbstractEventLoop,
        on_exhausted: Callable[[LimitExceeded], None],
        open_sockets: Opener = open_each,
    ) -> None:
        """`open_sockets` gives the sockets of new listeners: it opens them, or somebody else has."""
        self._sidecar = sidecar
        self._open = open_sockets
        self._loop = loop
        self._on_exhausted = on_exhausted
        self._listeners: dict[Key, Listener] = {}
        self._inbound: dict[Key, tuple[InboundPort, Inbound]] = {}
        self._outbound: dict[Key, str] = {}
        self._services: dict[str, tuple[Service, Outbound]] = {}
        self._captured_in = InboundCapture(sidecar)
        self._captured_out = OutboundCapture(sidecar, lambda: self._services)

    @property
    def services(self) -> Mapping[str, tuple[Service, Outbound]]:
        """The services in force, by name."""
        return self._services

    def ports(self, direction: str) -> list[int]:
        """Tell the ports that listeners of one direction have, in the order of the configuration."""
        return [listener.port for key, listener in self._listeners.items() if key[0] == direction]

    def apply(self, config: Config, file: str) -> None:
        """Make listeners, ports and services those of `config`.

        Raises ConfigError that names `file` when an address cannot be had; then nothing has changed.
        """
        inbound = {key: port for key, _, port in _inbound_of(config) if port is not None}
        outbound = {_key("outbound", item.listen, item.service): item for item in config.outbound.listeners}
        wanted = listeners_of(config)
        opened = self._open({key: listen for key, listen in wanted.items() if key not in self._listeners}, file)
        for name, service in config.outbound.services.items():
            self._take_service(name, service)
        for key, port in inbound.items():
            self._take_port(key, port)
        if config.inbound_capture is not None:
            self._captured_in.take(config.inbound)
        else:
            self._captured_in.drop()
        self._outbound = {key: item.service for key, item in outbound.items()}
        for key, sock in opened.items():
            self._listeners[key] = Listener(
                self._loop,
                sock,
                self._admit(key),
                name=f"{key[0]} {key[1]}",
                back_off=config.limits.accept_backoff,
                on_exhausted=self._on_exhausted,
            )
        for key in [key for key in self._listeners if key not in wanted]:
            self._drop(key)
        for name in [name for name in self._services if name not in config.outbound.services]:
            _, gone = self._services.pop(name)
            self._sidecar.registry.drain("outbound", gone.cluster)
            gone.close()
        if any(item.captures for item in config.outbound.listeners):
            self._captured_out.take(config.outbound)
        else:
            self._captured_out.drop()
        self._listeners = {key: self._listeners[key] for key in wanted if key in self._listeners}

    def judge_again(self) -> None:
        """Judge the connections to services by the trust in force: a server that it no longer vouches for is left."""
        tls = self._sidecar.tls
        if tls is not None:
            for _, outbound in self._services.values():
                outbound.judge_again(tls.trust.vouches_for)
            self._captured_out.judge_again(tls.trust.vouches_for)

    def close(self, direction: str) -> None:
        """Stop accepting in one direction."""
        for key, listener in self._listeners.items():
            if key[0] == direction:
                listener.close()

    def close_pools(self) -> None:
        """Close every connection to a next hop that waits for a request."""
        for _, inbound in self._inbound.values():
            inbound.close()
        for _, outbound in self._services.values():
            outbound.close()
        self._captured_in.close()
        self._captured_out.close()

    async def end(self) -> None:
        """Stop accepting, end every connection with its record and every task of the sidecar."""
        sidecar = self._sidecar
        for direction in ("inbound", "outbound"):
            self.close(direction)
        self.close_pools()
        # A task that is cancelled before its first step runs no code: its connection would leave no record.
        await asyncio.sleep(0)
        sidecar.registry.break_off(Reason.DRAIN_DEADLINE)
        await sidecar.tasks.cancel_all()

    def _admit(self, key: Key) -> Callable[[socket.socket], None]:
        """Find what stands behind a listener anew for each connection: a change must not touch the listener."""

        def admit_inbound(sock: socket.socket) -> None:
            if key in self._inbound:
                self._inbound[key][1].admit(sock)
            else:
                self._captured_in.admit(sock)

        def admit_outbound(sock: socket.socket) -> None:
            if service := self._outbound[key]:
                self._services[service][1].admit(sock)
            else:
                self._captured_out.admit(sock)

        return admit_inbound if key[0] == "inbound" else admit_outbound

    def _take_port(self, key: Key, port: InboundPort) -> None:
        standing = self._inbound.get(key)
        if standing is not None:
            if standing[0] == port:
                return
            self._sidecar.registry.drain("inbound", standing[1].cluster)
            standing[1].close()
        self._inbound[key] = port, Inbound(self._sidecar, port, port.app or Address(host="127.0.0.1", port=port.port))

    def _take_service(self, name: str, service: Service) -> None:
        standing = self._services.get(name)
        if standing is None:
            self._services[name] = service, Outbound(self._sidecar, service)
        elif standing[0] != service:
            standing[1].update(service)
            self._services[name] = service, standing[1]

    def _drop(self, key: Key) -> None:
        self._listeners.pop(key).close()
        if key in self._inbound:
            _, gone = self._inbound.pop(key)
            self._sidecar.registry.drain("inbound", gone.cluster)
            gone.close()


def _key(direction: str, listen: Address, purpose: str) -> Key:
    return direction, str(listen), "" if listen.port else purpose
