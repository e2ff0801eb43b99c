"""Envoy, configured as istiod would, and our engine give the same answer to the same request, and name the same rule.

Hypothesis draws the policy sets and the calls, the same ones each time. One Envoy holds all sets.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from callers import TRUST, Caller
from envoy_authn import jwt_filter
from envoy_cases import collect
from envoy_claims import NAMESPACE, jwt_rules, request_authentication
from envoy_judge import MODES, Verdict, judging
from envoy_ours import Call, comparable, compiled, filters, our_verdict, ours_lets_through
from envoy_rbac import Json
from hypothesis import Phase, given, settings
from hypothesis import strategies as st


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run on one loop: which loop the client has says nothing about Envoy."""
    asyncio.run(test)


def test_envoy_and_our_engine_agree(tmp_path: Path) -> None:
    cases = collect(count=200, calls=16)
    different: list[object] = []
    seen: set[object] = set()

    async def ask() -> None:
        sets, jwt = [case.filters for case in cases], jwt_filter(jwt_rules())
        async with judging(tmp_path / "envoy", sets, trust=TRUST, jwt=jwt) as judge:
            for number, case in enumerate(cases):
                snapshot = compiled([*case.policies, request_authentication(jwt_rules())])
                for call in case.calls:
                    theirs: Verdict | bool
                    ours: Verdict | bool
                    if call.method:
                        theirs = comparable(await judge.request(number, call.head, call.caller))
                        ours = comparable(our_verdict(snapshot, call))
                    else:
                        theirs = await judge.opaque(number, call.caller)
                        ours = ours_lets_through(snapshot, call)
                    seen.add((bool(call.method), ours if isinstance(ours, bool) else ours.status))
                    if theirs != ours:
                        different.append((theirs, ours, call, case.policies))

    run(ask())
    assert different == []
    # It is no agreement about nothing.
    assert seen == {(True, 200), (True, 403), (True, 400), (False, True), (False, False)}


PIECES = (
    *("/", "/", "a", "b", "..", ".", "%2e", "%2E", "%2f", "%5C", "\\", "%61", "%41", "%7e", "%25", "%", "%zz", ";x"),
    *("//", "%c0", "%ff", "*", "%3f", "%20", "~", "A", "@", ":", "&", "=", "%23", "%252e", ",", "0x2e", "%c0%ae"),
)


def test_paths_have_the_same_normal_form(tmp_path: Path) -> None:
    """Random spellings in every mode of normalisation: what Envoy would forward is what we forward."""
    paths: list[str] = []

    @settings(derandomize=True, deadline=None, max_examples=1_500, database=None, phases=[Phase.generate])
    @given(st.lists(st.sampled_from(PIECES), max_size=7), st.sampled_from(["", "?", "?q=/../a", "?a%2f//b"]))
    def draw(pieces: list[str], query: str) -> None:
        path = "/" + "".join(pieces)
        if not DECIDED_OTHERWISE(path):
            paths.append(path + query)

    draw()
    different: list[object] = []

    async def ask() -> None:
        snapshot = compiled([])
        async with judging(tmp_path / "envoy", [filters([])], modes=list(MODES)) as judge:
            for mode in MODES:
                for path in paths:
                    call = Call(caller=Caller(), method="GET", target=path)
                    theirs = comparable(await judge.request(0, call.head, call.caller, mode=mode))
                    ours = comparable(our_verdict(snapshot, call, mode))
                    if theirs != ours:
                        different.append((mode, path, theirs, ours))

    run(ask())
    assert different == []
    assert len(paths) > 800


DECIDED_OTHERWISE = re.compile(
    r"(?i)(?:/|\\|%2f|%5c)(?:\.|%2e){1,2};"  # dots with parameters
    r"|%%|%[0-9a-f]?%"  # a stray percent sign that decoding may complete
    r"|^(?:/|\\|%2f|%5c|/?(?:\.|%2e){1,2}(?=/|\\|%2f|%5c|$))*$"  # slashes alone
).search
"""Spellings on which Remora decides otherwise; see `test_envoy_policy_differences.py`."""


def allowing(condition: Json) -> Json:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": {"rules": [{"when": [condition]}]},
    }


@pytest.mark.parametrize(("value", "status"), [("admin", 200), ("user", 200), ("admin,user", 403), ("x", 403)])
@pytest.mark.parametrize("order", [("admin", "user"), ("user", "admin")])
def test_repeated_header_lines_match_one_by_one(
    tmp_path: Path, value: str, status: int, order: tuple[str, str]
) -> None:
    """Envoy joined them with commas before 1.37.1 (CVE-2026-26308), so that a second line hid the first."""
    policies = [allowing({"key": "request.headers[x-role]", "values": [value]})]
    call = Call(caller=Caller(), method="GET", headers=tuple(("x-role", each) for each in order))

    async def ask() -> Verdict:
        async with judging(tmp_path / "envoy", [filters(policies)]) as judge:
            return await judge.request(0, call.head, call.caller)

    assert (asyncio.run(ask()).status, our_verdict(compiled(policies), call).status) == (status, status)


FORWARDED: tuple[tuple[str, ...], ...] = (
    ("10.0.0.1",),
    ("10.0.0.2, 10.0.0.1",),
    ("10.0.0.1, 10.0.0.2",),
    ("10.0.0.1", "10.0.0.2"),
    ("10.0.0.1 , 10.0.0.2 ",),
    ("10.0.0.3, 10.0.0.1,10.0.0.2",),
    ("2001:db8::1, 10.0.0.9",),
    ("2001:db8::1",),
)


@pytest.mark.parametrize("proxies", [1, 2])
def test_remote_addresses_are_read_alike(tmp_path: Path, proxies: int) -> None:
    """`policy.trusted_proxies: n` looks where a mesh with n - 1 trusted hops behind its gateway looks."""
    blocks = ["10.0.0.1", "10.0.0.2", "2001:db8::/32", "127.0.0.0/8"]
    sets = [[allowing({"key": "remote.ip", "values": [block]})] for block in blocks]
    calls = [
        Call(caller=Caller(), method="GET", headers=tuple(("x-forwarded-for", line) for line in lines))
        for lines in FORWARDED
    ]

    async def ask() -> list[tuple[Any, ...]]:
        found = []
        filtered = [filters(each) for each in sets]
        async with judging(tmp_path / "envoy", filtered, trusted_hops=proxies - 1) as judge:
            for number, policies in enumerate(sets):
                snapshot = compiled(policies, trusted_proxies=proxies)
                for call in calls:
                    theirs = await judge.request(number, call.head, call.caller)
                    ours = our_verdict(snapshot, call)
                    found.append((blocks[number], call.headers, theirs.status, ours.status))
        return found

    answers = asyncio.run(ask())
    assert [answer for answer in answers if answer[2] != answer[3]] == []
    assert {answer[3] for answer in answers} == {200, 403}
