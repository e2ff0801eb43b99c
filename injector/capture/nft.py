"""Rules -> one script for `nft -f -`: a table of its own, which is replaced in one transaction or not at all.

One table of family inet has both versions of IP, so that there is no moment in which only one of them is captured. The
order of the rules is Istio's; each line that is not plain says why it stands where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from injector import names
from injector.capture.rules import DNS_PORT, Family, Rules
from injector.ports import ALL, Ports

REMOVE: Final = f"add table inet {names.CAPTURE_TABLE}\ndelete table inet {names.CAPTURE_TABLE}\n"
"""Removes the table, and is no error where there is none: `destroy` would say it in one line, but needs Linux 6.3."""

_NAT_PRIORITY: Final = -100
"""Where nftables and iptables have destination NAT. As a number: the name `dstnat` is not known at the output hook."""
_IP: Final = {Family.IPV4: "ip", Family.IPV6: "ip6"}
_NFPROTO: Final = {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}


def script(rules: Rules) -> str:
    """Give the script that makes the kernel have exactly these rules, whatever it had before."""
    chains = (
        ("inbound", "", _inbound(rules)),
        ("prerouting", "prerouting", _prerouting(rules)),
        ("output", "output", _output(rules)),
    )
    lines = [f"table inet {names.CAPTURE_TABLE} {{"]
    for name, hook, body in chains:
        lines.append(f"\tchain {name} {{")
        if hook:
            lines.append(f"\t\ttype nat hook {hook} priority {_NAT_PRIORITY}; policy accept;")
        lines += [f"\t\t{line}" for line in body]
        lines.append("\t}")
    return REMOVE + "\n".join([*lines, "}", ""])


def _inbound(rules: Rules) -> Iterator[str]:
    if rules.exclude_inbound_ports:
        yield f"tcp dport {_ports(rules.exclude_inbound_ports)} return"
    if rules.include_inbound_ports:
        yield _redirect(_to_ports(rules.include_inbound_ports), rules.inbound_port)


def _prerouting(rules: Rules) -> Iterator[str]:
    yield "meta l4proto != tcp return"
    yield 'iifname "lo" return'
    if rules.exclude_interfaces:
        yield f"iifname {_names(rules.exclude_interfaces)} return"
    yield "jump inbound"


def _output(rules: Rules) -> Iterator[str]:
    yield "meta l4proto != tcp return"
    for family in Family:
        yield f'oifname "lo" {_IP[family]} saddr {family.pass_source} return'
    # The sidecar that calls its own pod by its address comes in like any other caller: policy holds there too.
    for owner in (f"meta skuid {rules.uid}", f"meta skgid {rules.gid}", f"meta mark {names.CAPTURE_MARK}"):
        for family in Family:
            yield f'oifname "lo" {_IP[family]} daddr != {family.loopback} {owner} jump inbound'
    yield 'oifname "lo" return'
    # The loop guard: what the sidecar sends on must not come back to it.
    yield f"meta skuid {rules.uid} return"
    yield f"meta skgid {rules.gid} return"
    for family in Family:
        yield f"{_IP[family]} daddr {family.loopback} return"
    if rules.exclude_interfaces:
        yield f"oifname {_names(rules.exclude_interfaces)} return"
    yield f"tcp dport {DNS_PORT} return"
    if rules.exclude_outbound_ports:
        yield f"tcp dport {_ports(rules.exclude_outbound_ports)} return"
    for family in Family:
        if rules.excluded(family):
            yield f"{_to(family, rules.excluded(family))} return"
    if rules.include_outbound_ports:
        yield _redirect(_to_ports(rules.include_outbound_ports), rules.outbound_port)
    for family in Family:
        if rules.included(family):
            yield _redirect(f"{_to(family, rules.included(family))} meta l4proto tcp", rules.outbound_port)


def _redirect(matched: str, port: int) -> str:
    return f"{matched} redirect to :{port}"


def _to(family: Family, ranges: tuple[str, ...]) -> str:
    if ranges == (family.everything,):
        return f"meta nfproto {_NFPROTO[family]}"
    return f"{_IP[family]} daddr {{ {', '.join(ranges)} }}"


def _to_ports(ports: Ports) -> str:
    return "meta l4proto tcp" if ports == ALL else f"tcp dport {_ports(ports)}"


def _ports(ports: Ports) -> str:
    return "{ " + ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ports.ranges) + " }"


def _names(interfaces: tuple[str, ...]) -> str:
    return "{ " + ", ".join(f'"{each}"' for each in interfaces) + " }"
