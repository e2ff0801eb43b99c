"""Reads, adds and removes the addresses of this network namespace, by rtnetlink: the image has no program `ip`.

Messages are those of linux/rtnetlink.h: a header (length, type, flags, sequence, port), then `ifaddrmsg` (family,
prefix length, flags, scope, index), then attributes (length, type, value), each padded to four bytes.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")
_ADDRESS: Final = struct.Struct("=BBBBi")
_ATTRIBUTE: Final = struct.Struct("=HH")
_CODE: Final = struct.Struct("=i")

_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _EXCLUSIVE, _DUMP, _CREATE = 0x1, 0x4, 0x200, 0x300, 0x400
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TENTATIVE: Final = 0x40
"""Flag of an IPv6 address of which the kernel does not know yet whether a neighbour has it too."""
_ANSWER_BYTES: Final = 1 << 16
_ANSWER_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAddress:
    """An address of this namespace. `is_tentative`: it cannot be used yet."""

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    is_tentative: bool


def own_addresses() -> list[OwnAddress]:
    """Give every address of this namespace, as the kernel lists them. Raises OSError."""
    found = []
    for kind, body in _ask(_RTM_GETADDR, _REQUEST | _DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        if kind == _RTM_NEWADDR:
            family, _, flags, _, index = _ADDRESS.unpack_from(body)
            attributes = dict(_attributes(body[_ADDRESS.size :]))
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if packed and family in (socket.AF_INET, socket.AF_INET6):
                found.append(
                    OwnAddress(
                        interface=socket.if_indextoname(index),
                        address=ipaddress.ip_address(packed),
                        is_tentative=bool(flags & _TENTATIVE),
                    )
                )
    return found


def add_to_loopback(address: ipaddress.IPv6Address) -> None:
    """Give loopback an address, which no other interface then answers for; no error where it has it. Raises OSError."""
    _change(_RTM_NEWADDR, _REQUEST | _ACK | _CREATE | _EXCLUSIVE, address, errno.EEXIST)


def remove_from_loopback(address: ipaddress.IPv6Address) -> None:
    """Take an address away from loopback; no error where it is not there. Raises OSError."""
    _change(_RTM_DELADDR, _REQUEST | _ACK, address, errno.EADDRNOTAVAIL)


def _change(kind: int, flags: int, address: ipaddress.IPv6Address, already: int) -> None:
    body = _ADDRESS.pack(socket.AF_INET6, address.max_prefixlen, 0, 0, socket.if_nametoindex("lo"))
    value = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address.packed), _IFA_LOCAL) + address.packed
    try:
        for _ in _ask(kind, flags, body + value):
            pass
    except OSError as fault:
        if fault.errno != already:
            raise


def _ask(kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Send one request and give the messages of its answer, to its end. Raises OSError with the kernel's reason."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        sock.bind((0, 0))
        sock.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
        while True:
            data = sock.recv(_ANSWER_BYTES)
            while len(data) >= _HEADER.size:
                length, answer, _, _, _ = _HEADER.unpack_from(data)
                content = data[_HEADER.size : length]
                if answer == _NLMSG_DONE:
                    return
                if answer == _NLMSG_ERROR:
                    (code,) = _CODE.unpack_from(content)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield answer, content
                data = data[_padded(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[_ATTRIBUTE.size : length]
        data = data[_padded(length) :]


def _padded(length: int) -> int:
    return (length + 3) & ~3
