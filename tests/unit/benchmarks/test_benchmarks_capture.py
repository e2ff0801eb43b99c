"""The benchmark of capture: its sidecars are the same but for the way in, and its ratios are taken within a round."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import capture_pods, configs
from benchmarks.capture import Plan, Repetition, loads, sheet
from benchmarks.capture_pods import APP, LISTENER, THERE, Way
from benchmarks.configs import CALLED, CALLER
from benchmarks.processes import BenchError
from proxy.config import Config, load_config
from tests.benchmark_runs import MACHINE

PLAN = Plan(seconds=3, repetitions=2, connections=32)
COST = {Way.DIRECT: (0.0, 0.0), Way.PORTS: (100.0, 200.0), Way.CAPTURE: (110.0, 260.0)}
"""CPU of a request in two rounds: the second round was twice as slow for everybody."""


def config(way: Way, account: str, tmp_path: Path) -> Config:
    files = capture_pods._sidecar(way, account, tmp_path, tmp_path / "identity")
    return load_config(files[configs.CONFIG_FILE].encode(), "remora.yaml")


def test_the_two_ways_differ_in_nothing_but_how_traffic_comes_in(tmp_path: Path) -> None:
    ports, captures = (config(way, CALLED, tmp_path) for way in (Way.PORTS, Way.CAPTURE))
    assert (str(ports.inbound[0].listen), captures.inbound[0].listen) == ("[::]:15443", None)
    assert (ports.inbound_capture, str(captures.inbound_capture)) == (None, "[::]:15006")
    for each in (ports, captures):
        [port] = each.inbound
        assert (port.port, str(port.app), port.protocol.value) == (APP, f"127.0.0.1:{APP}", "http")
    assert ports.policy == captures.policy
    assert ports.telemetry == captures.telemetry


def test_the_caller_dials_loopback_or_the_applications_own_address(tmp_path: Path) -> None:
    ports, captures = (config(way, CALLER, tmp_path).outbound for way in (Way.PORTS, Way.CAPTURE))
    assert [(str(each.listen), each.captures) for each in ports.listeners] == [(f"127.0.0.1:{LISTENER}", False)]
    assert [(str(each.listen), each.captures) for each in captures.listeners] == [("127.0.0.1:15001", True)]
    assert [str(each) for each in ports.services[CALLED].endpoints] == [f"{THERE}:15443"]
    assert [str(each) for each in captures.services[CALLED].addresses] == [f"{THERE}:{APP}"]
    assert ports.services[CALLED].identities == captures.services[CALLED].identities


def test_ratios_are_taken_within_each_round() -> None:
    found = [
        Repetition(
            way=way.value,
            load=load.name,
            requests=100,
            rate=1.0,
            cpu_us=COST[way][number],
            p50_us=50.0 + COST[way][number],
            p99_us=1.0,
            foreign_share=0.25 if way is Way.DIRECT else 0.125,
        )
        for number in range(2)
        for load in loads(PLAN)
        for way in Way
    ]
    made = sheet(MACHINE, PLAN, found)
    rows = {row.name: row for row in made.rows}
    ratio = rows["kept connections: CPU, capture over ports"].figure
    assert (ratio.lowest, ratio.highest) == (1.1, 1.3)
    assert rows["kept connections: CPU of both hops, capture"].figure.highest == 260.0
    assert rows["one kept connection: p50, direct"].figure.median == 50.0
    # One connection at a time leaves the core idle, where ticks of 10 ms say little of a request.
    assert "one kept connection: CPU of both hops, capture" not in rows
    assert made.foreign == [0.125] * 12, "where there are no sidecars nobody has their core"


@pytest.mark.parametrize(
    ("uid", "installed", "told"), [(1000, True, "run it as root"), (0, False, "not installed: unshare, ")]
)
def test_a_machine_that_has_no_pods_is_told_why(
    monkeypatch: pytest.MonkeyPatch, uid: int, installed: bool, told: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(capture_pods, "maybe_program", lambda name: f"/bin/{name}" if installed else None)
    with pytest.raises(BenchError, match=told):
        capture_pods.check_machine()
