"""Which `jwksUri` may be fetched: https, to a host that is neither this machine nor its surroundings.

A proxy that fetches what a policy names is a way into what only the proxy can reach: its own admin pages on loopback,
the node's metadata service on a link-local address (CVE-2026-41413). Names are looked at when a policy is read; the
addresses that they resolve to must be looked at again before each connection, with `address_problem`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from proxy.documents import quoted

MAX_URI: Final = 2048
"""Characters, as in Istio's schema."""

_URI: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+").fullmatch  # RFC 3986 section 2
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_LOOKS_LIKE_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)").fullmatch
_LOOPBACK_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_METADATA_NAMES: Final = ("metadata.google.internal", "metadata", "instance-data")
_METADATA: Final = tuple(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
"""Metadata services outside the link-local ranges: Amazon's and Google's by IPv6, Alibaba's, Azure's, Oracle's."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_RESERVED: Final = ipaddress.IPv4Network("240.0.0.0/4")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def uri_problem(uri: str, *, allow_loopback: bool) -> str:
    """Say what is wrong with a `jwksUri`, "" when it may be fetched.

    `allow_loopback` admits loopback, and http there: never http across a network, never a link-local address.

    >>> uri_problem("https://issuer.example/jwks.json", allow_loopback=False)
    ''
    >>> uri_problem("https://169.254.169.254/latest", allow_loopback=True)
    'the host 169.254.169.254 is link-local, where metadata services are'
    """
    if len(uri) > MAX_URI:
        return f"it has more than {MAX_URI} characters"
    if _URI(uri) is None:
        return "it holds a character that no URI may hold (RFC 3986)"
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError as error:
        return f"it is no URI ({error})"
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("https", "http"):
        return "it does not begin with https://"
    if parts.username is not None or "@" in parts.netloc:
        return "it holds user information"
    if "#" in uri:
        return "it has a fragment"
    if port == 0 or parts.netloc.endswith(":"):
        return "its port is no number from 1 to 65535"
    problem, is_loopback = _host_problem(host.lower(), allow_loopback)
    if not problem and parts.scheme == "http" and not is_loopback:
        return "keys fetched over http can be replaced on the way: it must begin with https://"
    return problem


def address_problem(address: str, *, allow_loopback: bool) -> str:
    """Say why nothing may be fetched from an IP address, "" when it may.

    Private addresses are fine: an issuer inside the cluster has one. Raises ValueError for what is no address.

    >>> address_problem("::ffff:127.0.0.1", allow_loopback=False)
    'is loopback'
    """
    return _address_problem(ipaddress.ip_address(address), allow_loopback)


def _host_problem(host: str, allow_loopback: bool) -> tuple[str, bool]:
    """Give the problem with a host, and whether it is this machine."""
    if not host:
        return "it names no host", False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _name_problem(host.removesuffix("."), allow_loopback)
    problem = _address_problem(address, allow_loopback)
    return f"the host {host} {problem}" if problem else "", _is_loopback(address)


def _name_problem(name: str, allow_loopback: bool) -> tuple[str, bool]:
    if _LOOKS_LIKE_NUMBER(name):  # 127.1, 0x7f000001, 2130706433: what resolvers read as an address
        return f"the host {quoted(name)} is a number in another form; write the address with four decimal parts", False
    if _NAME.fullmatch(name) is None:
        return f"the host {quoted(name)} is no DNS name", False
    if name in _METADATA_NAMES:
        return f"the host {name} is a metadata service", False
    is_loopback = name in _LOOPBACK_NAMES or name.endswith(".localhost")
    return (f"the host {name} is loopback" if is_loopback and not allow_loopback else ""), is_loopback


def _address_problem(address: _Address, allow_loopback: bool) -> str:
    """Judge an address by everything that it stands for."""
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        return "has a zone"
    for meant in _meanings(address):
        if meant.is_link_local:
            return "is link-local, where metadata services are"
        if meant in _METADATA:
            return "is a metadata service"
        if meant.is_unspecified or meant in _THIS_NETWORK:
            return "is unspecified, which reaches this machine"
        if meant.is_multicast or meant in _RESERVED:
            return "is no address of one host"
        if meant.is_loopback and not allow_loopback:
            return "is loopback"
    return ""


def _is_loopback(address: _Address) -> bool:
    return any(meant.is_loopback for meant in _meanings(address))


def _meanings(address: _Address) -> Iterator[_Address]:
    """Yield an address and the IPv4 ones that an IPv6 address leads to (mapped, compatible, 6to4, Teredo, NAT64)."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    yield from (inner for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if inner)
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and low > 1):  # ::0 and ::1 are no IPv4 addresses
        yield ipaddress.IPv4Address(low)
