"""Lists the scenarios of the suite: who stands between load and application, and what is asked of it. Pure.

    capacity-c32-0B/mtls/both/10-rules/log/remora-http
    ^ load          ^    ^    ^        ^   ^ contender
                    |    |    |        +-- is there an access log?
                    |    |    +----------- how many rules judge each request or connection?
                    |    +---------------- which hops are measured?
                    +--------------------- do they speak mutual TLS to each other?

`scenarios` gives the whole product. Nobody runs all of it: `QUICK` holds what the targets of the design need and is
done in minutes, `FULL` each setup under one reference load and the usual setup under every load. Any other scenario is
run by its name.
"""

from __future__ import annotations

import dataclasses
import enum
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

RULES: Final = (0, 10, 1_000)
SIDES: Final = ("both", "client", "server")
CONNECTIONS: Final = (1, 8, 32, 64)
PAYLOADS: Final = {"0B": 0, "1KiB": 1_024, "64KiB": 65_536, "10MB": 10_000_000}
LATENCY_RATE: Final = 2_000
MESSAGE_BYTES: Final = 64
"""A small message: what a key-value store is asked, far below a segment."""
BULK_BYTES: Final = 10_000_000

FORWARDERS: Final = ("asyncio", "uvloop")
REMORA: Final = ("remora-tcp", "remora-http")
COMPILED: Final = "remora-compiled"
"""As `remora-http`, with the byte path compiled; measured where that one has its policy and its log."""
HTTP_PEERS: Final = ("envoy", "nginx-json", "nginx", "haproxy")
TUNNELS: Final = ("nginx-tcp", "stunnel", "ghostunnel")
TCP_PEERS: Final = ("envoy-tcp", "haproxy-tcp", *TUNNELS)
TCP_ONLY: Final = (*FORWARDERS, "remora-tcp", *TCP_PEERS)
"""Whoever passes bytes on without reading HTTP; HTTP goes through these too."""


class Tier(enum.IntEnum):
    """How often a scenario is run: always, with --full, or by its name."""

    QUICK = 0
    FULL = 1
    NAMED = 2


