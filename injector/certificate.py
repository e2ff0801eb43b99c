"""The webhook's own certificate and the small authority above it: what a Secret should hold, given what it holds.

The API server believes a webhook by its caBundle and by nothing else, so an authority that signs for one name alone
does. Four files: ca.crt, ca.key, tls.crt, tls.key. An authority that grows old is replaced without a refused call:

    next.crt, next.key are made    the caBundle has both authorities, the certificate is still of the old one
    a while later                  next becomes ca; the certificate is of the new one, previous.crt stays in the bundle
    when previous.crt has ended    it is dropped

Every step is one change of the Secret, so of several replicas one takes it and the others see it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.keys import (
    KeyFileError,
    PrivateKey,
    PublicKey,
    generate_key,
    public_key_bytes,
    read_key,
    signing_hash,
    write_key,
)
from certs.profile import key_usage, with_key_identifiers
from certs.store import read_chain

AUTHORITY_LIFETIME: Final = datetime.timedelta(days=365)
LEAF_LIFETIME: Final = datetime.timedelta(days=30)
RENEW_AT: Final = 1 / 3
"""What is left of a lifetime when it is renewed: ten days for mending whatever keeps a renewal from happening."""

SPREAD: Final = datetime.timedelta(minutes=10)
"""From the making of a new authority to its use. By then every API server has the caBundle that names it."""

BACK_DATE: Final = datetime.timedelta(hours=1)
"""Clocks of API servers may be behind ours."""

CA, CA_KEY, CHAIN, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
NEXT, NEXT_KEY, PREVIOUS = "next.crt", "next.key", "previous.crt"

Files = Mapping[str, bytes]


class _Unusable(ValueError):
    """What a Secret holds cannot be used, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change that is due: what the Secret holds after it, and what was done, in words."""

    files: Files
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    certificate: x509.Certificate
    key: PrivateKey


def advance(files: Files, names: Sequence[str], now: datetime.datetime) -> Step | None:
    """Give the one step that is due, None when nothing is. `names` are the DNS names by which the webhook is called.

    What cannot be read is made anew, whatever it was: a Secret that somebody damaged must not stop a cluster's pods.
    """
    try:
        authority = _authority(files, CA, CA_KEY, names, now)
    except _Unusable as why:
        made = _make_authority(names, now)
        return Step(
            files={**_written(made, CA, CA_KEY), **_leaf(made, names, now)}, what=f"an authority was made: {why}"
        )
    kept = {name: files[name] for name in (CA, CA_KEY, CHAIN, KEY, NEXT, NEXT_KEY, PREVIOUS) if name in files}
    if PREVIOUS in kept and _has_ended(kept[PREVIOUS], now):
        del kept[PREVIOUS]
        return Step(files=kept, what="the authority of before has ended and was dropped")
    if NEXT in kept:
        try:
            after = _authority(files, NEXT, NEXT_KEY, names, now)
        except _Unusable as why:
            made = _make_authority(names, now)
            return Step(files={**kept, **_written(made, NEXT, NEXT_KEY)}, what=f"a next authority was made: {why}")
        if now >= after.certificate.not_valid_before_utc + BACK_DATE + SPREAD:
            promoted = {**_written(after, CA, CA_KEY), **_leaf(after, names, now), PREVIOUS: kept[CA]}
            return Step(files=promoted, what="the next authority is in use")
    elif _is_old(authority.certificate, now):
        made = _make_authority(names, now)
        return Step(files={**kept, **_written(made, NEXT, NEXT_KEY)}, what="a next authority was made and is published")
    try:
        _check_leaf(files, authority, names, now)
    except _Unusable as why:
        return Step(files={**kept, **_leaf(authority, names, now)}, what=f"a certificate was made: {why}")
    return None


def ca_bundle(files: Files) -> bytes:
    """Give what the webhook configuration must have: the authority in use, one to come, one of before, as PEM."""
    return b"".join(files[name] for name in (CA, NEXT, PREVIOUS) if name in files)


def not_after(files: Files) -> datetime.datetime:
    """Say when the certificate ends."""
    return x509.load_pem_x509_certificates(files[CHAIN])[0].not_valid_after_utc


def dns_names(service: str, namespace: str) -> tuple[str, ...]:
    """Give the names by which an API server calls a Service.

    >>> dns_names("remora-injector", "remora-system")
    ('remora-injector.remora-system.svc', 'remora-injector.remora-system.svc.cluster.local')
    """
    return f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local"


def _authority(files: Files, name: str, key_name: str, names: Sequence[str], now: datetime.datetime) -> _Pair:
    if name not in files or key_name not in files:
        raise _Unusable("there was none")
    pair = _read_pair(files, name, key_name)
    if now < pair.certificate.not_valid_before_utc or now >= pair.certificate.not_valid_after_utc:
        raise _Unusable("its time has ended, or has not begun by this clock")
    try:
        constraints = pair.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        permitted = {each.value for each in constraints.permitted_subtrees or ()}
    except x509.ExtensionNotFound:
        permitted = set()
    if permitted != set(names):
        raise _Unusable("it is for other names")
    return pair


def _check_leaf(files: Files, authority: _Pair, names: Sequence[str], now: datetime.datetime) -> None:
    if CHAIN not in files or KEY not in files:
        raise _Unusable("there was none")
    pair = _read_pair(files, CHAIN, KEY)
    certificate = pair.certificate
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise _Unusable("it was of another authority") from None
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = []
    if set(found) != set(names):
        raise _Unusable("it was for other names")
    if _is_old(certificate, now) and certificate.not_valid_after_utc < authority.certificate.not_valid_after_utc:
        raise _Unusable("it was near its end")
    if now < certificate.not_valid_before_utc or now >= certificate.not_valid_after_utc:
        raise _Unusable("it had ended")


def _read_pair(files: Files, name: str, key_name: str) -> _Pair:
    try:
        certificate = read_chain(files[name])[0]
        certified = certificate.public_key()
        key = read_key(files[key_name])
    except (ValueError, UnsupportedAlgorithm, KeyFileError):
        raise _Unusable(f"{name} or {key_name} could not be read") from None
    if not isinstance(certified, PublicKey) or public_key_bytes(certified) != public_key_bytes(key.public_key()):
        raise _Unusable(f"{key_name} was not the key of {name}")
    return _Pair(certificate=certificate, key=key)


def _make_authority(names: Sequence[str], now: datetime.datetime) -> _Pair:
    key = generate_key()
    # Its own key in the name: two authorities of one name would be two answers to "who signed this?".
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Remora"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"webhook {public_key_bytes(key.public_key())[-8:].hex()}"),
        ]
    )
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now.replace(microsecond=0) - BACK_DATE)
        .not_valid_after(now.replace(microsecond=0) + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True), critical=True)
        # Whoever steals it can answer as this webhook, and as nothing else of the cluster.
        .add_extension(x509.NameConstraints([x509.DNSName(name) for name in names], None), critical=True)
    )
    return _Pair(
        certificate=with_key_identifiers(builder, key.public_key(), None).sign(key, signing_hash(key)), key=key
    )


def _leaf(authority: _Pair, names: Sequence[str], now: datetime.datetime) -> dict[str, bytes]:
    key = generate_key()
    end = min(now.replace(microsecond=0) + LEAF_LIFETIME, authority.certificate.not_valid_after_utc)
    begin = max(now.replace(microsecond=0) - BACK_DATE, authority.certificate.not_valid_before_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    whole = with_key_identifiers(builder, key.public_key(), authority.certificate)
    certificate = whole.sign(authority.key, signing_hash(authority.key))
    return {CHAIN: certificate.public_bytes(Encoding.PEM), KEY: write_key(key)}


def _written(pair: _Pair, name: str, key_name: str) -> dict[str, bytes]:
    return {name: pair.certificate.public_bytes(Encoding.PEM), key_name: write_key(pair.key)}


def _is_old(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    whole = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < whole * RENEW_AT


def _has_ended(pem: bytes, now: datetime.datetime) -> bool:
    try:
        return now >= read_chain(pem)[0].not_valid_after_utc
    except ValueError:
        return True
