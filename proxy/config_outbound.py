"""Reads the section `outbound`: listeners, services, and the directory from which more services come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, get_args

from certs.spiffe import SpiffeId
from proxy.config_checker import ConfigChecker
from proxy.config_text import Use, parse_address, parse_host, parse_name
from proxy.config_values import Address, OutboundConfig, OutboundListener, Service, UnknownName
from proxy.documents import Node, did_you_mean, parse
from proxy.limits import Limits

NOWHERE: Final = Address(host="127.0.0.1", port=0)
"""Instead of an address that could not be read."""


def outbound(
    checker: ConfigChecker, node: Node | None, limits: Limits, more: Mapping[str, bytes] | None
) -> OutboundConfig:
    """Read the section `outbound`, and the services of `more`, the files of its directory by path.

    None means that they are not known yet: then listeners wait that lead to a service which is not there.
    """
    fields = checker.mapping(node, "outbound", ("directory", "listeners", "services", "unknown"))
    unknown: UnknownName = "reject"
    listeners = _listeners(checker, fields.get("listeners"))
    directory = checker.string(fields.get("directory"), "outbound.directory")
    found = _Services()
    _add_services(checker, fields.get("services"), "outbound.services", limits, found)
    for path, content in sorted((more or {}).items()):
        _add_file(checker, path, content, limits, found)
    services = found.by_name
    is_whole = not directory or more is not None
    for where, item, listener in listeners:
        if listener.service and listener.service not in services and is_whole:
            hint = did_you_mean(listener.service, services) or "add it under outbound.services"
            checker.fault(item, f"`{where}.service`: no service is named {listener.service}", hint)
    return OutboundConfig(
        listeners=tuple(
            listener for _, _, listener in listeners if listener.captures or listener.service in services or is_whole
        ),
        services=services,
        unknown=checker.word(fields.get("unknown"), "outbound.unknown", get_args(UnknownName), unknown),
        directory=directory,
        is_whole=is_whole,
    )


def _listeners(checker: ConfigChecker, node: Node | None) -> list[tuple[str, Node, OutboundListener]]:
    listeners: list[tuple[str, Node, OutboundListener]] = []
    for i, item in enumerate(checker.sequence(node, "outbound.listeners")):
        where = f"outbound.listeners[{i}]"
        fields = checker.mapping(item, where, ("listen", "service", "capture"), required=("listen",))
        captures = checker.boolean(fields.get("capture"), f"{where}.capture")
        if not captures and "service" not in fields and isinstance(item.value, dict):
            checker.fault(item, f"`{where}` lacks the key `service`", "name a service, or write capture: true")
        if captures and "service" in fields:
            checker.fault(
                fields["service"], f"`{where}` captures, so the address that is dialled says the service", "remove it"
            )
        listen = listen_at(checker, fields.get("listen"), f"{where}.listen")
        if captures and listen != NOWHERE and not listen.is_loopback:
            # Whoever else could connect to it would call services under this workload's identity.
            hint = f"write 127.0.0.1:{listen.port}"
            checker.fault(item, f"`{where}`: captured calls arrive on loopback, and {listen} is not there", hint)
        service = "" if captures else checker.text(fields.get("service"), f"{where}.service", parse_name, "")
        listeners.append((where, item, OutboundListener(listen=listen, service=service, captures=captures)))
    return listeners


@dataclass(slots=True)
class _Services:
    """The services read so far; `owners` says which of them a host or address means, `places` where one stands."""

    by_name: dict[str, Service] = field(default_factory=dict)
    owners: dict[str | Address, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def _add_file(checker: ConfigChecker, path: str, content: bytes, limits: Limits, found: _Services) -> None:
    """Read one file of the directory: `services:` with a list, as under `outbound.services`."""
    documents, faults = parse(content, path)
    own = checker.beside(path)
    own.faults += faults
    for document in documents[1:]:
        own.fault(document, "a second document in one file of services", "remove the line --- and what follows")
    if documents and documents[0].value is not None:
        fields = own.mapping(documents[0], "the file", ("services",), required=("services",))
        _add_services(own, fields.get("services"), "services", limits, found)
    checker.faults += own.faults


def _add_services(checker: ConfigChecker, node: Node | None, where: str, limits: Limits, found: _Services) -> None:
    for i, item in enumerate(checker.sequence(node, where)):
        place = f"{where}[{i}]"
        service = _service(checker, item, place, limits)
        if not service.name:
            continue
        if service.name in found.by_name:
            known = found.places[service.name]
            elsewhere = f" (first in {known})" if known != checker.file else ""
            checker.fault(
                item, f"`{place}`: a service named {service.name} stands twice{elsewhere}", "give each its own name"
            )
            continue
        found.by_name[service.name] = service
        found.places[service.name] = checker.file
        claims: list[tuple[str | Address, str, str]] = [
            *((host, "hosts", f"{host} is a host") for host in service.hosts),
            *((address, "addresses", f"{address} is an address") for address in service.addresses),
        ]
        for key, kind, what in claims:
            owner = found.owners.setdefault(key, service.name)
            if owner != service.name:
                checker.fault(item, f"`{place}.{kind}`: {what} of {owner} already", "name it once")


def _service(checker: ConfigChecker, item: Node, where: str, limits: Limits) -> Service:
    known = ("name", "hosts", "addresses", "endpoints", "protocol", "timeout", "tls", "identities")
    fields = checker.mapping(item, where, known, required=("name",))
    addresses = _addresses(checker, fields.get("addresses"), f"{where}.addresses")
    endpoints = _endpoints(checker, fields.get("endpoints"), f"{where}.endpoints")
    if "endpoints" not in fields and not addresses and isinstance(item.value, dict):
        hint = "name at least one address to dial; where `addresses` are given, they are dialled"
        checker.fault(item, f"`{where}` lacks the key `endpoints`", hint)
    name = checker.text(fields.get("name"), f"{where}.name", parse_name, "")
    mutual = checker.choice(fields.get("tls"), f"{where}.tls", ("mutual", "none"), "mutual") == "mutual"
    hosts = [
        checker.text(host, f"{where}.hosts[{i}]", parse_host, "")
        for i, host in enumerate(checker.sequence(fields.get("hosts"), f"{where}.hosts"))
    ]
    return Service(
        name=name,
        hosts=tuple(dict.fromkeys(hosts)) or (name,),
        addresses=addresses,
        endpoints=endpoints if "endpoints" in fields else addresses,
        protocol=checker.protocol(fields.get("protocol"), f"{where}.protocol"),
        timeout=checker.duration(fields.get("timeout"), f"{where}.timeout", limits.service_timeout, 0.001, 86_400),
        mutual=mutual,
        identities=_identities(checker, item, fields.get("identities"), where, mutual),
    )


def _endpoints(checker: ConfigChecker, node: Node | None, where: str) -> tuple[Address, ...]:
    items = checker.sequence(node, where)
    if node is not None and not items:
        checker.fault(node, f"`{where}` is empty", "name at least one address to dial")
    endpoints: list[Address] = []
    for i, item in enumerate(items):
        endpoint = checker.text(item, f"{where}[{i}]", lambda text: parse_address(text, Use.DIAL), NOWHERE)
        if endpoint != NOWHERE and endpoint in endpoints:
            checker.fault(item, f"`{where}[{i}]`: {endpoint} stands twice", "remove one")
        checker.refuse_loop(item, f"{where}[{i}]", endpoint, ("outbound.", "admin."))
        endpoints.append(endpoint)
    return tuple(endpoints)


def _addresses(checker: ConfigChecker, node: Node | None, where: str) -> tuple[Address, ...]:
    found: list[Address] = []
    for i, item in enumerate(checker.sequence(node, where)):
        address = checker.text(item, f"{where}[{i}]", lambda text: parse_address(text, Use.DIAL), NOWHERE)
        if address.is_name:
            checker.fault(item, f"`{where}[{i}]`: {address} is a name, and a connection has an address", "write it")
        elif address != NOWHERE:
            found.append(address)
    return tuple(dict.fromkeys(found))


def _identities(
    checker: ConfigChecker, service: Node, node: Node | None, where: str, mutual: bool
) -> frozenset[SpiffeId]:
    identities: set[SpiffeId] = set()
    items = checker.sequence(node, f"{where}.identities")
    for i, item in enumerate(items):
        identity = checker.text(item, f"{where}.identities[{i}]", SpiffeId.parse, None)
        if identity is None:
            continue
        if not identity.path:
            checker.fault(
                item,
                f"`{where}.identities[{i}]`: {identity} names a trust domain and no workload",
                "add the path, such as /ns/demo/sa/orders",
            )
        identities.add(identity)
    if mutual and not items and isinstance(service.value, dict):
        checker.fault(
            node or service,
            f"`{where}` is mutual and names no identities: nobody would know who must answer",
            'write identities: ["spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"], or tls: none',
        )
    if not mutual and node is not None:
        checker.fault(node, f"`{where}.identities` cannot be checked with tls: none", "remove one of the two")
    return frozenset(identities)


def listen_at(checker: ConfigChecker, node: Node | None, where: str) -> Address:
    """Take an address to listen on, and remember that it is taken."""
    listen = checker.text(node, where, lambda text: parse_address(text, Use.LISTEN), NOWHERE)
    checker.claim(node, where, listen)
    return listen
