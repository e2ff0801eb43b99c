"""Shapes and signs certificates: the profile of a workload's leaf and of the certificates that sign for others.

A profile decides nothing about *who*; it fixes what a certificate looks like once that is known. Field by field
after X509-SVID sections 2 to 4 and RFC 5280 section 4:

                        leaf                                signer (root, intermediate)
    subject             empty                               Remora, "intermediate of <trust domain>"
    subjectAltName      one URI, critical                   one URI without a path
    basicConstraints    CA:FALSE, critical                  CA:TRUE with a path length, critical
    keyUsage            digitalSignature, critical          keyCertSign and cRLSign, critical
    extendedKeyUsage    serverAuth and clientAuth           none: libraries disagree on what it means in a signer
    key identifiers     own and issuer's                    own and issuer's
    serial number       random                              random
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.keys import PrivateKey, PublicKey, signing_hash
from certs.spiffe import SpiffeId, TrustDomain

BACK_DATE = datetime.timedelta(seconds=60)
"""How far NotBefore lies in the past. Less, and clocks that differ by seconds refuse a fresh certificate; more helps
nobody, since a clock that is minutes off breaks other things first."""

SIGNER_BACK_DATE = datetime.timedelta(hours=1)
"""The same for what signs others. One that was made by a clock that was ahead has to be worth something when that clock
is set right: until then nobody would get a certificate. Its end is what bounds it, and that does not move."""

_MAX_COMMON_NAME = 64  # RFC 5280 appendix A.1; a trust domain may have 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerShape:
    """What is particular to one signing certificate; `constrain_names` binds it to names of its trust domain."""

    trust_domain: TrustDomain
    name: str
    lifetime: datetime.timedelta
    path_length: int
    constrain_names: bool = False


def sign_leaf(
    spiffe_id: SpiffeId,
    public_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.Certificate:
    """Signs the certificate of a workload. Its end is `lifetime` from now, or the issuer's if that comes first."""
    not_before, not_after = _validity(now, lifetime, issuer, BACK_DATE)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        # RFC 5280 section 4.2.1.6: the subject is empty, so the name must be critical.
        .add_extension(x509.SubjectAlternativeName([uri(str(spiffe_id))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(both_ends_of_tls(), critical=False)
    )
    return with_key_identifiers(builder, public_key, issuer).sign(issuer_key, signing_hash(issuer_key))


def sign_signer(
    shape: SignerShape,
    public_key: PublicKey,
    issuer: x509.Certificate | None,
    issuer_key: PrivateKey,
    now: datetime.datetime,
) -> x509.Certificate:
    """Signs a certificate that may sign others; without an issuer it is a root and signs itself."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Remora"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{shape.name} of {shape.trust_domain}"[:_MAX_COMMON_NAME]),
        ]
    )
    not_before, not_after = _validity(now, shape.lifetime, issuer, SIGNER_BACK_DATE)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=shape.path_length), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri(str(SpiffeId(shape.trust_domain)))]), critical=False)
    )
    if shape.constrain_names:
        permitted = [uri(shape.trust_domain)]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    return with_key_identifiers(builder, public_key, issuer).sign(issuer_key, signing_hash(issuer_key))


def uri(text: str) -> x509.UniformResourceIdentifier:
    """Makes the general name that a SPIFFE ID, or a constraint on one, is written as."""
    return x509.UniformResourceIdentifier(text)


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """Makes a keyUsage of the three bits that matter here."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def both_ends_of_tls() -> x509.ExtendedKeyUsage:
    """Makes the extendedKeyUsage of a workload, which calls and is called."""
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def with_key_identifiers(
    builder: x509.CertificateBuilder, public_key: PublicKey, issuer: x509.Certificate | None
) -> x509.CertificateBuilder:
    """Adds both key identifiers, which strict path validation asks for; a root is its own issuer."""
    own = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return builder.add_extension(own, critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own if issuer is None else _key_id(issuer)),
        critical=False,
    )


def _key_id(issuer: x509.Certificate) -> x509.SubjectKeyIdentifier:
    try:
        return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        # RFC 5280 section 4.2.1.2: derived from the key, which is what validators compute for such an issuer.
        return x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())


def _validity(
    now: datetime.datetime,
    lifetime: datetime.timedelta,
    issuer: x509.Certificate | None,
    back_date: datetime.timedelta,
) -> tuple[datetime.datetime, datetime.datetime]:
    now = now.replace(microsecond=0)  # a certificate counts whole seconds
    not_before, not_after = now - back_date, now + lifetime
    if issuer is None:
        return not_before, not_after
    return max(not_before, issuer.not_valid_before_utc), min(not_after, issuer.not_valid_after_utc)
