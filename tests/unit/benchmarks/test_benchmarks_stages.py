"""The stage timers count what they should, the table of timed functions fits the sidecar, and the sums are judged."""

from __future__ import annotations

import dataclasses
import doctest
import json
import time
import types
from typing import Any

import pytest

from benchmarks import stages_timers
from benchmarks.heads import CURL
from benchmarks.host import Build, Cores, Machine
from benchmarks.processes import BenchError
from benchmarks.stages import silent_stages
from benchmarks.stages_records import TlsCost
from benchmarks.stages_report import (
    DECRYPT,
    ENCRYPT,
    LOG_THREAD,
    Decomposition,
    Plan,
    Stages,
    as_json,
    as_text,
    check,
    decomposition,
    document,
    per_request,
)
from benchmarks.stages_sidecar import (
    METRICS,
    PARSE,
    PLACES,
    POLICY,
    READ,
    STAGES,
    TLS_READ,
    TLS_WRITE,
    WRITE,
    NoPlace,
    Readings,
    Timed,
    dump,
    find,
    install,
    load,
)
from benchmarks.stages_timers import (
    LOOP,
    PROBE,
    Cost,
    Reading,
    Shares,
    StageTimers,
    call_cost,
    gap,
    share_out,
    signature_text,
)

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)
COST = Cost(inside=100.0, outside=200.0)


