"""Tokens of RequestAuthentication: Envoy's jwt_authn, as istiod configures it, and our verification agree."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from callers import calls_as
from cryptography.hazmat.primitives.asymmetric import ec
from envoy_authn import jwt_filter
from envoy_claims import ISSUER, NAMESPACE, OTHER_ISSUER, key_set, request_authentication, signing_key
from envoy_judge import judging
from envoy_ours import Call, compiled, filters, our_verdict
from envoy_rbac import Json

CALLER = calls_as("")
PRINCIPALS: Json = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "p", "namespace": NAMESPACE},
    "spec": {
        "rules": [
            {"from": [{"source": {"requestPrincipals": [f"{ISSUER}/alice"]}}]},
            {"from": [{"source": {"requestPrincipals": [f"{OTHER_ISSUER}/robot"]}}]},
            {"from": [{"source": {"notRequestPrincipals": ["*"]}}]},
        ]
    },
}
"""Allows all, and by the rule that allows one can tell whose token counted."""


def signed(*, key: Any = None, algorithm: str = "ES256", kid: str | None = "k", **claims: Any) -> str:
    whole = {"iss": ISSUER, "sub": "alice"} | claims
    headers = {} if kid is None else {"kid": kid}
    present = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(present, key or signing_key(), algorithm=algorithm, headers=headers)


def by_hand(header: Json, claims: Json, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def turned(token: str) -> str:
    """The token with another signature: one character in the middle of it."""
    head, _, signature = token.rpartition(".")
    at = len(signature) // 2
    return f"{head}.{signature[:at]}{'A' if signature[at] != 'A' else 'B'}{signature[at + 1 :]}"


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


NOW = int(time.time())
ALICE, ROBOT = signed(), signed(iss=OTHER_ISSUER, sub="robot")
Headers = tuple[tuple[str, str], ...]
TOKENS: dict[str, tuple[str, Headers]] = {
    "none": ("/", ()),
    "alice": ("/", (bearer(ALICE),)),
    "robot": ("/", (bearer(ROBOT),)),
    "in the query": (f"/?a=b&access_token={ALICE}", ()),
    "twice the same": (f"/?access_token={ALICE}", (bearer(ALICE),)),
    "expired": ("/", (bearer(signed(exp=NOW - 3600)),)),
    "just expired": ("/", (bearer(signed(exp=NOW - 20)),)),
    "valid": ("/", (bearer(signed(exp=NOW + 3600, nbf=NOW - 10, iat=NOW)),)),
    "not yet": ("/", (bearer(signed(nbf=NOW + 3600)),)),
    "soon": ("/", (bearer(signed(nbf=NOW + 20)),)),
    "issued in the future": ("/", (bearer(signed(iat=NOW + 3600)),)),
    "audience": ("/", (bearer(signed(aud="orders")),)),
    "audiences": ("/", (bearer(signed(aud=["x", "https://orders/"])),)),
    "other audience": ("/", (bearer(signed(aud="invoices")),)),
    "no audience": ("/", (bearer(signed(aud=[])),)),
    "unknown issuer": ("/", (bearer(signed(iss="https://evil.example")),)),
    "no issuer": ("/", (bearer(signed(iss=None)),)),
    "no subject": ("/", (bearer(signed(sub=None)),)),
    "another key": ("/", (bearer(signed(key=ec.generate_private_key(ec.SECP256R1()))),)),
    "unknown kid": ("/", (bearer(signed(kid="other")),)),
    "no kid": ("/", (bearer(signed(kid=None)),)),
    "bad signature": ("/", (bearer(turned(ALICE)),)),
    "alg none": ("/", (bearer(by_hand({"alg": "none"}, {"iss": ISSUER, "sub": "alice"})),)),
    "alg HS256": ("/", (bearer(signed(key=b"k" * 32, algorithm="HS256", aud="orders")),)),
    "no token": ("/", (bearer("nothing"),)),
    "two dots": ("/", (bearer(".."),)),
    "empty": ("/", (("Authorization", "Bearer "),)),
    "another scheme": ("/", (("Authorization", "Basic YTpi"),)),
    "lower-case scheme": ("/", (("Authorization", f"bearer {ALICE}"),)),
    "white space": ("/", (("Authorization", f"Bearer  {ALICE}"),)),
    "no claims": ("/", (bearer(by_hand({"alg": "ES256", "kid": "k"}, {}, b"x" * 64)),)),
    "own header": ("/", (("x-token", f"jwt {ALICE}"),)),
    "own header bare": ("/", (("x-token", ALICE),)),
    "own parameter": (f"/?token={ALICE}", ()),
    "own cookie": ("/", (("Cookie", f"a=b; session={ALICE}"),)),
    "bad and no other": ("/", (("x-token", "jwt nothing"),)),
}
ONE: Json = {"issuer": ISSUER, "jwks": key_set()}
OTHER: Json = {"issuer": OTHER_ISSUER, "jwks": key_set()}
RULES: dict[str, list[Json]] = {
    "one issuer": [ONE],
    "two issuers": [ONE, OTHER],
    "audiences": [ONE | {"audiences": ["orders", "shop"]}],
    "forwarded": [ONE | {"forwardOriginalToken": True}, OTHER],
    "places": [
        ONE
        | {
            "fromHeaders": [{"name": "x-token", "prefix": "jwt "}],
            "fromParams": ["token"],
            "fromCookies": ["session"],
        }
    ],
    "places apart": [ONE | {"fromHeaders": [{"name": "x-token", "prefix": "jwt "}]}, OTHER],
}


def both(directory: Path, rules: Sequence[Json], calls: Sequence[Call]) -> list[tuple[Any, Any]]:
    """Give what each side answers: the status and the rule that allowed."""
    snapshot = compiled([PRINCIPALS, request_authentication(rules)])

    async def ask() -> list[tuple[Any, Any]]:
        found = []
        async with judging(directory, [filters([PRINCIPALS])], jwt=jwt_filter(rules)) as judge:
            for call in calls:
                theirs, ours = await judge.request(0, call.head, call.caller), our_verdict(snapshot, call)
                found.append(((theirs.status, theirs.allowed_by), (ours.status, ours.allowed_by)))
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("rules", list(RULES))
def test_tokens_are_judged_alike(tmp_path: Path, rules: str) -> None:
    calls = [Call(caller=CALLER, method="GET", target=target, headers=headers) for target, headers in TOKENS.values()]
    answers = dict(zip(TOKENS, both(tmp_path / "envoy", RULES[rules], calls), strict=True))
    assert {name: pair for name, pair in answers.items() if pair[0] != pair[1]} == {}
    assert len({pair[1] for pair in answers.values()}) >= 3


CONFLICTS: dict[str, tuple[str, Headers]] = {
    "of two issuers": (f"/?access_token={ROBOT}", (bearer(ALICE),)),
    "of two issuers, turned": (f"/?access_token={ALICE}", (bearer(ROBOT),)),
    "two parameters": (f"/?access_token={ALICE}&access_token={signed(jti='2')}", ()),
}


@pytest.mark.parametrize("name", list(CONFLICTS))
def test_two_tokens_are_refused(tmp_path: Path, name: str) -> None:
    """Which of two valid tokens counts is not defined by Istio: Envoy takes one and forwards the other. Here a request
    with two different tokens is answered 401, so that the application cannot read the one that nobody judged."""
    target, headers = CONFLICTS[name]
    call = Call(caller=CALLER, method="GET", target=target, headers=headers)
    [(theirs, ours)] = both(tmp_path / "envoy", RULES["two issuers"], [call])
    assert (theirs[0], ours[0]) == (200, 401)


@pytest.mark.parametrize("number", [1, 2])
def test_preflight_requests_are_judged_alike(tmp_path: Path, number: int) -> None:
    """A browser sends a preflight request without credentials; both skip its tokens, and policy judges it."""
    lines = (("Origin", "https://shop.example"), ("Access-Control-Request-Method", "PUT"))
    call = Call(caller=CALLER, method="OPTIONS", target="/", headers=(*lines[:number], bearer("nothing")))
    [(theirs, ours)] = both(tmp_path / "envoy", [ONE], [call])
    assert theirs == ours
    assert ours[0] == (401 if number == 1 else 200)


PLAIN: Json = {"text": "north", "number": 7, "big": 2**40, "yes": True, "no": False, "empty": "", "dotted.name": "z"}
INNER: Json = {"object": {"inner": "x", "deep": {"er": "y"}}}
NOT_PLAIN: Json = {"negative": -3, "fraction": 1.5, "list": ["a", "b"], "letters": "\u00e9"}


def passed_on(directory: Path, claim: str, lines: Headers) -> list[tuple[str, str]]:
    """Give both sides' x-claim and x-payload, first with a token, then without."""
    outputs = {
        "outputClaimToHeaders": [{"header": "x-claim", "claim": claim}],
        "outputPayloadToHeader": "x-payload",
    }
    token = signed(**PLAIN, **INNER, **NOT_PLAIN)
    calls = [
        Call(caller=CALLER, method="GET", target="/", headers=headers) for headers in ((*lines, bearer(token)), lines)
    ]
    snapshot = compiled([PRINCIPALS, request_authentication([ONE | outputs])])

    async def ask() -> list[tuple[str, str]]:
        found = []
        async with judging(directory, [filters([])], jwt=jwt_filter([ONE | outputs])) as judge:
            for call in calls:
                theirs, ours = await judge.request(0, call.head, call.caller), our_verdict(snapshot, call)
                found += [(theirs.claim, ours.claim), (theirs.payload, ours.payload)]
        return found

    return asyncio.run(ask())


