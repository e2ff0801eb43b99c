"""Chooses what to dial to see whether the rules work, and finds no more in it than it shows.

A trial must be captured by the rules, and must not be met by anything else: outbound to an address that is nobody's by
RFC 5737 or RFC 3849, inbound to a port that is none of the sidecar's own. Where the rules capture no such thing, the
reason is given instead, so that it can be named.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from injector.capture.rules import DNS_PORT, Family, Rules
from injector.ports import ALL, SIDECAR_PORTS, Ports

_NOBODY: Final = {
    Family.IPV4: ("192.0.2.1", "198.51.100.1", "203.0.113.1"),
    Family.IPV6: ("2001:db8::1",),
}
_LIKED: Final = (80, 443)
"""Taken where they are captured: what people expect to see."""


class NoTrial(Exception):
    """There is nothing that can be dialled; its text says why."""


def outbound(rules: Rules, family: Family) -> tuple[str, int]:
    """Give an address that is nobody's and a port, which the rules capture. Raises NoTrial."""
    kept_out = rules.exclude_outbound_ports | Ports.of([(DNS_PORT, DNS_PORT)]) | _own(rules)
    for host in _NOBODY[family]:
        if _is_in(host, rules.excluded(family)):
            continue
        ports = ALL if _is_in(host, rules.included(family)) else rules.include_outbound_ports
        if ports - kept_out:
            return host, _choice(ports - kept_out)
    raise NoTrial("no address for tests (RFC 5737, RFC 3849) is among what is captured")


def inbound(rules: Rules) -> int:
    """Give a port at which callers are captured, none of the sidecar's own. Raises NoTrial."""
    ports = rules.include_inbound_ports - rules.exclude_inbound_ports - _own(rules)
    if not ports:
        raise NoTrial("no inbound port is captured")
    return _choice(ports)


def _own(rules: Rules) -> Ports:
    """A connection to the sidecar's port arrives there without any rule, and would prove nothing."""
    own = {*SIDECAR_PORTS, rules.inbound_port, rules.outbound_port}
    return Ports.of([(port, port) for port in own])


def _choice(ports: Ports) -> int:
    return next((port for port in _LIKED if port in ports), ports.ranges[0][0])


def _is_in(host: str, networks: tuple[str, ...]) -> bool:
    address = ipaddress.ip_address(host)
    return any(address in ipaddress.ip_network(network) for network in networks)
