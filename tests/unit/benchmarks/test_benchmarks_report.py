"""The report tells ratios first, names who is absent, and warns of whatever makes a figure weaker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.compiled import CompiledForm
from benchmarks.configs import Hop
from benchmarks.contenders import BASELINE, Contender, contenders
from benchmarks.hops import Plan, Repetition, Standing, count_lines, find_record
from benchmarks.host import Build, Cores, Machine, choose_cores
from benchmarks.report import Setting, as_json, as_text, warnings


def contender(name: str, *, absent: str = "", judges: bool = False) -> Contender:
    return Contender(
        name=name,
        does=f"what {name} does",
        version="1.2.3",
        absent=absent,
        judges=judges,
        logs=True,
        files=lambda _hop: {},
        command=lambda _hop: [],
    )


def standing(
    name: str, cpu: list[float], *, judges: bool = False, share: float = 0.97, foreign: float = 0.0
) -> Standing:
    hop = Hop(inbound=True, listen=1, next=2, health=3, directory=Path("/a"), identity=Path("/b"))
    repetitions = [
        Repetition(
            requests=30_000,
            rate=1e6 / value,
            cpu_us=value,
            p50_us=2500.0,
            p99_us=9000.0,
            proxy_share=share,
            foreign_share=foreign,
        )
        for value in cpu
    ]
    return Standing(contender(name, judges=judges), (hop, hop), [1, 2], repetitions, len(cpu) if judges else 0)


def setting(build: Build = Build.OPTIMISED, cores: tuple[int, int] = (0, 1), rounds: int = 3) -> Setting:
    return Setting(
        machine=Machine(
            python="CPython 3.11.2",
            build=build,
            openssl="OpenSSL 4.0.0",
            processor="a processor",
            cores=Cores(proxies=cores[0], others=cores[1]),
        ),
        plan=Plan(seconds=3, repetitions=rounds, connections=32),
    )


BASE = standing(BASELINE, [80.0, 82.0, 84.0])


def test_ratios_come_before_absolutes_and_the_baseline_is_in_the_second_only() -> None:
    ours = standing("remora", [160.0, 164.0, 168.0], judges=True)
    text = as_text(setting(), [ours, BASE], [contender("envoy", absent="Envoy is not installed")])
    ratios, absolutes = text.split("Absolutes")
    assert "0.50 x (0.50 to 0.50)" in ratios
    assert "\n  nginx-json " not in ratios
    assert "164 us (160 to 168)" in absolutes
    assert "82 us (80 to 84)" in absolutes
    assert "envoy            ABSENT: Envoy is not installed" in absolutes
    assert "got 403 and is on record, 3 of 3" in absolutes
    assert "WARNING" not in text


def test_the_peer_that_does_the_same_work_is_compared_with_directly() -> None:
    ours, peer = standing("remora", [100.0, 101.0, 102.0], judges=True), standing("envoy", [150.0, 151.5, 153.0])
    text = as_text(setting(), [ours, BASE, peer], [])
    line = text.split("Against envoy, which does the same work\n")[1].splitlines()[0]
    assert line.split() == ["remora", "1.50", "x", "(1.50", "to", "1.50)", "1.50", "x", "(1.50", "to", "1.50)"]
    assert "Against envoy" not in as_text(setting(), [ours, BASE], [])


def test_overlapping_figures_are_not_told_apart() -> None:
    near = standing("haproxy", [83.0, 79.0, 85.0])
    text = as_text(setting(), [BASE, near], [])
    assert text.count("not told apart") == 2


@pytest.mark.parametrize(
    ("where", "who", "warning"),
    [
        (setting(Build.PLAIN), BASE, "without --enable-optimizations"),
        (setting(Build.DEBUG), BASE, "a debug build"),
        (setting(cores=(0, 0)), BASE, "one core only"),
        (setting(rounds=1), BASE, "nothing can be told apart"),
        (setting(), standing(BASELINE, [80.0], foreign=0.3), "the host was noisy"),
        (setting(), standing(BASELINE, [80.0], share=0.5), "had time left (nginx-json 50%)"),
    ],
)
def test_what_weakens_a_figure_is_said(where: Setting, who: Standing, warning: str) -> None:
    [said] = warnings(where, [who])
    assert warning in said


def test_nothing_is_said_of_a_quiet_host() -> None:
    assert warnings(setting(Build.DEBIAN), [BASE]) == []


def test_json_holds_every_repetition_and_who_is_absent() -> None:
    ours = standing("remora", [160.0, 164.0, 168.0], judges=True)
    document = json.loads(as_json(setting(), [ours, BASE], [contender("envoy", absent="not installed")]))
    entry, base = document["contenders"]
    assert [repetition["cpu_us"] for repetition in entry["repetitions"]] == [160.0, 164.0, 168.0]
    assert entry["against_baseline"]["cpu"]["ratio"]["median"] == 0.5
    assert entry["against_baseline"]["cpu"]["told_apart"] is True
    assert entry["denied_and_on_record"] == 3
    assert "against_baseline" not in base
    assert document["absent"] == {"envoy": "not installed"}
    assert document["interpreter"]["optimised"] is True
    assert document["openssl"] == "OpenSSL 4.0.0"
    assert document["cores"] == {"proxies": 0, "others": 1}


def test_everybody_is_listed_installed_or_not() -> None:
    names = [item.name for item in contenders(CompiledForm(python="x", absent="there is none"))]
    assert names == ["remora", "remora-compiled", "nginx-json", "nginx", "envoy", "haproxy", "plain"]
    assert BASELINE in names


@pytest.mark.parametrize(("available", "chosen"), [([3, 1, 2], (1, 2)), ([5], (5, 5))])
def test_proxies_get_a_core_of_their_own_where_there_are_two(available: list[int], chosen: tuple[int, int]) -> None:
    cores = choose_cores(available)
    assert (cores.proxies, cores.others) == chosen


def test_a_record_is_found_by_its_path(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('{"path": "/admin/round-11"}\n{"path": "/admin/round-1", "response_code": 403}\n{"path": "/admin/r')
    assert find_record(log, "/admin/round-1") == {"path": "/admin/round-1", "response_code": 403}
    assert find_record(log, "/admin/round-2") is None
    assert find_record(log, "/admin/r") is None
    assert count_lines(log) == 2


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["hops", "--seconds", "0"],
        ["hops", "--repetitions", "999"],
        ["hops", "--connections", "x"],
        ["memory", "--connections", "100000"],
        ["memory", "--steps", "1"],
        ["start", "--output", "xml"],
        ["scrape", "--label-sets", "1001"],
    ],
)
def test_wrong_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert "usage: remora bench" in capsys.readouterr().err
