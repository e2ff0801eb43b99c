"""Whatever the order of time, clocks, confirmations, orders, issuance and crashes: nobody meets a leaf that it cannot
verify, unless an operator has named it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.rotation import (
    Confirmation,
    ConfirmedMany,
    Do,
    Event,
    Force,
    IntermediateMade,
    Pace,
    RootMade,
    Rotate,
    RotationError,
    RotationState,
    Status,
    Wanted,
    advance,
    begin,
    unconfirmed,
)
from certs.rotation_json import confirmations_from_json, confirmations_to_json, state_from_json, state_to_json

LEAF = 3_600.0
LIFE = 60_000.0
FAR = 10.0**10
WINDOW = 20_000.0
SKEW = 600.0
"""How far the authority's clock goes from the true one, either way: as far as `Pace.margin` allows."""

NO_CRASH, TORN = -1, -2


@dataclass
class World:
    """An authority with a clock of its own, its disk, and sidecars that hold what they last fetched.

    `now` is the true time. `reports` is what the authority was told, `forced` whom an operator left behind.
    """

    now: float = 1_000.0
    skew: float = 0.0
    made: int = 0
    disk: bytes = b""
    known: bytes = b""
    held: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    reports: dict[str, tuple[int, float]] = field(default_factory=dict)
    forced: set[str] = field(default_factory=set)
    leaves: list[tuple[str, float]] = field(default_factory=list)  # root, end

    @property
    def clock(self) -> float:
        return self.now + self.skew

    @property
    def state(self) -> RotationState:  # read anew each time: a crash before every step
        state = state_from_json(self.disk, "state.json")
        return dataclasses.replace(state, confirmations=confirmations_from_json(self.known, "confirmations.json"))

    def write(self, state: RotationState) -> None:
        self.known = confirmations_to_json(state.confirmations)
        self.disk = state_to_json(state)

    def take(self, events: list[Event], crash_after: int = NO_CRASH) -> bool:
        try:
            steps = advance(self.state, self.clock, events)
        except RotationError:
            return False
        for count, (state, action) in enumerate(steps):
            if crash_after == TORN:
                self.known = confirmations_to_json(state.confirmations)
                return False
            before = self.state
            self.write(state)
            self.check(before, state)
            if count == crash_after:
                return True
            if action.do is Do.MAKE_ROOT:
                self.made += 1
                self.take([RootMade(name=f"root{self.made}", not_after=FAR)], crash_after)
            elif action.do is Do.MAKE_INTERMEDIATE:
                self.made += 1
                self.take([self.intermediate(action.signer)], crash_after)
        return True

    def intermediate(self, root: str) -> IntermediateMade:
        clock = self.clock
        return IntermediateMade(name=f"int{self.made}", root=root, not_before=clock, not_after=clock + LIFE)

    def check(self, before: RotationState, after: RotationState) -> None:
        changed = before.bundle != after.bundle
        assert after.sequence == before.sequence + changed
        for root, end in self.leaves:
            assert end <= self.now or root in after.bundle, "a root left while a leaf under it lives"
        assert after.active.root in after.bundle
        assert sum(signer.status is Status.ACTIVE for signer in after.roots) == 1
        assert not after.removed & set(after.bundle)
        if before.active.root != after.active.root:
            for sidecar, (sequence, seen_at) in self.reports.items():
                is_recent = seen_at > self.now - WINDOW + 2 * SKEW
                waited = sequence >= before.sequence or sidecar in before.left_behind
                assert waited or not is_recent, f"nobody waited for {sidecar}"

    def issue(self) -> None:
        active = self.state.active
        end = min(self.clock + LEAF, active.not_after)
        if end > self.clock:
            self.write(self.state.with_ends({active.name: end}))
            self.leaves.append((active.root, end))
            self.verify()

    def fetch(self, sidecar: str) -> None:
        state = self.state
        self.held[sidecar] = (frozenset(state.bundle), self.now)
        self.forced.discard(sidecar)
        self.report(sidecar, state.sequence)
        self.verify()

    def report(self, sidecar: str, sequence: int) -> None:
        self.reports[sidecar] = (sequence, self.now)
        assert self.take([ConfirmedMany(reports={sidecar: Confirmation(sequence=sequence, seen_at=self.clock)})])

    def force(self, *, all_of_them: bool) -> None:
        named = frozenset(unconfirmed(self.state, self.clock)[: None if all_of_them else 1])
        if self.take([Force(left_behind=named)]):
            self.forced |= named

    def verify(self) -> None:
        for sidecar, (roots, seen_at) in self.held.items():
            if seen_at <= self.now - WINDOW + 2 * SKEW or sidecar in self.forced:
                continue
            for root, end in self.leaves:
                assert end <= self.now or root in roots, f"{sidecar}, in the window, cannot verify a leaf"


