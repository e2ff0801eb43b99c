"""What a request says is read exactly; what it should not have said is told to its author and not repeated."""

from __future__ import annotations

import json

import pytest

from certs.caller import How
from certs.refusals import Refused
from certs.requests import MAX_CSR_CHARACTERS, SignRequest, key_fingerprint, read_sign_request
from tests.authority_requests import KEY, RECIPES


def read(**members: object) -> SignRequest:
    return read_sign_request(json.dumps({"csr": RECIPES["p256"](), **members}).encode("utf-8"))


def test_all_members_are_read() -> None:
    request = read(token="a.b.c", kind="service_account_token", lifetime_seconds=900, bundle_sequence=0)
    assert request.token == "a.b.c"
    assert request.kind is How.SERVICE_ACCOUNT_TOKEN
    assert (request.lifetime, request.bundle_sequence) == (900, 0)
    assert request.key_fingerprint == key_fingerprint(KEY.public_key())


def test_only_the_csr_is_needed() -> None:
    request = read()
    assert (request.token, request.kind, request.lifetime, request.bundle_sequence) == (None, None, None, None)


def test_the_token_is_not_shown() -> None:
    assert "a.b.c" not in repr(read(token="a.b.c"))


def test_one_key_has_one_fingerprint_however_it_is_spelled() -> None:
    spellings = {read(csr=RECIPES[name]()).key_fingerprint for name in ("p256", "base64_der", "compressed_point")}
    assert spellings == {key_fingerprint(KEY.public_key())}


@pytest.mark.parametrize("recipe", ["private_key", "with_private_key"])
def test_who_sends_a_private_key_is_told_that_it_is_spent(recipe: str) -> None:
    with pytest.raises(Refused, match="private key, which is now spent"):
        read(csr=RECIPES[recipe]())


def test_a_csr_of_the_largest_size_is_read_and_one_more_character_is_not() -> None:
    csr = RECIPES["p256"]()
    assert read(csr=csr.ljust(MAX_CSR_CHARACTERS)).lifetime is None
    with pytest.raises(Refused, match=f"more than {MAX_CSR_CHARACTERS}"):
        read(csr=csr.ljust(MAX_CSR_CHARACTERS + 1))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'{"csr": "MAA=", "spiffe_id": "x"}',
            "'spiffe_id' is not known; send only bundle_sequence, csr, instance, kind",
        ),
        (b'{"csr": "MAA=", "csr": "MAA="}', "'csr' stands there twice"),
        (b'{"csr": "MAA=", "lifetime_seconds": Infinity}', "Infinity is no JSON number"),
        (b'{"\\u001b[2J\\u2028": 1}', r"'\\x1b\[2J\\u2028' is not known"),
        (b'{"' + b"a" * 1000 + b'": 1}', r"'a{60}\.\.\.' is not known"),
    ],
)
def test_a_form_that_is_wrong_is_named(body: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_sign_request(body)


@pytest.mark.parametrize(
    "body",
    [b'{"token": "hunter2', b'{"token": "hunter2 "}', b'{"token": ["hunter2"]}', b'{"token": hunter2}'],
)
def test_no_message_repeats_the_token(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_sign_request(body)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
