"""Decides on one request for a certificate, and signs it: request, checks, shape, signature, in that order.

What comes in was read and proved elsewhere: a SignRequest (certs.requests) holds a key that its author owns, a Caller
(certs.caller) an identity that somebody vouched for. Here the two meet what the authority knows:

    1. the identity is one that this authority may give: a workload of its trust domain
    2. a connection that shows a certificate asks for the identity of that certificate, and for no other
    3. neither the identity nor the key is revoked
    4. the lifetime is one that the authority grants: too long is shortened, too short is refused
    5. the intermediate is valid, for as long as the shortest lifetime
    6. the leaf is shaped from the caller and the key alone, and signed

Everything that can be refused is refused before the one step that costs a signature. The clock is an argument.
"""

from __future__ import annotations

import datetime
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import LEAF_LIFETIME, SHORTEST_LIFETIME, Authority, AuthorityError
from certs.caller import Caller, How
from certs.refusals import Refusal, Refused
from certs.requests import SignRequest
from certs.spiffe import SpiffeId

MIN_LIFETIME: Final = datetime.timedelta(minutes=5)
"""Below that a sidecar would renew every other minute, and a clock that is a minute off would eat half of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a leaf may live: `usual` when the request does not say, and the bounds.

    Raises ValueError unless minimum <= usual <= maximum and minimum is `SHORTEST_LIFETIME` or more.
    """

    usual: datetime.timedelta = LEAF_LIFETIME
    minimum: datetime.timedelta = MIN_LIFETIME
    maximum: datetime.timedelta = LEAF_LIFETIME

    def __post_init__(self) -> None:
        if not SHORTEST_LIFETIME <= self.minimum <= self.usual <= self.maximum:
            raise ValueError(
                f"lifetimes must grow from minimum ({self.minimum}, at least {SHORTEST_LIFETIME}) over usual "
                f"({self.usual}) to maximum ({self.maximum}); mend the one that is out of line"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityState:
    """What the authority knows at one moment: its keys, what it grants, and what it has revoked.

    `revoked_keys` are fingerprints as `certs.requests.key_fingerprint` writes them. A certificate that is revoked by
    its serial brings the fingerprint of its key into them, so that the key is not certified again.
    """

    authority: Authority
    lifetimes: Lifetimes = Lifetimes()
    revoked_identities: Set[SpiffeId] = frozenset()
    revoked_keys: Set[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that was issued: the chain, leaf first and without the root, and what the audit line tells.

    `serial` is the leaf's, in hexadecimal. `was_shortened` is true when it ends before the request asked.
    """

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    spiffe_id: SpiffeId
    serial: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    key_fingerprint: str
    was_shortened: bool

    def chain_pem(self) -> bytes:
        """Writes the chain as PEM, leaf first: what the workload presents."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)


def sign(request: SignRequest, caller: Caller, state: AuthorityState, now: datetime.datetime) -> Issued:
    """Issues the certificate that `caller` asks for, or raises Refused. `now` must be aware of its time zone.

    The reasons: IDENTITY_INVALID, CALLER_UNKNOWN, IDENTITY_CHANGED, IDENTITY_REVOKED, KEY_REVOKED, LIFETIME_REFUSED,
    AUTHORITY_NOT_READY. `request` is what `read_sign_request` returned: its key is not judged a second time.

    >>> from certs.keys import generate_key
    >>> from certs.requests import key_fingerprint
    >>> from certs.testing import MemoryAuthority
    >>> memory, key = MemoryAuthority("cluster.local"), generate_key().public_key()
    >>> request = SignRequest(public_key=key, key_fingerprint=key_fingerprint(key), lifetime=3600)
    >>> orders = SpiffeId.parse("spiffe://cluster.local/ns/demo/sa/orders")
    >>> caller = Caller(spiffe_id=orders, how=How.SERVICE_ACCOUNT_TOKEN)
    >>> issued = sign(request, caller, AuthorityState(authority=memory.authority), memory.now)
    >>> str(issued.spiffe_id), issued.not_after - memory.now
    ('spiffe://cluster.local/ns/demo/sa/orders', datetime.timedelta(seconds=3600))
    """
    _check_identity(caller, state)
    _check_peer(caller)
    _check_revocations(request, caller, state)
    lifetime = _grant_lifetime(request, state.lifetimes)
    _check_intermediate(state, now)
    try:
        chain = state.authority.issue(caller.spiffe_id, request.public_key, now, lifetime)
    except AuthorityError as error:
        # What the checks above do not know of is the authority's own trouble, and not the caller's.
        raise Refused(Refusal.AUTHORITY_NOT_READY, str(error)) from None
    leaf = chain[0]
    asked = lifetime.total_seconds() if request.lifetime is None else request.lifetime
    return Issued(
        chain=chain,
        spiffe_id=caller.spiffe_id,
        serial=f"{leaf.serial_number:x}",
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        key_fingerprint=request.key_fingerprint,
        was_shortened=(leaf.not_valid_after_utc - now.replace(microsecond=0)).total_seconds() < asked,
    )


def _check_identity(caller: Caller, state: AuthorityState) -> None:
    trust_domain = state.authority.trust_domain
    if caller.spiffe_id.trust_domain != trust_domain:
        raise Refused(
            Refusal.IDENTITY_INVALID,
            f"{caller.spiffe_id} is not of {trust_domain}; ask its own trust domain's authority",
        )
    if not caller.spiffe_id.path:
        raise Refused(
            Refusal.IDENTITY_INVALID,
            f"{caller.spiffe_id} names no workload; it needs a path such as /ns/demo/sa/orders",
        )


def _check_peer(caller: Caller) -> None:
    if caller.peer is None:
        if caller.how is How.CERTIFICATE:
            raise Refused(
                Refusal.CALLER_UNKNOWN,
                "the connection shows no certificate; send a token, or connect with the current certificate",
            )
        return
    if caller.peer != caller.spiffe_id:
        # A token that was stolen from another workload would otherwise be as good as its owner.
        raise Refused(
            Refusal.IDENTITY_CHANGED,
            f"the connection is of {caller.peer} and asks for {caller.spiffe_id}; renew with the workload's own token, "
            "or connect without a certificate to begin anew",
        )


def _check_revocations(request: SignRequest, caller: Caller, state: AuthorityState) -> None:
    if caller.spiffe_id in state.revoked_identities:
        raise Refused(
            Refusal.IDENTITY_REVOKED, f"{caller.spiffe_id} is revoked; ask who revoked it, it gets no certificate"
        )
    if request.key_fingerprint in state.revoked_keys:
        raise Refused(Refusal.KEY_REVOKED, "the key is revoked; make a new one, and see who else may hold the old one")


def _grant_lifetime(request: SignRequest, lifetimes: Lifetimes) -> datetime.timedelta:
    if request.lifetime is None:
        return lifetimes.usual
    # Compared as numbers: a request may name more seconds than a timedelta can hold.
    if request.lifetime < lifetimes.minimum.total_seconds():
        raise Refused(
            Refusal.LIFETIME_REFUSED,
            f"{request.lifetime} seconds are shorter than the {lifetimes.minimum.total_seconds():.0f} that are granted "
            "at least; ask for more, or leave lifetime_seconds out",
        )
    if request.lifetime > lifetimes.maximum.total_seconds():
        return lifetimes.maximum
    return datetime.timedelta(seconds=request.lifetime)


def _check_intermediate(state: AuthorityState, now: datetime.datetime) -> None:
    intermediate = state.authority.intermediate
    if now < intermediate.not_valid_before_utc:
        raise Refused(
            Refusal.AUTHORITY_NOT_READY,
            f"the intermediate is not valid before {intermediate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC; "
            "mend the authority's clock",
        )
    if intermediate.not_valid_after_utc - now < state.lifetimes.minimum:
        raise Refused(
            Refusal.AUTHORITY_NOT_READY,
            f"the intermediate ends at {intermediate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC, too soon for another "
            "certificate; rotate it, or mend the authority's clock",
        )
