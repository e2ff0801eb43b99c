"""One client, one application: requests and answers as they should be."""

from __future__ import annotations

import pytest
from stage import Stage, denial, get, ok, permit, post

from proxy.errors import Reason
from proxy.types import Permit


def test_a_request_goes_up_and_its_answer_comes_down(stage: Stage) -> None:
    client = stage.client()
    client.route.extra = b"x-from: web\r\n"
    client >> get(b"/orders?x=1", b"accept: */*")
    assert stage.app << b"GET /orders?x=1 HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-from: web\r\n\r\n"
    stage.app >> ok(b"hello")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
    (record,) = client.route.records
    assert (record.reasons, record.response_code, record.bytes_sent) == ([Reason.OK], 200, 5)
    assert stage.pool.idle == 1


def test_a_second_request_goes_out_on_the_same_connection(stage: Stage) -> None:
    client = stage.client()
    for number in range(3):
        client >> get(b"/%d" % number)
        stage.app >> ok(b"%d" % number)
    assert len(stage.apps) == 1
    assert stage.app.connection.uses == 3
    assert client.heard().count(b"HTTP/1.1 200 OK") == 3


def test_pipelined_requests_are_answered_one_after_the_other(stage: Stage) -> None:
    client = stage.client()
    client >> get(b"/1") + get(b"/2") + get(b"/3")
    for number in (1, 2, 3):
        assert stage.app << b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % number
        stage.app >> ok(b"%d" % number)
        assert client.heard().endswith(b"\r\n\r\n%d" % number)
    assert len(stage.apps) == 1
    assert [record.reason for record in client.route.records] == [Reason.OK] * 3


