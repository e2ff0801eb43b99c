"""Every micro benchmark's case can be built and called, and rounds are taken in turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import micro_bytes, micro_cases
from benchmarks.heads import BROWSER, CLIENTS, JAVA, Client
from benchmarks.host import Build, Cores, Machine
from benchmarks.micro import BATCH_NS, Measured, Micro, as_json, as_text, batch, calls_of_a_batch, choose, measure
from benchmarks.micro_world import LIMITS, Case, Closing, World
from benchmarks.processes import BenchError
from proxy.protocol.fast import HeadReader
from proxy.protocol.gate import parse_request_head
from proxy.protocol.path import PathNormalization

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)


class Ticking:
    """A clock that goes on by as much as the work that was called says."""

    def __init__(self) -> None:
        self.now = 0
        self.called: list[str] = []

    def __call__(self) -> int:
        return self.now

    def case(self, name: str, nanoseconds: int) -> Case:
        def call() -> None:
            self.now += nanoseconds
            if not self.called or self.called[-1] != name:
                self.called.append(name)

        return Case(name=name, what="", call=call)


def test_rounds_go_through_all_cases_in_turn() -> None:
    clock = Ticking()
    wanted = [clock.case("a", 1_000), clock.case("b", 250_000)]
    measured = measure(wanted, 3, lambda _: None, clock)
    assert clock.called == ["a", "b"] * 4  # once to warm up
    assert [(item.name, list(item.rounds)) for item in measured] == [("a", [1_000.0] * 3), ("b", [250_000.0] * 3)]


def test_a_batch_is_long_enough_to_be_counted() -> None:
    clock = Ticking()
    assert calls_of_a_batch(clock.case("a", 1_000).call, clock) == BATCH_NS // 1_000
    assert calls_of_a_batch(clock.case("slow", BATCH_NS).call, clock) == 10
    assert batch(clock.case("a", 70).call, 5, clock) == 70.0


def test_cases_are_chosen_by_a_word_or_a_pattern() -> None:
    known = [Case(name=name, what="", call=lambda: None) for name in ("gate/curl", "fast/curl", "fast/java")]
    assert [case.name for case in choose(known, "curl")] == ["gate/curl", "fast/curl"]
    assert [case.name for case in choose(known, "fast/*")] == ["fast/curl", "fast/java"]
    with pytest.raises(BenchError, match="gate/curl, fast/curl"):
        choose(known, "slow")


def test_every_case_can_be_called(tmp_path: Path) -> None:
    with Closing() as closing:
        world = World(tmp_path, closing)
        cases = [*micro_cases.cases(world), *micro_bytes.cases(world, closing)]
        names = [case.name for case in cases]
        assert len(names) == len(set(names))
        for sort in (
            "detect",
            "gate",
            "fast",
            "rewrite",
            "decide",
            "token",
            "record",
            "metrics",
            "tls",
            "wire",
            "pool",
        ):
            assert any(name.startswith(f"{sort}/") for name in names), sort
        for case in cases:
            for _ in range(3):
                case.call()


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_heads_are_what_the_gate_accepts_and_the_fast_path_knows(client: Client) -> None:
    head = client.head(7, host="orders:9000")
    parsed = parse_request_head(head, limits=LIMITS, normalization=PathNormalization.BASE)
    assert (parsed.path, parsed.authority) == (b"/orders/7", b"orders:9000")
    assert HeadReader().try_request_head(head, LIMITS, PathNormalization.BASE, 1) == parsed


def test_heads_are_of_the_sizes_that_they_stand_for() -> None:
    assert len(BROWSER.fields) == 15
    assert len(BROWSER.head(1)) > 1_024
    assert JAVA.head(1) != JAVA.head(2)
    assert b"x-request-id" in JAVA.head(1).lower()


def test_what_was_measured_is_told_to_people_and_to_programs() -> None:
    found = Micro(machine=MACHINE, measured=[Measured(name="gate/x", what="reads x", rounds=[3.0, 1.0, 2.0])])
    assert "gate/x" in as_text(found)
    assert "2 ns (1 to 3)" in as_text(found)
    assert json.loads(as_json(found))["cases"] == [
        {
            "name": "gate/x",
            "what": "reads x",
            "rounds": [3.0, 1.0, 2.0],
            "figure": {"median": 2.0, "lowest": 1.0, "highest": 3.0},
        }
    ]
