"""Sets of IP addresses, IPv4 and IPv6, and how a NetworkPolicy writes them.

Mesh policies take addresses in and out (`ipBlocks`, `notIpBlocks`, DENY rules); a NetworkPolicy has a list of blocks,
each with exceptions. In between stands the set itself, as ranges of numbers, the same however it was written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.policy.values import maybe_ip, parse_ip_block

_BITS: Final = {4: 32, 6: 128}

Range = tuple[int, int, int]
"""Version, first and last address."""


@dataclass(frozen=True, slots=True)
class Block:
    """One `ipBlock`: a network without some networks inside it."""

    cidr: str
    excepted: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cidr} except {', '.join(self.excepted)}" if self.excepted else self.cidr


@dataclass(frozen=True, slots=True)
class Blocks:
    """A set of addresses as ranges, ascending and apart from each other.

    >>> inside = Blocks.of(["10.0.0.0/8", "fd00::/8"])
    >>> [str(block) for block in (inside - Blocks.of(["10.1.0.0/16"])).blocks()]
    ['10.0.0.0/8 except 10.1.0.0/16', 'fd00::/8']
    >>> "10.2.3.4" in inside, "11.0.0.1" in inside
    (True, False)
    """

    ranges: tuple[Range, ...] = ()

    @classmethod
    def of(cls, values: Iterable[str]) -> Blocks:
        """Take the union of addresses and CIDR blocks. Raises ValueError for what is neither."""
        found = []
        for value in values:
            version, length, network = parse_ip_block(value)
            free = _BITS[version] - length
            found.append((version, network << free, ((network + 1) << free) - 1))
        return cls(_joined(found))

    def __contains__(self, address: object) -> bool:
        number = maybe_ip(address) if isinstance(address, str) else None
        if number is None:
            return False
        return any(version == number[0] and low <= number[1] <= high for version, low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __or__(self, other: Blocks) -> Blocks:
        return Blocks(_joined((*self.ranges, *other.ranges)))

    def __and__(self, other: Blocks) -> Blocks:
        return self - (self - other)

    def __sub__(self, other: Blocks) -> Blocks:
        left: list[Range] = []
        for version, first, high in self.ranges:
            low = first
            for other_version, other_low, other_high in other.ranges:
                if other_version != version or other_high < low or high < other_low:
                    continue
                if low < other_low:
                    left.append((version, low, other_low - 1))
                low = other_high + 1
            if low <= high:
                left.append((version, low, high))
        return Blocks(tuple(left))

    def __str__(self) -> str:
        return ", ".join(map(str, self.blocks())) or "no address"

    def blocks(self) -> tuple[Block, ...]:
        """Write the set as blocks with exceptions, in as few networks as that takes, IPv4 first."""
        found: list[Block] = []
        for version, bits in _BITS.items():
            ranges = [(low, high) for each, low, high in self.ranges if each == version]
            found += (
                Block(_cidr(version, *network), tuple(_cidr(version, *each) for each in excepted))
                for network, excepted in _written((0, bits), ranges)[1]
            )
        return tuple(found)


EVERYWHERE: Final = Blocks(((4, 0, 2**32 - 1), (6, 0, 2**128 - 1)))
NOWHERE: Final = Blocks()

_Network = tuple[int, int]
"""First address, and how many bits behind the prefix are free."""
_Written = list[tuple[_Network, list[_Network]]]


def _joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    joined: list[Range] = []
    for version, low, high in sorted(ranges):
        if joined and joined[-1][0] == version and low <= joined[-1][2] + 1:
            joined[-1] = (version, joined[-1][1], max(high, joined[-1][2]))
        else:
            joined.append((version, low, high))
    return tuple(joined)


def _cidr(version: int, low: int, free: int) -> str:
    # By version: a small number of IPv6 would be taken for IPv4.
    address = ipaddress.IPv4Address(low) if version == 4 else ipaddress.IPv6Address(low)
    return f"{address}/{_BITS[version] - free}"


def _written(network: _Network, ranges: list[tuple[int, int]]) -> tuple[int, _Written]:
    """Give how many networks, exceptions counted, write what of the ranges lies in a network, and these networks."""
    low, free = network
    high = low + (1 << free) - 1
    inside = [(max(low, first), min(high, last)) for first, last in ranges if first <= high and low <= last]
    if not inside:
        return 0, []
    if inside == [(low, high)]:
        return 1, [(network, [])]
    middle = low + (1 << (free - 1))
    left_cost, left = _written((low, free - 1), inside)
    right_cost, right = _written((middle, free - 1), inside)
    if left_cost + right_cost <= 2:
        # A block with its exception costs as much.
        return left_cost + right_cost, left + right
    missing = _networks(network, _between(low, high, inside))
    if 1 + len(missing) < left_cost + right_cost:
        return 1 + len(missing), [(network, missing)]
    return left_cost + right_cost, left + right


def _between(low: int, high: int, inside: list[tuple[int, int]]) -> list[tuple[int, int]]:
    gaps = []
    for first, last in inside:
        if low < first:
            gaps.append((low, first - 1))
        low = last + 1
    return gaps + ([(low, high)] if low <= high else [])


def _networks(network: _Network, ranges: list[tuple[int, int]]) -> list[_Network]:
    """Give the largest networks that make up what of the ranges lies in a network."""
    low, free = network
    high = low + (1 << free) - 1
    inside = [(first, last) for first, last in ranges if first <= high and low <= last]
    if not inside:
        return []
    if any(first <= low and high <= last for first, last in inside):
        return [network]
    middle = low + (1 << (free - 1))
    return _networks((low, free - 1), inside) + _networks((middle, free - 1), inside)
