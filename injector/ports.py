"""Ports: sets of them as annotations write them, those that a pod declares, and those that the sidecar gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from injector import names
from injector.values import mappings

FIRST, LAST = 1, 65_535

SIDECAR_PORTS: Final = (names.ADMIN_PORT, names.OUTBOUND_PORT, names.INBOUND_PORT, names.HEALTH_PORT)
"""What the sidecar listens on in every mode: a pod that wants one of them cannot have a sidecar."""


@dataclass(frozen=True, slots=True)
class Ports:
    """A set of ports as ranges, both ends included, ascending and apart from each other.

    >>> str(Ports.parse("8080, 9000-9010,9005-9020"))
    '8080,9000-9020'
    >>> 9015 in Ports.parse("8080,9000-9020"), str(Ports.parse("*"))
    (True, '*')
    """

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Ports:
        """Read `*`, nothing, or ports and ranges by commas. Raises ValueError with what is wrong."""
        if text.strip() == "*":
            return ALL
        found = []
        for part in (part.strip() for part in text.split(",") if part.strip()):
            first, dash, last = part.partition("-")
            low, high = _port(first.strip()), _port(last.strip() if dash else first.strip())
            if low > high:
                raise ValueError(f"the range {part} ends before it begins")
            found.append((low, high))
        return cls.of(found)

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Ports:
        """Give the set of some ranges, which may overlap."""
        joined: list[tuple[int, int]] = []
        for low, high in sorted(ranges):
            if joined and low <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
            else:
                joined.append((low, high))
        return cls(tuple(joined))

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(low <= port <= high for low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __str__(self) -> str:
        if self == ALL:
            return "*"
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)

    def __or__(self, other: Ports) -> Ports:
        return Ports.of((*self.ranges, *other.ranges))

    def __and__(self, other: Ports) -> Ports:
        both = ((max(a, c), min(b, d)) for a, b in self.ranges for c, d in other.ranges)
        return Ports(tuple((low, high) for low, high in both if low <= high))

    def __sub__(self, other: Ports) -> Ports:
        gaps, low = [], FIRST
        for first, last in other.ranges:
            if low < first:
                gaps.append((low, first - 1))
            low = last + 1
        return self & Ports((*gaps, *([(low, LAST)] if low <= LAST else [])))


ALL: Final = Ports(((FIRST, LAST),))
NONE: Final = Ports()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPort:
    """A port that a container says it listens on. `name` is "" for one without."""

    container: str
    number: int
    name: str
    protocol: str


def declared(spec: Mapping[str, object]) -> Iterator[DeclaredPort]:
    """Give the ports of a pod's containers, those of its native sidecars too, in the order in which they stand.

    What is no port (no number, a number out of range) is left out: the API server refuses it.
    """
    for container in app_containers(spec):
        for port in mappings(container.get("ports")):
            number = port.get("containerPort")
            if isinstance(number, int) and not isinstance(number, bool) and FIRST <= number <= LAST:
                yield DeclaredPort(
                    container=str(container.get("name", "")),
                    number=number,
                    name=str(port.get("name") or ""),
                    protocol=str(port.get("protocol") or "TCP"),
                )


def app_containers(spec: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Give the containers that run beside each other and are not ours: native sidecars first, as they start first."""
    native = [each for each in mappings(spec.get("initContainers")) if each.get("restartPolicy") == "Always"]
    return [each for each in (*native, *mappings(spec.get("containers"))) if each.get("name") != names.PROXY]


def mesh_ports(ports: Iterable[int]) -> dict[int, int]:
    """Give for each port of a pod the one at which its sidecar listens for the mesh, where nothing is captured.

    The lowest port gets `names.MESH_PORT`, the next the number after it; a number that the pod uses itself is passed
    over. Whoever knows a pod's ports, and nothing else, comes to the same numbers.

    >>> mesh_ports([9090, 8080])
    {8080: 15443, 9090: 15444}
    >>> mesh_ports([8080, 15443])
    {8080: 15444, 15443: 15445}
    """
    taken = {*ports, *SIDECAR_PORTS}
    made: dict[int, int] = {}
    number = names.MESH_PORT
    for port in sorted(taken - set(SIDECAR_PORTS)):
        while number in taken:
            number += 1
        made[port] = number
        number += 1
    return made


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and FIRST <= int(text) <= LAST):
        raise ValueError(f"{text[:20]!r} is no port from {FIRST} to {LAST}")
    return int(text)
