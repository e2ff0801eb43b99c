"""Policy or trust changes at every point while connections are set up: none slips through, and none is lost.

The tasks, the registry, the judging and the forwarders are the real ones; handshakes, dials and wires are the play's,
and so is the order in which everything happens (`own_scheduler`).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from fake_clock import FakeClock
from own_scheduler import Choose, StepLoop, every_order, some_orders
from stage import StageWire

from certs.spiffe import SpiffeId, TrustDomain
from proxy import connection as page
from proxy.accept.first_bytes import FirstLook
from proxy.config import Address, load_config
from proxy.connection import Inbound
from proxy.detect import Opening, Opens
from proxy.errors import HandshakeError, Reason
from proxy.interfaces import ByteEnd
from proxy.policy import PolicyDefault, PolicySettings, PolicySnapshot, Workload, load
from proxy.runtime.wire import LoopWire
from proxy.sidecar import Arrival, Sidecar
from proxy.types import Generation, PeerIdentity, Protocol

CONFIG = load_config(
    b"workload: {namespace: demo, service_account: orders}\n"
    b"identity: {files: {directory: /none}}\n"
    b"inbound: {ports: [{listen: '127.0.0.1:1', port: 1, app: '127.0.0.1:2', protocol: tcp},\n"
    b"                  {listen: '127.0.0.1:3', port: 2, app: '127.0.0.1:4', protocol: auto},\n"
    b"                  {listen: '127.0.0.1:5', port: 3, app: '127.0.0.1:6', protocol: http}]}\n"
    b"policy: {directory: /none}\n"
    b"telemetry: {access_log: 'off'}\n",
    "play.yaml",
)
PORTS = {port.protocol: port for port in CONFIG.inbound}

WEB, BATCH = "spiffe://cluster.local/ns/demo/sa/web", "spiffe://cluster.local/ns/demo/sa/batch"
PARTNER = "spiffe://neighbour.local/ns/demo/sa/partner"


# --- what is in force ------------------------------------------------------------------------------------------------


def compiled(mode: str, rule: str) -> PolicySnapshot:
    head = "apiVersion: security.istio.io/v1\nmetadata: {name: p, namespace: demo}\n"
    return load(
        {
            "peers.yaml": f"{head}kind: PeerAuthentication\nspec: {{mtls: {{mode: {mode}}}}}\n".encode(),
            "rules.yaml": f"{head}kind: AuthorizationPolicy\nspec: {{rules: [{rule}]}}\n".encode(),
        },
        workload=Workload(
            namespace="demo",
            service_account="orders",
            name="orders",
            labels={},
            trust_domain=TrustDomain("cluster.local"),
        ),
        settings=PolicySettings(default=PolicyDefault.DENY),
        generation=Generation(1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """A policy and a trust, and, in words of the test and not of the code, who may have an open connection under it."""

    name: str
    policy: PolicySnapshot
    trusts: frozenset[str]
    keeps_opaque: frozenset[str | None]
    keeps_http: frozenset[str | None]

    def keeps(self, caller: str | None, protocol: Protocol) -> bool:
        return caller in (self.keeps_http if protocol is Protocol.HTTP else self.keeps_opaque)


EVERYBODY = frozenset({None, WEB, BATCH, PARTNER})
DOMAINS = frozenset({"cluster.local", "neighbour.local"})
OPEN = InForce(
    name="open",
    policy=compiled("PERMISSIVE", "{}"),
    trusts=DOMAINS,
    keeps_opaque=EVERYBODY,
    keeps_http=EVERYBODY,
)
STRICT = InForce(
    name="strict",
    policy=compiled("STRICT", "{}"),
    trusts=DOMAINS,
    keeps_opaque=EVERYBODY - {None},
    keeps_http=EVERYBODY - {None},
)
ONLY_WEB = InForce(
    name="only web",
    policy=compiled("PERMISSIVE", "{from: [{source: {serviceAccounts: [web]}}]}"),
    trusts=DOMAINS,
    keeps_opaque=frozenset({WEB}),
    keeps_http=EVERYBODY,  # its requests are denied one by one
)
NO_NEIGHBOUR = InForce(
    name="no neighbour",
    policy=compiled("PERMISSIVE", "{}"),
    trusts=frozenset({"cluster.local"}),
    keeps_opaque=EVERYBODY - {PARTNER},
    keeps_http=EVERYBODY - {PARTNER},
)


# --- the world of one play -------------------------------------------------------------------------------------------


class Sock:
    """What is asked of a socket while a connection is set up; `dialled` are those to the application in this play."""

    ports = itertools.count(40_000)
    dialled: ClassVar[list[Sock]] = []

    def __init__(self, caller: str | None = None) -> None:
        self.caller = caller
        self.address = ("10.0.0.7", next(self.ports))
        self.closed = False
        self.wire: PlayWire | None = None

    def getpeername(self) -> tuple[str, int]:
        return self.address

    def getsockname(self) -> tuple[str, int]:
        return "10.0.0.8", 8080

    def recv(self, size: int) -> bytes:
        raise AssertionError("a wire of the stage reads no socket")

    send = recv

    def close(self) -> None:
        self.closed = True


class PlayWire(StageWire):
    """A wire of the stage on a socket of the play."""

    def __init__(self, sock: Sock) -> None:
        super().__init__("wire")
        self.sock = sock
        self.end = None

    @property
    def socket(self) -> Any:
        return self.sock

    def close(self) -> None:
        super().close()
        self.sock.close()


class PlaySidecar(Sidecar):
    """A sidecar whose wires are those of the play."""

    def wire(self, sock: Any, end: ByteEnd) -> LoopWire:
        sock.wire = PlayWire(sock)
        return cast(LoopWire, sock.wire)


class LateSidecar(PlaySidecar):
    """What must not be: a connection is entered when it has been set up."""

    def serve(
        self,
        sock: Any,
        direction: str,
        cluster: str,
        work: Callable[[Arrival], Coroutine[Any, Any, None]],
        destination: Address | None = None,
    ) -> bool:
        arrival = self._arrive(sock, direction, cluster, destination)
        assert arrival is not None

        async def enter_late() -> None:
            await self._set_up(arrival, work)
            self.registry.add(arrival.entry)

        self.tasks.spawn(enter_late(), "late")
        return True


@dataclass(slots=True)
class Caller:
    """Who connects, and to what; `met` is what was in force from its arrival on."""

    identity: str | None
    protocol: Protocol
    sock: Sock
    met: list[InForce]
    speaks: bool = False

    @property
    def is_open(self) -> bool:
        return bool(self.met) and not self.sock.closed


class World:
    """Connections that come and changes that happen, in the order that `choose` wants."""

    def __init__(self, kind: type[Sidecar], callers: Sequence[tuple[str | None, Protocol]]) -> None:
        self.loop = loop = StepLoop()
        self.sidecar = kind(CONFIG, loop.face)
        self.sidecar.clock = cast(Any, FakeClock())
        self.lines: list[str] = []
        self.sidecar.access_log = cast(Any, SimpleNamespace(sink=self.lines.append))
        self.ports = {protocol: Inbound(self.sidecar, port, cast(Any, port.app)) for protocol, port in PORTS.items()}
        self.callers = [Caller(identity, protocol, Sock(identity), []) for identity, protocol in callers]
        Sock.dialled = []
        self.in_force = OPEN
        self.take(OPEN)

    def take(self, change: InForce) -> None:
        """Bring something into force, as `Mounts` does it."""
        self.in_force = change
        trust = SimpleNamespace(
            vouches_for=lambda peer: peer.spiffe_id.trust_domain in change.trusts,
            reason_against=lambda _: Reason.TRUST_ENDED,
        )
        self.sidecar.tls = cast(Any, SimpleNamespace(trust=trust, generation=Generation(1)))
        self.sidecar.policy = change.policy
        for caller in self.callers:
            if caller.met:
                caller.met.append(change)
        self.sidecar.registry.judge_again()

    def arrive(self, caller: Caller) -> None:
        caller.met.append(self.in_force)
        self.ports[caller.protocol].admit(cast(Any, caller.sock))

    def speak(self, caller: Caller) -> None:
        """Say something that is no HTTP."""
        caller.speaks = True
        if caller.sock.wire is not None:
            caller.sock.wire.inbox.append(b"*1\r\n")

    def play(self, choose: Choose, changes: Sequence[InForce]) -> None:
        left = list(changes)
        while True:
            steps = self.loop.steps()
            for caller in self.callers:
                wire = caller.sock.wire
                if not caller.met:
                    steps.append(functools.partial(self.arrive, caller))
                elif wire is not None and caller.protocol is Protocol.AUTO and not (caller.speaks or wire.closed):
                    steps.append(functools.partial(self.speak, caller))
                elif wire is not None and wire.readable():
                    steps.append(wire.step_read)
            if left:
                steps.append(lambda: self.take(left.pop(0)))
            if not steps:
                return
            steps[choose(len(steps))]()

    def look(self) -> None:
        """Fail unless exactly those are open that may be."""
        records = [json.loads(line) for line in self.lines]
        assert not self.loop.faults
        for caller in self.callers:
            who = f"{caller.identity or 'nobody'} on {caller.protocol.value}, {[each.name for each in caller.met]}"
            told = [
                each["reason"]
                for each in records
                if each["downstream_remote_address"].endswith(str(caller.sock.address[1]))
            ]
            may_stay = [each.keeps(caller.identity, caller.protocol) for each in caller.met]
            if not may_stay[-1]:
                assert not caller.is_open, f"slipped through: {who}"
            elif all(may_stay):
                assert caller.is_open, f"closed for nothing: {who}, {told}"
            assert len(told) == (0 if caller.is_open else 1), f"{told}: {who}"
            assert "internal_error" not in told
        reached = [sock for sock in Sock.dialled if not sock.closed]
        carried = [each for each in self.callers if each.is_open and each.protocol is not Protocol.HTTP]
        assert len(reached) == len(carried)
        registered = self.sidecar.registry.count("inbound")
        assert registered == sum(caller.is_open for caller in self.callers)
        assert self.sidecar.handshaking == 0


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the play hold everything that takes time: first bytes, handshake, dial."""

    async def gate() -> None:
        await cast(StepLoop, cast(object, asyncio.get_running_loop())).gate()

    async def look_at(sock: Any, **_: Any) -> FirstLook:
        await gate()
        opens = Opens.PLAINTEXT if sock.caller is None else Opens.MESH_TLS
        return FirstLook(opening=Opening(opens=opens))

    async def perform(session: Any, sock: Any, *, timeout: float) -> None:  # noqa: ASYNC109
        await gate()
        if sock.caller is None:
            raise HandshakeError("plaintext on a port that takes none", Reason.NOT_TLS)

    async def dial(host: str, port: int, *, seconds: float, source: str = "") -> Any:
        await gate()
        Sock.dialled.append(Sock())
        return Sock.dialled[-1]

    def session(tls: Any, sock: Any, **_: Any) -> Any:
        peer = PeerIdentity(
            spiffe_id=SpiffeId.parse(sock.caller or WEB), not_after=4_102_444_800.0, serial="01", fingerprint="00" * 32
        )
        return SimpleNamespace(peer=peer, sni="", release=lambda: None)

    for name, fake in (("look_at", look_at), ("perform", perform), ("dial", dial), ("Session", session)):
        monkeypatch.setattr(page, name, fake)


