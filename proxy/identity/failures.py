"""Puts into our words why OpenSSL refused a chain before our own rules were asked.

OpenSSL says a number, a depth and a sentence. The number becomes a Reason by a table. Where OpenSSL's word is coarse
("unsuitable certificate purpose") the rule of X.509-SVID that is broken says it better, so the certificate at fault is
judged by the rules as well; where OpenSSL's word is exact (dates, signatures, name constraints) it stands.

Pure: the numbers are part of OpenSSL's ABI (x509_vfy.h) and stand here as facts, no TLS library is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509

from certs.spiffe import TrustDomain
from certs.svid import Finding, SvidError, Violation, leaf_violations, signing_violations, spiffe_id_of
from proxy.errors import Reason
from proxy.identity.verify import (
    MENDS,
    Rejection,
    Trust,
    Usage,
    broken_rule,
    date_of,
    ended_domain,
    reject,
    unknown_domain,
)


def judge_failure(
    error_number: int,
    error_text: str,
    depth: int,
    chain: Sequence[x509.Certificate],
    *,
    trust: Trust,
    usage: Usage,
) -> Rejection:
    """Puts into our words why OpenSSL refused a chain. Never raises.

    `chain` is what was built so far, leaf first, `depth` the place of the certificate at fault (0: the leaf). Where
    OpenSSL's word is coarse ("unsuitable certificate purpose") the rule of X.509-SVID that is broken says it better.
    """
    reason = reason_for_openssl(error_number, depth)
    leaf = chain[0] if chain else None
    place = f"the {usage.value}'s certificate" if depth == 0 else f"signing certificate {depth} above the {usage.value}"
    if reason is Reason.ISSUER_UNKNOWN:
        return _unknown_issuer(leaf, error_text, trust, usage)
    if reason not in _EXACT and depth < len(chain):
        findings = leaf_violations(chain[0]) if depth == 0 else _signer_findings(chain[0], chain[depth])
        if findings:
            return broken_rule(findings[0], chain[0], f"{place} breaks a rule")
    explanation = f"{place} was refused: {error_text}"
    if depth < len(chain) and reason in (Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID):
        explanation += f" (it is valid from {date_of(chain[depth], 'before')} to {date_of(chain[depth], 'after')})"
    return reject(reason, leaf, explanation, MENDS.get(reason, MENDS[Reason.CHAIN_INVALID]))


def reason_for_openssl(error_number: int, depth: int) -> Reason:
    """Names the Reason for an X509_V_ERR_* number at a depth of the chain (0: the leaf); else CHAIN_INVALID."""
    reason = _BY_NUMBER.get(error_number, Reason.CHAIN_INVALID)
    if depth > 0:
        return reason if reason in _ANY_DEPTH else Reason.SIGNING_CERTIFICATE_INVALID
    return _BY_NUMBER_OF_LEAF.get(error_number, reason)


def _unknown_issuer(leaf: x509.Certificate | None, error_text: str, trust: Trust, usage: Usage) -> Rejection:
    if leaf is not None:
        # OpenSSL finds no issuer for a certificate with an extension that it cannot decode.
        for finding in leaf_violations(leaf):
            if finding.violation is Violation.CERTIFICATE_MALFORMED:
                return broken_rule(finding, leaf, f"the {usage.value}'s certificate cannot be read")
        try:
            domain = spiffe_id_of(leaf).trust_domain
        except SvidError:
            domain = None
        if domain is not None and domain not in trust.roots:
            return unknown_domain(domain, leaf, trust)
        if domain is not None and not trust.roots[domain]:
            return ended_domain(domain, leaf)
    return reject(
        Reason.ISSUER_UNKNOWN,
        leaf,
        f"the {usage.value}'s chain leads to no root that is trusted here: {error_text}",
        MENDS[Reason.ISSUER_UNKNOWN],
    )


def _signer_findings(leaf: x509.Certificate, signer: x509.Certificate) -> list[Finding]:
    try:
        domain = spiffe_id_of(leaf).trust_domain
    except SvidError:
        domain = TrustDomain("the-trust-domain")
    return signing_violations(signer, domain)


_BY_NUMBER: Final[Mapping[int, Reason]] = {
    2: Reason.ISSUER_UNKNOWN,  # unable to get issuer certificate
    4: Reason.SIGNATURE_INVALID,  # unable to decrypt certificate's signature
    6: Reason.SIGNING_CERTIFICATE_INVALID,  # unable to decode issuer public key
    7: Reason.SIGNATURE_INVALID,  # certificate signature failure
    9: Reason.CERTIFICATE_NOT_YET_VALID,
    10: Reason.CERTIFICATE_EXPIRED,
    13: Reason.CERTIFICATE_MALFORMED,  # format error in notBefore
    14: Reason.CERTIFICATE_MALFORMED,  # format error in notAfter
    18: Reason.ISSUER_UNKNOWN,  # self-signed certificate
    19: Reason.ISSUER_UNKNOWN,  # self-signed certificate in chain
    20: Reason.ISSUER_UNKNOWN,  # unable to get local issuer certificate
    21: Reason.ISSUER_UNKNOWN,  # unable to verify the first certificate
    22: Reason.CHAIN_TOO_LONG,
    24: Reason.SIGNING_CERTIFICATE_INVALID,  # issuer certificate doesn't have a public key
    26: Reason.SIGNING_CERTIFICATE_INVALID,  # unsuitable certificate purpose
    32: Reason.SIGNING_CERTIFICATE_INVALID,  # key usage does not include certificate signing
    37: Reason.SIGNING_CERTIFICATE_INVALID,  # invalid non-CA certificate
    41: Reason.CERTIFICATE_MALFORMED,  # invalid or inconsistent extension
    42: Reason.CERTIFICATE_MALFORMED,  # invalid or inconsistent policy extension
    47: Reason.NAME_CONSTRAINT_VIOLATED,  # permitted subtree violation
    48: Reason.NAME_CONSTRAINT_VIOLATED,  # excluded subtree violation
    49: Reason.NAME_CONSTRAINT_VIOLATED,  # minimum and maximum not supported
    51: Reason.NAME_CONSTRAINT_VIOLATED,  # unsupported constraint type
    52: Reason.NAME_CONSTRAINT_VIOLATED,  # unsupported constraint syntax
    53: Reason.NAME_CONSTRAINT_VIOLATED,  # unsupported name syntax
    66: Reason.KEY_TOO_WEAK,  # EE certificate key too weak
    67: Reason.KEY_TOO_WEAK,  # CA certificate key too weak
    68: Reason.SIGNATURE_INVALID,  # CA signature digest algorithm too weak
    76: Reason.SIGNATURE_INVALID,  # cannot find certificate signature algorithm
    77: Reason.SIGNATURE_INVALID,  # signature algorithm and issuer key mismatch
    78: Reason.SIGNATURE_INVALID,  # cert info signature and signature algorithm mismatch
    79: Reason.SIGNING_CERTIFICATE_INVALID,  # invalid CA certificate
    93: Reason.CERTIFICATE_MALFORMED,  # extensions need version 3
    94: Reason.CERTIFICATE_MALFORMED,  # explicit EC parameters
}
_BY_NUMBER_OF_LEAF: Final[Mapping[int, Reason]] = {
    26: Reason.EXTENDED_KEY_USAGE_LACKING,
    32: Reason.CHAIN_INVALID,
    37: Reason.LEAF_IS_CA,
    39: Reason.DIGITAL_SIGNATURE_MISSING,
    79: Reason.LEAF_IS_CA,
    82: Reason.LEAF_MAY_SIGN_CERTIFICATES,  # keyCertSign invalid for non-CA cert
    87: Reason.URI_SAN_MISSING,  # empty subjectAltName extension
    88: Reason.SAN_NOT_CRITICAL,  # subject empty and SAN not critical
}
# Reasons that say as much as can be said: no rule of a single certificate explains them better.
_EXACT: Final = frozenset(
    {
        Reason.CERTIFICATE_EXPIRED,
        Reason.CERTIFICATE_NOT_YET_VALID,
        Reason.CHAIN_TOO_LONG,
        Reason.SIGNATURE_INVALID,
        Reason.NAME_CONSTRAINT_VIOLATED,
    }
)
_ANY_DEPTH: Final = _EXACT | {
    Reason.ISSUER_UNKNOWN,
    Reason.CERTIFICATE_MALFORMED,
    Reason.KEY_TOO_WEAK,
    Reason.CHAIN_INVALID,
}
