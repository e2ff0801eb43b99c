"""Verified tokens are remembered, within bounds, and for no other keys than those that verified them."""

from __future__ import annotations

from typing import Any

import pytest
from authn_world import NOW, head, judge, jwk, key_set, rule, token

from proxy.authn import Authentication
from proxy.authn import authentication as judgement
from proxy.authn.cache import MAX_DIGESTS, MAX_TOKENS, TokenCache
from proxy.authn.keys import Key
from proxy.authn.token import parse_token
from proxy.errors import Reason


class Counter:
    """Counts calls of a function, which go through."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.function(*arguments)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(Key.verifies)
    monkeypatch.setattr(Key, "verifies", lambda *arguments: counter(*arguments))
    return counter


@pytest.fixture
def parsings(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(parse_token)
    monkeypatch.setattr(judgement, "parse_token", counter)
    return counter


def test_a_token_is_taken_apart_and_verified_once(verifications: Counter, parsings: Counter) -> None:
    authentication = Authentication([rule()])
    carried = token()
    results = [judge(authentication, carried) for _ in range(5)]
    assert all(result == results[0] and result.token is not None for result in results)
    assert (verifications.calls, parsings.calls) == (1, 1)


def test_failures_are_not_remembered(verifications: Counter) -> None:
    authentication = Authentication([rule()])
    forged = token(key="two")
    for _ in range(3):
        assert judge(authentication, forged).failure is Reason.TOKEN_SIGNATURE_INVALID
    assert verifications.calls == 3


def test_no_signature_is_looked_at_for_a_token_that_fails_before(verifications: Counter) -> None:
    strict = rule(audiences=frozenset({"orders"}))
    for carried in (b"x", token(), token(exp=0), token(nbf=NOW * 2), token(iss="x"), token(header={"alg": "none"})):
        assert judge(strict, carried).failure is not None
    assert judge(strict, head(b"authorization: Bearer a", b"authorization: Bearer b")).failure is Reason.TOKENS_CONFLICT
    assert verifications.calls == 0


def test_what_one_rule_verified_does_not_vouch_for_another(verifications: Counter) -> None:
    """The same token bytes under rules with other keys: each set of keys must verify it itself."""
    carried = token()
    authentication = Authentication([rule(keys=key_set(jwk("ES256", "two"))), rule()])
    assert judge(authentication, carried).rule is authentication.rules[1]
    assert judge(authentication, carried).rule is authentication.rules[1]
    assert verifications.calls == 3, "the set without the key is asked each time, the other once"


def test_an_ended_token_is_forgotten() -> None:
    authentication = Authentication([rule()])
    carried = token(exp=NOW)
    assert judge(authentication, carried).token is not None
    assert len(authentication._cache) == 1
    assert judge(authentication, carried, now=NOW + 60).failure is Reason.TOKEN_EXPIRED
    assert len(authentication._cache) == 0


def test_a_full_cache_is_dropped_whole() -> None:
    cache = TokenCache()
    jwt = parse_token(token())
    for number in range(MAX_TOKENS):
        cache.add(b"%d" % number, jwt, "digest")
    assert len(cache) == MAX_TOKENS
    cache.add(b"0", jwt, "other")
    assert len(cache) == MAX_TOKENS, "one that is there already needs no room"
    cache.add(b"new", jwt, "digest")
    assert len(cache) == 1
    assert cache.get(b"new") is jwt
    assert cache.get(b"0") is None
    assert not cache.vouches(b"0", "digest")


def test_the_key_sets_of_one_token_are_bounded() -> None:
    cache = TokenCache()
    jwt = parse_token(token())
    for number in range(MAX_DIGESTS + 1):
        cache.add(b"t", jwt, f"{number}")
    assert [cache.vouches(b"t", f"{number}") for number in range(MAX_DIGESTS + 1)] == [False] * MAX_DIGESTS + [True]


def test_forgetting_what_is_not_there() -> None:
    TokenCache().forget(b"x")
