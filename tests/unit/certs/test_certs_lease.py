"""The election of a leader by a Lease: clocks that jump, writers that race, leaders that are cut off."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import pytest

from certs.lease import (
    Acquire,
    Decision,
    Lost,
    Renew,
    Terms,
    View,
    Wait,
    decide,
    leads,
    micro_time,
    observe,
    released,
    renewed,
    stepped_down,
)

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


class Replica:
    """One replica over a Lease that all of a test's replicas share; conflicts as the API server makes them."""

    def __init__(self, name: str, shared: dict[str, Any], skew: datetime.timedelta = HOUR * 0) -> None:
        self.terms = Terms(me=name)
        self.shared, self.skew, self.view = shared, skew, View()

    def step(self, local: float, read: Mapping[str, object] | None = None) -> Decision:
        lease = self.shared.get("lease") if read is None else read
        self.view = observe(self.view, lease, local)
        decision = decide(lease, self.view, self.terms, NOW + datetime.timedelta(seconds=local) + self.skew, local)
        if isinstance(decision, Acquire | Renew):
            if version_of(decision.document) != version_of(self.shared.get("lease")):
                return decision  # 409: the view stays
            version = int(version_of(decision.document) or "0") + 1
            stored = {**decision.document, "metadata": {"resourceVersion": str(version)}}
            self.shared["lease"] = stored
            self.view = renewed(self.view, stored, local)
        elif isinstance(decision, Lost):
            self.view = stepped_down(self.view)
        return decision

    def leads(self, local: float) -> bool:
        return leads(self.view, self.terms, local)


def version_of(lease: Mapping[str, Any] | None) -> str | None:
    return None if lease is None else lease.get("metadata", {}).get("resourceVersion")


def test_the_first_one_acquires_and_renews() -> None:
    shared: dict[str, Any] = {}
    a = Replica("a", shared)
    assert isinstance(a.step(100.0), Acquire)
    assert shared["lease"]["kind"] == "Lease"
    assert shared["lease"]["spec"] == {
        "holderIdentity": "a",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T12:01:40.000000Z",
        "renewTime": "2026-01-01T12:01:40.000000Z",
        "leaseTransitions": 0,
    }
    assert isinstance(a.step(102.0), Renew)
    assert shared["lease"]["spec"]["acquireTime"] == "2026-01-01T12:01:40.000000Z"
    assert shared["lease"]["spec"]["renewTime"] == "2026-01-01T12:01:42.000000Z"


@pytest.mark.parametrize("skew", [HOUR, -HOUR, 0 * HOUR])
def test_an_hour_between_the_clocks_changes_nothing(skew: datetime.timedelta) -> None:
    shared: dict[str, Any] = {}
    a, b = Replica("a", shared), Replica("b", shared, skew)
    a.step(100.0)
    for second in range(101, 160, 2):
        assert b.step(float(second)) == Wait(until=second + 2.0, holder="a")
        assert isinstance(a.step(second + 1.0), Renew)
        assert a.leads(second + 1.0)
    # `a` is silent from 160 on; `b` saw its last renewal at 161 and waits for the whole duration from then.
    assert b.step(161.0) == Wait(until=163.0, holder="a")
    assert b.step(175.5) == Wait(until=176.0, holder="a")
    assert isinstance(b.step(176.0), Acquire)
    assert shared["lease"]["spec"]["leaseTransitions"] == 1
    assert not a.leads(176.0)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_leaders_clock_that_jumps_does_not_end_its_lead(jump: datetime.timedelta) -> None:
    shared: dict[str, Any] = {}
    a, b = Replica("a", shared), Replica("b", shared)
    a.step(100.0)
    b.step(101.0)
    a.skew = jump
    assert isinstance(a.step(102.0), Renew)
    assert a.leads(110.0)
    assert isinstance(b.step(103.0), Wait)


