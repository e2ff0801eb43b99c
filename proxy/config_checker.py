"""Extends the checker of documents by what a configuration file holds: addresses, durations, limits, listeners.

It also remembers every address that is listened on, because a mistake in one is only seen beside the others: two
listeners on one port, or a target that leads back to a listener of this same sidecar.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from certs.spiffe import SpiffeIdError
from proxy.config_text import TextError, parse_duration, parse_size
from proxy.config_values import Address, UnixSocket
from proxy.documents import Checker, Node
from proxy.limits import Limit, Limits, Unit, limits_table, written
from proxy.types import Protocol

T = TypeVar("T")
D = TypeVar("D")

PROTOCOLS: Final = tuple(protocol.value for protocol in Protocol)
PROTOCOLS_NOT_BUILT: Final = ("http2", "grpc")


@dataclass(frozen=True, slots=True)
class _Claim:
    where: str
    listen: Address | UnixSocket


class ConfigChecker(Checker):
    """Checks one configuration file; see `Checker` for how faults and defaults work."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._claims: list[_Claim] = []

    def beside(self, file: str) -> ConfigChecker:
        """Give the checker of a file that belongs to this one: it has its own faults and knows the same listeners."""
        other = ConfigChecker(file)
        other._claims = self._claims
        return other

    def not_supported(self, at: Node | tuple[int, int], what: str, hint: str = "") -> None:
        """Refuse by name what is specified but not built: a setting that is ignored would be a promise broken."""
        self.fault(at, f"`{what}` is not supported yet", hint)

    def section(
        self,
        node: Node | None,
        where: str,
        known: Collection[str],
        *,
        required: Iterable[str] = (),
        not_built: Collection[str] = (),
    ) -> dict[str, Node]:
        """Take a mapping as `mapping` does; the keys of `not_built` are refused as not supported yet."""
        fields = self.mapping(node, where, (*known, *not_built), required=required)
        for key in [key for key in fields if key in not_built]:
            if node is not None:
                self.not_supported(node.at(key), f"{where}.{key}", "leave it out")
            del fields[key]
        return fields

    def text(self, node: Node | None, where: str, read: Callable[[str], T], default: D) -> T | D:
        """Take text that `read` understands."""
        value = self.string(node, where)
        if node is None or not value:
            return default
        try:
            return read(value)
        except TextError as error:
            self.fault(node, f"`{where}`: {error}", error.hint)
        except SpiffeIdError as error:
            self.fault(node, f"`{where}`: {error}")
        return default

    def duration(self, node: Node | None, where: str, default: float, minimum: float, maximum: float) -> float:
        """Take a duration in seconds between `minimum` and `maximum`, both included."""
        return self._bounded(node, where, parse_duration, default, minimum, maximum, Unit.SECONDS)

    def limits(self, node: Node | None) -> Limits:
        """Take the section `limits`: each key is a row of the table, and absent ones have their default."""
        rows = {row.name: row for row in limits_table()}
        fields = self.mapping(node, "limits", tuple(rows))
        values: dict[str, Any] = {name: self._limit(value, rows[name]) for name, value in fields.items()}
        limits = Limits(**values)
        ordered = (
            ("buffer_low_water", limits.buffer_low_water, "buffer_high_water", limits.buffer_high_water),
            ("buffer_high_water", limits.buffer_high_water, "buffer_limit", limits.buffer_limit),
        )
        for low, low_value, high, high_value in ordered:
            if low_value >= high_value and node is not None:
                at = fields.get(low) or fields.get(high) or node
                smaller, larger = written(low_value, Unit.BYTES), written(high_value, Unit.BYTES)
                self.fault(at, f"`limits.{low}` ({smaller}) must be less than `limits.{high}` ({larger})")
        return limits

    def _limit(self, node: Node, row: Limit) -> float:
        where = f"limits.{row.name}"
        if row.unit is Unit.SECONDS:
            return self.duration(node, where, row.default, row.minimum, row.maximum)
        if row.unit is Unit.BYTES:
            return self._bounded(node, where, parse_size, int(row.default), row.minimum, row.maximum, Unit.BYTES)
        return self.integer(node, where, int(row.default), minimum=int(row.minimum), maximum=int(row.maximum))

    def _bounded(
        self,
        node: Node | None,
        where: str,
        read: Callable[[object], T],
        default: T,
        minimum: float,
        maximum: float,
        unit: Unit,
    ) -> T:
        if node is None:
            return default
        try:
            value = read(node.value)
        except TextError as error:
            self.fault(node, f"`{where}`: {error}", error.hint)
            return default
        if isinstance(value, (int, float)) and not minimum <= value <= maximum:
            bounds = f"between {written(minimum, unit)} and {written(maximum, unit)}"
            self.fault(node, f"`{where}` must be {bounds}, not {written(value, unit)}")
            return default
        return value

    def protocol(self, node: Node | None, where: str) -> Protocol:
        """Take a protocol; one that is absent is detected."""
        if node is not None and node.value in PROTOCOLS_NOT_BUILT:
            self.not_supported(node, f"{where}: {node.value}", f"write one of {', '.join(PROTOCOLS)}")
            return Protocol.AUTO
        return Protocol(self.choice(node, where, PROTOCOLS, Protocol.AUTO.value) or Protocol.AUTO.value)

    def word(self, node: Node | None, where: str, words: Sequence[T], default: T) -> T:
        """Take one of several words that have a type of their own."""
        chosen = self.choice(node, where, [str(word) for word in words], str(default))
        return next((word for word in words if word == chosen), default)

    def claim(self, node: Node | None, where: str, listen: Address | UnixSocket) -> None:
        """Remember that `listen` is listened on, and refuse one that is taken already."""
        for claim in self._claims:
            if node is not None and _overlap(claim.listen, listen):
                self.fault(node, f"`{where}` listens on {listen}, which `{claim.where}` has taken", "use another port")
                break
        self._claims.append(_Claim(where, listen))

    def refuse_loop(self, node: Node, where: str, target: Address, prefixes: tuple[str, ...]) -> None:
        """Refuse a target that leads back into this sidecar, to a listener whose name begins with a prefix."""
        for claim in self._claims:
            if target.is_loopback and claim.where.startswith(prefixes) and _overlap(claim.listen, target):
                self.fault(node, f"`{where}` leads back to `{claim.where}` ({claim.listen})", "give each its own port")
                return


def _overlap(one: Address | UnixSocket, other: Address | UnixSocket) -> bool:
    """Say whether binding one leaves no room for the other; port 0 always finds room."""
    if isinstance(one, UnixSocket) or isinstance(other, UnixSocket):
        return one == other
    if one.port != other.port or one.port == 0:
        return False
    if one.host == other.host or "::" in (one.host, other.host):  # [::] is opened dual-stack
        return True
    hosts = {one.host, other.host}
    return "0.0.0.0" in hosts and all(ipaddress.ip_address(host).version == 4 for host in hosts)  # noqa: S104