class Kind(enum.Enum):
    """The kinds of load."""

    CAPACITY = "capacity"
    LATENCY = "latency"
    ROUNDTRIPS = "roundtrips"
    BULK = "bulk"
    HANDSHAKES = "handshakes"
    IDLE = "idle"
    START = "start"

    @property
    def http(self) -> bool:
        """Say whether requests are HTTP."""
        return self in (Kind.CAPACITY, Kind.LATENCY, Kind.HANDSHAKES)

    @property
    def alone(self) -> bool:
        """Say whether one sidecar is measured by itself, without rounds among others."""
        return self in (Kind.IDLE, Kind.START)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: `connections` at once, `payload` bytes of each answer, `rate` a second (0: as fast as it goes)."""

    kind: Kind
    connections: int = 1
    payload: int = 0
    rate: int = 0

    @property
    def name(self) -> str:
        """Name it, as the first part of a scenario's name.

        >>> Load(kind=Kind.CAPACITY, connections=8, payload=1024).name
        'capacity-c8-1KiB'
        """
        match self.kind:
            case Kind.CAPACITY:
                size = next(name for name, size in PAYLOADS.items() if size == self.payload)
                return f"capacity-c{self.connections}-{size}"
            case Kind.LATENCY:
                return f"latency-{self.rate}rps-c{self.connections}"
            case Kind.IDLE:
                return f"idle-{self.connections}"
            case Kind.START:
                return "start"
            case _:
                return f"{self.kind.value}-c{self.connections}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Who stands between load and application; sides "none" is nobody, and then nothing else counts.

    With one side, the other half of the mutual TLS is done by a helper on the load's core, which is not measured.
    `pooled` is False where every connection of the load is one between the hops too, with a handshake of its own.
    `workers` are the processes or threads of each hop, 1 in every scenario of the suite.
    """

    contender: str
    tls: bool = True
    sides: str = "both"
    rules: int = 0
    log: bool = False
    pooled: bool = True
    workers: int = 1

    @property
    def name(self) -> str:
        """Name it, as the rest of a scenario's name."""
        if self.sides == "none":
            return "no-proxy"
        words = ("mtls" if self.tls else "plain", self.sides, f"{self.rules}-rules", "log" if self.log else "no-log")
        return "/".join((*words, self.contender))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One setup under one load."""

    load: Load
    setup: Setup
    tier: Tier

    @property
    def name(self) -> str:
        """Name it: the load, then the setup."""
        return f"{self.load.name}/{self.setup.name}"

    @property
    def block(self) -> tuple[bool, str, bool]:
        """Tell which scenarios are run in the same rounds: they differ in contender, rules, log and load."""
        # Baselines and floors belong to both hops with mutual TLS, because that is what is compared with them.
        setup = self.setup
        sides = "both" if setup.sides == "none" else setup.sides
        return self.load.kind.http, sides, setup.tls or setup == usual(setup.contender)


NOBODY: Final = Setup(contender="none", sides="none", tls=True)
REFERENCE: Final = Load(kind=Kind.CAPACITY, connections=32)


def usual(contender: str) -> Setup:
    """Give the setup in which a contender is held against the others: all that it can do switched on.

    A peer that judges nothing has no rules, one without a log no log; forwarders of our own have no TLS, as a floor.
    """
    judges = contender.startswith(("remora", "envoy"))
    logs = judges or contender in ("nginx-json", "haproxy")
    return Setup(contender=contender, tls=contender not in FORWARDERS, rules=10 if judges else 0, log=logs)


def setups() -> Iterator[Setup]:
    """Give every setup: the cross of ours, and each peer's."""
    for tls in (True, False):
        for sides in SIDES:
            for contender in FORWARDERS:
                yield Setup(contender=contender, tls=tls, sides=sides)
            for contender in REMORA:
                for rules in RULES:
                    for log in (True, False):
                        yield Setup(contender=contender, tls=tls, sides=sides, rules=rules, log=log)
            yield Setup(contender=COMPILED, tls=tls, sides=sides, rules=10, log=True)
    for peer in (*HTTP_PEERS, *TCP_PEERS):
        yield usual(peer)
    yield Setup(contender="envoy", rules=1_000, log=True)


def scenarios() -> list[Scenario]:
    """Give the whole product, in the order in which a run goes through it."""
    found = [*_capacity(), *_latency(), *_handshakes(), *_tcp(), *_alone()]
    blocks: dict[tuple[bool, str, bool], list[Scenario]] = {}
    for scenario in found:
        blocks.setdefault(scenario.block, []).append(scenario)
    return [scenario for block in blocks.values() for scenario in block]


def select(found: Sequence[Scenario], pattern: str) -> list[Scenario]:
    """Give those whose name has the pattern in it, in which * and ? stand for any characters, or one.

    >>> [s.name for s in select(scenarios(), "start/")]
    ['start/mtls/both/2-rules/log/remora']
    """
    return [scenario for scenario in found if fnmatch.fnmatchcase(scenario.name, f"*{pattern}*")]


def _capacity() -> Iterator[Scenario]:
    quick = {usual(name) for name in ("remora-http", COMPILED, "uvloop", *HTTP_PEERS)}
    many = Setup(contender="remora-http", rules=1_000, log=True)
    compared = {usual(name) for name in ("remora-tcp", "remora-http", COMPILED, *FORWARDERS, *HTTP_PEERS)}
    beside = {usual(name) for name in ("remora-http", "envoy", "nginx-json")}
    for connections in CONNECTIONS:
        for payload in PAYLOADS.values():
            load = Load(kind=Kind.CAPACITY, connections=connections, payload=payload)
            needed = load == REFERENCE or load == Load(kind=Kind.CAPACITY)
            yield Scenario(load=load, setup=NOBODY, tier=Tier.QUICK if needed else Tier.FULL)
            for setup in setups():
                if load == REFERENCE:
                    tier = Tier.QUICK if setup in quick or setup == many else Tier.FULL
                elif connections == 1 and not payload and setup in beside:
                    tier = Tier.QUICK
                else:
                    tier = Tier.FULL if setup in compared else Tier.NAMED
                yield Scenario(load=load, setup=setup, tier=tier)


