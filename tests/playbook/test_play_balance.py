"""Whole connections over several endpoints: what one endpoint does is no matter of the others, nor of the client."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
from collections.abc import Callable, Iterator

import pytest
from balanced import BalancedStage, address
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import get, ok, post

from proxy.errors import Reason

Stages = Callable[..., BalancedStage]


@pytest.fixture
def stages() -> Iterator[Stages]:
    made: list[BalancedStage] = []

    def make(*ports: int, **more: int) -> BalancedStage:
        made.append(BalancedStage(*ports, **more))
        return made[-1]

    yield make
    for stage in made:
        stage.check()
        stage.close()


def test_requests_go_round_and_connections_are_kept(stages: Stages) -> None:
    stage = stages(1, 2, 3)
    client = stage.client()
    for _ in range(9):
        client >> get()
        [app] = [app for app in stage.apps if app.connection.stream is not None]
        app >> ok()
    assert [len(stage.apps_of(port)) for port in (1, 2, 3)] == [1, 1, 1]
    assert [app.connection.uses for app in stage.apps] == [3, 3, 3]


def test_a_request_whose_dial_is_refused_is_served_by_another_and_is_no_retry(stages: Stages) -> None:
    stage = stages(1, 2)
    stage.down = {1}
    client = stage.client()
    client >> post(b"abc")
    assert stage.apps_of(1) == []
    assert stage.app.heard().endswith(b"\r\n\r\nabc")
    stage.app >> ok()
    [record] = client.route.records
    assert (record.reason, record.retries, record.response_code) == (Reason.OK, 0, 200)


def test_a_body_that_arrives_while_endpoints_are_tried_is_kept_in_order(stages: Stages) -> None:
    stage = stages(1, 2)
    stage.deaf = {1, 2}
    client = stage.client()
    client >> post(b"abc", length=9)
    client >> b"def"
    stage.wait(1.0)
    client >> b"ghi"
    stage.deaf = {1}
    stage.run()
    assert stage.app.heard().endswith(b"\r\n\r\nabcdefghi")


def test_a_request_that_failed_everywhere_says_the_last_failure(stages: Stages) -> None:
    stage = stages(1, 2, 3)
    stage.down = {1, 2, 3}
    client = stage.client()
    client >> get() + get()
    assert client.heard().count(b"HTTP/1.1 503 ") == 2
    assert [record.reason for record in client.route.records] == [Reason.UPSTREAM_CONNECT_FAILED] * 2
    stage.down = set()
    client >> get()
    stage.app >> ok(b"back")
    assert client.heard().endswith(b"back")


def test_a_deaf_endpoint_costs_a_request_its_patience_and_no_more(stages: Stages) -> None:
    stage = stages(1, 2)
    stage.deaf = {1}
    client = stage.client()
    client >> get()
    stage.wait(1.0)
    stage.app >> ok()
    for _ in range(20):
        client >> get()
        stage.app >> ok()
    assert len(stage.apps_of(2)) == 1
    assert {record.reason for record in client.route.records} == {Reason.OK}


def test_an_endpoint_that_comes_back_gets_requests_again(stages: Stages) -> None:
    stage = stages(1, 2)
    stage.down = {1}
    client = stage.client()
    client >> get()
    stage.app >> ok()
    stage.down = set()
    client >> get()
    stage.app >> ok()
    assert stage.apps_of(1) == []
    stage.wait(1.0)
    client >> get()  # on the other one; meanwhile the first is dialled
    [busy] = [app for app in stage.apps if app.connection.stream is not None]
    assert busy in stage.apps_of(2)
    busy >> ok()
    client >> get()
    [busy] = [app for app in stage.apps if app.connection.stream is not None]
    assert busy in stage.apps_of(1)
    busy >> ok()


def test_a_stale_connection_is_retried_where_there_is_room(stages: Stages) -> None:
    stage = stages(1, 2)
    client = stage.client()
    for _ in range(2):
        client >> get()
        [app] = [app for app in stage.apps if app.connection.stream is not None]
        app >> ok()
    client >> get()
    stage.down = {1}
    stage.apps_of(1)[0].resets()
    assert len(stage.apps_of(2)) == 2, "a fresh one"
    stage.app >> ok()
    record = client.route.records[-1]
    assert (record.reason, record.retries) == (Reason.OK, 1)


def test_an_endpoint_whose_answers_stay_away_is_left_alone(stages: Stages) -> None:
    stage = stages(1, 2)
    clients = [stage.client() for _ in range(10)]
    for client in clients:
        client >> get()
        [app] = [app for app in stage.apps_of(2) if app.connection.stream is not None] or [None]
        if app is not None:
            app >> ok()
    stage.wait(15.0)
    late = [client.route.records[0].reason for client in clients].count(Reason.UPSTREAM_TIMEOUT)
    assert late == 1, "whoever is slow has the most under way"


def test_an_endpoint_that_is_gone_lets_its_client_go_on(stages: Stages) -> None:
    stage = stages(1, 2)
    client = stage.client()
    client >> get()
    [going] = stage.apps_of(1)
    stage.balancer.set_endpoints([address(2)])
    going >> ok(b"finished")
    assert client.heard().endswith(b"finished")
    assert going.closed
    client >> get()
    stage.apps_of(2)[0] >> ok(b"other")
    assert client.heard().endswith(b"other")


def test_a_client_that_leaves_while_endpoints_are_tried_leaves_nothing_behind(stages: Stages) -> None:
    stage = stages(1, 2)
    stage.deaf = {1, 2}
    client = stage.client()
    client >> get()
    stage.wait(1.0)
    client.resets()
    stage.deaf = set()
    stage.run()
    assert [endpoint.active for endpoint in stage.balancer.endpoints] == [0, 0]
    assert [endpoint.pool.idle for endpoint in stage.balancer.endpoints] == [1, 1]


EVENTS = ("ask", "ask", "answer", "answer", "reset app", "reset client", "down", "deaf", "up", "endpoints", "wait")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.data())
def test_in_any_order_every_request_comes_to_an_end_of_its_own(data: st.DataObject) -> None:
    stage = BalancedStage(1, 2, 3, connections=2, waiters=2)
    clients = [stage.client() for _ in range(4)]
    try:
        for _ in range(data.draw(st.integers(1, 40))):
            event = data.draw(st.sampled_from(EVENTS))
            number = data.draw(st.integers(0, 3))
            port = number % 3 + 1
            client = clients[number]
            busy = [app for app in stage.apps if app.connection.stream is not None and not app.closed]
            if event == "ask" and not client.closed:
                client >> get()
            elif event == "answer" and busy:
                busy[number % len(busy)] >> ok()
            elif event == "reset app" and busy:
                busy[number % len(busy)].resets()
            elif event == "reset client" and not client.closed:
                client.resets()
                clients[number] = stage.client()
            elif event == "down":
                stage.down.add(port)
            elif event == "deaf":
                stage.deaf.add(port)
            elif event == "up":
                stage.down.discard(port)
                stage.deaf.discard(port)
            elif event == "endpoints":
                stage.balancer.set_endpoints(address(each) for each in (1, 2, 3) if each != port or number == 3)
            elif event == "wait":
                stage.wait(data.draw(st.sampled_from((0.1, 1.0, 5.0))))
            stage.run()
        stage.down, stage.deaf = set(), set()
        stage.run()
        for _ in range(10):
            stage.wait(60.0)  # what was asked in one go is answered, or refused, one after the other
        for client in stage.clients:
            assert all(record.reasons for record in client.route.records), "a request was forgotten"
            assert client.wire.taken.count(b"HTTP/1.1 ") <= len(client.route.records)
        stage.check()
        assert sum(endpoint.active for endpoint in stage.balancer.endpoints) == 0
        client = stage.client()
        client >> get()
        [app] = [app for app in stage.apps if app.connection.stream is not None]
        app >> ok(b"alive")
        assert client.heard().endswith(b"alive")
    finally:
        stage.close()
