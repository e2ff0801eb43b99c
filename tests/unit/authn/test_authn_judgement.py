"""What the tokens of a request are worth: every reason, several rules, several tokens, time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from authn_world import (
    ALGORITHMS,
    ISSUER,
    NOW,
    bearer,
    head,
    hmac_signer,
    judge,
    jwk,
    key_set,
    kind_of,
    no_keys,
    rule,
    token,
)

from proxy.authn import CLOCK_SKEW, NOT_CARRIED, Authenticated, Authentication, HeaderPlace, JwtRule, KeySet
from proxy.errors import Reason

OTHER = "https://other.example"


def failure(*arguments: Any, **options: Any) -> Reason | None:
    found = judge(*arguments, **options)
    assert found.token is None
    assert (found.rule, found.carried, found.payload) == (None, b"", b"")
    return found.failure


def accepts(*arguments: Any, **options: Any) -> bool:
    found = judge(*arguments, **options)
    assert (found.token is None) != (found.failure is None)
    return found.failure is None


def at_header(name: bytes, **changes: Any) -> JwtRule:
    return rule(headers=(HeaderPlace(name=name),), params=(), **changes)


# --- one token -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_of_every_algorithm(algorithm: str) -> None:
    carried = token(algorithm, header={"kid": "k"}, scope="read write")
    found = judge(rule(keys=key_set(jwk(kind_of(algorithm), kid="k"))), carried)
    assert found.failure is None
    assert found.token is not None
    assert (found.token.issuer, found.token.subject) == (ISSUER, "alice")
    assert found.token.claims["scope"] == "read write"
    assert found.token.expires_at == NOW + 3600 + CLOCK_SKEW
    assert found.token.space_delimited == {"scope", "permission"}
    assert (found.carried, found.payload) == (carried, carried.split(b".")[1])


def test_without_a_token_a_request_is_accepted_without_a_token() -> None:
    assert judge(rule(), head(b"x-other: 1")) is NOT_CARRIED
    assert (NOT_CARRIED.token, NOT_CARRIED.failure) == (None, None)


REFUSED: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "garbage": (lambda: b"garbage", Reason.TOKEN_MALFORMED),
    "two parts": (lambda: token().rpartition(b".")[0], Reason.TOKEN_MALFORMED),
    "no algorithm": (lambda: token(header={"alg": None}), Reason.TOKEN_ALGORITHM_REFUSED),
    "alg none": (lambda: token(header={"alg": "none"}), Reason.TOKEN_ALGORITHM_REFUSED),
    "alg HS256": (lambda: token("HS256", sign=hmac_signer(b"secret")), Reason.TOKEN_ALGORITHM_REFUSED),
    "unknown issuer": (lambda: token(iss=OTHER), Reason.TOKEN_ISSUER_UNKNOWN),
    "no issuer": (lambda: token(iss=None), Reason.TOKEN_ISSUER_UNKNOWN),
    "empty issuer": (lambda: token(iss=""), Reason.TOKEN_ISSUER_UNKNOWN),
    "issuer with a slash": (lambda: token(iss=ISSUER + "/"), Reason.TOKEN_ISSUER_UNKNOWN),
    "issuer in capitals": (lambda: token(iss=ISSUER.upper()), Reason.TOKEN_ISSUER_UNKNOWN),
    "expired": (lambda: token(exp=NOW - 3600), Reason.TOKEN_EXPIRED),
    "expired at the epoch": (lambda: token(exp=0), Reason.TOKEN_EXPIRED),
    "not yet valid": (lambda: token(nbf=NOW + 3600), Reason.TOKEN_NOT_YET_VALID),
    "other audience": (lambda: token(aud="elsewhere"), Reason.TOKEN_AUDIENCE_REFUSED),
    "no audience": (lambda: token(aud=None), Reason.TOKEN_AUDIENCE_REFUSED),
    "no audiences": (lambda: token(aud=[]), Reason.TOKEN_AUDIENCE_REFUSED),
    "unknown kid": (lambda: token(aud="orders", header={"kid": "other"}), Reason.TOKEN_KEY_UNKNOWN),
    "algorithm of no key": (lambda: token("ES384", aud="orders"), Reason.TOKEN_KEY_UNKNOWN),
    "signed by another key": (lambda: token(aud="orders", key="two"), Reason.TOKEN_SIGNATURE_INVALID),
    "signature too short": (lambda: token(aud="orders", sign=lambda data: b"x"), Reason.TOKEN_SIGNATURE_INVALID),
    "signature of zeros": (lambda: token(aud="orders", sign=lambda data: bytes(64)), Reason.TOKEN_SIGNATURE_INVALID),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_token_is_refused_with_its_reason(case: str) -> None:
    make, reason = REFUSED[case]
    strict = rule(audiences=frozenset({"orders"}), keys=key_set(jwk("ES256", kid="k")))
    carried = make()
    found = judge(strict, carried)
    assert (found.token, found.failure) == (None, reason)
    assert found.explanation
    assert carried.decode() not in found.explanation
    assert accepts(strict, token(aud="orders", header={"kid": "k"}))


def test_every_reason_has_a_case() -> None:
    reasons = {reason for _, reason in REFUSED.values()}
    of_tokens = {reason for reason in Reason if reason.name.startswith("TOKEN")}
    assert of_tokens - reasons == {Reason.TOKEN_KEYS_UNAVAILABLE, Reason.TOKENS_CONFLICT}


def test_a_changed_payload_is_not_what_was_signed() -> None:
    header, _, signature = token().split(b".")
    _, payload, _ = token(sub="admin").split(b".")
    assert failure(rule(), b".".join((header, payload, signature))) is Reason.TOKEN_SIGNATURE_INVALID


def test_only_a_wrong_audience_is_answered_403() -> None:
    statuses = {reason: reason.consequence.status for reason in Reason if reason.name.startswith("TOKEN")}
    assert statuses.pop(Reason.TOKEN_AUDIENCE_REFUSED) == 403
    assert set(statuses.values()) == {401}


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "ends"), [(0, False), (59.9, False), (60, True), (61, True)])
def test_a_token_ends_a_minute_after_its_expiry(late: float, ends: bool) -> None:
    authentication = Authentication([rule()])
    carried = token(exp=NOW)
    for _ in range(2):  # from the keys, then from memory
        found = judge(authentication, carried, now=NOW + late)
        assert (found.failure is Reason.TOKEN_EXPIRED) == ends
        assert ends or (found.token is not None and found.token.expires_at == NOW + 60)


@pytest.mark.parametrize(("early", "begins"), [(0, True), (60, True), (60.1, False)])
def test_a_token_begins_a_minute_before_its_beginning(early: float, begins: bool) -> None:
    assert accepts(rule(), token(nbf=NOW), now=NOW - early) == begins


def test_a_token_without_expiry_never_ends() -> None:
    found = judge(rule(), token(exp=None), now=NOW * 100)
    assert found.token is not None
    assert found.token.expires_at == math.inf


def test_the_time_of_issue_does_not_matter() -> None:
    assert accepts(rule(), token(iat=NOW + 10_000))


def test_expiry_ends_a_remembered_token() -> None:
    authentication = Authentication([rule()])
    carried = token()
    assert accepts(authentication, carried)
    assert failure(authentication, carried, now=NOW + 3660) is Reason.TOKEN_EXPIRED
    assert accepts(authentication, carried)


# --- audiences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["a", ["a"], ["x", "b"], "https://a", "http://b/", "a/"])
def test_one_audience_of_the_rule_is_enough(seen: Any) -> None:
    assert accepts(rule(audiences=frozenset({"a", "b"})), token(aud=seen))


def test_the_scheme_and_the_last_slash_of_a_wanted_audience_do_not_count_either() -> None:
    assert accepts(rule(audiences=frozenset({"https://orders.example/"})), token(aud="orders.example"))


@pytest.mark.parametrize("seen", ["A", "ab", "", "a b", ["x"], "ftp://a", "a//"])
def test_other_audiences_are_refused(seen: Any) -> None:
    assert failure(rule(audiences=frozenset({"a"})), token(aud=seen)) is Reason.TOKEN_AUDIENCE_REFUSED


def test_without_audiences_in_the_rule_any_will_do() -> None:
    assert accepts(rule(), token(aud="whatever"))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_are_asked_for_by_uri_and_only_of_the_issuer_named() -> None:
    asked: list[str] = []

    def keys(uri: str) -> KeySet | None:
        asked.append(uri)
        return key_set(jwk("ES256"))

    rules = [rule(jwks_uri="https://a/"), rule(jwks_uri="https://b/", issuer=OTHER)]
    assert accepts(rules, token(iss=OTHER), keys)
    assert asked == ["https://b/"]
    asked.clear()
    assert failure(rules, token(iss="https://third.example"), keys) is Reason.TOKEN_ISSUER_UNKNOWN
    assert failure(rules, token(exp=0), keys) is Reason.TOKEN_EXPIRED
    assert asked == []


def test_without_fetched_keys_a_token_is_refused_whatever_other_keys_there_are() -> None:
    """CVE-2026-31837: a failed fetch must not fall back to another key."""
    rules = [rule(jwks_uri="https://a/"), rule(issuer=OTHER)]
    assert failure(rules, token()) is Reason.TOKEN_KEYS_UNAVAILABLE
    assert judge(rules, head()) is NOT_CARRIED
    assert accepts(rules, token(iss=OTHER))


def test_keys_that_vanish_or_change_end_what_is_remembered() -> None:
    current: list[KeySet | None] = [key_set(jwk("ES256"))]
    authentication = Authentication([rule(jwks_uri="https://a/")])
    carried = token()
    assert accepts(authentication, carried, lambda uri: current[0])
    current[0] = None
    assert failure(authentication, carried, lambda uri: current[0]) is Reason.TOKEN_KEYS_UNAVAILABLE
    current[0] = key_set(jwk("ES256", "two"))
    assert failure(authentication, carried, lambda uri: current[0]) is Reason.TOKEN_SIGNATURE_INVALID
    current[0] = key_set(jwk("ES256", "two"), jwk("ES256"))
    assert accepts(authentication, carried, lambda uri: current[0])


@pytest.mark.parametrize(
    ("of_token", "of_key", "fits"),
    [("a", "a", True), ("a", "", True), ("", "a", True), ("", "", True), ("a", "b", False), ("a", "A", False)],
)
def test_kids_must_agree_where_both_have_one(of_token: str, of_key: str, fits: bool) -> None:
    keys = key_set(jwk("ES256", kid=of_key) if of_key else jwk("ES256"))
    carried = token(header={"kid": of_token} if of_token else {})
    assert judge(rule(keys=keys), carried).failure is (None if fits else Reason.TOKEN_KEY_UNKNOWN)


def test_every_key_that_fits_is_tried() -> None:
    keys = key_set(jwk("ES256", "two", kid="k"), jwk("RSA", kid="k"), jwk("ES256", kid="k"))
    assert accepts(rule(keys=keys), token(header={"kid": "k"}))
    assert accepts(rule(keys=keys), token())
    assert accepts(rule(keys=keys), token("PS512"))


def test_uris_are_listed_with_the_longest_timeout() -> None:
    rules = [rule(jwks_uri="https://a/", fetch_timeout=1), rule(jwks_uri="https://a/", fetch_timeout=3), rule()]
    assert dict(Authentication(rules).uris) == {"https://a/": 3}


# --- several rules, several tokens -----------------------------------------------------------------------------------


def test_two_issuers_share_a_place() -> None:
    rules = [rule(), rule(issuer=OTHER, keys=key_set(jwk("ES256", "two")), space_delimited=frozenset({"roles"}))]
    assert accepts(rules, token())
    found = judge(rules, token(iss=OTHER, key="two"))
    assert found.token is not None
    assert (found.token.issuer, found.token.space_delimited) == (OTHER, frozenset({"roles"}))
    assert failure(rules, token(iss=OTHER)) is Reason.TOKEN_SIGNATURE_INVALID, "one issuer cannot sign for another"


def test_one_issuer_twice_counts_by_either_rule() -> None:
    first, second = rule(), rule(keys=key_set(jwk("ES256", "two")), audiences=frozenset({"x"}))
    for rules in ([first, second], [second, first]):
        assert judge(rules, token()).rule is first
        assert judge(rules, token(key="two", aud="x")).rule is second
        assert failure(rules, token(key="three")) is Reason.TOKEN_SIGNATURE_INVALID
        assert failure(rules, token(key="two")) is Reason.TOKEN_SIGNATURE_INVALID, "the reason that came furthest"


@pytest.mark.parametrize(
    "request_of",
    [
        lambda a, b: head(bearer(a), bearer(b)),
        lambda a, b: head(bearer(a), query=b"?access_token=" + b),
        lambda a, b: head(query=b"?access_token=" + a + b"&access_token=" + b),
    ],
)
def test_two_different_tokens_where_one_rule_looks_are_refused(request_of: Any) -> None:
    rules = [rule(), rule(issuer=OTHER)]
    good, also_good, bad = token(), token(sub="bob"), b"garbage"
    of_other = token(iss=OTHER)
    for second in (also_good, bad, of_other):
        for pair in ((good, second), (second, good)):
            assert failure(rules, request_of(*pair)) is Reason.TOKENS_CONFLICT
    assert accepts(rules, request_of(good, good)), "the same token twice is one token"


def test_two_valid_tokens_in_places_of_two_rules_are_refused() -> None:
    rules = [rule(), at_header(b"x-b", issuer=OTHER)]
    of_other = token(iss=OTHER)
    found = judge(rules, head(bearer(token()), b"x-b: " + of_other))
    assert (found.token, found.failure) == (None, Reason.TOKENS_CONFLICT)


def test_one_valid_token_is_enough_when_that_of_another_rule_is_not() -> None:
    rules = [rule(), at_header(b"x-b", issuer=OTHER)]
    for bad in (b"garbage", token(), token(iss=OTHER, exp=0)):
        found = judge(rules, head(bearer(token()), b"x-b: " + bad))
        assert found.token is not None
        assert found.token.issuer == ISSUER
    assert judge(rules, head(bearer(b"garbage"), b"x-b: " + token(iss=OTHER))).token is not None


def test_the_same_token_in_places_of_two_rules_is_one() -> None:
    carried = token()
    assert accepts([rule(), at_header(b"x-b")], head(bearer(carried), b"x-b: " + carried))


def test_a_token_in_the_place_of_another_issuer_is_refused() -> None:
    rules = [rule(), at_header(b"x-b", issuer=OTHER)]
    assert failure(rules, token(iss=OTHER)) is Reason.TOKEN_ISSUER_UNKNOWN
    assert failure(rules, head(b"x-b: " + token())) is Reason.TOKEN_ISSUER_UNKNOWN


# --- preflight -------------------------------------------------------------------------------------------------------

ORIGIN, METHOD = b"Origin: https://shop.example", b"Access-Control-Request-Method: PUT"


def test_a_preflight_request_is_not_looked_at() -> None:
    for carried in (token(), b"garbage"):
        found = judge(rule(), head(ORIGIN, METHOD, bearer(carried), method=b"OPTIONS"))
        assert (found.token, found.failure, found.carried) == (None, None, b"")


@pytest.mark.parametrize(
    "request_head",
    [
        head(ORIGIN, METHOD, bearer(b"x"), method=b"GET"),
        head(ORIGIN, bearer(b"x"), method=b"OPTIONS"),
        head(METHOD, bearer(b"x"), method=b"OPTIONS"),
        head(b"Origin:", METHOD, bearer(b"x"), method=b"OPTIONS"),
        head(ORIGIN, b"Access-Control-Request-Method:", bearer(b"x"), method=b"OPTIONS"),
    ],
)
def test_what_is_no_preflight_request(request_head: Any) -> None:
    assert failure(rule(), request_head) is Reason.TOKEN_MALFORMED


def test_a_token_is_not_shown_by_the_values_that_hold_it() -> None:
    carried = token()
    found = judge(rule(), carried)
    assert isinstance(found, Authenticated)
    assert carried.decode() not in repr(found)
    assert no_keys("") is None
