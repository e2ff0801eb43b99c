"""What holds of every token that is brought, of every answer about one, and of every body that asks for a certificate.

Whatever comes is a caller or a refusal. A token that was changed is no token, and one that is believed says who it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jwt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certs.caller import Caller, How, PodRef
from certs.callers.claims import MAX_LIFETIME, SKEW
from certs.callers.oidc import KeySetError, OidcRules, VerificationKey, parse_keys, verify_token
from certs.callers.pods import check_account, check_pod
from certs.callers.tokenreview import POD_NAME, POD_UID, check_unproved, read_review
from certs.joins import JoinBook
from certs.refusals import Refusal, Refused
from certs.requests import SignRequest, key_fingerprint, read_sign_request
from certs.spiffe import SpiffeId, TrustDomain
from tests.authority_requests import KEY, plain_der
from tests.authority_tokens import (
    ACCOUNT_UID,
    AUDIENCE,
    EC_KEY,
    ISSUER,
    KEY_SET,
    POD,
    POD_UID_VALUE,
    RSA_KEY,
    claims_of,
    encode,
    token_of,
)

Result = TypeVar("Result")

NOW = 1_800_000_000.0
DOMAIN = TrustDomain("cluster.local")
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
RULES = OidcRules(trust_domain=DOMAIN, issuer=ISSUER, audience=AUDIENCE, keys=parse_keys(KEY_SET, "keys"))
GOOD = [
    token_of({}, NOW),
    token_of({"header": {"alg": "RS256", "kid": "rsa"}, "signed": "rsa"}, NOW),
]
BODY = json.dumps({"csr": base64.b64encode(plain_der()).decode(), "token": GOOD[0], "instance": "orders-0"}).encode()

quickly = settings(derandomize=True, deadline=None, max_examples=200)
thoroughly = settings(derandomize=True, deadline=None, max_examples=500)

names = st.sampled_from(
    ["kubernetes.io", "pod", "uid", "name", "namespace", "serviceaccount", "node", "sub", "exp", "iat"]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([ISSUER, AUDIENCE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
segments = st.text("AQabz019-_=+/. \n", max_size=12) | st.binary(max_size=12).map(encode)
visible = st.text([chr(number) for number in range(33, 127)], max_size=60)
changes = st.lists(
    st.tuples(st.integers(0, 900), st.text("Ab9-_.=~", max_size=2), st.integers(0, 2)), min_size=1, max_size=3
)


def outcome(call: Callable[[], Result]) -> Result | Refusal:
    """Calls; what came, or why it was refused in words that hold no secret."""
    try:
        return call()
    except Refused as refused:
        message = str(refused)
        assert message.isprintable()
        assert len(message) < 600
        assert "eyJ" not in message
        return refused.reason


def verified(token: str) -> Caller | Refusal:
    return outcome(lambda: verify_token(token, RULES, NOW))


def precluded(token: str) -> Refusal | None:
    return outcome(lambda: check_unproved(token, audience=AUDIENCE, now=NOW))


def reviewed(answer: dict[str, Any], token: str = GOOD[0]) -> Caller | Refusal:
    return outcome(lambda: read_review(answer, token, trust_domain=DOMAIN, audience=AUDIENCE, now=NOW))


def test_the_good_ones_are_good() -> None:
    for token in GOOD:
        assert isinstance(verified(token), Caller)
        assert precluded(token) is None


# --- tokens ----------------------------------------------------------------------------------------------------------


@thoroughly
@given(token=st.text(max_size=80) | visible | st.lists(segments, max_size=5).map(".".join))
@example(token="...")
@example(token="é.é.é")
@example(token="\ud800.e30.")
@example(token=".".join([encode(b"[" * 6_000)] * 3))
@example(token=f"{encode(b'{}')}.{encode(b'9' * 6_000)}.")
def test_any_text(token: str) -> None:
    assert isinstance(verified(token), Refusal)
    assert isinstance(precluded(token), Refusal)


@thoroughly
@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "jwk", "typ"]), json_values, max_size=4)
    | st.fixed_dictionaries({"alg": st.sampled_from(["ES256", "RS256", "HS256", "none"]), "kid": json_values}),
    claims=json_values,
    signature=st.binary(max_size=70),
)
def test_any_parts(header: dict[str, Any], claims: Any, signature: bytes) -> None:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    token = ".".join(map(encode, parts))
    assert isinstance(verified(token), Refusal)
    precluded(token)


@thoroughly
@given(token=st.sampled_from(GOOD), changed=changes)
@example(token=GOOD[0], changed=[(len(GOOD[0]) - 1, "", 1)])
def test_a_changed_token_is_no_token(token: str, changed: list[tuple[int, str, int]]) -> None:
    spoilt = token
    for offset, inserted, removed in changed:
        at = offset % len(token)
        spoilt = spoilt[:at] + inserted + spoilt[at + removed :]
    if spoilt != token:
        assert isinstance(verified(spoilt), Refusal)


@quickly
@given(last=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_of_the_spellings_of_a_token_one_is_taken(last: str) -> None:
    for token in GOOD:
        spelt = token[:-1] + last
        assert isinstance(verified(spelt), Caller) == (spelt == token)


@quickly
@given(one=st.sampled_from(GOOD), other=st.sampled_from(GOOD), taken=st.tuples(*[st.booleans()] * 3))
def test_parts_of_two_tokens_are_no_token(one: str, other: str, taken: tuple[bool, ...]) -> None:
    pairs = zip(one.split("."), other.split("."), taken, strict=True)
    mixed = ".".join(mine if is_mine else theirs for mine, theirs, is_mine in pairs)
    assert isinstance(verified(mixed), Caller) == (mixed in GOOD)


good_claims = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.just(ISSUER) | json_values,
        "aud": st.just([AUDIENCE]) | json_values,
        "sub": st.sampled_from(["system:serviceaccount:demo:orders", "system:serviceaccount:demo:admin"]) | json_values,
        "exp": st.integers(int(NOW) - 200, int(NOW) + 90_000) | json_values,
        "iat": st.integers(int(NOW) - 90_000, int(NOW) + 200) | json_values,
        "nbf": st.integers(int(NOW) - 200, int(NOW) + 200) | json_values,
        "kubernetes.io": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "namespace": st.just("demo") | json_values,
                "serviceaccount": st.fixed_dictionaries({"name": st.just("orders"), "uid": json_values}) | json_values,
                "pod": st.fixed_dictionaries({"name": st.text(max_size=4), "uid": st.text(max_size=4)}) | json_values,
                "node": json_values,
            },
        ),
    },
)


@thoroughly
@given(changed=good_claims, is_rsa=st.booleans())
@example(changed={}, is_rsa=False)
def test_what_the_cluster_signs_is_believed_in_what_it_says_and_no_more(changed: dict[str, Any], is_rsa: bool) -> None:
    claims = claims_of({}, NOW) | changed
    key, algorithm, kid = (RSA_KEY, "RS256", "rsa") if is_rsa else (EC_KEY, "ES256", "ec")
    signed = jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers={"kid": kid})
    result = verified(signed)
    precluded(signed)
    if changed == {}:
        assert isinstance(result, Caller)
    if isinstance(result, Refusal):
        return
    audiences = claims["aud"]
    assert claims["iss"] == ISSUER
    assert audiences == AUDIENCE or AUDIENCE in audiences
    assert claims["sub"] == f"system:serviceaccount:{result.spiffe_id.namespace}:{result.spiffe_id.service_account}"
    assert result.spiffe_id.trust_domain == DOMAIN
    assert NOW - SKEW < claims["exp"] <= claims["iat"] + MAX_LIFETIME
    assert max(claims["iat"], claims.get("nbf", 0)) <= NOW + SKEW
    bound = claims["kubernetes.io"]
    assert result.pod is not None
    assert (result.pod.name, result.pod.uid) == (bound["pod"]["name"], bound["pod"]["uid"])
    assert result.account_uid == bound["serviceaccount"]["uid"]


# --- what others say of a token --------------------------------------------------------------------------------------


@thoroughly
@given(
    kind=st.just("TokenReview") | json_values,
    status=json_values
    | st.fixed_dictionaries(
        {"authenticated": st.sampled_from([True, True, True, "true", 1, [True]]) | json_values},
        optional={
            "audiences": st.just([AUDIENCE]) | json_values,
            "error": json_values,
            "user": json_values
            | st.fixed_dictionaries(
                {"username": st.just("system:serviceaccount:demo:orders") | json_values},
                optional={
                    "extra": json_values
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            POD_NAME: st.just([POD]) | json_values,
                            POD_UID: st.just([POD_UID_VALUE]) | json_values,
                        },
                    )
                },
            ),
        },
    ),
)
def test_any_answer_of_the_api_server(kind: Any, status: Any) -> None:
    result = reviewed({"kind": kind, "status": status})
    if isinstance(result, Caller):
        assert kind == "TokenReview"
        assert status["authenticated"] is True
        assert not status.get("error")
        assert AUDIENCE in status["audiences"]
        assert (str(result.spiffe_id), result.pod) == (
            str(ORDERS),
            PodRef(namespace="demo", name=POD, uid=POD_UID_VALUE),
        )


@quickly
@given(
    document=st.none() | st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), json_values, max_size=3),
    metadata=st.fixed_dictionaries(
        {"uid": st.just(POD_UID_VALUE) | json_values}, optional={"deletionTimestamp": json_values}
    ),
    account=st.just("orders") | json_values,
)
def test_any_pod_and_any_account(document: dict[str, Any] | None, metadata: dict[str, Any], account: Any) -> None:
    pod = PodRef(namespace="demo", name=POD, uid=POD_UID_VALUE)
    caller = Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=pod, account_uid=ACCOUNT_UID)
    assert isinstance(outcome(lambda: check_pod(caller, document, NOW)), Refusal)
    named = {"namespace": "demo", "name": POD, **metadata}
    passes = outcome(lambda: check_pod(caller, {"metadata": named, "spec": {"serviceAccountName": account}}, NOW))
    is_same = metadata["uid"] == POD_UID_VALUE and account == "orders"
    assert passes is None if is_same and metadata.get("deletionTimestamp") is None else isinstance(passes, Refusal)
    known = {"namespace": "demo", "name": account, "uid": metadata["uid"]}
    is_refused = isinstance(outcome(lambda: check_account(caller, {"metadata": known})), Refusal)
    assert is_refused == (metadata["uid"] != ACCOUNT_UID or account != "orders")
    assert isinstance(outcome(lambda: check_account(caller, document)), Refusal)


@quickly
@given(
    data=st.binary(max_size=60)
    | json_values.map(lambda value: json.dumps({"keys": value}).encode())
    | st.lists(
        st.fixed_dictionaries(
            {"kty": st.sampled_from(["RSA", "EC", "oct", "OKP"]), "kid": st.just("a") | json_values},
            optional=dict.fromkeys(("use", "alg", "n", "e", "x", "y", "crv", "d"), json_values),
        ),
        max_size=3,
    ).map(lambda entries: json.dumps({"keys": entries}).encode())
)
def test_any_set_of_keys(data: bytes) -> None:
    try:
        keys, message = parse_keys(data, "jwks.json"), ""
    except KeySetError as error:
        keys, message = {}, str(error)
    assert bool(keys) != message.startswith("jwks.json: ")
    assert all(isinstance(key, VerificationKey) and key.algorithms for key in keys.values())


# --- bodies ----------------------------------------------------------------------------------------------------------


@thoroughly
@given(
    changed=st.lists(
        st.tuples(st.integers(0, len(BODY) - 1), st.binary(max_size=2), st.integers(0, 2)), min_size=1, max_size=3
    )
)
def test_a_body_that_was_changed(changed: list[tuple[int, bytes, int]]) -> None:
    body = BODY
    for offset, inserted, removed in changed:
        body = body[:offset] + inserted + body[offset + removed :]
    result = outcome(lambda: read_sign_request(body))
    if isinstance(result, SignRequest):
        assert result.key_fingerprint == key_fingerprint(KEY.public_key())
        if result.token is not None and result.token != GOOD[0]:
            assert isinstance(verified(result.token), Refusal)
            assert isinstance(outcome(lambda token=result.token: JoinBook().redeem(token, NOW)), Refusal)
