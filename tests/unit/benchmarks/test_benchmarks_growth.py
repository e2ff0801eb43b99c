"""Curves of cost: verdicts and their uncertainty, the files of many rules and services, and what is written of it."""

from __future__ import annotations

import doctest
import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import configs, growth, growth_fit
from benchmarks.growth import SHAPES, Result, rule_files, with_services
from benchmarks.growth_fit import Curve, Verdict, judge, median_interval
from benchmarks.host import Build, Cores, Machine
from proxy.config import Config, load_config

SIZES = (1, 100, 2_500, 5_000, 10_000)
COSTS: dict[str, Callable[[int], float]] = {
    "constant": lambda n: 100,
    "a twentieth more": lambda n: 100 + n / 2_000,
    "linear": lambda n: 100 + n / 50,
    "logarithm": lambda n: 100 + 20 * math.log(n),
    "n log n": lambda n: 100 + n * math.log(n) / 100,
    "square": lambda n: 100 + n * n / 1e6,
    "nothing but square": lambda n: 1e-3 + n * n / 1e3,
    "cheaper": lambda n: 100 - n / 200,
}


def curve(cost: Callable[[int], float], *, noise: float = 0.0, rounds: int = 9, seed: int = 1) -> Curve:
    chance = random.Random(seed)
    values = [[cost(n) * (1 + chance.gauss(0, noise)) for n in SIZES] for _ in range(rounds)]
    return Curve(name="rules", title="A request", axis="rules", unit="us", due=Verdict.FLAT, sizes=SIZES, rounds=values)


def test_the_examples_run() -> None:
    result = doctest.testmod(growth_fit)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("constant", Verdict.FLAT),
        ("a twentieth more", Verdict.FLAT),
        ("cheaper", Verdict.FLAT),
        ("linear", Verdict.LINEAR),
        ("logarithm", Verdict.LINEAR),
        ("n log n", Verdict.WORSE),
        ("square", Verdict.WORSE),
        ("nothing but square", Verdict.WORSE),
    ],
)
def test_costs_are_called_what_they_are(name: str, verdict: Verdict) -> None:
    assert judge(curve(COSTS[name])).verdict is verdict


@pytest.mark.parametrize(("name", "verdict"), [("constant", "flat"), ("linear", "linear"), ("square", "worse")])
@pytest.mark.parametrize("seed", range(10))
def test_a_little_noise_does_not_change_a_verdict_into_another(name: str, verdict: str, seed: int) -> None:
    found = judge(curve(COSTS[name], noise=0.01, seed=seed)).verdict
    assert found is Verdict.UNSETTLED or found.value.startswith(verdict)


def test_much_noise_settles_nothing() -> None:
    found = [judge(curve(lambda n: 100 + n / 500, noise=0.3, seed=seed)).verdict for seed in range(10)]
    assert found.count(Verdict.UNSETTLED) >= 8


def test_one_round_settles_nothing() -> None:
    assert judge(curve(COSTS["constant"], rounds=1)).verdict is Verdict.UNSETTLED


def test_the_growth_is_a_share_of_the_smallest_size() -> None:
    found = judge(curve(COSTS["linear"]))
    assert found.growth.median == pytest.approx(2.0, rel=0.001)
    assert found.bend.median == pytest.approx(0.0, abs=1e-9)
    assert found.words() == "linear: +200% over the range (+200% to +200%)"


@pytest.mark.parametrize("sizes", [(1, 2), (1, 1, 2), (1, 2, 3, 3)])
def test_a_bend_needs_three_sizes(sizes: tuple[int, ...]) -> None:
    few = Curve(
        name="a", title="a", axis="a", unit="us", due=Verdict.FLAT, sizes=sizes, rounds=[[1.0] * len(sizes)] * 3
    )
    with pytest.raises(ValueError, match="three different sizes"):
        judge(few)


def test_an_interval_drops_as_many_outliers_as_its_confidence_allows() -> None:
    for count in range(1, 25):
        found = median_interval([float(number) for number in range(count)])
        dropped = int(found.lowest)
        assert found.highest == count - 1 - dropped
        # With `below` values dropped at each end, the true median lies outside when at most so many coins show heads.
        outside = [
            2 * sum(math.comb(count, heads) for heads in range(below + 1)) / 2**count for below in range(count + 1)
        ]
        assert dropped == 0 or outside[dropped] <= 0.05
        assert outside[dropped + 1] > 0.05 or count < 3


