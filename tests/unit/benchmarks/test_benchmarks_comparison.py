"""Two runs compared: what is better, what is worse, what may not be told apart, and the gate on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.comparison import Change, bootstrap, compare
from benchmarks.results import Results, dumps
from tests.benchmark_runs import run_of, scenario

US = "capacity-c32-0B/mtls/both/10-rules/log/remora-http"
PEER = "capacity-c32-0B/mtls/both/0-rules/log/nginx-json"


def cpu(*values: float, peer: tuple[float, ...] = (50.0, 51.0, 49.0)) -> Results:
    return run_of(scenario(US, {"cpu_us": list(values)}), scenario(PEER, {"cpu_us": list(peer)}))


BEFORE = cpu(100.0, 101.0, 99.0)


@pytest.mark.parametrize(
    ("before", "after", "more_is_better", "expected"),
    [
        ([100.0, 101.0, 99.0], [80.0, 81.0, 79.0], False, Change.BETTER),
        ([100.0, 101.0, 99.0], [80.0, 81.0, 79.0], True, Change.WORSE),
        ([100.0, 101.0, 99.0], [120.0, 121.0, 119.0], True, Change.BETTER),
        ([100.0, 120.0, 90.0], [110.0, 95.0, 104.0], False, Change.NOT_APART),
        ([100.0], [50.0], False, Change.NOT_APART),
        ([100.0, 100.0], [50.0], False, Change.NOT_APART),
    ],
)
def test_only_what_the_interval_shows_is_said(
    before: list[float], after: list[float], more_is_better: bool, expected: Change
) -> None:
    interval = bootstrap(before, after, more_is_better=more_is_better, seed="x")
    assert interval.change is expected
    assert interval.low <= interval.ratio <= interval.high


def test_the_interval_is_the_same_every_time_and_holds_no_more_than_the_rounds_allow() -> None:
    before, after = [100.0, 104.0, 97.0, 101.0], [90.0, 95.0, 93.0, 91.0]
    once = bootstrap(before, after, more_is_better=False, seed="x")
    assert once == bootstrap(before, after, more_is_better=False, seed="x")
    assert min(before) / max(after) <= once.low < once.ratio < once.high <= max(before) / min(after)


@pytest.mark.parametrize(("before", "after"), [([], [1.0]), ([1.0], []), ([0.0], [1.0])])
def test_no_ratio_without_figures_above_0(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        bootstrap(before, after, more_is_better=True, seed="x")


def test_only_what_both_runs_have_is_compared() -> None:
    after = run_of(scenario(US, {"cpu_us": [100.0, 100.5, 99.0], "rate": [1.0, 1.0, 1.0]}))
    assert [(item.scenario, item.metric) for item in compare(BEFORE, after)] == [(US, "cpu_us")]


def test_relative_to_a_peer_a_slower_machine_is_no_loss() -> None:
    slower = cpu(200.0, 202.0, 198.0, peer=(100.0, 102.0, 98.0))
    assert {item.change for item in compare(BEFORE, slower)} == {Change.WORSE}
    [relative] = compare(BEFORE, slower, relative_to="nginx-json")
    assert relative.scenario == US
    assert relative.interval.ratio == pytest.approx(1.0)
    assert compare(BEFORE, slower, relative_to="haproxy") == []


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(dumps(BEFORE))
    after.write_text(dumps(cpu(110.0, 111.0, 109.0)))
    return str(before), str(after)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--fail-on", "worse"], 1),
        (["--fail-on", "worse", "--threshold", "1.05"], 1),
        (["--fail-on", "worse", "--threshold", "1.2"], 0),
        (["--fail-on", "worse", "--only", "nginx-json"], 0),
        (["--metric", "rate"], 2),
    ],
)
def test_the_gate_fails_on_what_is_worse_than_allowed(
    files: tuple[str, str], words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *files, *words]) == code
    said = capsys.readouterr()
    if code < 2:
        assert "not told apart" in said.out
    if code == 1:
        assert f"CPU per request of {US}" in said.err


def test_getting_better_passes_the_gate(files: tuple[str, str]) -> None:
    assert main(["compare", files[1], files[0], "--fail-on", "worse"]) == 0


def test_a_file_that_cannot_be_read_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert main(["compare", str(wrong), str(wrong)]) == 2
    assert f"{wrong}: this is no result" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "nothing"), str(wrong)]) == 2
    assert "nothing cannot be read: No such file" in capsys.readouterr().err
