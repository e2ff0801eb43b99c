"""What is captured, as values, and how it is read from the arguments of the capture step.

Everything that a backend needs is here: whoever holds `Rules` need not look again. The arguments are those that
`injector.sidecar.capture` writes, each by the reader that annotations have; one that is not given means "none".
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from injector import names, readers
from injector.ports import FIRST, LAST, NONE, Ports
from proxy.constants import INBOUND_SOURCE_V4, INBOUND_SOURCE_V6

DNS_PORT: Final = 53
"""TCP to it stays out: names are resolved before the sidecar can know what is asked for. UDP is never captured."""
_MAX_ID: Final = 2**32 - 2
"""Of uid and gid: the number after it means "no one" to the kernel."""

ARGUMENTS: Final[Mapping[str, str]] = {
    "inbound-port": f"where callers are brought to (default {names.INBOUND_PORT})",
    "outbound-port": f"where calls are brought to (default {names.OUTBOUND_PORT})",
    "uid": f"the sidecar's user, whose calls are let out (default {names.USER})",
    "gid": f"the sidecar's group, whose calls are let out (default {names.USER})",
    "include-inbound-ports": "ports at which callers are captured: numbers and ranges, `*` for all",
    "exclude-inbound-ports": "ports at which they are not, whatever is included",
    "include-outbound-ports": "ports of calls that are captured, to whatever address",
    "exclude-outbound-ports": "ports of calls that go past the sidecar",
    "include-outbound-ip-ranges": "networks to which calls are captured, `*` for all",
    "exclude-outbound-ip-ranges": "networks to which calls go past the sidecar",
    "exclude-interfaces": "interfaces with nothing to capture",
}
"""What the capture step is told, with the meaning."""

Value = TypeVar("Value")


class Family(enum.Enum):
    """A version of IP, with what the rules say differently in each."""

    IPV4 = 4
    IPV6 = 6

    @property
    def loopback(self) -> str:
        """The network that never leaves the pod."""
        return "127.0.0.0/8" if self is Family.IPV4 else "::1/128"

    @property
    def pass_source(self) -> str:
        """From where the sidecar calls its application."""
        return INBOUND_SOURCE_V4 if self is Family.IPV4 else INBOUND_SOURCE_V6

    @property
    def everything(self) -> str:
        """The network that has every address."""
        return "0.0.0.0/0" if self is Family.IPV4 else "::/0"


class Backend(enum.Enum):
    """By which program the rules get into the kernel, in the order in which they are tried."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


class RulesError(ValueError):
    """Arguments that make no rules: which one, what it has, what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What goes to the sidecar and what goes past it. Networks are as written, both families in one tuple."""

    inbound_port: int = names.INBOUND_PORT
    outbound_port: int = names.OUTBOUND_PORT
    uid: int = names.USER
    gid: int = names.USER
    include_inbound_ports: Ports = NONE
    exclude_inbound_ports: Ports = NONE
    include_outbound_ports: Ports = NONE
    exclude_outbound_ports: Ports = NONE
    include_outbound_ip_ranges: tuple[str, ...] = ()
    exclude_outbound_ip_ranges: tuple[str, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()

    def included(self, family: Family) -> tuple[str, ...]:
        """Give the captured destinations of a family, none inside another."""
        return networks(self.include_outbound_ip_ranges, family)

    def excluded(self, family: Family) -> tuple[str, ...]:
        """Give the destinations of a family that are called past the sidecar, none inside another."""
        return networks(self.exclude_outbound_ip_ranges, family)


def networks(written: tuple[str, ...], family: Family) -> tuple[str, ...]:
    """Give the networks of one family, ascending and apart from each other: nftables refuses sets that overlap.

    >>> networks(("10.0.0.0/8", "::/0", "10.1.0.0/16"), Family.IPV4)
    ('10.0.0.0/8',)
    """
    if family is Family.IPV4:
        return tuple(str(each) for each in ipaddress.collapse_addresses(map(ipaddress.IPv4Network, _of(written, 4))))
    return tuple(str(each) for each in ipaddress.collapse_addresses(map(ipaddress.IPv6Network, _of(written, 6))))


def read_rules(arguments: Mapping[str, str]) -> Rules:
    """Read the arguments, by their names as the command line has them without the dashes before.

    Raises RulesError, which names the argument.
    """

    def read(name: str, reader: Callable[[str], Value], default: Value) -> Value:
        if name not in arguments:
            return default
        try:
            return reader(arguments[name])
        except ValueError as fault:
            raise RulesError(f"--{name}: {fault}") from None

    rules = Rules(
        inbound_port=read("inbound-port", _port, names.INBOUND_PORT),
        outbound_port=read("outbound-port", _port, names.OUTBOUND_PORT),
        uid=read("uid", _identifier, names.USER),
        gid=read("gid", _identifier, names.USER),
        include_inbound_ports=read("include-inbound-ports", readers.ports, NONE),
        exclude_inbound_ports=read("exclude-inbound-ports", readers.ports, NONE),
        include_outbound_ports=read("include-outbound-ports", readers.ports, NONE),
        exclude_outbound_ports=read("exclude-outbound-ports", readers.ports, NONE),
        include_outbound_ip_ranges=read("include-outbound-ip-ranges", readers.ip_ranges, ()),
        exclude_outbound_ip_ranges=read("exclude-outbound-ip-ranges", readers.ip_ranges, ()),
        exclude_interfaces=read("exclude-interfaces", readers.interfaces, ()),
    )
    if rules.inbound_port == rules.outbound_port:
        raise RulesError(
            f"--inbound-port and --outbound-port are both {rules.inbound_port}: the sidecar tells callers from calls "
            "by the port, give each its own"
        )
    return rules


def _of(written: tuple[str, ...], version: int) -> list[str]:
    return [each for each in written if (6 if ":" in each else 4) == version]


def _port(text: str) -> int:
    ports = readers.ports(text)
    if len(ports.ranges) != 1 or ports.ranges[0][0] != ports.ranges[0][1]:
        raise ValueError(f"{text[:20]!r} is no port: write one number from {FIRST} to {LAST}")
    return ports.ranges[0][0]


def _identifier(text: str) -> int:
    # The rule that lets the sidecar out would let root out with 0, and everything that runs as root goes round it.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 0 < int(text) <= _MAX_ID):
        raise ValueError(
            f"{text[:20]!r} is no id of a sidecar: write one from 1 to {_MAX_ID}, by convention {names.USER}"
        )
    return int(text)
