"""The sheet of a single sidecar: figures with targets, and what weakens them."""

from __future__ import annotations

import json

import pytest

from benchmarks.figures import figure
from benchmarks.host import Build, Cores, Machine
from benchmarks.sheet import Row, Sheet, as_json, as_text


def machine(build: Build = Build.OPTIMISED, others: int = 1) -> Machine:
    return Machine(
        python="CPython 3.11.2",
        build=build,
        openssl="OpenSSL 4.0.0",
        processor="a processor",
        cores=Cores(proxies=0, others=others),
    )


def sheet(
    rows: list[Row],
    *,
    on: Machine | None = None,
    foreign: tuple[float, ...] = (0.0, 0.01),
    remarks: tuple[str, ...] = (),
) -> Sheet:
    return Sheet(
        benchmark="start",
        title="A title",
        how=["in two", "lines"],
        machine=on or machine(),
        rows=rows,
        foreign=foreign,
        repetitions=[{"ready": 0.25}],
        remarks=remarks,
    )


READY = Row(name="start to ready", figure=figure([0.2, 0.25, 0.31]), unit="s", target=0.6)


@pytest.mark.parametrize(
    ("values", "target", "verdict"),
    [
        ([30.0, 40.0], 40.0, "met"),
        ([40.1, 44.0], 40.0, "missed"),
        ([39.0, 39.5, 40.1], 40.0, "not settled"),
        ([39.0, 44.0, 45.0], 40.0, "not settled"),
        ([1.0], None, ""),
    ],
)
def test_a_target_is_judged_by_the_whole_range(values: list[float], target: float | None, verdict: str) -> None:
    assert Row(name="a", figure=figure(values), unit="KiB", target=target).verdict == verdict


def test_the_table_says_figures_targets_and_where_they_were_taken() -> None:
    size = Row(name="size", figure=figure([37_145.25]), unit="KiB")
    samples = Row(name="samples", figure=figure([44_183.0]), unit="")
    lines = as_text(sheet([READY, size, samples])).splitlines()
    assert lines[0] == "A title"
    assert "  python      CPython 3.11.2, optimised build (--enable-optimizations)" in lines
    assert "  openssl     OpenSSL 4.0.0" in lines
    assert "  processor   a processor; the sidecar on core 0, everything else on core 1" in lines
    assert lines[4:6] == ["  how         in two", "              lines"]
    table = [" ".join(line.split()) for line in lines]
    assert "start to ready 0.250 s (0.200 to 0.310) at most 0.6 s: met" in table
    assert "size 37,145.2 KiB (37,145.2 to 37,145.2)" in table
    assert "samples 44,183 (44,183 to 44,183)" in table
    assert "WARNING" not in "".join(lines)


@pytest.mark.parametrize(
    ("weak", "warning"),
    [
        (sheet([READY], on=machine(Build.PLAIN)), "without --enable-optimizations"),
        (sheet([READY], on=machine(others=0)), "one core only"),
        (sheet([READY], foreign=(0.0, 0.2)), "others took up to 20% of the sidecar's core"),
        (sheet([READY], foreign=(0.0,)), "no spread"),
        (sheet([READY], remarks=("a remark",)), "a remark"),
    ],
)
def test_what_weakens_figures_is_said(weak: Sheet, warning: str) -> None:
    [said] = weak.warnings()
    assert warning in said
    assert f"WARNING: {said}\n" in as_text(weak)
    assert json.loads(as_json(weak))["warnings"] == [said]


def test_json_holds_figures_verdicts_and_repetitions() -> None:
    document = json.loads(as_json(sheet([READY])))
    assert document["benchmark"] == "start"
    assert document["openssl"] == "OpenSSL 4.0.0"
    assert document["interpreter"]["optimised"] is True
    assert document["figures"] == [
        {
            "name": "start to ready",
            "figure": {"median": 0.25, "lowest": 0.2, "highest": 0.31},
            "unit": "s",
            "target": 0.6,
            "verdict": "met",
        }
    ]
    assert document["repetitions"] == [{"ready": 0.25}]
    assert document["foreign_share"] == [0.0, 0.01]
