"""Tries the rules with real connections: each must come out at the sidecar's port, with its destination remembered.

    outbound   to an address that is nobody's    -> our listener at the sidecar's outbound port on loopback
    inbound    to each of our own addresses      -> our listener at the sidecar's inbound port

Nobody else's traffic is touched: the listeners stand for an instant, before the sidecar has its ports, and take only
the connection that was made for them. For the inbound trial the process must be taken for the sidecar: by its user or
group, or by the mark, which needs NET_ADMIN.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from injector import names
from injector.capture import netlink, trial
from injector.capture.namespace import has_net_admin, ipv6_is_usable
from injector.capture.rules import Family, Rules
from proxy.accept.original_destination import original_destination

SECONDS: Final = 2.0
"""For one connection, which never leaves the pod: it takes less than a millisecond where the rules work."""
_ARRIVAL_SECONDS: Final = 0.5
"""From a handshake's end to the queue of a listener in the same kernel: what has not come by then went elsewhere."""
_DAD_SECONDS: Final = 3.0
"""How long the kernel may look whether a neighbour has our new IPv6 address: one second by default, and some more."""
_DAD_STEP: Final = 0.05
_SOCKET: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_LOOPBACK: Final = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
_ANY: Final = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104
_UDP_DISCARD: Final = 9
"""A port to ask for a route with; nothing is sent to it."""


@dataclass(slots=True, kw_only=True)
class Findings:
    """What works, what could not be tried and why, and what does not work."""

    verified: list[str] = field(default_factory=list)
    not_verified: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class _NotTried(Exception):
    """A trial that says nothing of the rules; its text says why."""


class _Failed(Exception):
    """A trial that the rules did not pass; its text says what came instead."""


def verify(rules: Rules) -> Findings:
    """Try the rules in both directions and both versions of IP. Changes nothing."""
    findings = Findings()
    for family in Family:
        if family is Family.IPV6 and not ipv6_is_usable():
            findings.not_verified.append("IPv6, which is off here")
            continue
        _outbound(rules, family, findings)
        _inbound(rules, family, findings)
    return findings


def _outbound(rules: Rules, family: Family, findings: Findings) -> None:
    what = f"outbound IPv{family.value}"
    try:
        if _is_sidecar(rules):
            raise _NotTried("this process has the sidecar's user or group, which is let out")
        host, port = trial.outbound(rules, family)
        _refuse_without_route(rules, family, host)
        _dial(family, (host, port), (_LOOPBACK[family], rules.outbound_port), has_mark=False)
    except (trial.NoTrial, _NotTried) as reason:
        findings.not_verified.append(f"{what} ({reason})")
    except _Failed as fault:
        findings.faults.append(_fault(what, _shown(host, port), rules.outbound_port, fault))
    else:
        findings.verified.append(f"{what} by {_shown(host, port)}")


def _inbound(rules: Rules, family: Family, findings: Findings) -> None:
    what = f"inbound IPv{family.value}"
    has_mark = not _is_sidecar(rules)
    try:
        port = trial.inbound(rules)
        if has_mark and not has_net_admin():
            raise _NotTried(f"it takes the sidecar's user {rules.uid}, its group, or NET_ADMIN")
        addresses = _usable(family)
    except (trial.NoTrial, _NotTried) as reason:
        findings.not_verified.append(f"{what} ({reason})")
        return
    for host in addresses:
        try:
            _dial(family, (host, port), (_ANY[family], rules.inbound_port), has_mark=has_mark)
        except _NotTried as reason:
            findings.not_verified.append(f"{what} at {host} ({reason})")
        except _Failed as fault:
            findings.faults.append(_fault(what, _shown(host, port), rules.inbound_port, fault))
        else:
            findings.verified.append(f"{what} by {_shown(host, port)}")


def _usable(family: Family) -> Sequence[str]:
    """Give our addresses of a family that others can dial, once the kernel lets them be used."""
    deadline = time.monotonic() + _DAD_SECONDS
    while True:
        found = [each for each in netlink.own_addresses() if each.address.version == family.value]
        # Addresses of the link are left out: they have the chains of the others, and need an interface to be dialled.
        found = [each for each in found if each.interface != "lo" and not each.address.is_link_local]
        if not any(each.is_tentative for each in found):
            break
        if time.monotonic() > deadline:
            raise _NotTried("an address is not ready: the kernel still looks whether a neighbour has it")
        time.sleep(_DAD_STEP)
    if not found:
        raise _NotTried("no interface but lo has such an address")
    return [str(each.address) for each in found]


def _refuse_without_route(rules: Rules, family: Family, host: str) -> None:
    with socket.socket(_SOCKET[family], socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((host, _UDP_DISCARD))
        except OSError as fault:
            raise _NotTried(f"no route to {host}: {fault.strerror}") from None
        source = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    by = {each.interface for each in netlink.own_addresses() if each.address == source}
    if by & set(rules.exclude_interfaces):
        raise _NotTried(f"the route to {host} is by {', '.join(sorted(by))}, which is excluded")


def _dial(family: Family, to: tuple[str, int], at: tuple[str, int], *, has_mark: bool) -> None:
    """Make one connection and look where it comes out. Raises _NotTried, _Failed."""
    with _listener(family, at) as listener, socket.socket(_SOCKET[family], socket.SOCK_STREAM) as client:
        client.settimeout(SECONDS)
        try:
            if has_mark:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, names.CAPTURE_MARK)
            client.connect(to)
        except OSError as fault:
            raise _Failed("no answer" if isinstance(fault, TimeoutError) else str(fault.strerror)) from None
        for accepted in _accepted(listener):
            with accepted:
                if accepted.getpeername()[:2] == client.getsockname()[:2]:
                    found = original_destination(accepted)
                    if found is None or (found.host, found.port) != to:
                        was = "unknown" if found is None else _shown(found.host, found.port)
                        raise _Failed(f"it arrived, but its original destination is {was}")
                    return
        raise _Failed("somebody else took it")


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """Give what arrives, others' connections too, until our time is over."""
    deadline = time.monotonic() + _ARRIVAL_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        listener.settimeout(left)
        try:
            yield listener.accept()[0]
        except OSError:
            return


def _listener(family: Family, at: tuple[str, int]) -> socket.socket:
    sock = socket.socket(_SOCKET[family], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is Family.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(at)
        sock.listen()
    except OSError as fault:
        sock.close()
        if fault.errno == errno.EADDRINUSE:
            raise _NotTried(f"port {at[1]} is in use: a sidecar runs already") from None
        raise _NotTried(f"port {at[1]} cannot be listened at: {fault.strerror}") from None
    return sock


def _is_sidecar(rules: Rules) -> bool:
    return os.geteuid() == rules.uid or os.getegid() == rules.gid


def _fault(what: str, to: str, port: int, came: Exception) -> str:
    return (
        f"{what}: a connection to {to} should have come out at port {port} with that destination remembered, but: "
        f"{came}; look at the rules by `nft list ruleset` and `iptables-save`, and for another program that changes "
        "them"
    )


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
