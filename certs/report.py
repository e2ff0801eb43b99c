"""Describes certificates to a person: who it is, how long it holds, what is wrong and what to do about it.

Text comes out line by line and safe to print: whatever a certificate holds, control characters are escaped, so that
a name cannot paint on the terminal of the one who inspects it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from certs.bundle import TrustBundle
from certs.keys import describe_key
from certs.spiffe import TrustDomain
from certs.store import chain_fault
from certs.svid import SvidError, Violation, leaf_violations, presented_name, signing_violations, spiffe_id_of

_UNREADABLE = (ValueError, UnsupportedAlgorithm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found: `lines` for a person, and how many rules are broken."""

    lines: tuple[str, ...]
    violations: int


def report_chain(
    chain: Sequence[x509.Certificate],
    now: datetime.datetime,
    *,
    bundle: TrustBundle | None = None,
    trust_domain: TrustDomain | None = None,
    signing: bool = False,
) -> Report:
    """Describes a chain, leaf first, and judges it by the rules of X.509-SVID.

    With `bundle` the chain must lead to one of its roots; with `trust_domain` the leaf must name a workload of it.
    `signing` says that the file holds signing certificates only, so that none is judged as a leaf.
    """
    lines: list[str] = []
    violations = 0
    for number, certificate in enumerate(chain, start=1):
        is_leaf = number == 1 and not signing
        lines.append(f"certificate {number} of {len(chain)}: {'workload' if is_leaf else 'signer'}")
        lines += describe(certificate, now)
        found = _violations(certificate, now, is_leaf=is_leaf, trust_domain=trust_domain)
        lines += [f"  violation   {line}" for line in found] or ["  violation   none"]
        lines.append("")
        violations += len(found)
    if not signing:
        if bundle is None:
            lines.append("chain: not verified; name the roots with --bundle to verify it")
        else:
            # OpenSSL's strictness would tell the violations above a second time.
            fault = _foreign(chain[0], bundle) or chain_fault(tuple(chain), bundle, now, strict=violations == 0)
            verdict = fault or f"leads to a root of {bundle.trust_domain}"
            lines.append(f"chain: {printable(verdict)}")
            violations += fault is not None
        if any(finding.violation is Violation.LEAF_IS_CA for finding in leaf_violations(chain[0])):
            lines.append("note: a file of roots or intermediates alone is inspected with --signing")
    lines.append(f"verdict: {_count(violations)}")
    return Report(lines=tuple(lines), violations=violations)


def describe(certificate: x509.Certificate, now: datetime.datetime) -> list[str]:
    """Tells in indented lines what one certificate says: identity, validity with the time left, key, issuer."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return [
        f"  identity    {presented_name(certificate) or '(none)'}",
        f"  valid       {begin:%Y-%m-%d %H:%M:%S} to {end:%Y-%m-%d %H:%M:%S} UTC, {_time_left(begin, end, now)}",
        f"  key         {_key(certificate)}",
        f"  issuer      {_issuer(certificate)}",
        f"  serial      {certificate.serial_number:x}",
        f"  sha256      {certificate.fingerprint(hashes.SHA256()).hex()}",
    ]


def printable(text: str) -> str:
    r"""Escapes what a terminal would act upon.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def duration(span: datetime.timedelta) -> str:
    """Writes a span of time in its two largest units.

    >>> duration(datetime.timedelta(hours=23, minutes=59, seconds=3))
    '23 h 59 min'
    """
    seconds = int(span.total_seconds())
    parts = [
        (seconds // 86400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    while len(parts) > 2 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{count} {unit}" for count, unit in parts[:2])


def _violations(
    certificate: x509.Certificate, now: datetime.datetime, *, is_leaf: bool, trust_domain: TrustDomain | None
) -> list[str]:
    try:
        spiffe_id = spiffe_id_of(certificate)
    except SvidError:
        spiffe_id = None
    if is_leaf:
        found = [str(finding) for finding in leaf_violations(certificate)]
        if trust_domain is not None and spiffe_id is not None and spiffe_id.trust_domain != trust_domain:
            found.append(
                f"trust domain: it names {spiffe_id.trust_domain}, not {trust_domain}; ask the right authority"
            )
    else:
        domain = trust_domain or (spiffe_id.trust_domain if spiffe_id is not None else TrustDomain("<trust domain>"))
        found = [str(finding) for finding in signing_violations(certificate, domain)]
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        found.append(f"certificate_expired: it ended {duration(now - end)} ago; issue a new one")
    elif now < begin:
        found.append(f"certificate_not_yet_valid: it begins in {duration(begin - now)}; check the clocks")
    return [printable(line) for line in found]


def _foreign(leaf: x509.Certificate, bundle: TrustBundle) -> str | None:
    try:
        named = spiffe_id_of(leaf).trust_domain
    except SvidError:
        return None
    if named == bundle.trust_domain:
        return None
    return (
        f"root_of_other_trust_domain: the roots are those of {bundle.trust_domain}, which may not vouch for "
        f"names of {named}; verify it with the bundle of {named}"
    )


def _time_left(begin: datetime.datetime, end: datetime.datetime, now: datetime.datetime) -> str:
    if now > end:
        return "expired"
    if now < begin:
        return "not yet valid"
    return f"{duration(end - now)} left"


def _key(certificate: x509.Certificate) -> str:
    try:
        return describe_key(certificate.public_key())
    except _UNREADABLE:
        return "(cannot be decoded)"


def _issuer(certificate: x509.Certificate) -> str:
    try:
        issuer = printable(certificate.issuer.rfc4514_string()) or "(empty)"
        return f"{issuer} (itself)" if certificate.issuer == certificate.subject else issuer
    except _UNREADABLE:
        return "(cannot be decoded)"


def _count(violations: int) -> str:
    if violations == 0:
        return "no violation"
    return "1 violation" if violations == 1 else f"{violations} violations"
