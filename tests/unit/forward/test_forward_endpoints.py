"""Endpoints that come, go, lose trust or carry opaque connections."""

from __future__ import annotations

# mypy believes for ever what an assert once said of an attribute.
# mypy: disable-error-code=unreachable
import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from balance_field import REFUSED, Field, QuietWire, address, peer

from proxy.config import Address
from proxy.errors import Reason, UpstreamError, reason_of
from proxy.forward.pool import TRUST_GRACE
from proxy.interfaces import Receiver, Wire
from proxy.policy import outbound
from proxy.types import Generation, PeerIdentity, Permit

Make = Callable[..., Field]

# --- endpoints that come and go ---


def test_an_endpoint_that_is_gone_finishes_what_it_carries(fields: Make) -> None:
    field = fields(1, 2)
    busy, idle = field.ask(), field.ask()
    field.accept(1)
    field.accept(2)
    field.ask()
    field.accept(1)
    one = field.endpoint(1)
    idle.done()
    field.balancer.set_endpoints([address(2)])
    assert busy.connection is not None
    assert not busy.connection.wire.closed
    assert field.ask().at == "2"
    busy.done()
    assert busy.connection.wire.closed
    assert one.pool.total == 1  # the third request's, which is not done
    assert one.pool.idle == 0


def test_who_waited_for_an_endpoint_that_is_gone_is_served_elsewhere(fields: Make) -> None:
    field = fields(1)
    users = [field.ask() for _ in range(2)]
    field.balancer.set_endpoints([address(2)])
    field.accept(2)
    field.accept(2)
    assert [user.at for user in users] == ["2", "2"]
    late = field.accept(1)
    assert late.wire.closed


def test_a_failure_at_an_endpoint_that_is_gone_matters_to_nobody(fields: Make) -> None:
    field = fields(1)
    user = field.ask()
    field.balancer.set_endpoints([address(2)])
    field.refuse(1)
    field.accept(2)
    assert user.at == "2"


def test_an_endpoint_that_stays_keeps_its_connections(fields: Make) -> None:
    field = fields(1)
    user = field.ask()
    connection = field.accept(1)
    user.done()
    field.balancer.set_endpoints([address(1), address(2)])
    field.balancer.set_endpoints([address(1)])
    assert field.ask().connection is connection


def test_begun_anew_no_connection_takes_another_request(fields: Make) -> None:
    field = fields(1)
    user = field.ask()
    connection = field.accept(1)
    user.done()
    waiting = field.ask(fresh=True)
    field.balancer.renew()
    assert connection.wire.closed
    assert field.endpoint(1).pool.waiting == 1
    field.accept(1)  # the dial of before
    field.accept(1)
    assert waiting.connection is not None


def test_before_an_address_is_known_requests_wait(fields: Make) -> None:
    field = fields()
    users = [field.ask() for _ in range(3)]
    field.balancer.cancel(users[1])
    field.balancer.set_endpoints([address(1)])
    field.accept(1)
    field.accept(1)
    assert [user.connection is not None for user in users] == [True, False, True]


def test_the_wait_for_an_address_is_bounded(fields: Make) -> None:
    field = fields()
    first = field.ask()
    field.clock.advance(3.0)
    second = field.ask()
    field.clock.advance(2.0)
    assert first.failure is not None
    assert first.failure.reason is Reason.UPSTREAM_NAME_UNRESOLVED
    assert second.failure is None
    field.clock.advance(3.0)
    assert second.failure is not None


def test_a_name_without_an_address_is_said_at_once(fields: Make) -> None:
    field = fields()
    user = field.ask()
    field.balancer.unresolved("no such name")
    assert str(user.failure) == "no such name"
    with pytest.raises(UpstreamError) as refused:
        field.ask()
    assert refused.value.reason is Reason.UPSTREAM_NAME_UNRESOLVED
    field.balancer.set_endpoints([address(1)])
    field.balancer.unresolved("again")  # the last answer is kept
    later = field.ask()
    field.accept(1)
    assert later.at == "1"


def test_when_the_addresses_are_not_known_any_more_requests_wait_again(fields: Make) -> None:
    field = fields(1)
    waiting = field.ask()
    field.balancer.set_endpoints(())
    later = field.ask()
    assert waiting.failure is None
    field.balancer.unresolved("no such name")
    assert [str(user.failure) for user in (waiting, later)] == ["no such name"] * 2


# --- trust ---


def test_connections_to_servers_that_are_not_accepted_are_closed(fields: Make) -> None:
    field = fields(1, 2)
    idle, busy, other = field.ask(), field.ask(), field.ask()
    field.accept(1)
    field.accept(2)
    field.account = "ledger"
    field.accept(1)
    idle.done()

    def accept(peer: PeerIdentity) -> bool:
        return str(peer.spiffe_id).endswith("/ledger")

    field.balancer.judge_again(accept)
    assert idle.connection is not None
    assert idle.connection.wire.closed
    assert busy.connection is not None
    assert not busy.connection.wire.closed
    field.clock.advance(TRUST_GRACE / 2)
    field.balancer.judge_again(accept)  # does not put it off
    field.clock.advance(TRUST_GRACE / 2)
    assert busy.connection.wire.closed
    assert busy.lost is not None
    assert reason_of(busy.lost, Reason.OK) is Reason.TRUST_ENDED
    assert other.connection is not None
    assert not other.connection.wire.closed


def test_a_request_under_way_may_end_but_is_the_last(fields: Make) -> None:
    field = fields(1)
    user = field.ask()
    field.accept(1)
    field.balancer.judge_again(lambda peer: False)
    user.done()
    assert user.lost is None
    assert user.connection is not None
    assert user.connection.wire.closed
    assert field.endpoint(1).pool.total == 0


