"""What the kernel says of this process and its network namespace: whether it may set rules, and whether IPv6 is on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_NET_ADMIN: Final = 12
"""CAP_NET_ADMIN of linux/capability.h."""


def has_net_admin() -> bool:
    """Say whether this process may change rules and set marks."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _NET_ADMIN & 1)
    return False


def ipv6_is_usable() -> bool:
    """Say whether a connection by IPv6 can be made here, now or when an interface gets an address.

    A kernel without IPv6 has no list of its addresses. One with IPv6 turned off for all interfaces has an empty list,
    and only who has the privilege to set rules can turn it on again.
    """
    try:
        addresses = Path("/proc/net/if_inet6").read_text()
    except FileNotFoundError:
        return False
    try:
        is_disabled = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "1"
    except FileNotFoundError:
        is_disabled = False
    return bool(addresses.strip()) or not is_disabled