STEPS = st.one_of(
    st.tuples(st.just("time"), st.sampled_from([1, 100, 1_000, 5_000, 20_000])),
    st.tuples(st.just("clock"), st.sampled_from([-1, 0, 1])),
    st.tuples(st.just("fetch"), st.integers(0, 2)),
    st.tuples(st.just("older"), st.integers(0, 2)),
    st.tuples(st.just("force"), st.integers(0, 1)),
    st.tuples(st.just("issue"), st.just(0)),
    st.tuples(st.just("root"), st.integers(TORN, 2)),
    st.tuples(st.just("intermediate"), st.integers(TORN, 2)),
    st.tuples(st.just("go"), st.integers(TORN, 2)),
)


def new_world() -> World:
    world = World()
    root = RootMade(name="root0", not_after=FAR)
    world.write(begin(root, world.intermediate("root0"), world.now, Pace(window=WINDOW, margin=SKEW)))
    return world


LEAF_OF_THE_OLD_ROOT_AND_A_FAST_CLOCK = [
    *[("root", NO_CRASH), ("time", 1_000), ("issue", 0), ("go", NO_CRASH)],
    *[("time", 1_000)] * 3,
    *[("clock", 1), ("go", NO_CRASH)],
]
A_SIDECAR_THAT_WENT_BACK = [
    *[("fetch", 0), ("root", NO_CRASH), ("fetch", 0), ("older", 0)],
    *[("time", 1_000), ("go", NO_CRASH)],
]
ONE_OF_TWO_LEFT_BEHIND = [
    *[("fetch", 0), ("fetch", 1), ("root", NO_CRASH), ("time", 1_000)],
    *[("force", 0), ("go", NO_CRASH), ("fetch", 1), ("go", NO_CRASH), ("issue", 0), ("fetch", 0)],
]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=60))
@example(LEAF_OF_THE_OLD_ROOT_AND_A_FAST_CLOCK)
@example(A_SIDECAR_THAT_WENT_BACK)
@example(ONE_OF_TWO_LEFT_BEHIND)
def test_no_interleaving_breaks_an_invariant(steps: list[tuple[str, int]]) -> None:
    world = new_world()
    for what, value in steps:
        if what == "time":
            world.now += value
        elif what == "clock":
            world.skew = value * SKEW
        elif what == "fetch":
            world.fetch(f"sidecar{value}")
        elif what == "older":
            world.report(f"sidecar{value}", max(0, world.state.sequence - 1))
        elif what == "force":
            world.force(all_of_them=bool(value))
        elif what == "issue":
            world.issue()
        elif what == "go":
            world.take([], value)
        else:
            world.take([Rotate(what=Wanted(what))], value)
        again = advance(world.state, world.clock)
        if again and again[0][0] != world.state:
            continue  # a crash left steps to do
        assert all(state == world.state for state, _ in again)


def test_a_root_rotates_to_its_end() -> None:
    world = new_world()
    world.fetch("sidecar0")
    world.issue()
    world.take([Rotate(what=Wanted.ROOT)])
    assert list(world.state.bundle) == ["root0", "root1"]
    world.now += 899
    world.fetch("sidecar0")
    world.take([])
    assert world.state.active.root == "root0"
    world.now += 1
    world.take([])
    assert world.state.active.root == "root1"
    world.now += LEAF
    world.take([])
    assert list(world.state.bundle) == ["root1"]
    assert world.state.sequence == 3


def test_the_world_finds_a_root_that_is_used_too_early() -> None:
    world = new_world()
    world.fetch("sidecar0")
    world.take([Rotate(what=Wanted.ROOT)])
    world.now += 1_000
    before = world.state
    early = dataclasses.replace(before, confirmations={"sidecar0": Confirmation(sequence=2, seen_at=world.now)})
    after = advance(early, world.clock, [world.intermediate("root1")])[-1][0]
    with pytest.raises(AssertionError, match="nobody waited for sidecar0"):
        world.check(before, after)
