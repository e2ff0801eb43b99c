"""A stale pooled connection: the request is sent once more, but only where that cannot make it happen twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stage import App, Client, Stage, get, ok, post

from proxy.errors import InternalFault, Reason, UpstreamError

GONE: dict[str, Callable[[App], object]] = {"reset": App.resets, "closed": lambda app: app >> b""}


def warmed_up(stage: Stage) -> Client:
    """Give a client behind which one connection idles."""
    client = stage.client()
    client >> get()
    stage.app >> ok()
    client.heard()
    stage.app.heard()
    return client


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
def test_an_idempotent_request_is_sent_once_more(stage: Stage, gone: str, method: bytes) -> None:
    client = warmed_up(stage)
    client >> post(b"abc", method=method)
    stale = stage.app
    sent = stale.heard()
    assert sent.startswith(method + b" /")
    GONE[gone](stale)
    assert stage.app is not stale
    assert stage.app << sent
    stage.app >> ok()
    record = client.route.records[1]
    assert (record.reason, record.retries, record.response_code) == (Reason.OK, 1, 200)


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"UNHEARDOF"])
def test_another_request_that_was_sent_is_not(stage: Stage, gone: str, method: bytes) -> None:
    client = warmed_up(stage)
    client >> post(b"abc", method=method)
    GONE[gone](stage.app)
    assert len(stage.apps) == 1
    assert client.heard().startswith(b"HTTP/1.1 503 ")
    record = client.route.records[1]
    assert record.reason is (Reason.UPSTREAM_RESET if gone == "reset" else Reason.UPSTREAM_CLOSED)
    assert record.retries == 0


def test_another_request_of_which_nothing_was_sent_is(stage: Stage) -> None:
    client = warmed_up(stage)
    stage.app.wire.room = 0
    client >> post(b"abc")
    stage.app.resets()
    assert stage.app.heard().endswith(b"\r\n\r\nabc")
    stage.app >> ok()
    assert client.route.records[1].retries == 1


def test_a_request_of_which_a_part_was_sent_is_not(stage: Stage) -> None:
    client = warmed_up(stage)
    stage.app.wire.room = 5
    client >> post(b"abc")
    stage.app.resets()
    assert client.route.records[1].reason is Reason.UPSTREAM_RESET


def test_a_fresh_connection_that_fails_is_no_stale_one(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app.resets()
    assert len(stage.apps) == 1
    assert client.heard().startswith(b"HTTP/1.1 503 ")
    assert client.route.records[0].reason is Reason.UPSTREAM_RESET


def test_a_second_failure_is_final(stage: Stage) -> None:
    client = warmed_up(stage)
    client >> get()
    stage.apps[0].resets()
    stage.apps[1].resets()
    assert len(stage.apps) == 2
    assert client.heard().startswith(b"HTTP/1.1 503 ")
    assert client.route.records[1].retries == 1
    client >> get()
    stage.app >> ok(b"alive")
    assert client.heard().endswith(b"alive")


def test_a_retry_passes_over_other_idle_connections(stage: Stage) -> None:
    """They idled as long: the next hop has restarted, and all of them are stale."""
    client, other = stage.client(), stage.client()
    client >> get()
    other >> get()
    for app in list(stage.apps):
        app >> ok()
    assert stage.pool.idle == 2
    client >> get()
    next(app for app in stage.apps if app.connection.stream is not None).resets()
    assert len(stage.apps) == 3
    assert stage.app.heard().startswith(b"GET / ")


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\ncontent-", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_no_request_is_sent_again_once_any_byte_of_an_answer_came(stage: Stage, gone: str, begun: bytes) -> None:
    client = warmed_up(stage)
    client >> get()
    stage.app >> begun
    GONE[gone](stage.app)
    assert len(stage.apps) == 1
    assert client.route.records[1].retries == 0
    assert client.route.records[1].reason is not Reason.OK
    assert b"HTTP/1.1 50" in client.heard()


def test_no_request_is_sent_again_whose_body_went_out_in_more_than_one_write(stage: Stage) -> None:
    client = warmed_up(stage)
    client >> post(b"abc", length=6, method=b"PUT")
    client >> b"def"
    stage.app.resets()
    assert len(stage.apps) == 1
    assert client.route.records[1].reason is Reason.UPSTREAM_RESET


def test_a_body_that_has_only_begun_goes_on_after_the_retry(stage: Stage) -> None:
    client = warmed_up(stage)
    client >> post(b"abc", length=6, method=b"PUT")
    stage.app.resets()
    assert stage.app.heard().endswith(b"content-length: 6\r\n\r\nabc")
    client >> b"def"
    assert stage.app << b"def"
    stage.app >> ok()
    assert client.route.records[1].bytes_received == 6


def test_a_body_that_arrives_while_the_retry_dials_is_kept_in_order(stage: Stage) -> None:
    client = warmed_up(stage)
    stage.dials_at_once = False
    client >> post(b"abc", length=9, method=b"PUT")
    stage.app.resets()
    client >> b"def"
    client >> b"ghi"
    stage.accept()
    assert stage.app.heard().endswith(b"content-length: 9\r\n\r\nabcdefghi")


def test_a_retry_whose_dial_fails_is_answered(stage: Stage) -> None:
    client = warmed_up(stage)
    stage.dials_at_once = False
    client >> get()
    stage.app.resets()
    stage.refuse(UpstreamError("connection refused"))
    assert client.heard().startswith(b"HTTP/1.1 503 ")
    assert client.route.records[1].reason is Reason.UPSTREAM_CONNECT_FAILED
    stage.check()


def test_a_retry_for_which_the_pool_has_no_room_is_answered_and_holds_nobody() -> None:
    stage = Stage(connections=1, waiters=0)
    client = warmed_up(stage)
    client >> get()
    stage.app.resets()  # leaves room for the retry
    stage.app >> ok()
    assert client.route.records[1].retries == 1
    stage.check()


def test_a_client_that_was_held_is_read_again_after_the_retry(stage: Stage) -> None:
    client = warmed_up(stage)
    stage.app.wire.room = 0
    client >> post(b"x" * 70_000, length=140_000)
    assert not client.wire.reading
    stage.app.resets()
    client >> b"x" * 70_000
    assert stage.app.heard().endswith(b"x" * 140_000)
    stage.app >> ok()
    assert client.route.records[1].reason is Reason.OK


def test_a_fault_of_ours_is_answered_and_not_tried_again(stage: Stage) -> None:
    client = warmed_up(stage)
    client >> get()
    stage.app.wire.inbox.append(InternalFault(71, "a fault of the sidecar"))
    stage.run()
    assert len(stage.apps) == 1
    assert client.heard().startswith(b"HTTP/1.1 500 ")
    assert client.route.records[1].reason is Reason.INTERNAL_ERROR
