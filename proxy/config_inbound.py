"""Reads the section `inbound`: the ports that peers reach, each with a listener, or all of them by capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from proxy.config_checker import ConfigChecker
from proxy.config_outbound import listen_at
from proxy.config_text import Use, parse_address
from proxy.config_values import Address, InboundPort, SpeaksFirstName
from proxy.documents import Node
from proxy.types import Protocol


def inbound(checker: ConfigChecker, node: Node | None) -> tuple[tuple[InboundPort, ...], Address | None]:
    """Read the section; the second value is where captured connections arrive, None without capture."""
    fields = checker.mapping(node, "inbound", ("mode", "listen", "ports"))
    captures = checker.choice(fields.get("mode"), "inbound.mode", ("ports", "capture"), "ports") == "capture"
    listen = fields.get("listen")
    if listen is not None and not captures:
        checker.fault(
            listen,
            "`inbound.listen` is where captured connections arrive, and `inbound.mode` is ports",
            "write mode: capture, or give each port its own `listen`",
        )
    capture = _capture(checker, node, listen) if captures else None
    ports: list[InboundPort] = []
    items = checker.sequence(fields.get("ports"), "inbound.ports")
    for i, item in enumerate(items):
        where = f"inbound.ports[{i}]"
        port = _port(checker, item, where, captures=captures)
        if port.port and any(port.port == other.port for other in ports):
            checker.fault(
                item, f"`{where}`: port {port.port} stands twice", "policies tell ports apart: give each its own"
            )
        ports.append(port)
    for i, (item, found) in enumerate(zip(items, ports, strict=True)):
        if found.app is not None:
            checker.refuse_loop(item, f"inbound.ports[{i}].app", found.app, ("inbound.", "admin."))
    return tuple(ports), capture


def _capture(checker: ConfigChecker, node: Node | None, listen: Node | None) -> Address | None:
    if listen is None:
        if node is not None:
            checker.fault(node, "`inbound` lacks the key `listen`, where captured connections arrive", "[::]:15006")
        return None
    address = listen_at(checker, listen, "inbound.listen")
    if address.is_loopback:
        checker.fault(
            listen,
            f"`inbound.listen` is {address}, and the kernel brings captured connections to the address that they came "
            "for",
            f"write [::]:{address.port}",
        )
    return address


def _port(checker: ConfigChecker, item: Node, where: str, *, captures: bool) -> InboundPort:
    required = ("port",) if captures else ("listen", "port")
    known = ("listen", "port", "app", "protocol", "speaks_first")
    fields = checker.section(item, where, known, required=required, not_built=("app_protocol",))
    port = checker.integer(fields.get("port"), f"{where}.port", 0, minimum=1, maximum=65_535)
    protocol = checker.protocol(fields.get("protocol"), f"{where}.protocol")
    default: SpeaksFirstName = "client" if protocol is Protocol.HTTP else "server"
    return InboundPort(
        listen=_listen(checker, fields, where, captures=captures),
        port=port,
        app=_app(checker, fields.get("app"), where, None if captures else Address(host="127.0.0.1", port=port)),
        protocol=protocol,
        speaks_first=checker.word(
            fields.get("speaks_first"), f"{where}.speaks_first", get_args(SpeaksFirstName), default
        ),
    )


def _listen(checker: ConfigChecker, fields: Mapping[str, Node], where: str, *, captures: bool) -> Address | None:
    listen = fields.get("listen")
    if not captures:
        return listen_at(checker, listen, f"{where}.listen")
    if listen is not None:
        checker.fault(
            listen, f"`{where}.listen`: with capture all ports arrive at `inbound.listen`", "remove it from the port"
        )
    return None


def _app(checker: ConfigChecker, node: Node | None, where: str, default: Address | None) -> Address | None:
    return checker.text(node, f"{where}.app", lambda text: parse_address(text, Use.DIAL), default)