class Other:
    """Receives on an opaque wire."""

    lost: OSError | None = None

    def wire_lost(self, reason: OSError) -> None:
        self.lost = reason


def test_a_tunnel_is_counted_and_judged_until_it_is_closed(fields: Make) -> None:
    field = fields(1, 2)
    users = [field.ask(), field.ask()]
    for number, user in zip((1, 2), users, strict=True):
        connection = field.accept(number)
        endpoint = field.endpoint(number)
        endpoint.pool.detach(connection)
        user.connection = connection
        assert (endpoint.active, endpoint.pool.total) == (1, 0)
    field.balancer.set_endpoints([address(2)])  # the first one's is judged all the same
    others = [Other(), Other()]
    for user, other in zip(users, others, strict=True):
        assert user.connection is not None
        user.connection.wire.receiver = cast(Receiver, other)
    field.balancer.judge_again(lambda peer: True)
    assert [other.lost for other in others] == [None, None]
    field.balancer.judge_again(lambda peer: False)
    assert [reason_of(other.lost, Reason.OK) for other in others if other.lost] == [Reason.TRUST_ENDED] * 2
    assert field.endpoint(2).active == 0


# --- opaque connections ---


class Opaque:
    """Dials by script: what happens at each endpoint, "hangs" the first time only where there is more."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = {name.lstrip("_"): list(outcomes) for name, outcomes in script.items()}
        self.dialled: list[str] = []

    async def __call__(self, to: Address) -> tuple[Wire, Permit]:
        key = to.host.rpartition(".")[2]
        self.dialled.append(key)
        outcome = self.script[key].pop(0)
        if outcome == "hangs":
            await asyncio.get_running_loop().create_future()
        if isinstance(outcome, Exception):
            raise outcome
        return cast(Wire, outcome), outbound("orders", peer("orders"), Generation(1))


@pytest.mark.asyncio
async def test_an_opaque_connection_goes_on_to_who_answers(fields: Make) -> None:
    field = fields(1, 2, 3)
    wire = QuietWire().face
    dial = Opaque(_1=[REFUSED], _2=["hangs"], _3=[wire])
    field.balancer._patience = 0.0
    assert (await field.balancer.connect(dial))[0] is wire
    assert dial.dialled == ["1", "2", "3"]
    assert [endpoint.ejected for endpoint in field.balancer.endpoints] == [True, True, False]
    assert [endpoint.active for endpoint in field.balancer.endpoints] == [0, 0, 1]
    wire.close()
    assert field.endpoint(3).active == 0


@pytest.mark.asyncio
async def test_who_was_slow_gets_a_second_chance_when_all_others_failed(fields: Make) -> None:
    field = fields(1, 2)
    wire = QuietWire().face
    field.balancer._patience = 0.0
    dial = Opaque(_1=["hangs", wire], _2=[REFUSED])
    assert (await field.balancer.connect(dial))[0] is wire
    assert dial.dialled == ["1", "2", "1"]
    assert not field.endpoint(1).ejected


@pytest.mark.asyncio
async def test_the_last_failure_of_an_opaque_connection_is_told(fields: Make) -> None:
    field = fields(1, 2)
    last = UpstreamError("not who it must be", Reason.UPSTREAM_IDENTITY_REJECTED)
    with pytest.raises(UpstreamError) as failed:
        await field.balancer.connect(Opaque(_1=[REFUSED], _2=[last]))
    assert failed.value is last
    assert [endpoint.active for endpoint in field.balancer.endpoints] == [0, 0]


@pytest.mark.asyncio
async def test_a_fault_of_ours_ends_an_opaque_connection(fields: Make) -> None:
    field = fields(1, 2)
    dial = Opaque(_1=[UpstreamError("not yet", Reason.NOT_READY)])
    with pytest.raises(UpstreamError, match="not yet"):
        await field.balancer.connect(dial)
    assert dial.dialled == ["1"]


@pytest.mark.asyncio
async def test_opaque_connections_are_balanced_by_those_that_stand(fields: Make) -> None:
    field = fields(1, 2)
    dial = Opaque(_1=[QuietWire() for _ in range(4)], _2=[QuietWire() for _ in range(4)])
    wires = [(await field.balancer.connect(dial))[0] for _ in range(4)]
    assert dial.dialled == ["1", "2", "1", "2"]
    wires[1].close()
    wires[3].close()
    for _ in range(2):
        await field.balancer.connect(dial)
    assert dial.dialled[4:] == ["2", "2"]


@pytest.mark.asyncio
async def test_an_opaque_connection_waits_for_an_address(fields: Make) -> None:
    field = fields()
    field.balancer._wait = 0.0
    with pytest.raises(UpstreamError) as failed:
        await field.balancer.connect(Opaque())
    assert failed.value.reason is Reason.UPSTREAM_NAME_UNRESOLVED
    field.balancer.unresolved("no such name")
    with pytest.raises(UpstreamError, match="no such name"):
        await field.balancer.connect(Opaque())
    field.balancer.set_endpoints([address(1)])
    await field.balancer.connect(Opaque(_1=[QuietWire()]))
    field.balancer.set_endpoints(())
    with pytest.raises(UpstreamError, match="within 0 s"):
        await field.balancer.connect(Opaque())


# --- the end ---


def test_closed_it_tells_those_who_wait_and_those_who_come(fields: Make) -> None:
    for numbers in ((), (1,), (1, 2)):
        field = fields(*numbers)
        waiting = field.ask()
        field.balancer.close()
        assert waiting.failure is not None
        assert waiting.failure.reason is Reason.DRAINED
        with pytest.raises(UpstreamError) as refused:
            field.ask()
        assert refused.value.reason is Reason.DRAINED
        if numbers:
            field.refuse(1)
