"""Our own generators of load, as far as they need no socket, and the reading of what all of them say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import open_loop, probes
from benchmarks.drive import command, cost, read
from benchmarks.load import PATH, wrk_command
from benchmarks.matrix import Kind, Load
from benchmarks.open_loop import Ask, OpenLoopError, Schedule, content_length
from benchmarks.policies import DENIED_SOURCE
from benchmarks.processes import BenchError, ProcessStat, tree_ticks, trees
from benchmarks.results import Percentile
from benchmarks.tcp_load import Service, TcpLoadError

CAPACITY = Load(kind=Kind.CAPACITY, connections=8, payload=65_536)
LATENCY = Load(kind=Kind.LATENCY, connections=16, rate=2_000)
ROUNDTRIPS = Load(kind=Kind.ROUNDTRIPS, connections=32, payload=64)
BULK = Load(kind=Kind.BULK, connections=1, payload=10_000_000)
HANDSHAKES = Load(kind=Kind.HANDSHAKES, connections=8)

WRK = """\
  Latency Distribution
     50%    2.50ms
     99%    9.00ms
  300 requests in 3.00s, 9.26KB read
Requests/sec:    100.00
"""


def test_requests_are_due_at_fixed_times_whatever_became_of_those_before() -> None:
    schedule = Schedule(rate=2_000, count=4)
    assert schedule.take(0) == 0
    assert schedule.take(499_999) is None
    # A stall of a second and a half: those that were due meanwhile keep their times, and so their wait is counted.
    assert [schedule.take(1_500_000_000) for _ in range(4)] == [500_000, 1_000_000, 1_500_000, None]
    assert schedule.next_due is None


def test_a_rate_that_does_not_divide_a_second_does_not_drift() -> None:
    schedule = Schedule(rate=3, count=7)
    due = [schedule.take(10**10) for _ in range(7)]
    assert due[3] == 1_000_000_000
    assert due[6] == 2_000_000_000


def test_an_answer_must_say_how_long_it_is() -> None:
    assert content_length(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nServer: x") == 12
    with pytest.raises(OpenLoopError, match="how long"):
        content_length(b"HTTP/1.1 200 OK\r\nServer: x")


def test_the_warm_up_is_sent_and_not_counted() -> None:
    ask = Ask(port=1, path="/", rate=1_000, connections=1, seconds=2.0)
    assert open_loop.requests(ask) == 2_500


def test_without_the_library_a_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh", None)
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(OpenLoopError, match="hdrhistogram is not installed; the extra `bench` brings it"):
        open_loop.Histogram()


def fed(*parts: bytes) -> tuple[bytes, int]:
    service = Service()
    return b"".join(service.receive(part) for part in parts), service.owed


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"Eping", b"pong"), (b"pingpong", 0)),
        ((b"E", b"", b"E"), (b"E", 0)),
        ((b"D\0\0\0\0\0\0\0\7",), (b"", 0)),
        ((b"D\0\0\0\0\0\0\0\7..", b"."), (b"", 21)),
        ((b"D", b"\0\0\0\0\0\0\0", b"\7", b"."), (b"", 7)),
    ],
)
def test_a_connection_gets_what_its_first_byte_asks_for(parts: tuple[bytes, ...], expected: tuple[bytes, int]) -> None:
    assert fed(*parts) == expected


def test_a_connection_that_asks_for_nothing_known_is_refused() -> None:
    with pytest.raises(TcpLoadError, match="b'G'"):
        Service().receive(b"GET /")


def test_wrk_is_told_the_path_and_whether_to_keep_connections() -> None:
    kept = wrk_command("wrk", 80, connections=2, seconds=1)
    assert kept[-1].endswith(f":80{PATH}")
    assert "Connection: close" not in kept
    assert "Connection: close" in command(HANDSHAKES, 80, 1, "wrk")
    assert command(CAPACITY, 80, 1, "wrk")[-1] == "http://127.0.0.1:80/orders/65536"


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (LATENCY, "benchmarks.open_loop 80 --path /orders/0 --rate 2000 --connections 16 --seconds 1.5"),
        (ROUNDTRIPS, "benchmarks.tcp_load roundtrips 80 --size 64 --connections 32 --seconds 1.5"),
        (BULK, "benchmarks.tcp_load bulk 80 --size 10000000 --connections 1 --seconds 1.5"),
    ],
)
def test_our_generators_are_told_what_the_load_says(load: Load, words: str) -> None:
    assert command(load, 80, 1.5, "wrk")[1:] == ["-m", *words.split()]


def test_a_capacity_is_read_with_its_bytes() -> None:
    driven = read(CAPACITY, WRK)
    assert driven.total == 300
    expected = {"rate": 100.0, "p50_us": 2_500.0, "p99_us": 9_000.0, "mb_per_s": 6.5536}
    assert driven.figures == pytest.approx(expected)


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 2, write 0, timeout 1"]
)
def test_answers_that_fail_make_no_figure(line: str) -> None:
    with pytest.raises(BenchError, match="3 "):
        read(CAPACITY, WRK + line + "\n")


def test_latencies_are_read_with_their_distribution() -> None:
    points = [[0.0, 50.0], [50.0, 100.5], [90.0, 200.0], [99.0, 300.0], [99.9, 400.0], [99.95, 450.0], [100.0, 500.0]]
    driven = read(LATENCY, json.dumps({"count": 7, "total": 9, "percentiles": points}))
    assert driven.figures == {"p50_us": 100.5, "p90_us": 200.0, "p99_us": 300.0, "p999_us": 400.0, "max_us": 500.0}
    assert driven.percentiles[5] == Percentile(percent=99.95, us=450.0)
    assert driven.total == 9


def test_trips_and_bytes_are_counted_without_the_warm_up_and_paid_for_with_it() -> None:
    done = {"requests": 100, "received": 6_000_000, "seconds": 2.0, "total": 120, "p50_us": 5.0, "p99_us": 6.0}
    trips = read(ROUNDTRIPS, json.dumps(done))
    assert trips.figures == {"rate": 50.0, "p50_us": 5.0, "p99_us": 6.0}
    assert cost(ROUNDTRIPS, 0.0024, trips.total) == {"cpu_us": pytest.approx(20.0)}
    bulk = read(BULK, json.dumps({**done, "total": 8_000_000}))
    assert bulk.figures == {"mb_per_s": 3.0}
    assert cost(BULK, 0.004, bulk.total) == {"cpu_us_per_mb": pytest.approx(500.0)}


def log(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


REQUEST = {"path": probes.denied_path(2), "response_code": 403, "decision": "deny"}
CONNECTION = {"downstream_remote_address": f"{DENIED_SOURCE}:4711", "decision": "deny"}


def test_a_refusal_on_record_is_found(tmp_path: Path) -> None:
    probes.await_denial(log(tmp_path / "http", {"path": "/orders/0", "response_code": 200}, REQUEST), 2, http=True)
    probes.await_denial(log(tmp_path / "tcp", {"downstream_remote_address": "127.0.0.1:1"}, CONNECTION), 2, http=False)


@pytest.mark.parametrize(
    ("records", "http"),
    [
        ([{**REQUEST, "response_code": 200}], True),
        ([{**REQUEST, "decision": "allow"}], True),
        ([{**CONNECTION, "decision": "allow"}], False),
        ([{**REQUEST, "path": probes.denied_path(1)}], True),
        ([], False),
    ],
)
def test_a_refusal_that_is_not_on_record_fails_the_round(
    records: list[object], http: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "LOG_SECONDS", 0.0)
    with pytest.raises(BenchError, match="record"):
        probes.await_denial(log(tmp_path / "log", *records), 2, http=http)


def test_a_request_without_a_line_fails_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "LOG_SECONDS", 0.0)
    probes.await_lines(log(tmp_path / "log", 1, 2), 2, "the inbound hop")
    with pytest.raises(BenchError, match="the inbound hop logged 2 of 3"):
        probes.await_lines(tmp_path / "log", 3, "the inbound hop")


def test_the_workers_of_a_program_count_with_it() -> None:
    stats = {1: ProcessStat(parent=0, ticks=1), 5: ProcessStat(parent=1, ticks=10), 6: ProcessStat(parent=5, ticks=20)}
    assert sorted(trees(stats, [5, 9])) == [5, 6]
    assert tree_ticks(stats, [5, 9]) == 30
