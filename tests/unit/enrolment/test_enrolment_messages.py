"""What is written to an authority, what is read from it, and that neither a token nor a line end leaks into words."""

from __future__ import annotations

import doctest
import json

import pytest

from certs.joins import new_token
from certs.keys import generate_key
from certs.requests import key_fingerprint, read_sign_request
from certs.testing import MemoryAuthority
from proxy.enrolment import authority_messages
from proxy.enrolment.authority_messages import (
    MAX_REASON_CHARACTERS,
    MAX_TOKEN_BYTES,
    EnrolmentError,
    bundle_path,
    instance_name,
    is_used_up_by_use,
    read_signed,
    read_token,
    refusal,
    write_sign_request,
)

MEMORY = MemoryAuthority("cluster.local")


def test_the_examples_hold() -> None:
    assert doctest.testmod(authority_messages).failed == 0


def answer(**changes: object) -> bytes:
    """A 200 of the authority, changed."""
    svid = MEMORY.svid("demo", "orders")
    members: dict[str, object] = {
        "chain": svid.chain_pem().decode(),
        "bundle": json.loads(MEMORY.bundle.to_jwks()),
        "crl": None,
    }
    return json.dumps({name: value for name, value in (members | changes).items() if value != "absent"}).encode()


def test_an_authority_understands_what_is_asked() -> None:
    key = generate_key()
    body = write_sign_request(key, token="a.b.c", lifetime=900.0, bundle_sequence=7, instance="orders-0")
    request = read_sign_request(body)
    assert request.key_fingerprint == key_fingerprint(key.public_key())
    assert (request.token, request.lifetime, request.bundle_sequence, request.instance) == ("a.b.c", 900, 7, "orders-0")


def test_what_is_not_said_is_left_out() -> None:
    body = write_sign_request(generate_key(), token=None, lifetime=None, bundle_sequence=None, instance="orders-0")
    assert sorted(json.loads(body)) == ["csr", "instance"]
    assert b"PRIVATE" not in body


@pytest.mark.parametrize("name", ["orders-7d9f", "ö" * 300, "", "a b\nc"])
def test_any_name_becomes_an_instance(name: str) -> None:
    body = write_sign_request(
        generate_key(), token=None, lifetime=None, bundle_sequence=None, instance=instance_name(name)
    )
    assert read_sign_request(body).instance == instance_name(name)


def test_a_poll_says_what_is_held() -> None:
    assert bundle_path(7, "a/b:c") == "/v1/bundle?confirms=7&instance=a%2Fb%3Ac"
    assert bundle_path(None, "orders-0") == "/v1/bundle"


@pytest.mark.parametrize("data", [b"token", b"token\n", b"  token \r\n"])
def test_white_space_around_a_token_is_no_part_of_it(data: bytes) -> None:
    assert read_token(data, "file") == "token"


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"two words", b"two\nlines", b"t\xc3\xb6ken", b"x" * (MAX_TOKEN_BYTES + 1)]
)
def test_what_is_no_token_is_refused_unquoted(data: bytes) -> None:
    with pytest.raises(EnrolmentError, match=r"^/run/token: it") as caught:
        read_token(data, "/run/token")
    assert "two" not in str(caught.value)


def test_only_join_tokens_are_used_up() -> None:
    assert is_used_up_by_use(new_token())
    assert not is_used_up_by_use("eyJhbGciOiJSUzI1NiJ9.e30.c2ln")


def test_an_answer_is_read() -> None:
    signed = read_signed(answer(crl="MAA="))
    assert signed.crl == b"0\0"
    assert signed.not_after - signed.not_before == 24 * 3600 + 60
    assert "BEGIN" not in repr(signed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        answer(chain="absent"),
        answer(chain="no PEM"),
        answer(chain=7),
        answer(bundle="absent"),
        answer(crl="absent"),
        answer(crl="%%%"),
        answer(crl=7),
        answer()[:-1] + b', "crl": null}',
    ],
)
def test_what_is_no_answer_is_one_error(body: bytes) -> None:
    with pytest.raises(EnrolmentError, match="see whether the url is that of an authority"):
        read_signed(body)


def test_a_refusal_is_told_on_one_short_line() -> None:
    body = json.dumps({"reason": "token_expired", "message": "mount\r\na fresh one" + "!" * 5000}).encode()
    failure = refusal("a certificate", 401, {}, body)
    assert "answered 401 when it was asked for a certificate: token_expired: mount  a fresh one!" in str(failure)
    assert "\n" not in str(failure)
    assert len(str(failure)) < MAX_REASON_CHARACTERS + 200
    assert (failure.word, failure.was_refused) == ("token_expired", True)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", 0.0), ("-1", 0.0), ("9" * 40, 0.0), ("", 0.0)])
def test_the_authority_may_ask_for_patience(header: str, seconds: float) -> None:
    assert refusal("a certificate", 429, {"retry-after": header}, b"").retry_after == seconds


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_answer_without_words_names_the_next_step(status: int) -> None:
    failure = refusal("its bundle", status, {}, b"<html>")
    assert str(status) in str(failure)
    assert "authority" in str(failure)
    assert not failure.was_refused