def test_a_leader_whose_wall_clock_stands_still_renews_all_the_same() -> None:
    spec = {"holderIdentity": "b", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    first, second = ({"metadata": {"resourceVersion": version}, "spec": spec} for version in ("7", "8"))
    view = observe(observe(View(), first, 100.0), second, 110.0)
    assert isinstance(decide(second, view, Terms(me="a"), NOW, 124.9), Wait)
    assert isinstance(decide(second, view, Terms(me="a"), NOW, 125.0), Acquire)
    assert observe(view, second, 120.0) == view


def test_never_two_leaders_whatever_the_moment() -> None:
    for silent_from in range(100, 140):
        shared: dict[str, Any] = {}
        a, b = Replica("a", shared), Replica("b", shared, -HOUR)
        changes = 0
        for second in range(100, 180):
            if second <= silent_from:
                a.step(float(second))
            if second % 3 == 0:
                changes += isinstance(b.step(second + 0.5), Acquire)
            assert not (a.leads(second + 0.5) and b.leads(second + 0.5))
        assert changes == 1


def test_of_two_that_acquire_at_once_one_is_refused() -> None:
    shared: dict[str, Any] = {}
    first = Replica("a", shared)
    first.step(0.0)
    before = shared["lease"]
    b, c = Replica("b", shared), Replica("c", shared)
    b.step(1.0)
    c.step(1.0)
    assert isinstance(b.step(20.0), Acquire)
    assert isinstance(c.step(20.0, read=before), Acquire)
    assert (b.leads(20.0), c.leads(20.0)) == (True, False)


def test_a_leader_that_is_cut_off_or_replaced_has_lost() -> None:
    shared: dict[str, Any] = {}
    a = Replica("a", shared)
    a.step(100.0)
    assert a.leads(109.9)
    assert not a.leads(110.0)
    decision = a.step(111.0)
    assert decision == Lost(why="it was not renewed for 11 s; is the API server reachable?")
    assert isinstance(a.step(111.0), Renew)  # nobody took it meanwhile
    shared["lease"] = {**shared["lease"], "spec": {**shared["lease"]["spec"], "holderIdentity": "b"}}
    assert a.step(112.0) == Lost(why="the Lease is held by 'b' now")
    assert isinstance(a.step(113.0), Wait)
    a.view = View(renewed_at=113.0)
    shared.clear()
    assert a.step(114.0) == Lost(why="the Lease was taken from us")


def test_a_released_lease_is_free_at_once() -> None:
    shared: dict[str, Any] = {}
    a, b = Replica("a", shared), Replica("b", shared)
    a.step(100.0)
    assert isinstance(b.step(100.5), Wait)
    shared["lease"] = released(shared["lease"], a.terms, NOW)
    assert isinstance(b.step(101.0), Acquire)


@pytest.mark.parametrize(
    ("duration", "end"), [(5, 105.0), (None, 115.0), ("x", 115.0), (0, 115.0), (True, 115.0), (10**12, 3700.0)]
)
def test_the_holders_duration_counts_within_reason(duration: object, end: float) -> None:
    lease = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "b", "leaseDurationSeconds": duration}}
    view = observe(View(), lease, 100.0)
    assert isinstance(decide(lease, view, Terms(me="a"), NOW, end - 0.1), Wait)
    assert isinstance(decide(lease, view, Terms(me="a"), NOW, end), Acquire)


def test_what_others_wrote_into_the_lease_is_kept() -> None:
    lease = {"metadata": {"resourceVersion": "1", "labels": {"x": "y"}}, "spec": {"strategy": "s"}}
    decision = decide(lease, observe(View(), lease, 0.0), Terms(me="a"), NOW, 0.0)
    assert isinstance(decision, Acquire)
    assert decision.document["metadata"] == lease["metadata"]
    assert decision.document["spec"]["strategy"] == "s"  # type: ignore[index]


@pytest.mark.parametrize(
    "times", [{"renew_deadline": 15.0}, {"retry_period": 10.0}, {"lease_duration": 1e9}, {"me": ""}]
)
def test_terms_that_could_make_two_leaders_are_refused(times: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Lease"):
        Terms(**{"me": "a", **times})


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        micro_time(NOW.replace(tzinfo=None))
