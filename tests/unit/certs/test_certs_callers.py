"""Who asks, by Kubernetes: tokens verified offline and by TokenReview, and the pods that they are bound to."""

from __future__ import annotations

import base64
import datetime
import doctest
import hashlib
import hmac
import importlib
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.caller import Caller, How, PodRef
from certs.callers.oidc import KeySetError, OidcRules, parse_keys, verify_token
from certs.callers.pods import check_pod
from certs.callers.tokenreview import POD_NAME, POD_UID, read_review, review_request
from certs.refusals import Refusal, Refused
from certs.spiffe import SpiffeId, TrustDomain

NOW = 1_800_000_000.0
ISSUER = "https://kubernetes.default.svc"
DOMAIN = TrustDomain("cluster.local")
ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
POD = PodRef(namespace="demo", name="orders-0", uid="7-a")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    made: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return {**{name: value for name, value in made.items() if name != "key_ops"}, "kid": kid, "use": "sig", **more}


KEYS = parse_keys(
    json.dumps({"keys": [jwk(RSA_KEY, "r"), jwk(EC_KEY, "e"), jwk(RSA_KEY, "only256", alg="RS256")]}).encode(), "keys"
)
RULES = OidcRules(trust_domain=DOMAIN, issuer=ISSUER, audience="remora", keys=KEYS)


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": ["remora"],
        "sub": "system:serviceaccount:demo:orders",
        "iat": int(NOW) - 60,
        "nbf": int(NOW) - 60,
        "exp": int(NOW) + 3540,
        "kubernetes.io": bound(),
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not ...}


def bound(**changes: Any) -> dict[str, Any]:
    made = {
        "namespace": "demo",
        "serviceaccount": {"name": "orders", "uid": "5-a"},
        "pod": {"name": "orders-0", "uid": "7-a"},
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not ...}


def token(body: dict[str, Any], key: Any = EC_KEY, algorithm: str = "ES256", **header: Any) -> str:
    return jwt.encode(body, key, algorithm=algorithm, headers={"kid": "e", **header})


def raw_token(header: bytes, body: bytes, sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, body))
    return (signed + b"." + base64.urlsafe_b64encode(sign(signed)).rstrip(b"=")).decode()


def with_public_key_as_secret(name: bytes) -> str:
    pem = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = b'{"alg":"%s","kid":"e"}' % name
    return raw_token(header, json.dumps(claims()).encode(), lambda data: hmac.digest(pem, data, hashlib.sha256))


def reason_of(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refused) as caught:
        call()
    # The message ends with a mend and never holds a token.
    assert "; " in str(caught.value)
    assert "eyJ" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("name", ["claims", "oidc", "tokenreview", "pods"])
def test_examples_of_callers(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"certs.callers.{name}")).failed == 0


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [(EC_KEY, "ES256", "e"), (RSA_KEY, "RS256", "r"), (RSA_KEY, "RS512", "r"), (RSA_KEY, "RS256", "only256")],
)
def test_a_projected_token_names_its_workload(key: Any, algorithm: str, kid: str) -> None:
    caller = verify_token(token(claims(), key, algorithm, kid=kid), RULES, NOW)
    expected = Caller(
        spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=POD, account_uid="5-a", token_expires=NOW + 3540
    )
    assert caller == expected


