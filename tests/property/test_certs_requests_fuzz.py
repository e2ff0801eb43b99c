"""Whatever is sent to the authority, the answer is a request with a proved key, or a refusal; never another error."""

from __future__ import annotations

import base64
import json

from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.joins import JoinBook, JoinBookError
from certs.rates import Rate, RateLimiter
from certs.refusals import Refusal, Refused
from certs.requests import SignRequest, key_fingerprint, read_sign_request
from certs.spiffe import SpiffeId
from tests.authority_requests import KEY, OTHER_KEY, assembled, plain_der, spki

FINGERPRINT = key_fingerprint(KEY.public_key())
PLAIN = plain_der()
TOKEN = "remora-join-" + "A" * 43
LAPTOP = SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop")
BOOK = JoinBook().create(TOKEN, LAPTOP, made_by="alice", now=1000.0)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
members = st.dictionaries(
    st.sampled_from(["csr", "token", "kind", "lifetime_seconds", "bundle_sequence"]) | st.text(max_size=5),
    json_values,
    max_size=5,
)


def outcome(body: bytes) -> SignRequest | Refusal:
    try:
        return read_sign_request(body)
    except Refused as refused:
        message, reason = str(refused), refused.reason
    assert message.isprintable()
    assert len(message) < 500
    return reason


def body_with(der: bytes) -> bytes:
    return json.dumps({"csr": base64.b64encode(der).decode("ascii")}).encode("ascii")


@given(body=st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    assert isinstance(outcome(body), Refusal)


@given(document=members)
def test_any_members(document: dict[str, object]) -> None:
    assert isinstance(outcome(json.dumps(document).encode("utf-8", "surrogatepass")), Refusal)


@settings(max_examples=500)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(PLAIN) - 1), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=3
    )
)
def test_a_changed_request_proves_nothing(changes: list[tuple[int, bytes, int]]) -> None:
    """One that is taken all the same has the bytes that its key signed: the change was outside, or none."""
    der = PLAIN
    for offset, inserted, removed in changes:
        der = der[:offset] + inserted + der[offset + removed :]
    result = outcome(body_with(der))
    if isinstance(result, SignRequest):
        assert result.key_fingerprint == FINGERPRINT
        signed = x509.load_der_x509_csr(der).tbs_certrequest_bytes
        assert signed == x509.load_der_x509_csr(PLAIN).tbs_certrequest_bytes


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), min_size=1, max_size=3))
def test_any_key_that_is_signed_for_by_another(changes: list[tuple[int, int]]) -> None:
    info = bytearray(spki(OTHER_KEY))
    for offset, byte in changes:
        info[offset] = byte
    result = outcome(body_with(assembled(bytes(info))))
    assert result in (Refusal.CSR_MALFORMED, Refusal.KEY_TOO_WEAK, Refusal.POSSESSION_NOT_PROVED)


@given(
    data=st.binary(max_size=100)
    | members.map(lambda document: json.dumps({"version": 1, "tokens": {"0" * 64: document}}).encode())
)
def test_any_book_of_join_tokens(data: bytes) -> None:
    try:
        book = JoinBook.from_json(data, "joins.json")
    except JoinBookError as error:
        message = str(error)
    else:
        message = "joins.json: "
        assert JoinBook.from_json(book.to_json(), "joins.json") == book
    assert message.startswith("joins.json: ")


@given(moments=st.lists(st.floats(0, 5000), max_size=10))
def test_a_token_is_granted_once_at_most_however_the_clock_jumps(moments: list[float]) -> None:
    book, granted = BOOK, 0
    for now in moments:
        book = book.pruned(now)
        try:
            book, spiffe_id = book.redeem(TOKEN, now)
        except Refused:
            continue
        assert spiffe_id == LAPTOP
        granted += 1
    assert granted <= 1


@given(steps=st.lists(st.floats(0, 10), max_size=60))
def test_no_caller_gets_more_than_burst_and_rate(steps: list[float]) -> None:
    limiter, now, granted = RateLimiter(Rate(per_second=0.5, burst=3)), 0.0, 0
    for step in steps:
        now += step
        granted += limiter.wait("a", now) == 0.0
        assert granted <= 3 + 0.5 * now + 1e-6