def test_pipelined_requests_may_be_denied_in_between(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = lambda head: denial() if head.path == b"/2" else permit()
    client >> get(b"/1") + get(b"/2") + get(b"/3")
    stage.app >> ok(b"one")
    stage.app >> ok(b"three")
    heard = client.heard()
    assert heard.index(b"one") < heard.index(b"RBAC: access denied") < heard.index(b"three")
    assert [record.reason for record in client.route.records] == [Reason.OK, Reason.DENIED_BY_POLICY, Reason.OK]


def test_a_body_streams_up_as_it_comes(stage: Stage) -> None:
    client = stage.client()
    client >> post(b"abc", length=6)
    assert stage.app << b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc"
    client >> b"def"
    assert stage.app << b"def"
    stage.app >> ok()
    assert client.route.records[0].bytes_received == 6
    assert stage.pool.idle == 1


def test_head_body_and_end_leave_in_one_write(stage: Stage) -> None:
    client = stage.client()
    client >> b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert stage.app << b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def test_trailers_go_both_ways(stage: Stage) -> None:
    client = stage.client()
    client >> b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"
    assert stage.app.heard().endswith(b"1\r\na\r\n0\r\nx-sum: 1\r\n\r\n")
    stage.app >> b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n"
    assert client.heard().endswith(b"1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n")


def test_a_chunked_request_without_a_body_is_complete(stage: Stage) -> None:
    client = stage.client()
    client >> b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    client >> b"0\r\n\r\n"
    assert stage.app.heard().endswith(b"\r\n\r\n0\r\n\r\n")
    stage.app >> ok()
    assert stage.pool.idle == 1


def test_head_has_a_length_and_no_body(stage: Stage) -> None:
    client = stage.client()
    client >> b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n" + get(b"/next")
    stage.app >> ok(length=1_000)
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    assert stage.app.heard().endswith(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n")


def test_a_denied_head_has_no_body_either(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    client >> b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert client.heard().endswith(b"content-length: 19\r\nx-request-id: id\r\n\r\n")


def test_a_continue_is_passed_on_before_the_body_is_sent(stage: Stage) -> None:
    client = stage.client()
    client >> post(b"", b"expect: 100-continue", length=3)
    assert b"expect: 100-continue" in stage.app.heard()
    stage.app >> b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client << b"HTTP/1.1 100 Continue\r\n\r\n"
    client >> b"abc"
    assert stage.app << b"abc"
    stage.app >> ok()
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    assert not client.wire.ending


def test_an_interim_answer_is_not_written_to_a_client_of_http_1_0(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n"
    assert client << b""
    stage.app >> ok(b"x")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"


def test_a_client_of_http_1_0_is_closed_after_its_answer(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.0\r\n\r\n"
    stage.app >> ok(b"x")
    assert client.wire.end_sent
    client.ends()
    assert client.end is Reason.OK


def test_a_client_of_http_1_0_may_ask_to_be_kept(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"
    stage.app >> ok(b"x")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\nx"
    client >> b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"
    assert stage.app.heard().count(b"GET / HTTP/1.1") == 2


def test_a_body_until_close_becomes_chunks(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> b"HTTP/1.1 200 OK\r\n\r\nabc"
    stage.app.ends()
    assert client << b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert client.route.records[0].reason is Reason.OK
    assert stage.pool.total == 0
    client >> get()
    assert len(stage.apps) == 2


def test_a_body_until_close_closes_a_client_of_http_1_0(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\n\r\nabc"
    stage.app.ends()
    assert client << b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"
    assert client.wire.end_sent


def test_a_body_until_close_that_was_reset_is_not_made_to_look_whole(stage: Stage) -> None:
    client = stage.client()
    client >> b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"
    stage.app >> b"HTTP/1.1 200 OK\r\n\r\nabc"
    stage.app.resets()
    assert client.wire.aborted
    assert client.route.records[0].reason is Reason.UPSTREAM_RESET
    assert client.end is Reason.UPSTREAM_RESET


def test_an_answer_before_the_end_of_the_request_leaves_the_rest_to_be_dropped(stage: Stage) -> None:
    client = stage.client()
    client >> post(b"abc", length=6)
    stage.app.heard()
    stage.app >> ok(b"early")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly"
    assert client.route.records[0].reason is Reason.OK
    assert stage.app.closed, "a connection on which half a request lies cannot carry another"
    client >> b"def" + get(b"/next")
    assert stage.apps[0] << b""
    assert stage.app.heard().startswith(b"GET /next")
    stage.app >> ok(b"2")
    assert client.heard().endswith(b"2")


def test_a_rest_that_is_too_long_closes_the_connection(stage: Stage) -> None:
    client = stage.client()
    client >> post(length=3_000_000)
    stage.app >> ok(b"early")
    for _ in range(16):
        client >> b"x" * 65_536
    assert not client.wire.ending, "1 MiB may be dropped"
    client >> b"x"
    assert client.wire.end_sent
    stage.wait(1.0)
    assert client.end is Reason.OK


def test_a_denied_body_is_dropped_up_to_the_same_limit(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    client >> post(b"abc", length=6) >> b"def" + get()
    assert client.heard().count(b"RBAC: access denied") == 2
    client >> post(length=3_000_000) >> b"x" * 1_048_577
    assert client.wire.end_sent
    assert not stage.apps


def test_the_limit_counts_each_request_for_itself(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    for _ in range(3):
        client >> post(b"x" * 700_000)
    assert not client.wire.ending


def test_a_client_that_waits_for_100_and_is_answered_otherwise_is_told_to_close(stage: Stage) -> None:
    """It may send the body or not: where the next request begins would be a guess (RFC 9110 section 10.1.1)."""
    client = stage.client()
    client >> post(b"", b"expect: 100-continue", length=3)
    stage.app >> ok(b"no")
    assert b"connection: close" in client.heard()
    assert client.wire.end_sent
    client >> get(b"/smuggled")
    assert b"smuggled" not in stage.app.heard()


def test_a_client_that_waits_for_100_and_is_denied_is_told_to_close(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    client >> post(b"", b"expect: 100-continue", length=3)
    heard = client.heard()
    assert heard.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close" in heard
    assert client.wire.end_sent


def test_a_denied_request_is_answered_and_its_connection_lives_on(stage: Stage) -> None:
    client = stage.client()
    client.route.verdict = denial()
    client >> get()
    assert client << (
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 19\r\n"
        b"x-request-id: id\r\n\r\nRBAC: access denied"
    )
    client.route.verdict = permit()
    client >> get()
    stage.app >> ok(b"now")
    assert client.heard().endswith(b"now")
    assert [record.reason for record in client.route.records] == [Reason.DENIED_BY_POLICY, Reason.OK]


def test_nothing_goes_out_without_a_permit() -> None:
    """Neither policy nor the upstream's identity gave one: nobody may be asked."""
    stage = Stage(upstream_permit=None)
    client = stage.client()
    client.route.verdict = None
    client >> post(b"secret")
    assert stage.app << b""
    assert stage.app.closed
    assert client.heard().startswith(b"HTTP/1.1 500 ")
    assert client.route.records[0].reason is Reason.INTERNAL_ERROR
    assert not client.route.records[0].verdicts
    stage.check()


def test_the_upstreams_identity_is_the_permit_of_a_request_that_policy_leaves_to_it() -> None:
    server = permit()
    stage = Stage(upstream_permit=server)
    client = stage.client()
    client.route.verdict = None
    client >> get()
    stage.app >> ok()
    (record,) = client.route.records
    assert record.verdicts == [server]
    assert record.reason is Reason.OK


def test_a_retry_stands_on_the_permit_of_the_connection_that_it_goes_out_on() -> None:
    first, second = permit(), Permit(peer=None, rule="outbound[orders]", generation=permit().generation)
    stage = Stage(upstream_permit=first)
    client = stage.client()
    client.route.verdict = None
    client >> get()
    stage.app >> ok()
    stage.upstream_permit = second
    client >> get()
    stage.app.resets()
    stage.app >> ok()
    assert client.route.records[1].verdicts[-1] is second


def test_a_closing_client_half_closes_and_still_gets_its_answer(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    client.ends()
    assert client.end is None
    stage.app >> ok(b"late")
    assert client.heard().endswith(b"late")
    assert client.end is Reason.OK


def test_connection_close_is_said_and_done(stage: Stage) -> None:
    client = stage.client()
    client >> get(b"/", b"connection: close") + get(b"/never")
    stage.app >> ok(b"x")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx"
    assert client.wire.end_sent
    assert b"never" not in stage.app.heard()
    client.ends()
    assert client.end is Reason.OK


def test_an_upstream_that_closes_is_not_used_again(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok(b"x", b"connection: close")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    assert stage.app.closed
    client >> get()
    assert len(stage.apps) == 2


def test_an_upstream_with_bytes_left_over_is_not_used_again(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok(b"x") + ok(b"smuggled")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
    assert stage.apps[0].closed
    client >> get()
    stage.app >> ok(b"y")
    assert client << b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ny"


def test_an_idle_upstream_that_speaks_or_ends_or_breaks_leaves_the_pool(stage: Stage) -> None:
    client = stage.client()
    for word in (ok(b"unasked"), b"", None):
        client >> get()
        stage.app >> ok()
        if word is None:
            stage.app.resets()
        else:
            stage.app >> word
        assert stage.app.closed
        assert stage.pool.total == 0


@pytest.mark.parametrize("first", [get(b"/1") + get(b"/2")[:10], b"G"])
def test_bytes_that_were_read_before_the_protocol_was_known_come_first(stage: Stage, first: bytes) -> None:
    client = stage.client(start=False)
    client.pump.start(first)
    stage.run()
    client >> (get(b"/2")[10:] if len(first) > 1 else get(b"/1")[1:])
    assert stage.app.heard().startswith(b"GET /1 ")
