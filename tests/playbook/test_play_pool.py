"""The pool under real exchanges: who waits, who is served, what is counted, what is too old."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import asyncio

import pytest
from stage import Stage, get, ok, post

from proxy.errors import Reason, UpstreamError
from proxy.types import Generation


def test_the_warmest_connection_is_used_first(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one >> get()
    two >> get()
    stage.apps[0] >> ok()
    stage.apps[1] >> ok()
    one >> get()
    assert stage.apps[1].connection.stream is not None
    assert stage.apps[0].connection.stream is None


def test_an_idle_connection_is_closed_in_time_and_with_a_clean_end(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok()
    stage.wait(3.9)
    assert not stage.app.closed
    stage.wait(0.2)
    assert stage.app.closed
    assert stage.app.wire.end_sent
    assert stage.pool.total == 0


def test_a_busy_connection_is_not_ended_by_the_idle_time(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok()
    stage.wait(3.0)
    client >> get()
    stage.wait(3.0)
    stage.app >> ok(b"slow")
    assert client.heard().endswith(b"slow")


def test_a_connection_of_an_older_generation_takes_no_request(stage: Stage) -> None:
    client = stage.client()
    client >> get()
    stage.app >> ok()
    stage.generation = Generation(2)
    client >> get()
    assert len(stage.apps) == 2
    assert stage.apps[0].closed


def test_a_connection_whose_servers_certificate_has_ended_takes_no_request(stage: Stage) -> None:
    stage.upstream_expires_at = stage.clock.now + 2
    client = stage.client()
    client >> get()
    stage.app >> ok()
    stage.wait(2)
    assert stage.app.closed, "it is not even kept"
    client >> get()
    assert len(stage.apps) == 2


@pytest.mark.parametrize("what", ["age", "certificate", "generation"])
def test_a_connection_that_is_too_old_is_not_handed_to_who_waits(what: str) -> None:
    """Under load a connection never idles: what it stands on must be looked at when it is handed over too."""
    stage = Stage(connections=1)
    if what == "certificate":
        stage.upstream_expires_at = stage.clock.now + 5
    one, two = stage.client(), stage.client()
    one >> get(b"/1")
    stage.clock.now += 10
    if what == "age":
        stage.app.connection.created_at -= 1_000
    if what == "generation":
        stage.generation = Generation(2)
    two >> get(b"/2")
    stage.app >> ok()
    assert len(stage.apps) == 2
    assert stage.apps[0].closed
    assert stage.app.heard().startswith(b"GET /2 ")
    stage.check()


def test_who_waits_for_a_full_pool_is_served_in_order() -> None:
    stage = Stage(connections=1)
    clients = [stage.client() for _ in range(4)]
    for number, client in enumerate(clients):
        client >> get(b"/%d" % number)
    for number in range(4):
        assert stage.app.heard().startswith(b"GET /%d " % number)
        stage.app >> ok(b"%d" % number)
    assert len(stage.apps) == 1
    assert [client.heard()[-1:] for client in clients] == [b"0", b"1", b"2", b"3"]
    stage.check()


def test_one_too_many_is_refused_at_once() -> None:
    stage = Stage(connections=1, waiters=1)
    one, two, three = (stage.client() for _ in range(3))
    for client in (one, two, three):
        client >> get()
    assert three.heard().startswith(b"HTTP/1.1 503 ")
    assert three.route.records[0].reason is Reason.POOL_LIMIT
    assert two.end is None
    stage.app >> ok()
    stage.app >> ok()
    assert two.route.records[0].reason is Reason.OK
    stage.check()


def test_who_waited_long_enough_is_refused() -> None:
    stage = Stage(connections=1)
    one, two = stage.client(), stage.client()
    one >> get()
    two >> get()
    stage.wait(0.9)
    assert two.heard() == b""
    stage.wait(0.1)
    assert two.heard().startswith(b"HTTP/1.1 503 ")
    assert two.route.records[0].reason is Reason.POOL_LIMIT
    stage.app >> ok()
    assert stage.pool.idle == 1
    stage.check()


def test_those_who_come_later_do_not_put_off_the_end_of_a_wait() -> None:
    stage = Stage(connections=1, waiters=10)
    stage.client() >> get()
    waiting = []
    for _ in range(4):
        waiting.append(stage.client() >> get())
        stage.wait(0.5)
    refused = [client.heard().startswith(b"HTTP/1.1 503 ") for client in waiting]
    assert refused == [True, True, True, False]
    stage.wait(0.5)
    assert waiting[3].heard().startswith(b"HTTP/1.1 503 ")
    stage.check()


def test_a_connection_that_became_a_tunnel_leaves_its_place_to_who_waits() -> None:
    stage = Stage(connections=1)
    one, two = stage.client(), stage.client()
    one >> get(b"/", b"connection: upgrade", b"upgrade: websocket")
    two >> get(b"/2")
    stage.app >> b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert len(stage.apps) == 2
    assert stage.app.heard().startswith(b"GET /2 ")
    stage.check()


def test_a_connection_that_breaks_leaves_its_place_to_who_waits() -> None:
    stage = Stage(connections=1)
    one, two = stage.client(), stage.client()
    one >> post()
    two >> get(b"/2")
    stage.app.resets()
    assert one.heard().startswith(b"HTTP/1.1 503 ")
    assert stage.app.heard().startswith(b"GET /2 ")
    stage.check()


def test_a_failed_dial_is_told_to_one_and_the_next_dials_anew() -> None:
    stage = Stage(connections=1, dials_at_once=False)
    one, two = stage.client(), stage.client()
    one >> get()
    two >> get(b"/2")
    assert len(stage.dials) == 1
    stage.refuse()
    assert one.heard().startswith(b"HTTP/1.1 503 ")
    assert one.route.records[0].reason is Reason.UPSTREAM_CONNECT_FAILED
    assert len(stage.dials) == 1
    stage.accept()
    stage.run()
    assert stage.app.heard().startswith(b"GET /2 ")


def test_a_client_that_leaves_while_its_connection_is_dialled_leaves_it_to_the_pool(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> get()
    client.resets()
    assert client.route.records[0].reason is Reason.DOWNSTREAM_RESET
    stage.accept()
    stage.run()
    assert stage.pool.idle == 1
    assert stage.app << b""


def test_a_dial_whose_client_left_fails_without_harm(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> get()
    client.resets()
    stage.refuse()
    stage.run()
    assert stage.pool.total == 0


def test_a_fault_in_dialling_is_answered_and_reported(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> get()
    stage.refuse(ZeroDivisionError())
    assert client.heard().startswith(b"HTTP/1.1 500 ")
    assert stage.pool.total == 0


def test_a_cancelled_dial_is_answered(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> get()
    stage.refuse(asyncio.CancelledError())
    assert client.route.records[0].reason is Reason.DRAINED
    assert stage.pool.total == 0


def test_a_closed_pool_tells_those_who_wait_and_those_who_come(stage: Stage) -> None:
    stage.dials_at_once = False
    one, two = stage.client(), stage.client()
    one >> get() + get()
    stage.pool.close()
    stage.run()
    two >> get()
    for client in (one, two):
        assert client.heard().startswith(b"HTTP/1.1 503 ")
        assert {record.reason for record in client.route.records} == {Reason.DRAINED}
    stage.accept()
    assert stage.app.closed
    assert stage.pool.total == 0


def test_a_closed_pool_lets_what_is_busy_finish(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one >> get()
    two >> get()
    stage.apps[1] >> ok()
    stage.pool.close()
    assert stage.apps[1].closed
    stage.apps[0] >> ok(b"finished")
    assert one.heard().endswith(b"finished")
    assert stage.apps[0].closed
    assert stage.pool.total == 0


def test_a_refused_dial_lets_the_client_go_on(stage: Stage) -> None:
    stage.dials_at_once = False
    client = stage.client()
    client >> post(b"x" * 70_000, length=140_000)
    assert not client.wire.reading
    stage.refuse(UpstreamError("connection refused"))
    client >> b"x" * 70_000 + get()
    assert client.heard().startswith(b"HTTP/1.1 503 ")
    assert len(client.route.records) == 2
