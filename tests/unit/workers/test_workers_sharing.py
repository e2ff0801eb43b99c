"""What supervisor and workers tell each other: limits are shared out, sets keep their generations, views are merged."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from proxy.config import load_config
from proxy.mounts import Taken
from proxy.telemetry.decisions_log import Decision
from proxy.view import Hop, View
from proxy.workers.fleet import LIVED, LONGEST_REST, rest_after
from proxy.workers.sharing import Gathered, Look, Sets, Wanted, look_at, look_from_json, read_config, share_of

FILE = "sidecar.yaml"
BASE = b"""\
workload: {namespace: demo, service_account: orders}
identity: {files: {directory: /identity}}
policy: {directory: /policy}
limits: {inbound_connections: 5, outbound_connections: 1, pool_connections: 7, head_bytes: 2KiB}
runtime: {workers: 2}
"""


def decision(at: float, request_id: str = "", word: str = "deny") -> Decision:
    texts = {name: "" for name in Decision.__dataclass_fields__ if name != "asked"}
    return Decision(**cast(Any, texts | {"at": at, "request_id": request_id, "decision": word, "status": 0}))


def test_a_worker_has_its_share_of_what_holds_for_all() -> None:
    whole = load_config(BASE, FILE)
    limits = share_of(whole, 2).limits
    assert (limits.inbound_connections, limits.outbound_connections, limits.pool_connections) == (3, 1, 4)
    assert limits.handshakes == whole.limits.handshakes // 2
    assert limits.head_bytes == whole.limits.head_bytes, "a limit of one request"


def test_a_worker_that_begins_late_runs_what_the_others_run() -> None:
    later = BASE.replace(b"inbound_connections: 5", b"inbound_connections: 50").replace(b"/policy", b"/other")
    config = read_config(later, BASE, FILE, 2)
    assert config.limits.inbound_connections == 3, "what takes a restart does not change"
    assert config.policy.directory == "/other"


def test_sets_keep_what_is_in_force_and_give_what_is_new() -> None:
    sets = Sets(BASE)
    sets.take(Taken(certificates={"tls.crt": b"\0"}), tls_generation=4, policy_generation=0)
    news = sets.take(Taken(policy={"a.yaml": b"x"}), tls_generation=4, policy_generation=9)
    assert (news.config, news.certificates, news.policy) == (BASE, None, ({"a.yaml": b"x"}, 9))
    assert sets.certificates == ({"tls.crt": b"\0"}, 4)
    assert sets.policy == ({"a.yaml": b"x"}, 9)
    assert Sets.from_json(json.loads(json.dumps(sets.to_json()))) == sets
    assert Sets.from_json(json.loads(json.dumps(news.to_json()))) == news


class Shown:
    """A view of one worker."""

    def __init__(self, *decisions: Decision) -> None:
        self.made = list(decisions)

    def open_count(self, direction: str) -> int:
        return {"inbound": 2, "outbound": 1}[direction]

    def hops(self) -> list[Hop]:
        return [Hop("app", 1, 2, 3, closed=False)]

    def jwks_up(self) -> dict[tuple[str, ...], float]:
        return {("https://issuer",): 1.0}

    def connections(self, now: float) -> tuple[int, list[dict[str, Any]]]:
        return 700, [{"remote": "a", "age_seconds": 3.0}, {"remote": "b", "age_seconds": 1.0}]

    def decisions(self, now: float) -> list[Decision]:
        return self.made

    def explained(self, each: Decision) -> tuple[dict[str, Any], str]:
        return {"decision": each.decision}, "why"


def looked_at(view: Shown, wanted: Wanted) -> Look:
    told = look_at(cast(View, view), wanted, 0.0, lambda found: found[:1])
    return look_from_json(json.loads(json.dumps(told)))


def gathered(*looks: Look) -> Gathered:
    numbered = dict(enumerate(looks, 1))
    return Gathered(lambda: numbered, ready=lambda: True, lost=lambda: 5, facts={})


def test_what_pages_do_not_need_is_not_sent() -> None:
    look = looked_at(Shown(decision(1)), Wanted())
    assert (look.connections, look.decisions) == ((0, []), [])
    assert look.open == {"inbound": 2, "outbound": 1}


def test_views_of_workers_are_one() -> None:
    wanted = Wanted(connections=True, decisions=None)
    one, other = looked_at(Shown(decision(3), decision(1)), wanted), looked_at(Shown(decision(2)), wanted)
    view = gathered(one, other)
    assert (view.open_count("inbound"), view.records_lost()) == (4, 5)
    assert view.hops() == [Hop("app", 2, 4, 6, closed=False)]
    assert [each.at for each in view.decisions(0.0)] == [3, 2, 1]
    count, rows = view.connections(0.0)
    assert count == 1_400
    assert [(row["remote"], row["worker"]) for row in rows] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_keys_that_one_worker_lacks_are_not_up() -> None:
    one = looked_at(Shown(), Wanted())
    other = looked_at(Shown(), Wanted())
    other.jwks = {"https://issuer": 0.0, "https://second": 1.0}
    assert gathered(one, other).jwks_up() == {("https://issuer",): 0.0, ("https://second",): 1.0}


def test_a_request_id_is_found_with_its_explanation() -> None:
    wanted = Wanted(request_id="x")
    one = looked_at(Shown(decision(9, "y")), wanted)
    other = looked_at(Shown(decision(3, "x"), decision(2, "x", "allow"), decision(1)), wanted)
    view = gathered(one, other)
    first, second = view.decisions(0.0)
    assert (first.at, second.at) == (3, 2)
    assert view.explained(first) == ({"decision": "deny"}, "why")
    assert view.explained(second) is None, "only those that were chosen are explained"


def test_the_latest_of_each_kind_are_enough_for_a_glance() -> None:
    made = [decision(9 - i, word="allow" if i % 2 else "deny") for i in range(8)]
    look = looked_at(Shown(*made), Wanted(decisions=2))
    assert [each.at for each, _ in look.decisions] == [9, 7, 8, 6]


@pytest.mark.parametrize("deaths", range(1, 40))
def test_rests_grow_to_a_bound(deaths: int) -> None:
    assert rest_after(deaths) <= rest_after(deaths + 1) <= LONGEST_REST < LIVED
    assert rest_after(1) == 0