class Clocks:
    """Two clocks that go on when they are told to: the wall's, and the CPU's of this thread."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0

    def work(self, nanoseconds: int) -> None:
        self.wall += nanoseconds
        self.cpu += nanoseconds

    def lose(self, nanoseconds: int) -> None:
        self.wall += nanoseconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clocks.wall)
    monkeypatch.setattr(time, "thread_time_ns", lambda: clocks.cpu)
    return clocks


# --- timers -----------------------------------------------------------------------------------------------------------


def test_time_is_charged_to_the_innermost_stage_and_once(clocks: Clocks) -> None:
    timers = StageTimers(["outer", "inner"])

    def inner(amount: int) -> int:
        clocks.work(amount)
        return amount

    timed_inner = timers.timed(inner, "inner")

    def outer(*, first: int, second: int = 7) -> int:
        clocks.work(100)
        found = int(timed_inner(first)) + int(timed_inner(amount=second))
        clocks.work(200)
        return found

    assert timers.callback(outer, "outer")(first=20) == 27
    reading = timers.read()
    assert list(reading.spent) == [300, 27, 0, 0]
    assert list(reading.calls) == [1, 2, 0, 0]
    assert list(reading.within) == [2, 0, 0, 0]
    assert (reading.callbacks, reading.dropped, reading.kept) == (1, 0, 1)


def test_what_lies_between_callbacks_is_the_loop_and_waiting_is_not(clocks: Clocks) -> None:
    timers = StageTimers(["work"])
    callback = timers.gap(clocks.work)
    callback(50)
    clocks.work(400)
    clocks.lose(1_000_000)
    callback(50)
    reading = timers.read()
    assert (reading.gaps_ns, reading.callbacks) == (400, 2)


def test_a_callback_within_another_has_no_gap_before_it(clocks: Clocks) -> None:
    timers = StageTimers(["work"])
    inner = timers.gap(clocks.work)

    def outer() -> None:
        clocks.work(70)
        inner(30)

    timers.gap(outer)()
    assert (timers.gaps, timers.callbacks) == (0, 1)


def test_with_probes_on_half_of_the_gaps_are_only_what_looking_costs(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks() -> int:
        clocks.work(5)
        return clocks.cpu

    monkeypatch.setattr(time, "thread_time_ns", looks)
    timers = StageTimers(["work"])
    callback = timers.gap(clocks.work)
    stretches = []
    for probing in (False, True):
        timers.probe(on=probing)
        timers.left = looks()
        before = timers.read()
        timers.left = looks()
        for _ in range(3):
            clocks.work(40)
            callback(1_000)
        stretches.append(timers.read().since(before))
    assert [item.callbacks for item in stretches] == [3, 6]
    assert gap(*stretches) == pytest.approx(40)


def test_a_callback_that_was_interrupted_is_dropped(clocks: Clocks) -> None:
    timers = StageTimers(["work", "part"])
    part = timers.timed(clocks.work, "part")

    def work(lost: int) -> None:
        clocks.work(75)
        part(25)
        clocks.lose(lost)

    callback = timers.callback(work, "work")
    callback(0)
    callback(2_000_000)
    reading = timers.read()
    assert list(reading.spent[:2]) == [75, 25]
    assert list(reading.calls[:2]) == [1, 1]
    assert (reading.callbacks, reading.dropped, reading.kept) == (2, 1, 1)


def test_a_callback_within_another_is_a_timed_call(clocks: Clocks) -> None:
    timers = StageTimers(["outer", "inner"])
    inner = timers.callback(clocks.work, "inner")
    timers.callback(lambda: inner(30), "outer")()
    assert (timers.callbacks, timers.counts[:2]) == (1, [0, 30])


def test_outside_of_callbacks_nothing_is_timed(clocks: Clocks) -> None:
    timers = StageTimers(["work"])
    timers.timed(clocks.work, "work")(500)
    assert timers.counts == [0] * 9


def test_a_stage_is_closed_when_its_function_raises(clocks: Clocks) -> None:
    timers = StageTimers(["outer", "inner"])

    def fail() -> None:
        clocks.work(5)
        raise OSError("broken")

    timed_fail = timers.timed(fail, "inner")

    def outer() -> None:
        with pytest.raises(OSError, match="broken"):
            timed_fail()
        clocks.work(9)

    timers.callback(outer, "outer")()
    assert timers.counts[:2] == [9, 5]


def test_the_cost_of_timers_is_taken_off_where_it_fell() -> None:
    stretch = Reading(
        at_ns=0,
        process_ns=10_000,
        thread_ns=9_000,
        spent=[5_000, 1_000, 0, 0],
        calls=[1, 4, 0, 0],
        within=[4, 0, 0, 0],
        callbacks=4,
        dropped=1,
        gaps_ns=0,
        probing=False,
    )
    shares = share_out(stretch, ("outer", "inner", PROBE, LOOP), COST, 500.0)
    assert shares.stages == {"outer": 5_000 - 100 - 800, "inner": 1_000 - 400, LOOP: 1_500}
    assert (shares.threads, shares.timers) == (750, 1_300)
    assert shares.total == 4_100 + 600 + 1_500 + 750


def test_what_a_timed_call_costs_is_found_by_probes(clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks() -> int:
        clocks.work(7)  # half of a timer falls before the clock is read, half of it after
        clocks.wall, seen = clocks.wall + 6, clocks.wall
        return seen

    monkeypatch.setattr(time, "perf_counter_ns", looks)
    timers = StageTimers(["outer", "inner"])
    inner = timers.timed(clocks.work, "inner")

    def outer() -> None:
        clocks.work(100)
        inner(20)

    callback = timers.callback(outer, "outer")
    stretches = []
    for probing in (False, True):
        timers.probe(on=probing)
        before = timers.read()
        callback()
        callback()
        stretches.append(timers.read().since(before))
    without, probed = stretches
    cost = call_cost(without, probed, timers.stages)
    assert (cost.inside, cost.outside) == (13, 13)
    assert [item.probing for item in stretches] == [False, True]
    assert probed.calls[timers.stages.index(PROBE)] == 2 * sum(without.calls)
    assert share_out(without, timers.stages, cost, 0.0).stages == {"outer": 200, "inner": 40, LOOP: 0}


def test_probes_are_off_again_when_they_are_switched_off(clocks: Clocks) -> None:
    timers = StageTimers(["work"])
    callback = timers.callback(clocks.work, "work")
    timers.probe(on=True)
    timers.probe(on=False)
    callback(10)
    assert list(timers.read().calls) == [1, 0, 0]


def test_parameters_are_kept_with_their_defaults() -> None:
    def function(one: int, two: int = 2, *, three: int, four: int = 4) -> tuple[int, ...]:
        return one, two, three, four

    assert StageTimers(["x"]).timed(function, "x")(1, three=3) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="no timer"):
        signature_text(lambda *values: values)


# --- the table of timed functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.where)
def test_every_timed_function_is_there_and_has_a_stage(place: Timed) -> None:
    _, name, function = find(place.where)
    assert isinstance(function, types.FunctionType)
    assert function.__name__ == name
    assert place.stage in STAGES
    signature_text(function)


def test_a_function_that_is_gone_ends_the_start() -> None:
    with pytest.raises(NoPlace, match=r"LoopWire\.gone"):
        install(StageTimers(STAGES), [Timed("proxy.runtime.wire:LoopWire.gone", READ)])


def test_a_compiled_function_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.protocol.gate.parse_request_head", len)
    with pytest.raises(NoPlace, match="pure-Python"):
        install(StageTimers(STAGES), [Timed("proxy.protocol.gate:parse_request_head", PARSE)])


def test_a_function_is_replaced_wherever_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.protocol import fast, gate, http1

    original = gate.parse_response_head
    known = (gate, fast, http1)
    for module in known:
        monkeypatch.setattr(module, "parse_response_head", original)  # and put back afterwards
    install(StageTimers(STAGES), [Timed("proxy.protocol.gate:parse_response_head", PARSE)])
    replaced = {vars(module)["parse_response_head"] for module in known}
    assert len(replaced) == 1
    assert original not in replaced


def test_for_the_gaps_only_callbacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.protocol import http1
    from proxy.runtime import wire

    timed, callback = http1.ServerCodec.take_whole, wire.LoopWire._readable
    monkeypatch.setattr(http1.ServerCodec, "take_whole", timed)  # and put back afterwards
    monkeypatch.setattr(wire.LoopWire, "_readable", callback)
    places = [
        Timed("proxy.protocol.http1:ServerCodec.take_whole", PARSE),
        Timed("proxy.runtime.wire:LoopWire._readable", READ, callback=True),
    ]
    install(StageTimers(STAGES), places, gaps=True)
    assert http1.ServerCodec.take_whole is timed
    assert wire.LoopWire._readable is not callback


def test_nothing_is_timed_before_somebody_installs_it() -> None:
    for place in PLACES:
        assert not hasattr(find(place.where)[2], "__wrapped__"), place


# --- readings ---------------------------------------------------------------------------------------------------------


def reading(at: int, requests: int = 0, **other: Any) -> Reading:
    calls = [requests if name != POLICY else 0 for name in STAGES] + [0, 0]
    values: dict[str, Any] = {
        "process_ns": at,
        "thread_ns": at,
        "spent": [0] * len(calls),
        "within": [0] * len(calls),
        "callbacks": 0,
        "dropped": 0,
        "gaps_ns": 0,
        "probing": False,
        **other,
    }
    return Reading(at_ns=at, calls=calls, **values)


def test_readings_survive_their_file_and_give_the_slices_between_two_times() -> None:
    stages = (*STAGES, PROBE, LOOP)
    values = [reading(at, at // 10, probing=at == 300) for at in (100, 200, 300, 400)]
    again = load(dump(Readings(stages=stages, readings=values)))
    assert again.stages == stages
    assert again.slices(150, 450) == [values[2].since(values[1]), values[3].since(values[2])]
    assert [item.probing for item in again.slices(150, 450)] == [True, False]
    assert again.slices(150, 250) == []
    assert values[0].plus(values[1]) == reading(300, 30)


def test_a_stage_that_is_never_entered_is_found() -> None:
    stages = (*STAGES, PROBE, LOOP)
    assert silent_stages(reading(1, 100), stages) == []
    calls = list(reading(1, 100).calls)
    calls[STAGES.index(PARSE)] = 3
    assert silent_stages(dataclasses.replace(reading(1, 100), calls=calls), stages) == [PARSE]


# --- what it means ----------------------------------------------------------------------------------------------------


def shares_of(**spent: float) -> Shares:
    stages = dict.fromkeys(STAGES, 1_000.0) | {LOOP: 500.0} | spent
    return Shares(stages=stages, threads=2_000.0, timers=0.0)


def test_socket_calls_and_cryptography_are_parted_and_nothing_is_lost() -> None:
    shares = shares_of(**{TLS_READ: 6_000.0, TLS_WRITE: 9_000.0})
    tls = TlsCost(encrypt_ns=1_200.0, decrypt_ns=1_100.0)
    found = per_request(shares, 1, {TLS_READ: 1, TLS_WRITE: 2}, tls)
    assert found[DECRYPT] == pytest.approx(1.1)
    assert found[ENCRYPT] == pytest.approx(2.4)
    assert found[READ] == pytest.approx(1.0 + 6.0 - 1.1)
    assert found[WRITE] == pytest.approx(1.0 + 9.0 - 2.4)
    assert found[LOG_THREAD] == pytest.approx(2.0)
    assert sum(found.values()) == pytest.approx(shares.total / 1e3)
    assert next(reversed(found)) == LOOP


def test_cryptography_is_never_more_than_the_call_that_holds_it() -> None:
    found = per_request(shares_of(), 1, {TLS_READ: 1, TLS_WRITE: 1}, TlsCost(encrypt_ns=9e9, decrypt_ns=9e9))
    assert (found[DECRYPT], found[ENCRYPT]) == (1.0, 1.0)


def decomposed(sums: float) -> Decomposition:
    rounds = [{READ: sums - 10.0, METRICS: 10.0}, {READ: sums - 9.0, METRICS: 9.0}]
    without = {"access log": ([51.0, 53.0], [46.0, 49.0])}
    return decomposition("inbound", rounds, [50.0, 50.0], without, timers=9.0, cost=COST, dropped=0.01)


def stages_of(item: Decomposition) -> Stages:
    plan = Plan(seconds=2, repetitions=2, connections=32, client=CURL)
    return Stages(machine=MACHINE, plan=plan, tls=TlsCost(encrypt_ns=1.0, decrypt_ns=1.0), hops=[item])


@pytest.mark.parametrize("sums", [45.5, 50.0, 54.5])
def test_a_sum_within_a_tenth_of_the_kernels_account_holds(sums: float) -> None:
    check(stages_of(decomposed(sums)))
    assert ": holds" in as_text(stages_of(decomposed(sums)))


@pytest.mark.parametrize("sums", [44.0, 56.0])
def test_a_sum_that_does_not_hold_fails_loudly(sums: float) -> None:
    found = stages_of(decomposed(sums))
    with pytest.raises(BenchError, match="do not add up"):
        check(found)
    assert "DOES NOT HOLD" in as_text(found)
    assert document(found)["hops"][0]["holds"] is False


def test_the_document_is_json_with_every_figure() -> None:
    written = json.loads(as_json(stages_of(decomposed(50.0))))
    hop = written["hops"][0]
    assert written["kind"] == "stages"
    assert hop["stages"][1] == {"name": METRICS, "median": 9.5, "lowest": 9.0, "highest": 10.0}
    assert hop["total"]["median"] == hop["kernel"]["median"] == 50.0
    assert hop["timed_call_ns"] == {"inside": 100.0, "outside": 200.0}
    assert hop["without"] == [{"name": "access log", "median": 4.5, "lowest": 4.0, "highest": 5.0}]


@pytest.mark.parametrize("module", [stages_timers], ids=lambda module: module.__name__)
def test_the_examples_run(module: types.ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
