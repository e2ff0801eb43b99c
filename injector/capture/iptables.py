"""Rules -> texts for `iptables-restore --noflush`, one for each version of IP; and what `iptables-save` says of ours.

For kernels and images in which nftables does not work. Each text is one transaction, but the two versions of IP are
two: whoever applies them takes the first back when the second fails. Chains are our own; of the kernel's chains each
gets one rule, which jumps there.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from typing import Final

from injector import names
from injector.capture.rules import DNS_PORT, Family, Rules
from injector.ports import ALL, Ports

INBOUND: Final = f"{names.CAPTURE_CHAINS}INBOUND"
PREROUTING: Final = f"{names.CAPTURE_CHAINS}PREROUTING"
OUTPUT: Final = f"{names.CAPTURE_CHAINS}OUTPUT"
_JUMPS: Final = {"PREROUTING": PREROUTING, "OUTPUT": OUTPUT}
_FOREIGN: Final = re.compile(r"^:((?:ISTIO|PROXY_INIT)_\w+) ", re.MULTILINE)


class Owner(enum.Enum):
    """Who sent a packet, by what the rules look at."""

    UID = enum.auto()
    GID = enum.auto()
    MARK = enum.auto()


def restore_text(rules: Rules, family: Family, saved: str) -> str:
    """Give the text that makes a table `nat` have exactly these rules, whatever of ours it had before.

    `saved` is what the same table's `iptables-save` printed: the jumps that stand there are not made a second time, and
    chains of ours that are no longer used go.
    """
    made = {INBOUND: _inbound(rules), PREROUTING: _prerouting(rules), OUTPUT: _output(rules, family)}
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in made)]
    for chain, body in made.items():
        lines += [f"-A {chain} {line}" for line in body]
    lines += [f"-D {jump}" for jump in _jumps(saved)]
    # First, as no rule of another may come before ours.
    lines += [f"-I {hook} 1 -p tcp -j {chain}" for hook, chain in _JUMPS.items()]
    lines += _gone([chain for chain in _chains(saved) if chain not in made])
    return "\n".join([*lines, "COMMIT", ""])


def remove_text(saved: str) -> str:
    """Give the text that takes away whatever of ours `iptables-save` printed; "" where there is nothing."""
    chains = _chains(saved)
    if not chains:
        return ""
    lines = ["*nat", *(f"-D {jump}" for jump in _jumps(saved)), *_gone(chains)]
    return "\n".join([*lines, "COMMIT", ""])


def foreign_chains(saved: str) -> list[str]:
    """Name the chains of another mesh in what `iptables-save` printed."""
    return sorted(set(_FOREIGN.findall(saved)))


def _gone(chains: Sequence[str]) -> list[str]:
    return [*(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains)]


def _chains(saved: str) -> list[str]:
    return re.findall(rf"^:({names.CAPTURE_CHAINS}\w+) ", saved, re.MULTILINE)


def _jumps(saved: str) -> list[str]:
    """Give the rules of the kernel's chains that lead into ours, as `iptables-save` writes them, without `-A`."""
    rule = rf"^-A ((?!{names.CAPTURE_CHAINS}).* -j {names.CAPTURE_CHAINS}\w+)$"
    return re.findall(rule, saved, re.MULTILINE)


def _inbound(rules: Rules) -> Iterator[str]:
    for port in _ports(rules.exclude_inbound_ports):
        yield f"{port} -j RETURN"
    for port in _ports(rules.include_inbound_ports):
        yield f"{port} -j REDIRECT --to-ports {rules.inbound_port}"


def _prerouting(rules: Rules) -> Iterator[str]:
    yield "-i lo -j RETURN"
    for interface in rules.exclude_interfaces:
        yield f"-i {interface} -j RETURN"
    yield f"-j {INBOUND}"


def _output(rules: Rules, family: Family) -> Iterator[str]:
    yield f"-o lo -s {family.pass_source} -j RETURN"
    owners = {owner: _owner(rules, owner) for owner in Owner}
    # The sidecar that calls its own pod by its address comes in like any other caller: policy holds there too.
    for matched in owners.values():
        yield f"-o lo ! -d {family.loopback} {matched} -j {INBOUND}"
    yield "-o lo -j RETURN"
    # The loop guard: what the sidecar sends on must not come back to it.
    yield f"{owners[Owner.UID]} -j RETURN"
    yield f"{owners[Owner.GID]} -j RETURN"
    yield f"-d {family.loopback} -j RETURN"
    for interface in rules.exclude_interfaces:
        yield f"-o {interface} -j RETURN"
    yield f"-p tcp --dport {DNS_PORT} -j RETURN"
    for port in _ports(rules.exclude_outbound_ports):
        yield f"{port} -j RETURN"
    for network in rules.excluded(family):
        yield f"-d {network} -j RETURN"
    for port in _ports(rules.include_outbound_ports):
        yield f"{port} -j REDIRECT --to-ports {rules.outbound_port}"
    for network in rules.included(family):
        yield f"-d {network} -p tcp -j REDIRECT --to-ports {rules.outbound_port}"


def _owner(rules: Rules, owner: Owner) -> str:
    if owner is Owner.UID:
        return f"-m owner --uid-owner {rules.uid}"
    if owner is Owner.GID:
        return f"-m owner --gid-owner {rules.gid}"
    return f"-m mark --mark {names.CAPTURE_MARK}"


def _ports(ports: Ports) -> Sequence[str]:
    if ports == ALL:
        return ["-p tcp"]
    return [f"-p tcp --dport {low if low == high else f'{low}:{high}'}" for low, high in ports.ranges]
