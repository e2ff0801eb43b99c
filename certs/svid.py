"""Judges one certificate by the rules of X.509-SVID: may it name a workload, may it sign for others?

An X.509-SVID is a certificate whose only URI names a workload. Whether to *believe* the name is the chain's matter;
this module asks whether the certificate may carry a name at all. TLS libraries do not ask: of the rules below, an
ordinary OpenSSL handshake breaks all but L9 without a word (it takes two URIs, CA certificates as leaves, a name
with a newline at its end).

    L1   exactly one URI in the subjectAltName        L6   keyUsage present, critical, with digitalSignature
    L2   it is a valid SPIFFE ID                      L7   without keyCertSign and cRLSign
    L3   with a path                                  L9   extendedKeyUsage, if present, for both ends of TLS
    L4   critical, if the subject is empty            K1   a key that is strong enough
    L5   not a CA (and so L10: no signer as a peer)   M1   an encoding that can be read at all
    S1   a signer is a CA, may sign certificates, says so critically, and its own SPIFFE ID has no path

Sources: X509-SVID sections 2 to 5 and appendix A; RFC 5280 sections 4.2.1.3, 4.2.1.6, 4.2.1.9, 4.2.1.12.

Everything here is pure: no clock, no file. Whatever bytes a certificate holds, the answer is a list of findings and
never an exception.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.der import SUBJECT_ALT_NAME, TAG_URI, DerError, general_names, raw_extensions
from certs.keys import key_fault
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)

_SHOWN_CHARACTERS = 256
# What `cryptography` raises, beside ValueError, for an extension that it cannot or will not decode.
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


class Violation(enum.Enum):
    """A rule that a certificate breaks. The value is the word that logs, metrics and errors use for it."""

    rule: str
    text: str
    mend: str

    def __new__(cls, word: str, rule: str, text: str, mend: str) -> Violation:
        member = object.__new__(cls)
        member._value_ = word
        member.rule, member.text, member.mend = rule, text, mend
        return member

    CERTIFICATE_MALFORMED = (
        "certificate_malformed",
        "M1",
        "the certificate cannot be decoded",
        "issue it again with another tool",
    )
    LEAF_IS_CA = (
        "leaf_is_ca",
        "L5",
        "it is a signing certificate and cannot name a workload",
        "present the leaf first; issue leaves with basicConstraints CA:FALSE",
    )
    URI_SAN_MISSING = (
        "uri_san_missing",
        "L1",
        "the subjectAltName holds no URI",
        "issue it with the workload's SPIFFE ID as a URI (a DNS name or a common name does not count)",
    )
    URI_SAN_NOT_ALONE = (
        "uri_san_not_alone",
        "L1",
        "the subjectAltName holds more than one URI",
        "issue one certificate for each identity",
    )
    SPIFFE_ID_INVALID = (
        "spiffe_id_invalid",
        "L2",
        "the URI is no valid SPIFFE ID",
        "issue it with spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
    )
    SPIFFE_ID_WITHOUT_PATH = (
        "spiffe_id_without_path",
        "L3",
        "the SPIFFE ID has no path: it names a trust domain and not a workload",
        "issue it with /ns/<namespace>/sa/<service account> after the trust domain",
    )
    SAN_NOT_CRITICAL = (
        "san_not_critical",
        "L4",
        "the subject is empty and the subjectAltName is not critical",
        "mark the subjectAltName critical",
    )
    KEY_USAGE_MISSING = (
        "key_usage_missing",
        "L6",
        "there is no keyUsage",
        "issue it with keyUsage digitalSignature, critical",
    )
    KEY_USAGE_NOT_CRITICAL = ("key_usage_not_critical", "L6", "keyUsage is not critical", "mark keyUsage critical")
    DIGITAL_SIGNATURE_MISSING = (
        "digital_signature_missing",
        "L6",
        "keyUsage lacks digitalSignature, which TLS needs",
        "issue it with keyUsage digitalSignature",
    )
    LEAF_MAY_SIGN_CERTIFICATES = (
        "leaf_may_sign_certificates",
        "L7",
        "keyUsage has keyCertSign",
        "issue it with keyUsage digitalSignature alone",
    )
    LEAF_MAY_SIGN_CRLS = (
        "leaf_may_sign_crls",
        "L7",
        "keyUsage has cRLSign",
        "issue it with keyUsage digitalSignature alone",
    )
    EXTENDED_KEY_USAGE_LACKING = (
        "extended_key_usage_lacking",
        "L9",
        "extendedKeyUsage does not allow both ends of a TLS connection",
        "issue it with both serverAuth and clientAuth",
    )
    KEY_TOO_WEAK = ("key_too_weak", "K1", "the key is not strong enough", "make a new key, P-256 for example")
    SIGNING_CERTIFICATE_INVALID = (
        "signing_certificate_invalid",
        "S1",
        "a certificate that signs for others may not do so",
        "issue the signing certificate again as a CA",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule in one certificate: `detail` says what was seen there. Safe to print."""

    violation: Violation
    detail: str

    @property
    def rule(self) -> str:
        return self.violation.rule

    @property
    def mend(self) -> str:
        return self.violation.mend

    def __str__(self) -> str:
        return f"{self.rule} {self.violation.value}: {self.detail}; {self.mend}"