BAD: dict[str, tuple[Callable[[], str], Refusal]] = {
    "none": (lambda: raw_token(b'{"alg":"none","kid":"e"}', b"{}"), Refusal.TOKEN_ALGORITHM_REFUSED),
    "secret is our key": (lambda: with_public_key_as_secret(b"HS256"), Refusal.TOKEN_ALGORITHM_REFUSED),
    "secret said to be EC": (lambda: with_public_key_as_secret(b"ES256"), Refusal.TOKEN_SIGNATURE_INVALID),
    "PSS": (lambda: token(claims(), RSA_KEY, "PS256", kid="r"), Refusal.TOKEN_ALGORITHM_REFUSED),
    "RS with the EC key's kid": (lambda: token(claims(), RSA_KEY, "RS256"), Refusal.TOKEN_ALGORITHM_REFUSED),
    "the JWK allows less": (lambda: token(claims(), RSA_KEY, "RS512", kid="only256"), Refusal.TOKEN_ALGORITHM_REFUSED),
    "unknown kid": (lambda: token(claims(), kid="x"), Refusal.TOKEN_KEY_UNKNOWN),
    "other key": (lambda: token(claims(), OTHER_KEY), Refusal.TOKEN_SIGNATURE_INVALID),
    "crit": (lambda: token(claims(), crit=["exp"]), Refusal.TOKEN_MALFORMED),
    "two parts": (lambda: "a.b", Refusal.TOKEN_MALFORMED),
    "empty": (lambda: "", Refusal.TOKEN_MALFORMED),
    "huge": (lambda: token(claims(x="y" * 20_000)), Refusal.TOKEN_MALFORMED),
    "iss twice": (
        lambda: raw_token(b'{"alg":"ES256","kid":"e"}', b'{"iss":"a","iss":"b"}'),
        Refusal.TOKEN_MALFORMED,
    ),
    "a list": (lambda: raw_token(b"[]", b"{}"), Refusal.TOKEN_MALFORMED),
    "other issuer": (lambda: token(claims(iss="https://other")), Refusal.TOKEN_ISSUER_UNKNOWN),
    "no issuer": (lambda: token(claims(iss=...)), Refusal.TOKEN_ISSUER_UNKNOWN),
    "other audience": (lambda: token(claims(aud=["vault"])), Refusal.TOKEN_AUDIENCE_REFUSED),
    "longer audience": (lambda: token(claims(aud="remora2")), Refusal.TOKEN_AUDIENCE_REFUSED),
    "no audience": (lambda: token(claims(aud=...)), Refusal.TOKEN_AUDIENCE_REFUSED),
    "expired": (lambda: token(claims(exp=int(NOW) - 60)), Refusal.TOKEN_EXPIRED),
    "no end": (lambda: token(claims(exp=...)), Refusal.TOKEN_MALFORMED),
    "end is text": (lambda: token(claims(exp="9")), Refusal.TOKEN_MALFORMED),
    "no begin": (lambda: token(claims(iat=...)), Refusal.TOKEN_MALFORMED),
    "not yet": (lambda: token(claims(nbf=int(NOW) + 61)), Refusal.TOKEN_NOT_YET_VALID),
    "issued later": (lambda: token(claims(iat=int(NOW) + 61)), Refusal.TOKEN_NOT_YET_VALID),
    "lives a year": (lambda: token(claims(exp=int(NOW) + 365 * 86400)), Refusal.TOKEN_REFUSED),
    "no pod": (lambda: token(claims(**{"kubernetes.io": bound(pod=...)})), Refusal.TOKEN_NOT_OF_A_WORKLOAD),
    "pod without uid": (
        lambda: token(claims(**{"kubernetes.io": bound(pod={"name": "orders-0"})})),
        Refusal.TOKEN_MALFORMED,
    ),
    "pod with a path": (
        lambda: token(claims(**{"kubernetes.io": bound(pod={"name": "../x", "uid": "7-a"})})),
        Refusal.TOKEN_MALFORMED,
    ),
    "no kubernetes.io": (lambda: token(claims(**{"kubernetes.io": ...})), Refusal.TOKEN_NOT_OF_A_WORKLOAD),
    "sub is another": (lambda: token(claims(sub="system:serviceaccount:demo:admin")), Refusal.TOKEN_MALFORMED),
    "a user": (
        lambda: token(claims(sub="alice", **{"kubernetes.io": bound(serviceaccount=...)})),
        Refusal.TOKEN_NOT_OF_A_WORKLOAD,
    ),
    "namespace with a slash": (
        lambda: token(
            claims(sub="system:serviceaccount:a/b:orders", **{"kubernetes.io": bound(namespace="a/b")}),
        ),
        Refusal.TOKEN_NOT_OF_A_WORKLOAD,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_with_its_reason(name: str) -> None:
    make, expected = BAD[name]
    assert reason_of(lambda: verify_token(make(), RULES, NOW)) is expected


def test_a_minute_of_skew_is_survived() -> None:
    made = token(claims())
    assert verify_token(made, RULES, NOW + 3540 + 59).spiffe_id == ORDERS
    assert verify_token(made, RULES, NOW - 120).spiffe_id == ORDERS
    assert reason_of(lambda: verify_token(made, RULES, NOW + 3540 + 60)) is Refusal.TOKEN_EXPIRED
    assert reason_of(lambda: verify_token(made, RULES, NOW - 121)) is Refusal.TOKEN_NOT_YET_VALID


def test_a_token_without_pod_passes_where_that_is_allowed() -> None:
    rules = OidcRules(trust_domain=DOMAIN, issuer=ISSUER, audience="remora", keys=KEYS, allow_without_pod=True)
    caller = verify_token(token(claims(**{"kubernetes.io": bound(pod=...)})), rules, NOW)
    assert (caller.spiffe_id, caller.pod) == (ORDERS, None)


def test_keys_that_cannot_verify_are_left_out() -> None:
    symmetric = {"kty": "oct", "kid": "h", "k": "c2VjcmV0"}
    entries = [symmetric, jwk(WEAK_KEY, "w"), {**jwk(EC_KEY, "enc"), "use": "enc"}, {"kty": "EC", "kid": "b"}, 7]
    with pytest.raises(KeySetError, match="holds no RSA or EC key"):
        parse_keys(json.dumps({"keys": entries}).encode(), "keys")
    assert set(parse_keys(json.dumps({"keys": [*entries, jwk(EC_KEY, "e")]}).encode(), "keys")) == {"e"}
    with pytest.raises(KeySetError, match="same kid"):
        parse_keys(json.dumps({"keys": [jwk(EC_KEY, "e"), jwk(OTHER_KEY, "e")]}).encode(), "keys")
    with pytest.raises(KeySetError, match="no JWK Set"):
        parse_keys(b"<html>", "keys")


# --- TokenReview -----------------------------------------------------------------------------------------------------


def review(**changes: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:demo:orders",
        "uid": "5-a",
        "extra": {POD_NAME: ["orders-0"], POD_UID: ["7-a"]},
    }
    status = {"authenticated": True, "audiences": ["remora"], "user": user, **changes}
    kept = {name: value for name, value in status.items() if value is not ...}
    return {**review_request("t", "remora"), "status": kept}


def judged(answer: dict[str, Any], bearer: str | None = None, allow_without_pod: bool = False) -> Caller:
    return read_review(
        answer,
        token(claims()) if bearer is None else bearer,
        trust_domain=DOMAIN,
        audience="remora",
        now=NOW,
        allow_without_pod=allow_without_pod,
    )


def test_a_reviewed_token_names_its_workload() -> None:
    expected = Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=POD, token_expires=NOW + 3540)
    assert judged(review()) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"authenticated": False}, Refusal.TOKEN_REFUSED),
        ({"authenticated": "true"}, Refusal.TOKEN_REFUSED),
        ({"authenticated": ...}, Refusal.TOKEN_REFUSED),
        ({"error": "eyJ is invalid"}, Refusal.TOKEN_REFUSED),
        ({"audiences": ["https://kubernetes.default.svc"]}, Refusal.TOKEN_AUDIENCE_REFUSED),
        ({"audiences": ...}, Refusal.TOKEN_AUDIENCE_REFUSED),
        ({"user": {"username": "alice"}}, Refusal.TOKEN_NOT_OF_A_WORKLOAD),
        ({"user": {"username": "system:serviceaccount:demo:orders"}}, Refusal.TOKEN_NOT_OF_A_WORKLOAD),
        ({"user": {"username": "system:node:demo:orders"}}, Refusal.TOKEN_NOT_OF_A_WORKLOAD),
        ({"user": None}, Refusal.TOKEN_NOT_OF_A_WORKLOAD),
        (
            {"user": {"username": "system:serviceaccount:demo:orders", "extra": {POD_NAME: ["a", "b"]}}},
            Refusal.TOKEN_MALFORMED,
        ),
        (
            {"user": {"username": "system:serviceaccount:demo:orders", "extra": {POD_NAME: ["a"]}}},
            Refusal.TOKEN_MALFORMED,
        ),
    ],
)
def test_an_answer_that_does_not_vouch_is_refused(changes: dict[str, Any], expected: Refusal) -> None:
    assert reason_of(lambda: judged(review(**changes))) is expected


