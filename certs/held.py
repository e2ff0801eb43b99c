"""Makes what the service answers from out of what is remembered: keys, bundle, signed revocation list, join tokens.

    RotationState ─┬─▶ Authority      the active intermediate and its key, with the root above
                   └─▶ TrustBundle    every root that is published, under the state's sequence
    Revocations ─────▶ CRL            signed by the active intermediate, anew at half of its life
    JoinBook

A Held never changes: whoever changes something makes another one, and the service looks at one of them from the first
check of a request to its answer. Everything here is pure; certificates and keys are given by whoever can read them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority
from certs.bundle import TrustBundle
from certs.bundle_feed import BundleAnswer, answer, entity_tag
from certs.crl import CRL_LIFETIME, build_crl
from certs.joins import JoinBook
from certs.keys import PrivateKey
from certs.revocations import Revocations
from certs.rotation import RotationState
from certs.spiffe import TrustDomain
from certs.svid import SvidError, spiffe_id_of

CRL_RENEWALS: Final = 2
"""How often a list is signed anew within its life: a poller that was away for half of it still gets a fresh one."""


class HeldError(ValueError):
    """What is remembered makes no authority; the message says what does not fit and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCrl:
    """The revocation list as DER, its entity tag, its thisUpdate and nextUpdate, and when it is due to be made anew."""

    der: bytes = field(repr=False)
    etag: str
    this_update: datetime.datetime
    next_update: datetime.datetime
    due_at: datetime.datetime

    def is_due(self, now: datetime.datetime) -> bool:
        """Tells whether it is to be signed anew: its time has come, or it is of a time that lies ahead.

        A clock that was ahead and was set back leaves a list behind that nobody else may take yet.
        """
        return now >= self.due_at or now < self.this_update


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the service knows at one moment."""

    state: RotationState
    authority: Authority
    bundle: TrustBundle
    bundle_answer: BundleAnswer
    revocations: Revocations
    crl: SignedCrl
    joins: JoinBook


def make_authority(
    state: RotationState, certificate: Callable[[str], x509.Certificate], key: Callable[[str], PrivateKey]
) -> Authority:
    """Joins the active intermediate, its key and the root above; raises HeldError when it names no trust domain."""
    intermediate = certificate(state.active.name)
    try:
        trust_domain = spiffe_id_of(intermediate).trust_domain
    except SvidError as error:
        raise HeldError(
            f"the intermediate {state.active.name[:12]} does not say which trust domain it signs for ({error}); "
            "import one with the URI spiffe://<trust domain>"
        ) from None
    return Authority(
        trust_domain=trust_domain,
        root=certificate(state.active.root),
        intermediate=intermediate,
        intermediate_key=key(state.active.name),
    )


def make_bundle(
    state: RotationState, certificate: Callable[[str], x509.Certificate], trust_domain: TrustDomain
) -> TrustBundle:
    """Collects the published roots, under the sequence of the state.

    >>> from certs.rotation import IntermediateMade, RootMade, begin
    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 0.0)
    >>> bundle = make_bundle(state, lambda name: memory.root, memory.trust_domain)
    >>> bundle.sequence, bundle.refresh_hint, bundle.certificates == (memory.root,)
    (1, 300, True)
    """
    return TrustBundle(
        trust_domain=trust_domain,
        certificates=tuple(certificate(name) for name in state.bundle),
        sequence=state.sequence,
        refresh_hint=state.refresh_hint,
    )


def sign_list(
    revocations: Revocations,
    authority: Authority,
    now: datetime.datetime,
    lifetime: datetime.timedelta = CRL_LIFETIME,
) -> SignedCrl:
    """Signs the revocation list; raises CrlError when the intermediate is not valid now.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> signed = sign_list(Revocations(), memory.authority, memory.now)
    >>> signed.next_update - memory.now, signed.due_at - memory.now
    (datetime.timedelta(days=1), datetime.timedelta(seconds=43200))
    """
    crl = build_crl(revocations, authority.intermediate, authority.intermediate_key, now, lifetime)
    next_update = crl.next_update_utc or now
    der = crl.public_bytes(Encoding.DER)
    return SignedCrl(
        der=der,
        etag=entity_tag(der),
        this_update=crl.last_update_utc,
        next_update=next_update,
        due_at=now + max(next_update - now, datetime.timedelta()) / CRL_RENEWALS,
    )


def hold(
    state: RotationState,
    authority: Authority,
    bundle: TrustBundle,
    revocations: Revocations,
    crl: SignedCrl,
    joins: JoinBook,
) -> Held:
    """Joins the parts, with the document that `GET /v1/bundle` answers."""
    return Held(
        state=state,
        authority=authority,
        bundle=bundle,
        bundle_answer=answer(bundle),
        revocations=revocations,
        crl=crl,
        joins=joins,
    )
