"""The value forms of the policy language, compiled to linear matchers.

| form   | matches                                                                        |
|--------|--------------------------------------------------------------------------------|
| `*`    | anything that is there and not empty                                           |
| `*abc` | text that ends with `abc` (the leading star is looked at first, so also `*a*`) |
| `abc*` | text that begins with `abc`                                                    |
| other  | exactly that text; a star inside is a plain character                          |

No value becomes a regular expression: a peer chooses the text that is matched, and backtracking would let it choose
the time as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import NamedTuple

TextTest = Callable[[str], bool]


class Forms(NamedTuple):
    """Values sorted by form; `any` says that `*` is among them."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    any: bool


def sort_forms(values: Iterable[str]) -> Forms:
    """Sort values by form and cut the stars off."""
    exact, prefixes, suffixes, anything = set(), [], [], False
    for value in values:
        if value == "*":
            anything = True
        elif value.startswith("*"):
            suffixes.append(value[1:])
        elif value.endswith("*"):
            prefixes.append(value[:-1])
        else:
            exact.add(value)
    return Forms(frozenset(exact), tuple(prefixes), tuple(suffixes), anything)


def text_test(values: Iterable[str]) -> TextTest:
    """Compile values to one test. The empty text stands for an absent attribute and matches nothing.

    >>> test = text_test(["/public*", "*.png"])
    >>> test("/publicsecret"), test("/private/a.png"), test("/private")
    (True, True, False)
    """
    exact, prefixes, suffixes, anything = sort_forms(values)
    if anything:
        return bool
    if not prefixes and not suffixes:
        return exact.__contains__
    if not exact and not suffixes:
        return lambda text: text.startswith(prefixes)
    return lambda text: text in exact or text.startswith(prefixes) or text.endswith(suffixes)


def glob_test(values: Iterable[str]) -> TextTest:
    """Compile values in which every star matches any text (`namespaces`); the empty text matches nothing.

    >>> test = glob_test(["team-*-prod"])
    >>> test("team-a-prod"), test("team--prod"), test("team-prod")
    (True, True, False)
    """
    patterns = [tuple(value.split("*")) for value in values]
    exact = frozenset(parts[0] for parts in patterns if len(parts) == 1)
    globs = tuple(parts for parts in patterns if len(parts) > 1)
    if not globs:
        return exact.__contains__
    return lambda text: bool(text) and (text in exact or any(_glob(parts, text) for parts in globs))


def _glob(parts: tuple[str, ...], text: str) -> bool:
    """Match greedily from the left: linear in the text for each part."""
    first, *middle, last = parts
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


IpNumber = tuple[int, int]
"""An address as (version, number); an IPv4-mapped IPv6 address is the IPv4 address that it maps."""


def maybe_ip(text: str) -> IpNumber | None:
    """Read the text of an address, with or without an IPv6 zone; None when it is no address.

    >>> maybe_ip("::ffff:10.0.0.1") == maybe_ip("10.0.0.1")
    True
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (4, int(mapped)) if mapped is not None else (address.version, int(address))


class IpBlock(NamedTuple):
    """A CIDR block: the leading `length` bits of an address of `version` are those of `network`."""

    version: int
    length: int
    network: int


def parse_ip_block(text: str) -> IpBlock:
    """Read an address or a CIDR block; bits behind the prefix length are ignored, as in Istio.

    Raises ValueError for anything else: netmasks, zones, spaces, a prefix length out of range.

    >>> parse_ip_block("10.1.2.3/8") == parse_ip_block("::ffff:10.0.0.0/104")
    True
    """
    address_text, slash, length_text = text.partition("/")
    if "%" in text:
        raise ValueError("a zone is not part of an address block")
    address = ipaddress.ip_address(address_text)
    bits = address.max_prefixlen
    if slash and not (length_text.isascii() and length_text.isdigit() and len(length_text) <= 3):
        raise ValueError("the prefix length is not a number")
    length = int(length_text) if slash else bits
    if length > bits:
        raise ValueError(f"the prefix length is more than {bits}")
    version, number = address.version, int(address)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if mapped is not None and length >= 96:
        version, number, length, bits = 4, int(mapped), length - 96, 32
    return IpBlock(version, length, number >> (bits - length))


def ip_test(values: Iterable[str]) -> Callable[[IpNumber], bool]:
    """Compile blocks to one test: one set look-up for each prefix length that occurs, however many blocks."""
    by_length: dict[tuple[int, int], set[int]] = {}
    for value in values:
        version, length, network = parse_ip_block(value)
        shift = (32 if version == 4 else 128) - length
        by_length.setdefault((version, shift), set()).add(network)
    networks = tuple((version, shift, frozenset(found)) for (version, shift), found in by_length.items())

    def test(address: IpNumber) -> bool:
        own_version, number = address
        return any(version == own_version and number >> shift in found for version, shift, found in networks)

    return test