def test_an_answer_of_another_kind_is_the_servers_fault() -> None:
    assert reason_of(lambda: judged({"kind": "Status"})) is Refusal.REVIEW_UNAVAILABLE


def test_a_reviewed_token_may_not_live_for_a_year_either() -> None:
    long = token(claims(exp=int(NOW) + 365 * 86400))
    assert reason_of(lambda: judged(review(), long)) is Refusal.TOKEN_REFUSED


def test_a_reviewed_token_without_pod_passes_where_that_is_allowed() -> None:
    answer = review(user={"username": "system:serviceaccount:demo:orders"})
    assert judged(answer, allow_without_pod=True).pod is None


# --- the bound pod ---------------------------------------------------------------------------------------------------

CALLER = Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN, pod=POD)


def pod(phase: str = "Running", account: str = "orders", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "demo", "name": "orders-0", "uid": "7-a", **metadata},
        "spec": {"serviceAccountName": account},
        "status": {"phase": phase},
    }


def at(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize("document", [pod(), pod("Pending"), pod(deletionTimestamp=at(NOW - 59)), pod("Unknown")])
def test_the_same_pod_passes(document: dict[str, Any]) -> None:
    check_pod(CALLER, document, NOW)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, Refusal.POD_GONE),
        (pod("Succeeded"), Refusal.POD_GONE),
        (pod("Failed"), Refusal.POD_GONE),
        (pod(deletionTimestamp=at(NOW - 60)), Refusal.POD_GONE),
        (pod(deletionTimestamp="yesterday"), Refusal.POD_GONE),
        (pod(uid="7-b"), Refusal.POD_REPLACED),
        (pod(name="orders-1"), Refusal.POD_REPLACED),
        (pod(namespace="other"), Refusal.POD_REPLACED),
        (pod(account="admin"), Refusal.POD_REPLACED),
        ({}, Refusal.POD_REPLACED),
    ],
)
def test_another_or_ended_pod_is_refused(document: dict[str, Any] | None, expected: Refusal) -> None:
    assert reason_of(lambda: check_pod(CALLER, document, NOW)) is expected


def test_a_caller_without_pod_was_judged_before() -> None:
    check_pod(Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN), None, NOW)
