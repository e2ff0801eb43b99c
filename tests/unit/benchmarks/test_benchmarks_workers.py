"""One worker and two: who gets which core, did all serve, what is projected, and how the result is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cli, configs
from benchmarks.compiled import CompiledForm
from benchmarks.configs import Hop
from benchmarks.envoy import envoy_command
from benchmarks.matrix import Setup
from benchmarks.wiring import wire
from benchmarks.workers_report import (
    Measured,
    Place,
    Plan,
    Repetition,
    Run,
    as_json,
    as_text,
    choose_place,
    idle_workers,
    projected,
    shares_of,
    warnings,
)
from proxy.config import load_config
from tests.benchmark_runs import MACHINE

FORM = CompiledForm(python="x", absent="there is none")
SHARED = Place(hop=(0, 1), others=(0, 1))


def hop(*, inbound: bool) -> Hop:
    places: dict[str, Any] = {"directory": Path("/bench/hop"), "identity": Path("/bench/identity")}
    return Hop(inbound=inbound, listen=15443, next=8080, health=15020, **places)


def measured(
    contender: str, workers: int, costs: Sequence[float], rates: Sequence[float], foreign: float = 0.0
) -> Measured:
    made = Measured(contender=contender, workers=workers, judges=contender != "nginx-json")
    shares = (1.0,) if workers == 1 else (0.55, 0.44)
    for cost, rate in zip(costs, rates, strict=True):
        made.repetitions.append(
            Repetition(
                rate=rate,
                cpu_us=cost,
                others_us=40.0,
                cores=0.5 * workers,
                shares=shares,
                rss_mib=50.0 * workers,
                foreign_share=foreign,
            )
        )
    return made


def run_of(*found: Measured, place: Place = SHARED, repetitions: int = 2) -> Run:
    plan = Plan(seconds=2.0, repetitions=repetitions, connections=64)
    return Run(machine=MACHINE, place=place, plan=plan, measured=found, absent={"remora-compiled": "there is none"})


RUN = run_of(
    measured("remora-http", 1, [50.0, 52.0], [10_000.0, 10_100.0]),
    measured("remora-http", 2, [51.0, 50.0], [12_000.0, 12_100.0]),
    measured("envoy", 1, [75.0, 78.0], [8_000.0, 8_100.0]),
    measured("envoy", 2, [75.0, 75.0], [9_000.0, 9_100.0]),
)


def lines(run: Run) -> list[str]:
    return [" ".join(line.split()) for line in as_text(run).splitlines()]


@pytest.mark.parametrize(
    ("available", "place"),
    [
        ([0], None),
        ([4, 2], Place(hop=(2, 4), others=(2, 4))),
        ([0, 1, 2], SHARED),
        ([3, 2, 1, 0], Place(hop=(0, 1), others=(2, 3))),
    ],
)
def test_the_hop_has_two_cores_and_shares_them_where_there_are_no_others(
    available: list[int], place: Place | None
) -> None:
    assert choose_place(available) == place
    assert place is None or place.shared is (len(available) < 4)


def test_shares_are_of_what_was_spent_meanwhile_by_whoever_spent_it() -> None:
    # The supervisor (1) spent little, 2 ended, 4 was started meanwhile.
    assert shares_of({1: 90, 2: 500, 3: 100}, {1: 92, 3: 148, 4: 50}, 2) == (0.5, 0.48)
    assert shares_of({1: 10}, {1: 20}, 2) == (1.0, 0.0)
    assert shares_of({1: 10}, {1: 10}, 1) == (0.0,)


@pytest.mark.parametrize(("shares", "idle"), [((0.5, 0.48), 0), ((0.96, 0.04), 1), ((0.9, 0.1), 0), ((0.0, 0.0), 2)])
def test_a_worker_that_took_next_to_nothing_did_not_serve(shares: tuple[float, ...], idle: int) -> None:
    assert idle_workers(shares) == idle


def test_a_projection_gives_each_worker_a_core() -> None:
    assert projected(40.0, 1) == 25_000
    assert projected(40.0, 2) == 50_000


def test_two_workers_are_held_against_one_of_the_same_and_overlaps_are_not_told_apart() -> None:
    told = lines(RUN)
    title = "2 workers against 1 of the same: median of the rounds, lowest to highest; above 1 is better"
    row = told[told.index(title) + 2]
    assert row == ("remora-http 1.01 x (0.98 to 1.04), not told apart 1.20 x (1.20 to 1.20) 2.02 x (1.96 to 2.08)")


def test_others_are_held_against_envoy_with_as_many_workers() -> None:
    told = lines(RUN)
    at = told.index("Against envoy with as many workers: above 1 is better")
    assert told[at + 2].startswith("remora-http, 1 worker 1.50 x (1.50 to 1.50) 1.25 x")
    assert told[at + 3].startswith("remora-http, 2 workers 1.49 x (1.47 to 1.50) 1.33 x")
    assert not told[at + 4]
    without = lines(run_of(*RUN.measured[:2]))
    assert not any(line.startswith("Against envoy") for line in without)


def test_what_two_cores_cannot_show_is_said_and_a_projection_is_called_one() -> None:
    told = lines(RUN)
    assert any("0 and 1 carry everything" in line for line in told)
    header = next(line for line in told if "cores used by the hop" in line)
    assert "PROJECTION: requests/s, a core for each worker" in header
    [row] = [line for line in told if line.startswith("remora-http, 2 workers 12,050 (12,000 to 12,100)")]
    assert row.endswith("55%, 44% 100 MiB 39,608 (39,216 to 40,000)")
    assert any("on record, 8 of 8" in line for line in told)
    assert "ABSENT: remora-compiled: there is none" in told
    apart = lines(run_of(*RUN.measured, place=Place(hop=(0, 1), others=(2, 3))))
    assert "cores hop on 0 and 1, everything else on 2, 3" in apart
    assert not any("carry everything" in line for line in apart)


def test_noise_and_a_single_round_are_warned_of() -> None:
    assert list(warnings(RUN)) == []
    noisy = run_of(measured("nginx-json", 1, [25.0], [9_000.0], foreign=0.3), repetitions=1)
    [noise, single] = warnings(noisy)
    assert "nginx-json, 1 worker 30%" in noise
    assert "one round has no spread" in single


def test_a_program_reads_every_round() -> None:
    document = json.loads(as_json(RUN))
    second = document["contenders"][1]
    assert (second["name"], second["workers"]) == ("remora-http", 2)
    assert [item["cpu_us"] for item in second["repetitions"]] == [51.0, 50.0]
    assert second["projected_per_second"][1] == 40_000
    assert document["cores"] == {"hop": [0, 1], "others": [0, 1]}


@pytest.mark.parametrize("workers", [1, 2])
def test_each_contender_is_told_how_many_workers(workers: int) -> None:
    setup = Setup(contender="remora-http", sides="server", rules=10, log=True, workers=workers)
    written = wire(setup, hop(inbound=True), FORM).files[configs.CONFIG_FILE]
    assert load_config(written.encode(), configs.CONFIG_FILE).runtime.workers == workers
    text = configs.nginx(hop(inbound=True), log=True, as_root=False, workers=workers)["nginx.conf"]
    assert f"worker_processes {workers};" in text
    # A socket for each worker, as the others have; one has no use for it.
    assert ("listen 127.0.0.1:15443 ssl reuseport;" in text) is (workers > 1)
    command = envoy_command("envoy", hop(inbound=True), workers=workers)
    assert command[command.index("--concurrency") + 1] == str(workers)


@pytest.mark.parametrize("words", [["--connections", "1"], ["--seconds", "0"], ["--repetitions", "99"]])
def test_loads_are_bounded(words: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["workers", *words])
    assert exit_.value.code == 2
