"""A token taken apart: its form, its header and the types of its claims."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from authn_world import ALGORITHMS, NOW, encode, raw_token, token

from proxy.authn.token import MAX_TOKEN_BYTES, TokenRefused, parse_token
from proxy.errors import Reason

HEADER = b'{"alg":"ES256"}'
PARTS = token().split(b".")


def refusal(carried: bytes) -> tuple[Reason, str]:
    with pytest.raises(TokenRefused) as raised:
        parse_token(carried)
    return raised.value.reason, str(raised.value)


def malformed(carried: bytes) -> str:
    reason, sentence = refusal(carried)
    assert reason is Reason.TOKEN_MALFORMED
    return sentence


def with_claims(**claims: Any) -> bytes:
    return raw_token(HEADER, json.dumps(claims).encode())


def with_header(**fields: Any) -> bytes:
    return raw_token(json.dumps(fields).encode(), b"{}")


def test_a_good_token() -> None:
    parsed = parse_token(token(aud=["a", "b"], nbf=NOW, header={"kid": "k", "typ": "JWT"}))
    assert (parsed.algorithm, parsed.kid, parsed.issuer, parsed.subject) == (
        "ES256",
        "k",
        "https://issuer.example",
        "alice",
    )
    assert (parsed.audiences, parsed.not_before, parsed.expires) == (("a", "b"), NOW, NOW + 3600)


def test_what_is_absent() -> None:
    parsed = parse_token(with_claims())
    assert (parsed.kid, parsed.issuer, parsed.subject, parsed.audiences) == ("", "", "", ())
    assert (parsed.not_before, parsed.expires) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "carried",
    [
        b"",
        b".",
        b"..",
        b"a",
        b"a.b",
        b"garbage",
        b".".join(PARTS[:2]),
        b".".join(PARTS[:2]) + b".",
        b"." + b".".join(PARTS[1:]),
        PARTS[0] + b".." + PARTS[2],
        b".".join([*PARTS, b"x"]),
        b".".join(PARTS) + b"=",
        PARTS[0] + b"=." + b".".join(PARTS[1:]),
        b".".join(PARTS) + b" ",
        b" " + b".".join(PARTS),
        b".".join(PARTS).replace(b".", b". "),
        b".".join(PARTS) + b"\n",
        b".".join(PARTS) + b"\0",
        b".".join(PARTS) + b"+",
        b".".join(PARTS) + b"/",
        b'"' + b".".join(PARTS) + b'"',
        b"{}.{}.{}",
        "ä.ö.ü".encode(),
        b"\xff.\xfe.\xfd",
    ],
)
def test_what_has_not_the_form_of_a_token(carried: bytes) -> None:
    assert malformed(carried).startswith("the token is not three parts of base64url")


def test_a_part_with_a_length_that_no_bytes_have() -> None:
    assert malformed(b".".join([*PARTS[:2], b"aaaaa"])) == "the token's signature is no base64url"
    assert malformed(b"aaaaa." + b".".join(PARTS[1:])) == "the token's header is no base64url"


def test_base64url_has_one_spelling() -> None:
    """`QQ` and `QR` decode to the same byte; only the first is how it is encoded."""
    signature = encode(b"A")
    assert signature == b"QQ"
    assert parse_token(b".".join([*PARTS[:2], signature])).signature == b"A"
    assert malformed(b".".join([*PARTS[:2], b"QR"])) == "the token's signature is no base64url"


def test_the_size_is_bounded() -> None:
    assert malformed(b"a" * (MAX_TOKEN_BYTES + 1)) == f"the token has {MAX_TOKEN_BYTES + 1} bytes, more than 16384"
    padding = "x" * 11_000
    assert parse_token(with_claims(groups=padding)).claims == {"groups": padding}


@pytest.mark.parametrize(
    "text",
    [b" ", b"[]", b"null", b'"x"', b"1", b"{", b"{}x", b"\xff", b"{'a': 1}", b'{"a": NaN}', b'{"a": -Infinity}',
     b'{"a": 1, "a": 1}', b'{"b": {"a": 1, "a": 2}}', b'{"b": "\\ud800"}', b'{"\\udc00": 1}', b"\xef\xbb\xbf{}",
     b'{"a":' * 33 + b"1" + b"}" * 33, b'{"a":' + b"[" * 9000, b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_parts_that_are_no_json_objects(text: bytes) -> None:
    assert "payload" in malformed(raw_token(HEADER, text))
    assert "header" in malformed(raw_token(text.replace(b"{", b'{"alg":"ES256",', 1), b"{}"))


def test_a_surrogate_pair_and_deep_but_bounded_claims_are_fine() -> None:
    deep = b'{"a":' * 31 + b"1" + b"}" * 31
    assert parse_token(raw_token(HEADER, deep))
    assert parse_token(raw_token(HEADER, b'{"name": "\\ud83d\\ude00"}')).claims == {"name": "😀"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_algorithms_that_are_taken(algorithm: str) -> None:
    assert parse_token(with_header(alg=algorithm)).algorithm == algorithm


@pytest.mark.parametrize(
    "algorithm",
    ["none", "None", "NONE", "nOnE", "none ", "", "HS256", "HS384", "HS512", "hs256", "rs256", "ES256K", "RS1",
     "RSA-OAEP", "dir", "EDDSA", "Ed448", "RS256\0", None, 1, True, [], ["RS256"], {"RS256": 1}],
)  # fmt: skip
def test_the_algorithms_that_are_refused(algorithm: Any) -> None:
    reason, sentence = refusal(with_header(alg=algorithm))
    assert reason is Reason.TOKEN_ALGORITHM_REFUSED
    assert sentence.startswith("the token's alg is ")


def test_a_header_without_algorithm() -> None:
    assert refusal(with_header(typ="JWT"))[0] is Reason.TOKEN_ALGORITHM_REFUSED


@pytest.mark.parametrize("extension", [{"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"b64": False}, {"b64": True}])
def test_extensions_are_refused(extension: dict[str, Any]) -> None:
    assert "asks for an extension" in malformed(with_header(alg="ES256", **extension))


@pytest.mark.parametrize("kid", [1, None, [], {}, True])
def test_a_kid_must_be_text(kid: Any) -> None:
    assert malformed(with_header(alg="ES256", kid=kid)) == "the token's `kid` is not text"


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "", 7, None])
def test_the_type_is_not_looked_at(typ: Any) -> None:
    assert parse_token(with_header(alg="ES256", typ=typ)).algorithm == "ES256"


@pytest.mark.parametrize("claim", ["iss", "sub"])
@pytest.mark.parametrize("value", [1, None, [], ["https://issuer.example"], {}, False])
def test_issuer_and_subject_must_be_text(claim: str, value: Any) -> None:
    assert malformed(with_claims(**{claim: value})) == f"the token's `{claim}` is not text"


def test_audiences_are_text_or_a_list_of_texts() -> None:
    assert parse_token(with_claims(aud="a")).audiences == ("a",)
    assert parse_token(with_claims(aud=[])).audiences == ()
    values: list[Any] = [None, 1, True, {}, [1], ["a", None]]
    for value in values:
        assert malformed(with_claims(aud=value)) == "the token's `aud` is neither text nor a list of texts"


@pytest.mark.parametrize("claim", ["exp", "nbf"])
def test_times_are_numbers(claim: str) -> None:
    for value in (0, -1, 1.5, 2**53, -(2**53)):
        assert parse_token(with_claims(**{claim: value}))
    wrongs: list[Any] = ["1", None, True, [], {}, 2**53 + 1, 10**30]
    for wrong in wrongs:
        assert malformed(with_claims(**{claim: wrong})) == f"the token's `{claim}` is no number of seconds"
    assert "no number of seconds" in malformed(raw_token(HEADER, b'{"%b": 1e999}' % claim.encode()))


def test_the_time_of_issue_is_not_looked_at() -> None:
    assert parse_token(with_claims(iat="yesterday"))
