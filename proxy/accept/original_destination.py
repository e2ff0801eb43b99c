"""Asks the kernel where a redirected connection was going: its connection tracking remembers (SO_ORIGINAL_DST).

netfilter answers by the family of the connection: an IPv4 connection on a dual-stack socket is asked for as IPv4.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from proxy.config import Address

_SO_ORIGINAL_DST: Final = 80
"""Of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h."""
_SOL_IPV6: Final = 41
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")
_MAPPED: Final = "::ffff:"


def original_destination(sock: socket.socket) -> Address | None:
    """Give the address that the peer of an accepted connection dialled; None when the kernel does not know.

    A connection that no rule has redirected is either not known, or was going where it has arrived.
    """
    try:
        if sock.family == socket.AF_INET6 and not sock.getsockname()[0].startswith(_MAPPED):
            port, host = _SOCKADDR_IN6.unpack(sock.getsockopt(_SOL_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size))
            return Address(host=socket.inet_ntop(socket.AF_INET6, host), port=port)
        port, host = _SOCKADDR_IN.unpack(sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size))
        return Address(host=socket.inet_ntop(socket.AF_INET, host), port=port)
    except OSError:
        return None


def is_own(host: str) -> bool:
    """Say whether an address is one of this network namespace, so that a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True