class SvidError(ValueError):
    """A certificate that names no workload; `finding` says which rule it breaks."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    uris: list[bytes]
    san_critical: bool


def leaf_violations(certificate: x509.Certificate) -> list[Finding]:
    """Lists every rule (L1 to L7, L9, K1, M1) that a workload's certificate breaks, the gravest first.

    Never raises. STRICTER than X509-SVID section 5: rules that the standard lays on the issuer alone (L4, L6, L9)
    are judged as well, because a certificate that breaks them was not made by an authority that keeps the rules.
    EKU is refused unless both usages stand in it, whichever end the peer is.

    >>> from certs.testing import MemoryAuthority
    >>> leaf_violations(MemoryAuthority("cluster.local").svid("demo", "orders").leaf)
    []
    """
    findings: list[Finding] = []
    names = _names(certificate, findings)
    if names is not None:
        findings += _name_findings(certificate, names)
    try:
        extensions = certificate.extensions
    except _UNREADABLE:
        # After the findings on the name: a URI with a high byte is better called an invalid SPIFFE ID first.
        if all(finding.violation is not Violation.CERTIFICATE_MALFORMED for finding in findings):
            findings.append(_finding(Violation.CERTIFICATE_MALFORMED, "one of its extensions cannot be decoded"))
    else:
        # A signing certificate in the place of the leaf breaks several rules at once; this is the one that explains.
        findings = _basic_constraints_findings(extensions) + findings
        findings += _key_usage_findings(extensions) + _extended_key_usage_findings(extensions)
    return findings + _key_findings(certificate)


def signing_violations(certificate: x509.Certificate, leaf_trust_domain: TrustDomain) -> list[Finding]:
    """Lists what forbids a certificate to sign for leaves of `leaf_trust_domain` (S1, K1, M1). Never raises.

    The SPIFFE ID of a signer may be that of another trust domain (X509-SVID section 4.1 allows it); which roots may
    vouch for which domain is decided by the bundles.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> signing_violations(memory.intermediate, memory.trust_domain)
    []
    """
    findings: list[Finding] = []

    def invalid(detail: str) -> None:
        findings.append(_finding(Violation.SIGNING_CERTIFICATE_INVALID, detail))

    names = _names(certificate, findings)
    for uri in names.uris if names is not None else []:
        if not uri.lower().startswith(b"spiffe:"):
            continue
        wanted = f"write spiffe://{leaf_trust_domain} or leave it out"
        try:
            path = SpiffeId.parse(uri).path
        except SpiffeIdError as error:
            invalid(f"its own SPIFFE ID is invalid ({error}): {wanted}")
        else:
            if path:
                invalid(f"its own SPIFFE ID {_escaped(uri)} has a path: {wanted}")
    try:
        extensions = certificate.extensions
    except _UNREADABLE:
        findings.append(_finding(Violation.CERTIFICATE_MALFORMED, "one of its extensions cannot be decoded"))
        return findings
    constraints = _get(extensions, x509.BasicConstraints)
    if constraints is None or not constraints.value.ca:
        invalid("basicConstraints does not say CA:TRUE")
    usage = _get(extensions, x509.KeyUsage)
    if usage is None:
        invalid("there is no keyUsage")
    else:
        if not usage.value.key_cert_sign:
            invalid("keyUsage lacks keyCertSign")
        if not usage.critical:
            invalid("keyUsage is not critical")
    return findings + _key_findings(certificate)


def spiffe_id_of(certificate: x509.Certificate) -> SpiffeId:
    """Reads the SPIFFE ID that a certificate carries: its one URI, from the bytes that were signed.

    Raises SvidError (L1, L2, M1). Says nothing of whether the certificate may be believed; a signing certificate's
    ID, which has no path, is returned as well.

    >>> from certs.testing import MemoryAuthority
    >>> str(spiffe_id_of(MemoryAuthority("cluster.local").svid("demo", "orders").leaf))
    'spiffe://cluster.local/ns/demo/sa/orders'
    """
    findings: list[Finding] = []
    names = _names(certificate, findings)
    if names is not None:
        spiffe_id = _only_id(names.uris, findings)
        if spiffe_id is not None:
            return spiffe_id
    raise SvidError(findings[0])


def presented_name(certificate: x509.Certificate) -> str:
    """Tells for a log line which name a certificate claims, valid or not: escaped, on one line, of bounded length.

    All its URIs, else its subject, else "". Never raises.
    """
    names = _names(certificate, [])
    if names is not None and names.uris:
        return _cut(", ".join(_escaped(uri) for uri in names.uris))
    try:
        subject = certificate.subject.rfc4514_string()
    except _UNREADABLE:
        return ""
    return _cut(f"subject {_escaped(subject.encode('utf-8', 'replace'))}") if subject else ""


def _names(certificate: x509.Certificate, findings: list[Finding]) -> _Names | None:
    try:
        found = [extension for extension in raw_extensions(certificate) if extension.oid == SUBJECT_ALT_NAME]
        if len(found) > 1:
            raise DerError("it has more than one subjectAltName (RFC 5280 section 4.2 allows one)")
        if not found:
            return _Names(uris=[], san_critical=False)
        uris = [content for tag, content in general_names(found[0].value) if tag == TAG_URI]
        return _Names(uris=uris, san_critical=found[0].critical)
    except DerError as error:
        findings.append(_finding(Violation.CERTIFICATE_MALFORMED, str(error)))
        return None


def _only_id(uris: list[bytes], findings: list[Finding]) -> SpiffeId | None:
    if not uris:
        findings.append(_finding(Violation.URI_SAN_MISSING))
        return None
    if len(uris) > 1:
        shown = _cut(", ".join(_escaped(uri) for uri in uris))
        findings.append(_finding(Violation.URI_SAN_NOT_ALONE, f"the subjectAltName holds {len(uris)} URIs: {shown}"))
        return None
    try:
        return SpiffeId.parse(uris[0])
    except SpiffeIdError as error:
        findings.append(_finding(Violation.SPIFFE_ID_INVALID, f"{error} ({error.rule})"))
        return None


def _name_findings(certificate: x509.Certificate, names: _Names) -> list[Finding]:
    findings: list[Finding] = []
    spiffe_id = _only_id(names.uris, findings)
    if spiffe_id is not None and not spiffe_id.path:
        findings.append(_finding(Violation.SPIFFE_ID_WITHOUT_PATH, f"{spiffe_id} has no path: it names no workload"))
    try:
        subject_is_empty = not list(certificate.subject)
    except _UNREADABLE:
        findings.append(_finding(Violation.CERTIFICATE_MALFORMED, "its subject cannot be decoded"))
    else:
        if subject_is_empty and names.uris and not names.san_critical:
            findings.append(_finding(Violation.SAN_NOT_CRITICAL))
    return findings


def _basic_constraints_findings(extensions: x509.Extensions) -> list[Finding]:
    constraints = _get(extensions, x509.BasicConstraints)
    return [_finding(Violation.LEAF_IS_CA)] if constraints is not None and constraints.value.ca else []


def _key_usage_findings(extensions: x509.Extensions) -> list[Finding]:
    usage = _get(extensions, x509.KeyUsage)
    if usage is None:
        return [_finding(Violation.KEY_USAGE_MISSING)]
    broken = (
        (not usage.value.digital_signature, Violation.DIGITAL_SIGNATURE_MISSING),
        (usage.value.key_cert_sign, Violation.LEAF_MAY_SIGN_CERTIFICATES),
        (usage.value.crl_sign, Violation.LEAF_MAY_SIGN_CRLS),
        (not usage.critical, Violation.KEY_USAGE_NOT_CRITICAL),
    )
    return [_finding(violation) for is_broken, violation in broken if is_broken]


def _extended_key_usage_findings(extensions: x509.Extensions) -> list[Finding]:
    usage = _get(extensions, x509.ExtendedKeyUsage)
    if usage is None:
        return []
    needed = (("serverAuth", ExtendedKeyUsageOID.SERVER_AUTH), ("clientAuth", ExtendedKeyUsageOID.CLIENT_AUTH))
    lacking = [name for name, oid in needed if oid not in usage.value]
    if not lacking:
        return []
    return [_finding(Violation.EXTENDED_KEY_USAGE_LACKING, f"extendedKeyUsage lacks {' and '.join(lacking)}")]


def _key_findings(certificate: x509.Certificate) -> list[Finding]:
    try:
        fault = key_fault(certificate.public_key())
    except UnsupportedAlgorithm:
        fault = "the key is of a kind that is not known here"
    except ValueError:
        return [_finding(Violation.CERTIFICATE_MALFORMED, "its public key cannot be decoded")]
    return [_finding(Violation.KEY_TOO_WEAK, fault)] if fault is not None else []


def _get(extensions: x509.Extensions, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None


def _finding(violation: Violation, detail: str = "") -> Finding:
    return Finding(violation=violation, detail=detail or violation.text)


def _escaped(raw: bytes) -> str:
    return repr(raw)[2:-1]


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
