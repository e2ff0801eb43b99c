"""What holds of every text that is offered as a token, and of every request that carries one."""

from __future__ import annotations

import json
from typing import Any

from authn_world import (
    ALGORITHMS,
    ISSUER,
    NOW,
    bearer,
    encode,
    head,
    hmac_signer,
    judge,
    jwk,
    key_set,
    kind_of,
    no_keys,
    public_pem,
    rule,
    signer,
    token,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.authn import Authentication, HeaderPlace, forwarded
from proxy.authn.places import Places
from proxy.errors import Reason

quickly = settings(derandomize=True, deadline=None, max_examples=200)

KEYS = key_set(*(jwk(kind, kid=kind) for kind in ("RSA", "ES256", "EdDSA")))
RULES = [
    rule(keys=KEYS),
    rule(
        keys=KEYS, issuer="https://other.example", headers=(HeaderPlace(name=b"x-jwt"),), params=("t",), cookies=("c",)
    ),
]
GOOD = token("EdDSA", header={"kid": "EdDSA"})

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
headers = st.fixed_dictionaries(
    {}, optional={"alg": st.sampled_from([*ALGORITHMS, "none", "HS256"]) | json_values, "kid": json_values,
                  "crit": json_values, "jwk": json_values, "typ": json_values},
)  # fmt: skip
claims = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.just(ISSUER) | json_values,
        "sub": json_values,
        "aud": json_values,
        "exp": st.floats() | json_values,
        "nbf": st.integers() | json_values,
    },
)
parts = st.one_of(
    st.binary(max_size=40),
    st.builds(lambda value: json.dumps(value).encode(), st.one_of(headers, claims, json_values)),
)
token_texts = st.one_of(
    st.binary(max_size=60),
    st.builds(lambda many: b".".join(map(encode, many)), st.lists(parts, max_size=5)),
    st.builds(lambda many: b".".join(many), st.lists(st.binary(max_size=20), max_size=5)),
)


def refused_or_absent(found: Any) -> bool:
    return found.token is None and (found.failure is None or found.failure.consequence.status in (401, 403))


@quickly
@given(carried=token_texts)
@example(carried=b"")
@example(carried=b"..")
@example(carried=b"\xff.\xfe.\0")
def test_no_text_is_a_token_by_itself_and_none_raises(carried: bytes) -> None:
    authentication = Authentication(RULES)
    request = head()
    request.query = b"?access_token=" + carried + b"&t=" + carried
    line = head(b"x: 1").fields[0]
    for name, value in ((b"authorization", b"Bearer " + carried), (b"x-jwt", carried), (b"cookie", b"c=" + carried)):
        request.fields.append(line._replace(name=name, value=value, line=name + b": " + value + b"\r\n"))
    found = judge(authentication, request)
    assert refused_or_absent(found)
    assert forwarded(request, found, authentication) == request


@quickly
@given(header=headers, payload=claims, signature=st.binary(min_size=1, max_size=80))
def test_what_nobody_signed_is_refused(header: dict[str, Any], payload: dict[str, Any], signature: bytes) -> None:
    carried = b".".join(encode(part) for part in (json.dumps(header).encode(), json.dumps(payload).encode(), signature))
    found = judge(RULES, carried)
    assert found.token is None
    assert found.failure is not None
    assert len(found.explanation) < 500
    assert found.explanation.isprintable()


@quickly
@given(payload=claims, algorithm=st.sampled_from(["RS256", "ES256", "EdDSA"]))
def test_what_is_signed_is_taken_only_with_the_claims_that_the_rule_asks_for(
    payload: dict[str, Any], algorithm: str
) -> None:
    whole: dict[str, Any] = {"iss": None, "sub": None, "exp": None} | payload
    found = judge(RULES, token(algorithm, **whole))
    if found.token is not None:
        assert found.token.issuer == ISSUER
        assert isinstance(found.token.subject, str)
        assert found.token.expires_at > NOW
        assert found.failure is None


@quickly
@given(place=st.integers(min_value=0, max_value=len(GOOD) - 1), byte=st.integers(min_value=0, max_value=255))
def test_a_token_with_one_byte_changed_is_refused(place: int, byte: int) -> None:
    changed = GOOD[:place] + bytes((byte,)) + GOOD[place + 1 :]
    request = head()
    field = head(b"authorization: x").fields[0]
    request.fields.append(field._replace(value=b"Bearer " + changed))
    assert (judge(RULES, request).token is not None) == (changed == GOOD)


@quickly
@given(
    secret=st.sampled_from([public_pem(kind) for kind in ("RSA", "ES256", "EdDSA")] + [b"", b"secret"]),
    claimed=st.sampled_from(["HS256", "HS384", "HS512", *ALGORITHMS]),
    digest=st.sampled_from(["sha256", "sha384", "sha512"]),
    kid=st.sampled_from(["", "RSA", "ES256", "EdDSA"]),
)
def test_no_hmac_is_ever_taken(secret: bytes, claimed: str, digest: str, kid: str) -> None:
    header = {"kid": kid} if kid else {}
    assert judge(RULES, token(claimed, header=header, sign=hmac_signer(secret, digest))).token is None


@quickly
@given(
    signed_with=st.sampled_from(["RS256", "PS256", "ES256", "EdDSA"]),
    claimed=st.sampled_from(ALGORITHMS),
    kid=st.sampled_from(["", "RSA", "ES256", "EdDSA"]),
)
def test_a_token_is_taken_exactly_when_algorithm_and_key_are_its_own(signed_with: str, claimed: str, kid: str) -> None:
    carried = token(claimed, header={"kid": kid} if kid else {}, sign=signer(signed_with))
    assert (judge(RULES, carried).token is not None) == (claimed == signed_with and kid in ("", kind_of(signed_with)))


piece = st.sampled_from(
    [b"a=1", b"b", b"", b"access_token=T", b"access%5Ftoken=T", b"access_token=%54", b"Access_Token=T", b"c=%zz", b"=",
     b"xaccess_token=T", b"access_token"]
)  # fmt: skip
CARRYING = {b"access_token=T", b"access%5Ftoken=T", b"access_token=%54"}


@quickly
@given(pieces=st.lists(piece, max_size=8))
def test_a_query_keeps_every_other_piece_in_order(pieces: list[bytes]) -> None:
    request = head(query=b"?" + b"&".join(pieces))
    left = Places(rule()).without(request, b"T").query
    kept = [piece for piece in pieces if piece not in CARRYING]
    expected = b"&".join(kept)
    if len(kept) == len(pieces):
        assert left == request.query
    else:
        assert left == (b"?" + expected if expected else b"")
    assert Places(rule()).tokens(request) == ([b"T"] if len(kept) < len(pieces) else [])


@quickly
@given(value=json_values, name=st.sampled_from(["claim", "a.b", "x"]))
def test_no_claim_breaks_a_header_line(value: Any, name: str) -> None:
    outputs = Authentication([rule(keys=KEYS, claim_headers={"x-claim": name}, payload_header="x-payload")])
    carried = token("EdDSA", claim=value, a={"b": value})
    request = head(bearer(carried), b"x-claim: forged")
    found = outputs.authenticate(request, no_keys, NOW)
    assert found.failure in (None, Reason.TOKEN_MALFORMED)
    for field in forwarded(request, found, outputs).fields[0 if found.token else 1 :]:
        assert field.line == field.name + b": " + field.value + b"\r\n"
        assert field.value == field.value.strip()
        assert field.value != b"forged"
        assert field.value.isascii()
        assert field.value.decode().isprintable()
