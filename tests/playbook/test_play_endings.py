"""Whatever ends a connection, wherever it stands: one record each, nothing left running, nothing made to look whole."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from endings import ENDINGS, PLACES, in_answer, outcome, play
from stage import Client, Stage

from proxy.errors import Reason

TABLE: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("endings.yaml").read_text())
Step = Callable[[Stage, Client], None]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_every_ending_at_every_place_leaves_one_record_each(place: Step, ending: Step) -> None:
    stage, client = play(place, ending)
    assert client.closed
    assert len(client.reasons) == 1
    for record in client.route.records:
        assert record.reasons, "a record was left unfinished"
    assert not stage.clock.armed, "a deadline runs on for something that has ended"
    assert stage.pool.total == len(stage.dials), "a place in the pool was not given back"
    assert all(app.closed for app in stage.apps)
    assert outcome(client) == TABLE[ending.__name__][place.__name__]
    stage.check()
    stage.close()


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
def test_an_answer_that_was_cut_short_is_never_ended_cleanly(ending: Step) -> None:
    stage, client = play(in_answer, ending)
    assert not client.wire.end_sent
    assert client.route.records[0].reason is not Reason.OK
    stage.close()


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_an_ending_may_be_followed_by_any_other(place: Step, ending: Step) -> None:
    """What comes after the end changes nothing: no second word, no use of what was closed."""
    stage, client = play(place, ending)
    before = outcome(client)
    client.pump.break_off(Reason.DRAIN_DEADLINE)
    stage.run()
    stage.wait(200)
    assert outcome(client) == before
    assert len(client.reasons) == 1
    assert not stage.clock.armed
    stage.close()


def test_a_drain_that_came_before_the_start_closes_within_the_linger_time(stage: Stage) -> None:
    client = stage.client(start=False)
    client.pump.drain()
    client.pump.start(b"GET / HT")
    stage.run()
    assert client.wire.end_sent
    stage.wait(1.0)
    assert client.end is Reason.DRAINED
    assert not client.route.records


def test_a_drained_connection_tells_the_client_in_its_last_answer(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n"
    client.pump.drain()
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
    assert client.wire.end_sent
    assert stage.app.heard().count(b"GET") == 1


def test_a_request_after_the_certificates_end_is_not_begun(stage: Stage) -> None:
    client = stage.client(ends_at=stage.clock.now + 5)
    stage.clock.now += 5
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert not stage.apps
    assert client.route.records[0].reason is Reason.PEER_CERTIFICATE_ENDED
    assert client.wire.end_sent


def test_a_request_that_runs_at_the_certificates_end_is_finished(stage: Stage) -> None:
    client = stage.client(ends_at=stage.clock.now + 5)
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.wait(6)
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
    assert client.wire.end_sent
    assert client.route.records[0].reason is Reason.OK


def test_a_stream_without_end_does_not_outlive_the_certificate_for_long(stage: Stage) -> None:
    client = stage.client(ends_at=stage.clock.now + 5)
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    for _ in range(40):
        if not stage.app.closed:
            stage.app >> b"event"
        stage.wait(1)
    assert client.wire.aborted
    assert client.route.records[0].reason is Reason.PEER_CERTIFICATE_ENDED


def test_a_lingering_connection_drops_what_comes_and_closes_with_the_peer(stage: Stage) -> None:
    client = stage.client()
    client >> b"BAD\r\n\r\n"
    assert client.heard().startswith(b"HTTP/1.1 400 ")
    assert client.wire.end_sent
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert len(client.route.records) == 1
    client.ends()
    assert client.closed
    assert client.end is Reason.REQUEST_LINE_INVALID


def test_a_lingering_connection_closes_after_a_second(stage: Stage) -> None:
    client = stage.client()
    client >> b"BAD\r\n\r\n"
    stage.wait(0.9)
    assert not client.closed
    stage.wait(0.1)
    assert client.closed
    assert not client.wire.aborted


def test_a_lingering_connection_that_talks_on_without_end_is_closed_at_once(stage: Stage) -> None:
    client = stage.client()
    client >> b"BAD\r\n\r\n"
    for _ in range(16):
        client >> b"x" * 65_536
    assert not client.closed
    client >> b"x"
    assert client.closed


def test_a_head_that_drips_in_is_answered_408(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\n"
    for _ in range(9):
        stage.wait(1)
        client >> b"x: y\r\n"
    stage.wait(1)
    assert client.heard().startswith(b"HTTP/1.1 408 ")
    assert client.route.records[0].reason is Reason.HEAD_TIMEOUT


def test_a_fault_after_an_interim_answer_leaves_nothing_for_the_next_answer(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nGARBAGE\r\n\r\n"
    assert client.heard().startswith(b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\nHTTP/1.1 502 ")
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"


def test_an_interim_answer_does_not_put_off_the_deadline_of_the_final_one(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.wait(10)
    stage.app >> b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
    stage.wait(5)
    assert client.route.records[0].reason is Reason.UPSTREAM_TIMEOUT


@pytest.mark.parametrize(
    "answer", [b"GARBAGE\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"]
)
def test_a_bad_answer_is_a_502_and_its_connection_is_closed(stage: Stage, answer: bytes) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.app >> answer
    assert client.heard().startswith(b"HTTP/1.1 502 ")
    assert client.route.records[0].reason is Reason.UPSTREAM_RESPONSE_INVALID
    assert stage.app.closed


def test_a_bad_chunk_of_an_answer_resets_the_client(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    stage.app >> b"xyz\r\n"
    assert client.heard().endswith(b"3\r\nabc\r\n")
    assert client.wire.aborted
    assert client.route.records[0].reason is Reason.UPSTREAM_RESPONSE_INVALID


def test_a_bad_chunk_of_a_request_is_answered_400_and_the_application_sees_a_break(stage: Stage) -> None:
    client = stage.client()
    client >> b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    client >> b"xyz\r\n"
    assert client.heard().startswith(b"HTTP/1.1 400 ")
    assert stage.app.closed
    assert not stage.app.heard().endswith(b"0\r\n\r\n")
    assert client.route.records[0].reason is Reason.CHUNK_INVALID


def test_a_bad_request_behind_a_good_one_is_refused_after_its_answer(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.1\r\nhost: a\r\n\r\nBAD\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    heard = client.heard()
    assert heard.startswith(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 400 ")
    assert [record.reason for record in client.route.records] == [Reason.OK, Reason.REQUEST_LINE_INVALID]


def test_a_bad_request_after_an_early_answer_closes_without_another(stage: Stage) -> None:
    client = stage.client()
    client >> b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    client >> b"xyz\r\n"
    assert client.heard().count(b"HTTP/1.1 ") == 1
    assert client.end is None
    assert client.wire.end_sent
