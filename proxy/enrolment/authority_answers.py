"""Judges what the authority answered and lays it beside what is held. No I/O, though a long list takes a tenth of a
second: call it off the loop.

    take_certificate(held, signed, key, ...)   POST /v1/sign              --> Enrolled, warnings
    take_poll(held, tags, bundle, listed, ...) GET /v1/bundle, /v1/crl    --> Polled: Enrolled, tags, faults

What is wrong with one part of an answer keeps no other part from being taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography import x509

from certs.bundle import BundleError
from certs.bundle_feed import FeedError
from certs.crl_extension import CrlError
from certs.keys import PrivateKey
from certs.spiffe import SpiffeId
from proxy.enrolment.authority_client import Answered
from proxy.enrolment.authority_messages import Signed, refusal
from proxy.identity.enrolled import Enrolled, take_bundle, take_list, take_signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The entity tags of the bundle and the list that are held, "" for none: what has not changed is not sent again."""

    bundle: str = ""
    listed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What is held after a poll, and what is wrong with what came."""

    enrolled: Enrolled
    tags: Tags
    faults: tuple[str, ...]


def take_certificate(
    held: Enrolled | None,
    signed: Signed,
    key: PrivateKey,
    issuers: Sequence[x509.Certificate],
    *,
    expected: SpiffeId,
    source: str,
    now: float,
) -> tuple[Enrolled, list[str]]:
    """Take a certificate with the bundle and the list that came along; give warnings for a person.

    `issuers` may lead to the signer of the list. The rest is as for `proxy.identity.enrolled.take_signed`, also what it
    raises; a list that cannot be taken is a warning.
    """
    enrolled, warning = take_signed(
        held, chain=signed.chain, key=key, bundle=signed.bundle, expected=expected, source=source, now=now
    )
    warnings = [warning] if warning else []
    if signed.crl is not None:
        try:
            enrolled = take_list(enrolled, signed.crl, issuers, now)
        except CrlError as failure:
            warnings.append(f"the revocation list that came with our certificate is not taken: {failure}")
    return enrolled, warnings


def take_poll(
    held: Enrolled,
    tags: Tags,
    bundle: Answered,
    listed: Answered,
    issuers: Sequence[x509.Certificate],
    *,
    source: str,
    now: float,
) -> Polled:
    """Take what was polled. What cannot be taken is a fault, and what is held stays."""
    enrolled, faults = held, list[str]()
    if bundle.status == 200:
        try:
            enrolled, warning = take_bundle(enrolled, bundle.body, source, now)
            # With a warning it is sent again at each poll: the fault lasts for as long as that bundle is served.
            tags = replace(tags, bundle="" if warning else bundle.headers.get("etag", ""))
            faults += [warning] if warning else []
        except (FeedError, BundleError) as failure:
            faults.append(str(failure).replace("\n", "; "))
    elif bundle.status != 304:
        faults.append(str(refusal("its bundle", bundle.status, bundle.headers, bundle.body)))
    if listed.status == 200:
        if enrolled.bundle.certificates:  # nobody vouches for a list of a trust domain that was ended
            try:
                enrolled = take_list(enrolled, listed.body, issuers, now)
                is_held = enrolled.listed is not None and enrolled.listed.der == listed.body
                tags = replace(tags, listed=listed.headers.get("etag", "") if is_held else "")
            except CrlError as failure:
                faults.append(f"its revocation list is not taken: {failure}")
    elif listed.status != 304 or not tags.listed:
        faults.append(str(refusal("its revocation list", listed.status, listed.headers, listed.body)))
    return Polled(enrolled=enrolled, tags=tags, faults=tuple(faults))
