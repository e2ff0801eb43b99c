"""Signing comes last: the order of the checks, the lifetimes, and what is told of the result."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from certs.caller import Caller, How
from certs.keys import PublicKey, public_key_bytes
from certs.refusals import Refusal, Refused
from certs.requests import SignRequest, key_fingerprint
from certs.signing import AuthorityState, Issued, Lifetimes, sign
from certs.spiffe import SpiffeId
from certs.testing import MemoryAuthority
from tests.authority_requests import KEY

ORDERS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
PAYMENTS = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/payments")
PUBLIC_KEY = KEY.public_key()
REQUEST = SignRequest(public_key=PUBLIC_KEY, key_fingerprint=key_fingerprint(PUBLIC_KEY))
CALLER = Caller(spiffe_id=ORDERS, how=How.SERVICE_ACCOUNT_TOKEN)
MINUTE, HOUR = datetime.timedelta(minutes=1), datetime.timedelta(hours=1)


@pytest.fixture
def state(memory: MemoryAuthority) -> AuthorityState:
    return AuthorityState(authority=memory.authority)


def lived(issued: Issued, memory: MemoryAuthority) -> datetime.timedelta:
    return issued.not_after - memory.now


def test_the_leaf_is_the_callers_and_the_key_the_requests(state: AuthorityState, memory: MemoryAuthority) -> None:
    issued = sign(REQUEST, CALLER, state, memory.now)
    key = issued.chain[0].public_key()
    assert isinstance(key, PublicKey)
    assert public_key_bytes(key) == public_key_bytes(PUBLIC_KEY)
    assert issued.chain[1] == memory.intermediate
    assert issued.key_fingerprint == key_fingerprint(PUBLIC_KEY)
    assert issued.chain_pem().count(b"BEGIN CERTIFICATE") == 2


def test_no_two_certificates_have_one_serial(state: AuthorityState, memory: MemoryAuthority) -> None:
    assert len({sign(REQUEST, CALLER, state, memory.now).serial for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("asked", "granted", "was_shortened"),
    [
        (None, 24 * 3600, False),
        (300, 300, False),
        (900, 900, False),
        (86400, 86400, False),
        (86401, 86400, True),
        (2**63 - 1, 86400, True),
    ],
)
def test_lifetimes(
    asked: int | None, granted: int, was_shortened: bool, state: AuthorityState, memory: MemoryAuthority
) -> None:
    issued = sign(dataclasses.replace(REQUEST, lifetime=asked), CALLER, state, memory.now)
    assert lived(issued, memory) == datetime.timedelta(seconds=granted)
    assert issued.was_shortened is was_shortened


def test_a_lifetime_below_the_minimum_is_refused_and_not_lengthened(
    state: AuthorityState, memory: MemoryAuthority
) -> None:
    with pytest.raises(Refused, match="shorter than the 300") as caught:
        sign(dataclasses.replace(REQUEST, lifetime=299), CALLER, state, memory.now)
    assert caught.value.reason is Refusal.LIFETIME_REFUSED


def test_a_leaf_ends_with_its_intermediate_and_says_so(state: AuthorityState, memory: MemoryAuthority) -> None:
    issued = sign(REQUEST, CALLER, state, memory.intermediate.not_valid_after_utc - HOUR)
    assert issued.not_after == memory.intermediate.not_valid_after_utc
    assert issued.was_shortened


def test_a_fraction_of_a_second_shortens_nothing(state: AuthorityState, memory: MemoryAuthority) -> None:
    assert not sign(REQUEST, CALLER, state, memory.now.replace(microsecond=999_999)).was_shortened


@pytest.mark.parametrize(("usual", "minimum", "maximum"), [(60, 5, 30), (1, 5, 30), (1, 0, 30), (10, 20, 5)])
def test_lifetimes_out_of_line_are_an_error(usual: int, minimum: int, maximum: int) -> None:
    with pytest.raises(ValueError, match="lifetimes must grow"):
        Lifetimes(usual=usual * MINUTE, minimum=minimum * MINUTE, maximum=maximum * MINUTE)


def test_a_request_that_breaks_all_rules_is_refused_by_the_first(memory: MemoryAuthority) -> None:
    """The order is part of the contract: each cause that is mended shows the next one."""
    bad_request = dataclasses.replace(REQUEST, lifetime=1)
    stranger = SpiffeId.parse("spiffe://stranger.example/ns/demo/sa/orders")
    late = memory.intermediate.not_valid_after_utc + HOUR
    revoked = AuthorityState(
        authority=memory.authority,
        revoked_identities={ORDERS, stranger},
        revoked_keys={REQUEST.key_fingerprint},
    )
    steps = [
        (bad_request, dataclasses.replace(CALLER, spiffe_id=stranger, peer=PAYMENTS), revoked),
        (bad_request, dataclasses.replace(CALLER, peer=PAYMENTS), revoked),
        (bad_request, CALLER, revoked),
        (bad_request, CALLER, dataclasses.replace(revoked, revoked_identities=frozenset())),
        (bad_request, CALLER, AuthorityState(authority=memory.authority)),
        (REQUEST, CALLER, AuthorityState(authority=memory.authority)),
    ]
    reasons = []
    for request, caller, state in steps:
        with pytest.raises(Refused) as caught:
            sign(request, caller, state, late)
        reasons.append(caught.value.reason)
    assert reasons == [
        Refusal.IDENTITY_INVALID,
        Refusal.IDENTITY_CHANGED,
        Refusal.IDENTITY_REVOKED,
        Refusal.KEY_REVOKED,
        Refusal.LIFETIME_REFUSED,
        Refusal.AUTHORITY_NOT_READY,
    ]


def test_another_identity_or_key_that_is_revoked_disturbs_nobody(memory: MemoryAuthority) -> None:
    state = AuthorityState(authority=memory.authority, revoked_identities={PAYMENTS}, revoked_keys={"00" * 32})
    assert sign(REQUEST, CALLER, state, memory.now).spiffe_id == ORDERS