@pytest.mark.parametrize("claim", [*PLAIN, "object.inner", "object.deep.er", "nothing", "iss"])
def test_claims_are_passed_on_alike(tmp_path: Path, claim: str) -> None:
    """What the application reads in the headers of `outputClaimToHeaders` and `outputPayloadToHeader`; what the client
    wrote there is gone, with a token and without."""
    answers = passed_on(tmp_path / "envoy", claim, (("x-claim", "lie"), ("x-payload", "lie")))
    assert [pair for pair in answers if pair[0] != pair[1]] == []
    assert not any("lie" in pair for pair in answers)


@pytest.mark.parametrize(
    ("claim", "theirs", "ours"),
    [
        ("negative", "-3.000000", "-3"),
        ("fraction", "1.500000", ""),
        ("list", "WyJhIiwiYiJd", ""),
        ("letters", "\u00c3\u00a9", ""),
    ],
)
def test_claims_that_are_no_plain_text(tmp_path: Path, claim: str, theirs: str, ours: str) -> None:
    """Istio promises text, whole numbers and booleans. Of other claims Envoy writes something that an application can
    take for what it is not: a number with six decimals, base64 for lists. Here the header is left out."""
    assert passed_on(tmp_path / "envoy", claim, ())[0] == (theirs, ours)


def test_a_claim_that_is_an_object(tmp_path: Path) -> None:
    """Envoy passes on base64 of JSON, its keys in any order."""
    theirs, ours = passed_on(tmp_path / "envoy", "object", ())[0]
    assert json.loads(base64.b64decode(theirs)) == {"deep": {"er": "y"}, "inner": "x"}
    assert ours == ""
