"""CPU is read from the kernel's own figures, children included; who else used the core is told from them too."""

from __future__ import annotations

import pytest

from benchmarks.host import Build, foreign_share, judge_build, processor_name
from benchmarks.processes import ProcessStat, parse_core_stat, parse_process_stat, tree_ticks

STAT = "812 ({name}) S 77 812 812 0 -1 4194560 1 2 3 4 120 30 7 5 20 0 1 0 100 200 300\n"


@pytest.mark.parametrize("name", ["nginx", "a (b) c", ") R 1 1 (", "two words"])
def test_a_process_is_read_whatever_it_is_called(name: str) -> None:
    assert parse_process_stat(STAT.replace("{name}", name)) == ProcessStat(parent=77, ticks=120 + 30 + 7 + 5)


def test_descendants_count_and_strangers_do_not() -> None:
    stats = {
        10: ProcessStat(parent=1, ticks=1),
        11: ProcessStat(parent=10, ticks=20),
        12: ProcessStat(parent=11, ticks=300),
        20: ProcessStat(parent=1, ticks=4000),
        30: ProcessStat(parent=1, ticks=50000),
    }
    assert tree_ticks(stats, [10, 20]) == 4321
    assert tree_ticks(stats, [99]) == 0


def test_cores_are_read_without_idle_time_and_interrupts() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 1 5 900 70 3 4 2 1 0\ncpu11 20 0 5 900 70 3 4 0 0 0\nintr 5 5\n"
    assert parse_core_stat(text) == {0: (16, 2), 11: (25, 0)}


@pytest.mark.parametrize(
    ("busy", "ours", "stolen", "share"),
    [(3.0, 3.0, 0.0, 0.0), (3.0, 1.5, 0.0, 0.5), (1.0, 1.2, 0.3, 0.1), (3.0, 0.0, 3.0, 1.0)],
)
def test_what_others_took_of_a_core(busy: float, ours: float, stolen: float, share: float) -> None:
    assert foreign_share(busy, ours, stolen, elapsed=3.0) == pytest.approx(share)


def test_no_time_is_nobodys() -> None:
    assert foreign_share(1.0, 0.0, 0.0, elapsed=0.0) == 0.0


@pytest.mark.parametrize(
    ("arguments", "debug", "shared", "debian", "build"),
    [
        ("'--enable-optimizations' '--with-lto'", False, False, False, Build.OPTIMISED),
        ("'--enable-optimizations'", True, False, False, Build.DEBUG),
        ("'--with-pydebug'", False, False, False, Build.DEBUG),
        ("'--prefix=/usr' '--enable-shared'", False, False, True, Build.DEBIAN),
        ("'--prefix=/usr' '--enable-shared'", False, True, True, Build.PLAIN),
        ("'--prefix=/usr' '--enable-shared'", False, False, False, Build.PLAIN),
        ("'--prefix=/usr'", False, False, True, Build.PLAIN),
        ("", False, False, False, Build.PLAIN),
    ],
)
def test_an_interpreter_is_judged_by_how_it_was_configured(
    arguments: str, debug: bool, shared: bool, debian: bool, build: Build
) -> None:
    judged = judge_build(arguments, debug=debug, uses_shared_library=shared, debian=debian)
    assert judged is build
    assert judged.optimised is (build in (Build.OPTIMISED, Build.DEBIAN))


def test_the_processor_is_named() -> None:
    assert processor_name("processor\t: 0\nmodel name\t: A Fast One @ 3 GHz\nflags\t: x\n") == "A Fast One @ 3 GHz"
    assert processor_name("") != ""
