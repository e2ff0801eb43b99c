"""wrk's report is read to the last figure, and a report without one of them is refused."""

from __future__ import annotations

import pytest

from benchmarks.load import LoadError, parse_wrk, wrk_command

REPORT = """\
Running 3s test @ http://127.0.0.1:8080/orders/42
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.50ms  612.00us  35.71ms   93.77%
    Req/Sec    12.60k     1.11k   14.17k    70.00%
  Latency Distribution
     50%    2.36ms
     75%    2.67ms
     90%    3.05ms
     99%    1.20s\x20
  37614 requests in 3.00s, 7.53MB read
Requests/sec:  12537.29
Transfer/sec:      2.51MB
"""


def test_a_report_is_read() -> None:
    report = parse_wrk(REPORT)
    assert (report.requests, report.seconds, report.rate) == (37614, 3.0, 12537.29)
    assert report.p50_us == pytest.approx(2360)
    assert report.p99_us == pytest.approx(1_200_000)
    assert (report.refused, report.broken) == (0, 0)


@pytest.mark.parametrize(
    ("written", "microseconds"),
    [("850.00us", 850), (" 12.34ms", 12_340), ("  1.11s ", 1_110_000), (" 54.00s ", 54e6), ("  1.02m ", 61.2e6)],
)
def test_a_unit_of_one_letter_is_followed_by_a_blank(written: str, microseconds: float) -> None:
    # As wrk 4.1 prints it: whatever its unit, a latency is ten columns wide.
    report = parse_wrk(REPORT.replace("    1.20s \n", f"{written:>10}\n"))
    assert report.p99_us == pytest.approx(microseconds)


def test_failures_are_counted() -> None:
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 17\nRequests/sec:"
    report = parse_wrk(REPORT.replace("Requests/sec:", errors))
    assert (report.refused, report.broken) == (17, 10)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("  37614 requests in 3.00s, 7.53MB read\n", "the number of requests"),
        ("Requests/sec:  12537.29\n", "Requests/sec"),
        ("     50%    2.36ms\n", "the 50th percentile"),
        ("     99%    1.20s \n", "the 99th percentile"),
    ],
)
def test_a_report_without_a_figure_is_refused(line: str, named: str) -> None:
    assert line in REPORT
    with pytest.raises(LoadError, match=named):
        parse_wrk(REPORT.replace(line, ""))


@pytest.mark.parametrize(("seconds", "duration"), [(3, "3s"), (0.2, "1s"), (2.6, "3s")])
def test_the_command_line_is_bounded_in_time_and_connections(seconds: float, duration: str) -> None:
    command = wrk_command("wrk", 8080, connections=16, seconds=seconds)
    assert f"--duration={duration}" in command
    assert "--connections=16" in command
    assert command[-1].startswith("http://127.0.0.1:8080/")