def judged_again(
    callers: Sequence[tuple[str | None, Protocol]], changes: Sequence[InForce], kind: type[Sidecar] = PlaySidecar
) -> Callable[[Choose], None]:
    def play(choose: Choose) -> None:
        world = World(kind, callers)
        asyncio._set_running_loop(world.loop.face)
        try:
            world.play(choose, changes)
        finally:
            asyncio._set_running_loop(None)
        world.look()

    return play


ONE = [
    pytest.param(caller, protocol, id=f"{(caller or 'nobody').rpartition('/')[2]}-{protocol.value}")
    for caller in (None, WEB, BATCH, PARTNER)
    for protocol in Protocol
]
CHANGES = [
    pytest.param(changes, id="-".join(change.name.replace(" ", "_") for change in changes))
    for changes in (
        (STRICT,),
        (ONLY_WEB,),
        (NO_NEIGHBOUR,),
        (STRICT, OPEN),
        (ONLY_WEB, STRICT),
        (NO_NEIGHBOUR, ONLY_WEB),
    )
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(("caller", "protocol"), ONE)
def test_a_change_at_every_point_of_one_connection(
    caller: str | None, protocol: Protocol, changes: tuple[InForce, ...]
) -> None:
    orders = every_order(judged_again([(caller, protocol)], changes))
    assert orders >= 5


def test_two_connections_and_a_change_in_every_order() -> None:
    assert every_order(judged_again([(None, Protocol.TCP), (WEB, Protocol.HTTP)], [STRICT])) > 1_000


def test_many_connections_and_changes_in_many_orders() -> None:
    everybody = [(caller, protocol) for caller in (None, WEB, BATCH, PARTNER) for protocol in Protocol]
    some_orders(judged_again(everybody, [ONLY_WEB, OPEN, STRICT, NO_NEIGHBOUR]), 1_500)


@pytest.mark.parametrize(("caller", "changes"), [(None, [STRICT]), (BATCH, [ONLY_WEB]), (PARTNER, [NO_NEIGHBOUR])])
def test_a_registration_that_comes_too_late_is_found_out(caller: str | None, changes: list[InForce]) -> None:
    """The scheduler is worth something: let the entry come after the judgement, and it finds who slips through."""
    with pytest.raises(AssertionError, match="slipped through"):
        every_order(judged_again([(caller, Protocol.TCP)], changes, LateSidecar))
