"""What is kept of a denied call: what clauses look at, few and short, and never the token itself."""

from __future__ import annotations

import math
from typing import Any

from policy_world import connection, judge, policy, snapshot, token

from proxy.policy.kept import MAX_CLAIMS, MAX_HEADERS, MAX_LINES, MAX_PATH, sent_as
from proxy.types import Asked, Denial, RequestAttributes


def kept(*keys: str, **call: Any) -> tuple[Asked, RequestAttributes]:
    """Deny a call by a set whose one rule looks at `keys`, and give what is kept of it."""
    conditions = [{"key": key, "values": ["wanted"]} for key in keys]
    rule = {"to": [{"operation": {"paths": ["/wanted"]}}], **({"when": conditions} if conditions else {})}
    trusted = call.pop("trusted_proxies", 0)
    verdict = judge(snapshot(policy([rule]), trusted_proxies=trusted), **call)
    assert isinstance(verdict, Denial)
    assert verdict.asked is not None
    assert verdict.asked.request is not None
    return verdict.asked, verdict.asked.request


def test_only_lines_that_a_clause_names() -> None:
    lines = [(b"x-role", b"user"), (b"authorization", b"Bearer hidden"), (b"x-role", b"guest")]
    asked, request = kept("request.headers[X-Role]", headers=lines)
    assert list(request.headers) == [lines[0], lines[2]]
    assert asked.is_complete
    assert list(kept(headers=lines)[1].headers) == []


def test_lines_are_few_and_short() -> None:
    many = [(b"x-role", b"a")] * (MAX_LINES + 1)
    asked, request = kept("request.headers[x-role]", headers=many)
    assert (len(request.headers), asked.is_complete) == (MAX_LINES, False)
    asked, request = kept("request.headers[x-role]", headers=[(b"x-role", b"a" * MAX_HEADERS)])
    assert (list(request.headers), asked.is_complete) == ([], False)


def test_who_asked_through_trusted_proxies() -> None:
    lines = [(b"x-forwarded-for", b"10.1.1.1")]
    remote = {"from": [{"source": {"remoteIpBlocks": ["10.9.9.9"]}}]}
    for trusted, found in ((1, lines), (0, [])):
        verdict = judge(snapshot(policy([remote]), trusted_proxies=trusted), headers=lines)
        assert isinstance(verdict, Denial)
        assert verdict.asked is not None
        assert verdict.asked.request is not None
        assert list(verdict.asked.request.headers) == found


def test_path_and_host_are_short() -> None:
    asked, request = kept(path="/" + "a" * 10_000, host="h" * 10_000)
    assert (len(request.path), len(request.host), asked.is_complete) == (MAX_PATH, MAX_PATH, False)
    assert kept(path="/a")[0].is_complete


def test_only_claims_that_a_clause_names() -> None:
    carried = token(sub="alice", groups=["a"], aud="x", azp="app", secret="do-not-keep")
    _, request = kept("request.auth.claims[groups]", "request.auth.audiences", "request.auth.presenter", token=carried)
    assert request.token is not None
    assert request.token.claims == {"iss": "issuer.example", "sub": "alice", "aud": "x", "azp": "app", "groups": ["a"]}
    _, request = kept(token=carried)
    assert request.token is not None
    assert request.token.claims == {"iss": "issuer.example", "sub": "alice"}
    assert request.token.expires_at == math.inf


def test_claims_are_short() -> None:
    asked, request = kept("request.auth.claims[groups]", token=token(sub="alice", groups=["a" * MAX_CLAIMS]))
    assert request.token is not None
    assert ("groups" in request.token.claims, asked.is_complete) == (False, False)
    asked, request = kept("request.auth.claims[groups]", token=token(sub="a" * MAX_CLAIMS))
    assert (request.token, asked.is_complete) == (None, False)


def test_a_connection_is_kept_as_it_is() -> None:
    verdict = snapshot().connection(connection())
    assert isinstance(verdict, Denial)
    assert verdict.asked == Asked(connection=connection())


def test_how_the_path_was_sent_without_its_query() -> None:
    verdict = judge(snapshot())
    assert isinstance(verdict, Denial)
    sent = sent_as(verdict, b"/a/../b?access_token=hidden")
    assert sent.asked is not None
    assert (sent.asked.target, sent) == ("/a/../b", verdict)
    bare = Denial(reason=verdict.reason, rule="none", generation=verdict.generation, explanation="")
    assert sent_as(bare, b"/") is bare