def _latency() -> Iterator[Scenario]:
    load = Load(kind=Kind.LATENCY, connections=16, rate=LATENCY_RATE)
    quick = {usual(name) for name in ("remora-http", "envoy", "nginx-json")}
    compared = {usual(name) for name in (*REMORA, COMPILED, *FORWARDERS, *HTTP_PEERS)}
    yield Scenario(load=load, setup=NOBODY, tier=Tier.QUICK)
    for setup in setups():
        tier = Tier.QUICK if setup in quick else Tier.FULL if setup in compared else Tier.NAMED
        yield Scenario(load=load, setup=setup, tier=tier)


def _handshakes() -> Iterator[Scenario]:
    """Give those in which each request has a connection of its own, and with it a handshake between the hops.

    Remora's HTTP hops keep a pool that cannot be switched off, so there a handshake for each request is one of the
    tunnel, or of one side with a helper that keeps nothing.
    """
    load = Load(kind=Kind.HANDSHAKES, connections=8)
    yield Scenario(load=load, setup=NOBODY, tier=Tier.FULL)
    for name in ("remora-tcp", "nginx", "envoy-tcp", "nginx-json", "haproxy", "haproxy-tcp", *TUNNELS):
        tier = Tier.QUICK if name in ("remora-tcp", "nginx", "nginx-tcp", "envoy-tcp") else Tier.FULL
        yield Scenario(load=load, setup=dataclasses.replace(usual(name), pooled=name in TCP_ONLY), tier=tier)
    for name in ("asyncio", "uvloop"):
        yield Scenario(load=load, setup=Setup(contender=name), tier=Tier.FULL)
    for name in ("remora-http", "envoy", "nginx-json"):
        yield Scenario(load=load, setup=dataclasses.replace(usual(name), sides="server"), tier=Tier.FULL)


def _tcp() -> Iterator[Scenario]:
    reference = Load(kind=Kind.ROUNDTRIPS, connections=32, payload=MESSAGE_BYTES)
    quick = {usual(name) for name in ("remora-tcp", "envoy-tcp")}
    for load in (
        reference,
        Load(kind=Kind.BULK, connections=1, payload=BULK_BYTES),
        *(Load(kind=Kind.ROUNDTRIPS, connections=count, payload=MESSAGE_BYTES) for count in CONNECTIONS if count != 32),
        Load(kind=Kind.BULK, connections=8, payload=BULK_BYTES),
    ):
        first = load == reference or (load.kind is Kind.BULK and load.connections == 1)
        yield Scenario(load=load, setup=NOBODY, tier=Tier.QUICK if first else Tier.FULL)
        for setup in setups():
            if setup.contender not in TCP_ONLY:
                continue
            if first and setup in quick:
                tier = Tier.QUICK
            elif setup == usual(setup.contender) or load == reference:
                tier = Tier.FULL
            else:
                tier = Tier.NAMED
            yield Scenario(load=load, setup=setup, tier=tier)


def _alone() -> Iterator[Scenario]:
    setup = Setup(contender="remora", rules=2, log=True)
    yield Scenario(load=Load(kind=Kind.IDLE, connections=400), setup=setup, tier=Tier.QUICK)
    yield Scenario(load=Load(kind=Kind.IDLE, connections=2_000), setup=setup, tier=Tier.FULL)
    yield Scenario(load=Load(kind=Kind.START), setup=setup, tier=Tier.QUICK)
