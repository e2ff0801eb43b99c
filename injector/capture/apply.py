"""Puts the rules into the kernel and takes them out again. Both versions of IP are captured, or nothing is.

    nft works?  ------ yes -> one transaction for both
         | no
    iptables-restore works for IPv4? -> for IPv6? -> done
         | no                             | no, and IPv6 is usable here
    the other iptables                   what was set is taken back; the other iptables

Whatever another backend left of ours is taken away after the new rules are in, so that no moment is without rules.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.capture import iptables, netlink, nft, programs
from injector.capture.namespace import has_net_admin, ipv6_is_usable
from injector.capture.rules import Backend, Family, Rules

_SOURCE: Final = ipaddress.IPv6Address(Family.IPV6.pass_source)
_FOREIGN_TABLE: Final = re.compile(r"^table (\w+ istio-proxy-\S+)", re.MULTILINE)
NO_RIGHT: Final = (
    "this process may not set rules: it lacks the capability NET_ADMIN; run it as root with "
    "`securityContext.capabilities.add: [NET_ADMIN, NET_RAW]`, or let the pod be captured without rules by the "
    f"annotation {names.PREFIX}capture: ports"
)


class CaptureError(Exception):
    """Rules that are not in the kernel as they should be: what happened, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """How the rules got into the kernel."""

    backend: Backend
    families: tuple[Family, ...]


def apply(rules: Rules, wanted: Backend | None) -> Applied:
    """Make the kernel have exactly these rules, by the backend that is wanted or the first that works.

    Raises CaptureError; then nothing of ours is in the kernel.
    """
    if not has_net_admin():
        raise CaptureError(NO_RIGHT)
    faults = []
    for backend in (wanted,) if wanted else tuple(Backend):
        try:
            families = _set_by_nft(rules) if backend is Backend.NFT else _set_by_iptables(rules, backend)
        except CaptureError as fault:
            faults.append(f"{backend.value}: {fault}")
            continue
        _remove_rules(but=backend)
        _add_source()
        return Applied(backend=backend, families=families)
    raise CaptureError(
        f"no rules could be set ({'; '.join(faults)}); nothing is captured and nothing was left behind: load the "
        f"kernel's modules for nftables or iptables with NAT, or use the annotation {names.PREFIX}capture: ports"
    )


def remove() -> None:
    """Take away everything of ours: the rules, whichever backend set them, and the address. Raises CaptureError."""
    if not has_net_admin():
        raise CaptureError(NO_RIGHT)
    _remove_rules(but=None)
    if ipv6_is_usable():
        try:
            netlink.remove_from_loopback(_SOURCE)
        except OSError as fault:
            raise CaptureError(f"the address {_SOURCE} could not be taken from lo: {fault.strerror}") from None


def foreign_rules() -> list[str]:
    """Name the chains and tables of another mesh that are in this namespace, each with where it is."""
    found = [f"{found} (nftables)" for found in _FOREIGN_TABLE.findall(_nft("list", "tables"))]
    for backend, _, tables in programs.every_tables():
        found += [f"{chain} ({backend.value})" for chain in iptables.foreign_chains(programs.saved(tables))]
    return sorted(set(found))


def _set_by_nft(rules: Rules) -> tuple[Family, ...]:
    program = programs.find("nft")
    if not program:
        raise CaptureError("there is no program nft")
    said = programs.run([program, "-f", "-"], nft.script(rules))
    if said.code:
        raise CaptureError(said.reason)
    return tuple(Family)


def _set_by_iptables(rules: Rules, backend: Backend) -> tuple[Family, ...]:
    done: list[Family] = []
    for family in Family:
        try:
            _restore(rules, backend, family)
        except CaptureError as fault:
            if family is Family.IPV6 and not ipv6_is_usable():
                break
            # Half a capture is none: with IPv4 alone, whoever dials by IPv6 goes round every policy.
            _remove_rules(but=None)
            raise CaptureError(f"{fault} (IPv{family.value})") from None
        done.append(family)
    return tuple(done)


def _restore(rules: Rules, backend: Backend, family: Family) -> None:
    tables = programs.find_tables(backend, family)
    if tables is None:
        raise CaptureError("there is no iptables-restore of this kind")
    said = programs.restore(tables, iptables.restore_text(rules, family, programs.saved(tables)))
    if said.code:
        raise CaptureError(said.reason)


def _remove_rules(*, but: Backend | None) -> None:
    faults = list(_removal_faults(but))
    if faults:
        raise CaptureError(f"rules of ours could not be taken away ({'; '.join(faults)}): begin with a new pod")


def _removal_faults(but: Backend | None) -> Iterator[str]:
    if but is not Backend.NFT and f"table inet {names.CAPTURE_TABLE}\n" in _nft("list", "tables"):
        said = programs.run([programs.find("nft"), "-f", "-"], nft.REMOVE)
        if said.code:
            yield f"nft: {said.reason}"
    for backend, _, tables in programs.every_tables():
        text = "" if backend is but else iptables.remove_text(programs.saved(tables))
        if text:
            said = programs.restore(tables, text)
            if said.code:
                yield f"{backend.value}: {said.reason}"


def _add_source() -> None:
    if not ipv6_is_usable():
        return
    try:
        netlink.add_to_loopback(_SOURCE)
    except OSError as fault:
        _remove_rules(but=None)
        raise CaptureError(
            f"lo could not be given the address {_SOURCE}, from which the sidecar calls its application by IPv6: "
            f"{fault.strerror}; the rules were taken back: turn IPv6 on for lo, or off for all interfaces"
        ) from None


def _nft(*words: str) -> str:
    program = programs.find("nft")
    return programs.run([program, *words]).output if program else ""
