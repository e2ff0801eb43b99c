"""Replicas of an authority over one API server, each with its own wall clock, for the tests of certs.state_kube."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

import kube_server
from authority_steps import SOURCE

from certs.authority import Authority
from certs.election import Election
from certs.kube import KubeClient, KubeServer
from certs.kube_place import Place
from certs.lease import Acquire, Decision, Terms, Wait
from certs.rotation import Action, Do, Event, advance, begin
from certs.signers import intermediate_made, root_made, signer_name
from certs.spiffe import parse_trust_domain
from certs.state_kube import KubeStore
from certs.state_store import IssuedEntry

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
AT = NOW.timestamp()
HOUR = 3_600.0
OLD = Authority.create(parse_trust_domain("cluster.local"), NOW)
NEW = Authority.create(parse_trust_domain("cluster.local"), NOW)
NAMESPACE = "remora"


@dataclass
class Clock:
    """The seconds that all replicas live in; `skew` of a replica is what its wall clock adds to them."""

    local: float = 1_000.0

    def __call__(self) -> float:
        return self.local


@dataclass
class Replica:
    """One replica: its part in the election, its store, and a wall clock that may be wrong."""

    name: str
    client: KubeClient
    clock: Clock
    skew: float = 0.0
    election: Election = field(init=False)
    store: KubeStore = field(init=False)

    def __post_init__(self) -> None:
        self.election = Election(self.client, NAMESPACE, "remora-authority", Terms(me=self.name), self.clock)
        self.store = a_store(self.client, self.name, self.clock, self.election.leads)

    @property
    def now(self) -> float:
        return AT + self.clock.local + self.skew

    def elect(self) -> Decision:
        return self.election.step(datetime.datetime.fromtimestamp(self.now, datetime.UTC))

    def follow(self, *events: Event) -> list[Action]:
        """Load, decide and write, as the leader does at each turn."""
        done = []
        for state, action in advance(self.store.load(), self.now, events):
            self.store.save(state)
            if action.do in (Do.DESTROY_KEY, Do.PUBLISH) and action.signer:
                self.store.destroy_key(action.signer)
            done.append(action)
        return done

    def sign(self, serial: str, lifetime: float = 24 * HOUR) -> float:
        """Record a leaf of OLD.intermediate; return its end."""
        self.store.load()
        end = self.now + lifetime
        self.store.record(entry(serial, end))
        return end


def a_store(
    client: KubeClient, name: str, clock: Clock | None = None, leads: Callable[[], bool] = lambda: True
) -> KubeStore:
    """The store of a replica, which leads unless something else is said."""
    return KubeStore(client, Place(namespace=NAMESPACE, replica=name), SOURCE, leads=leads, clock=clock or Clock())


def entry(serial: str, end: float, issuer: str = "") -> IssuedEntry:
    """A leaf, of OLD.intermediate unless something else is said."""
    identity = "spiffe://cluster.local/ns/demo/sa/orders"
    signer = issuer or signer_name(OLD.intermediate)
    return IssuedEntry(serial=serial, identity=identity, key="ab" * 32, not_after=end, issuer=signer)


def client_of(kube: kube_server.KubeServer) -> KubeClient:
    """A client of the stand-in."""
    return KubeClient(KubeServer(url=kube.url, token=kube.token, timeout=5.0))


def founded_pair(client: KubeClient, clock: Clock) -> tuple[Replica, Replica]:
    """Two replicas of an authority that was made from OLD: the first leads."""
    maker = a_store(client, "init")
    maker.add_signer(OLD.root, OLD.root_key)
    maker.add_signer(OLD.intermediate, OLD.intermediate_key)
    maker.save(begin(root_made(OLD.root), intermediate_made(OLD.intermediate, OLD.root), AT))
    first, second = Replica("a", client, clock), Replica("b", client, clock)
    assert isinstance(first.elect(), Acquire)
    assert isinstance(second.elect(), Wait)
    first.store.load()
    second.store.load()
    return first, second


def names(kube: kube_server.KubeServer, part: str) -> list[str]:
    """The names of the objects that have this part in their name."""
    return sorted(name for _, _, name in kube.objects if part in name)
