"""Never two leaders at one moment, however reads, writes and answers of replicas meet, and whatever their clocks say.

Each replica does what certs.election does, one step after the other: read the Lease, decide, send a write, hear of it.
Time goes by between any two of these, and an answer may be lost. A replica's monotonic clock begins anywhere and runs
up to a sixth too fast or too slow; its calendar says anything at all.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from certs.lease import Acquire, Lost, Renew, Terms, View, decide, leads, observe, released, renewed, stepped_down

EPOCH = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
FASTEST, SLOWEST = 1.16, 0.86
"""Their ratio is 1.35. From 1.5 on, which is 15 s of a Lease to 10 s of its renewal, nothing would be promised."""


class Server:
    """The Lease as the API server keeps it: a write for another version than the present one is refused."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def write(self, document: Mapping[str, object]) -> dict[str, Any] | None:
        """Take a write; None when somebody else was faster."""
        metadata: Any = document.get("metadata") or {}
        held = None if self.lease is None else self.lease["metadata"]["resourceVersion"]
        if metadata.get("resourceVersion") != held:
            return None
        self.version += 1
        self.lease = {**document, "metadata": {"resourceVersion": str(self.version)}}
        return self.lease


class Replica:
    """One replica between two of its moves: `sent` is a write under way, `stored` one whose answer is under way."""

    def __init__(self, name: str, server: Server, begin: float, rate: float) -> None:
        self.terms = Terms(me=name)
        self.server, self.begin, self.rate = server, begin, rate
        self.view = View()
        self.sent: tuple[Mapping[str, object], float, bool] | None = None
        self.stored: tuple[dict[str, Any] | None, float, bool] | None = None

    def local(self, at: float) -> float:
        return self.begin + self.rate * at

    def leads(self, at: float) -> bool:
        return leads(self.view, self.terms, self.local(at))

    def move(self, at: float, calendar: float, *, is_lost: bool, ends: bool) -> None:
        """Make the next move: begin a step, or let what is under way arrive."""
        local = self.local(at)
        if self.sent is not None:
            document, began, is_release = self.sent
            self.sent, self.stored = None, (self.server.write(document), began, is_release)
        elif self.stored is not None:
            (lease, began, is_release), self.stored = self.stored, None
            if lease is not None and not is_lost and not is_release:
                self.view = renewed(self.view, lease, began)
        else:
            self._begin(local, EPOCH + datetime.timedelta(seconds=calendar), ends=ends)

    def _begin(self, local: float, now: datetime.datetime, *, ends: bool) -> None:
        lease = self.server.lease
        if ends and leads(self.view, self.terms, local):
            self.view = stepped_down(self.view)
            if lease is not None and lease["spec"]["holderIdentity"] == self.terms.me:
                self.sent = released(lease, self.terms, now), local, True
            return
        self.view = observe(self.view, lease, local)
        decision = decide(lease, self.view, self.terms, now, local)
        if isinstance(decision, Lost):
            self.view = stepped_down(self.view)
        elif isinstance(decision, Acquire | Renew):
            self.sent = decision.document, local, False


Move = tuple[int, float, float, bool, bool]
"""Who moves, seconds after the move before, its calendar, whether an answer is lost, whether it would end its lead."""

pauses = st.sampled_from([0.0, 0.5, 2.0, 7.0, 9.0, 10.5, 12.5, 14.0, 15.1, 17.5]) | st.floats(0.0, 20.0)
runs = st.builds(
    lambda who, pause, gap, count, calendar, is_lost, ends: [
        (who, pause if number == 0 else gap, calendar, is_lost, ends) for number in range(count)
    ],
    st.integers(0, 2),
    pauses,
    st.sampled_from([0.0, 0.01, 0.01, 0.5, 3.0, 6.0]),
    st.integers(1, 4),
    st.floats(-1e6, 1e6),
    st.sampled_from([False] * 4 + [True]),
    st.sampled_from([False] * 9 + [True]),
)
"""Some moves of one replica: what it does is no more at random than its moments are."""
moves: st.SearchStrategy[list[Move]] = st.lists(runs, min_size=15, max_size=30).map(
    lambda parts: [one for run in parts for one in run]
)
rates = st.sampled_from([SLOWEST, 1.0, FASTEST]) | st.floats(SLOWEST, FASTEST)


def leaders_of(clocks: list[tuple[float, float]], steps: list[Move]) -> list[set[str]]:
    """Play the moves; who leads after each."""
    server, at, seen = Server(), 0.0, list[set[str]]()
    replicas = [Replica(name, server, *clock) for name, clock in zip("abc", clocks, strict=True)]
    for who, wait, calendar, is_lost, ends in steps:
        at += wait
        replicas[who].move(at, calendar, is_lost=is_lost, ends=ends)
        seen.append({replica.terms.me for replica in replicas if replica.leads(at)})
    return seen


@settings(derandomize=True, deadline=None, max_examples=800)
@given(clocks=st.lists(st.tuples(st.floats(0.0, 1e6), rates), min_size=3, max_size=3), steps=moves)
def test_never_two_leaders(clocks: list[tuple[float, float]], steps: list[Move]) -> None:
    assert all(len(leaders) <= 1 for leaders in leaders_of(clocks, steps))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    clocks=st.lists(st.tuples(st.floats(0.0, 1e6), rates), min_size=3, max_size=3),
    steps=moves,
    survivor=st.integers(0, 2),
    calendar=st.floats(-1e6, 1e6),
)
def test_one_that_goes_on_alone_leads_in_the_end(
    clocks: list[tuple[float, float]],
    steps: list[Move],
    survivor: int,
    calendar: float,
) -> None:
    alone = [(survivor, 0.5, calendar, False, False)] * 90
    assert leaders_of(clocks, [*steps, *alone])[-1] == {"abc"[survivor]}


def test_the_lead_changes_in_such_a_play() -> None:
    early, late = ([(who, 0.5, 0.0, False, False)] * 60 for who in (0, 1))
    seen = leaders_of([(0.0, 1.0), (500.0, FASTEST), (9.0, SLOWEST)], [*early, *late])
    assert [sorted(leaders) for leaders in (seen[59], seen[-1])] == [["a"], ["b"]]