def test_the_interval_holds_the_true_median_in_95_of_100_cases() -> None:
    chance = random.Random(7)
    for count in (6, 9, 12):
        held = 0
        for _ in range(2_000):
            found = median_interval([chance.expovariate(1.0) for _ in range(count)])
            held += found.lowest <= math.log(2) <= found.highest
        assert held / 2_000 > 0.94


@pytest.mark.parametrize(
    ("found", "due", "kept"),
    [
        (Verdict.FLAT, Verdict.FLAT, True),
        (Verdict.FLAT, Verdict.LINEAR, True),
        (Verdict.LINEAR, Verdict.FLAT, False),
        (Verdict.WORSE, Verdict.LINEAR, False),
        (Verdict.UNSETTLED, Verdict.LINEAR, None),
    ],
)
def test_less_growth_than_is_due_keeps_it(found: Verdict, due: Verdict, kept: bool | None) -> None:
    assert found.meets(due) is kept


# --- what is measured ------------------------------------------------------------------------------------------------


def test_the_files_of_many_rules_hold_each_once_and_none_is_too_large() -> None:
    files = rule_files(10_000)
    assert all(len(content) < 1_048_576 for content in files.values())
    documents = [json.loads(part) for content in files.values() for part in content.split("---\n") if part]
    paths = list(
        itertools.chain.from_iterable(
            to["operation"]["paths"]
            for document in documents
            for rule in document["spec"]["rules"]
            for to in rule["to"]
        )
    )
    assert paths == [f"/api/v1/thing-{number}/*" for number in range(10_000)]
    assert list(rule_files(1)) == ["policy/rules-000.yaml"]


@pytest.mark.parametrize("count", [1, 2, 300])
def test_many_services_are_a_valid_configuration_and_the_called_one_is_the_last(tmp_path: Path, count: int) -> None:
    files = configs.sidecar(
        tmp_path, tmp_path, account=configs.CALLER, health=15020, outbound=(9001, 15443), limits=growth._LIMITS
    )
    (tmp_path / "policy").mkdir()
    loaded: Config = load_config(with_services(files[configs.CONFIG_FILE], count).encode(), "remora.yaml")
    assert len(loaded.outbound.services) == count
    assert list(loaded.outbound.services)[-1] == configs.CALLED


def test_a_curve_has_sizes_on_the_way_to_its_largest() -> None:
    for name, shape in SHAPES.items():
        assert list(shape.sizes) == sorted(set(shape.sizes)), name
        assert any(0.15 <= size / shape.sizes[-1] <= 0.6 for size in shape.sizes), name
    assert {name: shape.sizes[-1] for name, shape in SHAPES.items()} == {
        "idle": 5_000,
        "rules": 10_000,
        "services": 2_000,
        "headers": 100,
        "headers-new": 100,
        "background": 5_000,
    }


# --- what is written -------------------------------------------------------------------------------------------------


def result(*, foreign: float = 0.0, rounds: int = 9) -> Result:
    machine = Machine(
        python="CPython 3.11.2",
        build=Build.OPTIMISED,
        openssl="OpenSSL 4.0.0",
        processor="a processor",
        cores=Cores(proxies=0, others=1),
    )
    return Result(machine=machine, curves=[curve(COSTS["linear"], rounds=rounds)], foreign=[foreign] * rounds)


def test_the_text_says_the_verdict_what_was_due_and_every_size() -> None:
    said = growth.as_text(result())
    assert "A request: linear: +200% over the range" in said
    assert "at most flat was due: NOT KEPT" in said
    assert all(f"{size:>8,} rules" in said for size in SIZES)
    assert "WARNING" not in said


def test_noise_and_few_rounds_are_warned_of() -> None:
    assert "others took up to 50%" in growth.as_text(result(foreign=0.5))
    assert "less than 95 % confidence" in growth.as_text(result(rounds=5))


def test_json_holds_every_round_and_is_read_again() -> None:
    document = json.loads(growth.as_json(result()))
    assert document["kind"] == "growth"
    assert document["curves"][0]["verdict"] == "linear"
    assert growth_fit.read(document) == [
        Curve(
            name="rules",
            title="A request",
            axis="rules",
            unit="us",
            due=Verdict.FLAT,
            sizes=list(SIZES),
            rounds=[list(values) for values in curve(COSTS["linear"]).rounds],
        )
    ]


@pytest.mark.parametrize("document", [{}, {"curves": [{}]}, {"curves": 5}, {"curves": [{"name": "a", "due": "steep"}]}])
def test_what_holds_no_curves_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each is another
        growth_fit.read(document)
