"""The balancer: who gets the next request, who is left alone and for how long, and where those go who waited there."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
from collections.abc import Callable

import pytest
from balance_field import Field, address, at_endpoint_1, unanswered

from proxy.errors import Reason, RemoraError, UpstreamError
from proxy.forward.balance import LOOKED_AT
from proxy.forward.endpoint import UNANSWERED

Make = Callable[..., Field]

# --- who gets the next one ---


def test_ties_go_in_turn(fields: Make) -> None:
    field = fields(1, 2, 3)
    for _ in range(6):
        field.ask()
    assert field.dialling() == {"1": 2, "2": 2, "3": 2}


def test_the_least_busy_gets_the_next_one(fields: Make) -> None:
    field = fields(1, 2)
    slow = field.ask()
    field.accept(1)
    for _ in range(3):
        quick = field.ask()
        if quick.connection is None:
            field.accept(2)
        assert quick.at == "2"
        quick.done()
    assert field.endpoint(1).active == 1
    slow.done()
    assert [field.endpoint(number).active for number in (1, 2)] == [0, 0]


def test_one_endpoint_costs_nothing(fields: Make) -> None:
    field = fields(1)
    assert field.balancer.take == field.endpoint(1).pool.take
    field.balancer.set_endpoints([address(1), address(2)])
    assert field.balancer.take != field.endpoint(1).pool.take
    field.balancer.set_endpoints([address(2)])
    assert field.balancer.take == field.endpoint(2).pool.take


def test_of_very_many_some_are_compared(fields: Make) -> None:
    field = fields(*range(1, 101))
    for _ in range(100):
        field.ask()
    assert len(field.dialling()) == 100
    for number in range(1, 101):
        field.accept(number)
    field.ask()
    assert sum(endpoint.active for endpoint in field.balancer.endpoints[:LOOKED_AT]) == LOOKED_AT + 1


def test_a_full_pool_refuses_or_makes_wait_as_one_alone_does(fields: Make) -> None:
    field = fields(1, 2, connections=1, waiters=1)
    for _ in range(2):
        field.ask()
    for number in (1, 2):
        field.accept(number)
    waiting = [field.ask() for _ in range(2)]
    with pytest.raises(UpstreamError) as refused:
        field.ask()
    assert refused.value.reason is Reason.POOL_LIMIT
    field.clock.advance(1.0)
    assert [user.failure and user.failure.reason for user in waiting] == [Reason.POOL_LIMIT] * 2
    assert not any(endpoint.ejected for endpoint in field.balancer.endpoints)


# --- who is left alone ---


def test_a_refused_dial_is_tried_elsewhere_at_once(fields: Make) -> None:
    field = fields(1, 2)
    user = field.ask()
    field.refuse(1)
    assert user.failure is None
    field.accept(2)
    assert user.at == "2"
    assert field.endpoint(1).ejected
    assert [field.ask().connection is None for _ in range(3)]
    assert "1" not in field.dialling()


def test_who_was_refused_everywhere_learns_the_last_failure_and_was_tried_once_at_each(fields: Make) -> None:
    field = fields(1, 2, 3)
    user = field.ask()
    for number in (1, 2, 3):
        assert field.dialling() == {str(number): 1}
        failure = UpstreamError(f"{number} refused", Reason.UPSTREAM_CONNECT_FAILED)
        field.refuse(number, failure)
    assert user.failure is failure
    assert field.dialling() == {}


def test_an_ejection_doubles_up_to_a_bound_and_ends_with_a_success(fields: Make) -> None:
    field = fields(1, 2)
    endpoint = field.endpoint(1)
    lengths = []
    for _ in range(7):
        while "1" not in field.dialling():
            field.ask()
        field.refuse(1)
        lengths.append(endpoint.ejected_until - field.clock.now)
        field.clock.now = endpoint.ejected_until
    assert lengths == [1, 2, 4, 8, 16, 30, 30]
    while "1" not in field.dialling():
        field.ask()
    field.accept(1)
    assert not endpoint.ejected
    while (user := field.ask()).connection is None or user.at != "1":
        pass
    user.done()
    assert endpoint.ejections == 0


def test_jitter_makes_an_ejection_longer(fields: Make) -> None:
    field = fields(1, 2)
    field.jitter = 0.5
    field.ask()
    field.refuse(1)
    assert field.endpoint(1).ejected_until - field.clock.now == pytest.approx(1.05)


def test_dials_that_fail_together_count_once(fields: Make) -> None:
    field = fields(1, 2)
    users = [field.ask() for _ in range(6)]
    for _ in range(3):
        field.refuse(1)
    assert field.endpoint(1).ejections == 1
    for _ in range(6):
        field.accept(2)
    assert {user.at for user in users} == {"2"}


def test_when_all_are_ejected_the_one_that_comes_back_first_is_tried(fields: Make) -> None:
    field = fields(1, 2, 3)
    field.ask()
    for number in (1, 2, 3):
        field.refuse(number)
        field.clock.advance(0.1)
    user = field.ask()
    assert field.dialling() == {"1": 1}
    field.refuse(1)
    assert field.dialling() == {"2": 1}
    field.accept(2)
    assert user.at == "2"


def test_no_request_is_the_first_that_comes_back(fields: Make) -> None:
    field = fields(1, 2)
    field.ask()
    field.refuse(1)
    field.accept(2)
    field.clock.advance(1.0)
    users = [field.ask() for _ in range(4)]
    assert field.dialling()["1"] == 1  # nobody waits for it
    assert field.endpoint(1).active == 0
    field.accept(1)
    assert field.endpoint(1).pool.idle == 1
    assert field.ask().at == "1"
    assert all(user.connection is None for user in users)


def test_an_opaque_service_lets_one_connection_try(fields: Make) -> None:
    field = fields(1, 2, probes=False)
    field.ask()
    field.refuse(1)
    field.accept(2)
    field.clock.advance(1.0)
    for _ in range(4):
        field.ask()
    assert field.dialling()["1"] == 1
    assert field.endpoint(1).active == 1


@pytest.mark.parametrize("reason", [Reason.NOT_READY, Reason.INTERNAL_ERROR])
def test_a_fault_of_ours_ejects_nobody(fields: Make, reason: Reason) -> None:
    field = fields(1, 2)
    user = field.ask()
    field.refuse(1, RemoraError("ours", reason))
    assert user.failure is not None
    assert user.failure.reason is reason
    assert not field.endpoint(1).ejected


def test_requests_in_a_row_without_an_answer_eject(fields: Make) -> None:
    field = fields(1, 2)
    endpoint = field.endpoint(1)
    unanswered(field, UNANSWERED - 1)
    assert not endpoint.ejected
    at_endpoint_1(field).done()
    unanswered(field, UNANSWERED - 1)
    assert not endpoint.ejected, "an answer came between"
    unanswered(field, 1)
    assert endpoint.ejected


def test_an_answer_before_a_close_is_an_answer(fields: Make) -> None:
    field = fields(1, 2)
    for _ in range(2):
        unanswered(field, UNANSWERED - 1)
        user = at_endpoint_1(field)
        assert user.connection is not None
        user.connection.wire.bytes_read += 1
        user.connection.drop()
    assert not field.endpoint(1).ejected


def test_a_stale_connection_that_breaks_says_nothing_of_the_endpoint(fields: Make) -> None:
    field = fields(1)
    users = [field.ask(fresh=True) for _ in range(UNANSWERED)]
    for _ in users:
        field.accept(1)
    for user in users:
        assert user.connection is not None
        assert user.connection.pool is not None
        user.connection.pool.release(user.connection)
    for _ in users:
        field.ask().breaks()
    assert not field.endpoint(1).ejected


def test_silence_is_not_mended_by_a_connection_before_its_time(fields: Make) -> None:
    field = fields(1, 2)
    endpoint = field.endpoint(1)
    unanswered(field, UNANSWERED)
    endpoint.pool.warm()
    field.accept(1)
    assert endpoint.ejected
    field.clock.advance(1.0)
    while "1" not in field.dialling():
        field.ask(fresh=True)
    field.accept(1)
    assert not endpoint.ejected
    assert endpoint.ejections == 1, "only an answer makes it as if nothing had been"
    unanswered(field, 1)
    assert endpoint.ejected_until - field.clock.now == 2


def test_an_answer_on_an_older_connection_says_nothing_of_new_ones(fields: Make) -> None:
    field = fields(1, 2)
    older = field.ask()
    field.accept(1)
    field.ask()
    field.ask()
    while "1" not in field.dialling():
        field.ask()
    field.refuse(1)
    older.done()
    assert field.endpoint(1).ejected


# --- who is slow to connect ---


def test_a_dial_that_takes_long_holds_nobody_up(fields: Make) -> None:
    field = fields(1, 2)
    first = field.ask()
    field.clock.advance(0.9)
    assert field.dialling() == {"1": 1}
    field.clock.advance(0.2)
    assert field.dialling() == {"1": 1, "2": 1}
    field.accept(2)
    assert first.at == "2"
    assert field.endpoint(1).ejected
    for _ in range(3):
        field.ask()
    assert field.dialling()["1"] == 1, "the dial goes on alone"
    field.accept(1)
    assert not field.endpoint(1).ejected, "slow, but there"
    assert field.endpoint(1).pool.idle == 1


def test_with_nobody_else_a_slow_dial_is_waited_for(fields: Make) -> None:
    field = fields(1)
    user = field.ask()
    field.clock.advance(4.0)
    field.accept(1)
    assert user.at == "1"


def test_who_left_a_slow_dial_may_go_back_to_it(fields: Make) -> None:
    field = fields(1, 2)
    user = field.ask()
    field.clock.advance(1.1)
    field.refuse(2)
    assert user.failure is None
    field.accept(1)
    assert user.at == "1"


def test_who_went_back_is_not_sent_round_for_ever(fields: Make) -> None:
    """Both dials are slow; the one that it went back to fails while the other, by somebody else, still runs."""
    field = fields(1, 2)
    user = field.ask()
    field.clock.advance(1.1)
    field.endpoint(2).pool.warm()
    field.refuse(2)
    assert user.failure is None, "it waits for the first again"
    last = UpstreamError("too slow", Reason.UPSTREAM_CONNECT_TIMEOUT)
    field.refuse(1, last)
    assert user.failure is last
    assert field.dialling() == {"2": 1}


def test_who_gave_up_is_forgotten_wherever_it_waits(fields: Make) -> None:
    field = fields(1, 2)
    user = field.ask()
    field.clock.advance(1.1)
    field.balancer.cancel(user)
    field.accept(1)
    field.accept(2)
    assert user.connection is None
    assert [endpoint.active for endpoint in field.balancer.endpoints] == [0, 0]
