"""Back-pressure both ways: who does not take is not sent more, nothing grows, nobody is left waiting."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
from stage import HIGH, Stage, denial, get, ok, post

from proxy.errors import BufferOverrun, Reason


def test_a_client_that_does_not_read_stops_the_application(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    client.wire.room = 10
    stage.app >> ok(b"x" * 70_000, length=100_000)
    assert not stage.app.wire.reading
    stage.app >> b"y" * 30_000
    assert stage.app.wire.inbox, "it is not read"
    client.takes(1e9)
    assert client.heard().endswith(b"y" * 30_000)
    assert client.route.records[0].reason is Reason.OK
    assert stage.pool.idle == 1


def test_an_application_that_does_not_take_stops_the_client(stage: Stage) -> None:
    client = stage.client()
    client >> post(length=200_000)
    stage.app.wire.room = 0
    client >> b"x" * 70_000
    assert not client.wire.reading
    client >> b"y" * 130_000
    assert client.wire.inbox, "it is not read"
    stage.app.takes(1e9)
    assert stage.app.heard().endswith(b"x" * 70_000 + b"y" * 130_000)


def test_a_client_is_stopped_while_its_upstream_is_dialled(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> post(b"x" * 40_000, length=200_000)
    assert client.wire.reading
    client >> b"x" * 40_000
    assert not client.wire.reading
    client >> b"y" * 120_000
    stage.accept()
    stage.run()
    assert stage.app.heard().endswith(b"x" * 80_000 + b"y" * 120_000)
    assert client.wire.reading


def test_a_client_stays_stopped_when_the_new_upstream_does_not_take_either(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> post(b"x" * 80_000, length=200_000)
    stage.room_of_new_apps = 0
    stage.accept()
    assert stage.app.wire.congested
    assert not client.wire.reading
    stage.app.takes(1e9)
    assert client.wire.reading


def test_a_client_that_pipelines_and_does_not_read_gets_no_more_answers(stage: Stage) -> None:
    client = stage.client()
    client.wire.room = 0
    client >> get(b"/0") * 200
    for _ in range(200):
        if stage.app.connection.stream is None:
            break
        stage.app >> ok(b"x" * 10_000)
    held = len(client.wire._held)
    assert held < HIGH + 20_000
    assert stage.app.connection.stream is None, "no request is begun for a client that takes no answer"
    while not client.closed and (client.wire._held or client.wire.inbox or stage.app.connection.stream):
        client.takes(1e9)
        stage.app >> ok(b"x" * 10_000)
        if len(client.route.records) == 200 and stage.app.connection.stream is None:
            break
    assert [record.reason for record in client.route.records] == [Reason.OK] * 200


def test_a_client_that_pipelines_denied_requests_and_does_not_read_is_no_longer_read(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    client.wire.room = 0
    for _ in range(20):
        client >> get(b"/0") * 100
    assert len(client.wire._held) < HIGH + 1_000
    assert not client.wire.reading
    client.takes(1e9)
    assert client.heard().count(b"HTTP/1.1 403 ") == 2_000
    assert client.wire.reading


def test_pipelined_requests_beyond_the_backlog_wait_in_the_kernel(stage: Stage) -> None:
    client = stage.client()
    client >> get(b"/0")
    for _ in range(4):
        client >> get(b"/1", b"x-fill: " + b"x" * 30_000)
    assert not client.wire.reading
    for _ in range(5):
        stage.app >> ok()
    assert client.wire.reading
    assert [record.reason for record in client.route.records] == [Reason.OK] * 5


def test_a_slow_client_gets_the_whole_of_its_last_answer(stage: Stage) -> None:
    """Our side ends only when the last byte was taken: a second is for the goodbye, not for the answer."""
    client = stage.client()
    client >> get(b"/", b"connection: close")
    client.wire.room = 0
    stage.app >> ok(b"x" * 60_000)
    for _ in range(20):
        stage.wait(1.0)
        client.takes(3_100)
    assert client.wire.end_sent
    assert not client.wire.aborted
    assert client.heard().endswith(b"x" * 60_000)
    stage.wait(1.0)
    assert client.end is Reason.OK


def test_a_client_that_never_takes_its_last_answer_is_reset_in_the_end(stage: Stage) -> None:
    client = stage.client()
    client >> get(b"/", b"connection: close")
    client.wire.room = 0
    stage.app >> ok(b"x" * 60_000)
    stage.wait(31.0)
    assert client.wire.aborted, "a clean end would say that it has everything"
    assert client.end is Reason.IDLE_TIMEOUT


def test_an_application_that_takes_nothing_is_to_blame_and_not_the_client(stage: Stage) -> None:
    client = stage.client()
    client >> post(length=200_000)
    stage.app.wire.room = 0
    client >> b"x" * 70_000
    stage.wait(31.0)
    assert client.heard().startswith(b"HTTP/1.1 504 ")
    assert client.route.records[0].reason is Reason.UPSTREAM_TIMEOUT


def test_a_client_that_takes_nothing_of_an_answer_is_given_up(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    client.wire.room = 0
    stage.app >> ok(b"x" * 70_000, length=100_000)
    stage.wait(31.0)
    assert client.wire.aborted
    assert client.route.records[0].reason is Reason.IDLE_TIMEOUT
    assert stage.app.closed


def test_an_early_answer_lets_a_held_client_go_on(stage: Stage) -> None:
    client = stage.client()
    client >> post(length=200_000)
    stage.app.wire.room = 0
    client >> b"x" * 70_000
    assert not client.wire.reading
    stage.app >> ok(b"early")
    assert client.wire.reading
    client >> b"x" * 130_000 + get(b"/next")
    assert stage.app.heard().startswith(b"GET /next ")


def test_a_connection_goes_back_to_the_pool_although_the_last_bytes_are_still_held(stage: Stage) -> None:
    client, other = stage.client(), stage.client()
    client >> post(length=70_000)
    stage.app.wire.room = 0
    client >> b"x" * 70_000
    stage.app >> ok(b"early, but all was given")
    assert client.wire.reading
    other >> get(b"/other")
    stage.app.takes(1e9)
    assert stage.app.heard().endswith(b"GET /other HTTP/1.1\r\nhost: a\r\n\r\n")
    stage.app >> ok(b"theirs")
    assert other.heard().endswith(b"theirs")


def test_a_client_that_broke_for_a_reason_of_its_own_has_it_on_record(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    client.wire.inbox.append(BufferOverrun(105, "the peer takes no bytes"))
    stage.run()
    assert client.route.records[0].reason is Reason.BUFFER_LIMIT
    assert client.end is Reason.BUFFER_LIMIT
    assert stage.app.closed
