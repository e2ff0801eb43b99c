"""Starts and scrapes of one sidecar: what is counted, and how it is written down."""

from __future__ import annotations

import pytest

from benchmarks import scrape, start
from benchmarks.host import Build, Cores, Machine
from benchmarks.scrape import Page, weigh

MACHINE = Machine(
    python="CPython 3.11.2",
    build=Build.OPTIMISED,
    openssl="OpenSSL 4.0.0",
    processor="a processor",
    cores=Cores(proxies=0, others=1),
)


@pytest.mark.parametrize(("slowest", "verdict"), [(0.4, "met"), (0.7, "not settled")])
def test_starts_are_held_against_their_target(slowest: float, verdict: str) -> None:
    starts = [
        start.Repetition(ready=ready, cpu=ready / 2, interpreter=0.01, foreign_share=0.0)
        for ready in (0.2, 0.3, slowest)
    ]
    ready, cpu, interpreter = start.sheet(MACHINE, starts).rows
    assert (ready.figure.median, ready.verdict) == (0.3, verdict)
    assert cpu.figure.median == 0.15
    assert interpreter.figure.highest == 0.01


def test_a_page_is_weighed() -> None:
    page = (
        b"# HELP istio_requests_total Finished HTTP requests.\n# TYPE istio_requests_total counter\n"
        b'istio_requests_total{response_code="200"} 3\nistio_requests_total{response_code="403"} 1\n\n'
        b'istio_request_bytes_bucket{le="256"} 3\nremora_ready 1.0\n'
    )
    assert weigh(page) == Page(size=len(page), samples=4, label_sets=2)


def test_scrapes_before_and_after_traffic_stand_in_one_sheet() -> None:
    def found(wall_ms: float) -> list[scrape.Repetition]:
        return [
            scrape.Repetition(wall_ms=wall_ms, cpu_ms=wall_ms / 2, wait_ms=1.0, foreign_share=0.0) for _ in range(2)
        ]

    sheet = scrape.sheet(
        MACHINE,
        (Page(size=1_024, samples=9, label_sets=0), found(1.0)),
        (Page(size=4_096, samples=99, label_sets=1_000), found(50.0)),
    )
    figures = {row.name: row.figure.median for row in sheet.rows}
    assert figures["no label set: time of a scrape"] == 1.0
    assert figures["1,000 label sets: time of a scrape"] == 50.0
    assert figures["1,000 label sets: CPU of the sidecar"] == 25.0
    assert figures["1,000 label sets: size of the page"] == 4.0
    assert figures["1,000 label sets: samples"] == 99.0
    assert [item["label_sets"] for item in sheet.repetitions] == [0, 0, 1_000, 1_000]
    assert not sheet.warnings()
