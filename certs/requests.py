"""Reads what a workload asks of the authority: the body of `POST /v1/sign`, from bytes that anybody may have sent.

    {"csr": "...", "token": "...", "kind": "...", "lifetime_seconds": 86400, "bundle_sequence": 7,
     "instance": "orders-7d9f"}

    csr               PKCS#10 (RFC 2986): PEM, or base64 of DER. Only the public key is taken from it, once its
                      signature shows that the author holds the private key. Subject, names, extensions and attributes
                      are never read: they are what the author wishes, and a wish is no proof.
    token             who asks: a ServiceAccount's token or a join token; absent when the connection's certificate says
    kind              which of the two, when the form of the token shall not decide: `service_account_token` or
                      `join_token`
    lifetime_seconds  how long the certificate shall live; the authority has the last word
    bundle_sequence   the sequence of the bundle that the workload uses, so that a rotation knows who has confirmed
    instance          which of the sidecars of one identity asks: a pod's name or any short word, always the same

Cheap checks come before dear ones: sizes, then JSON, then the key's strength, and its signature last. Whatever the
bytes are, the answer is a SignRequest or Refused. No message quotes the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from certs.caller import How
from certs.keys import PublicKey, key_fault, public_key_bytes
from certs.refusals import Refusal, Refused
from certs.strict_json import parse_json

MAX_BODY_BYTES: Final = 64 * 1024
MAX_CSR_CHARACTERS: Final = 16 * 1024
"""A request for P-256 has 400 bytes as PEM, one for RSA 4096 with many names some kilobytes."""

MAX_TOKEN_CHARACTERS: Final = 16 * 1024
"""A ServiceAccount's token has one to two kilobytes."""

MAX_RSA_BITS: Final = 8192
"""Verifying costs more than the square of the length: a long key is a way to make the authority work."""

MIN_RSA_EXPONENT: Final = 65537
"""FIPS 186-5 section 5.4. With an exponent of 1 every text is its own signature."""

MAX_INTEGER: Final = 2**63 - 1
"""SPIFFE bundles count in 64 bits."""

_MEMBERS: Final = frozenset({"csr", "token", "kind", "lifetime_seconds", "bundle_sequence", "instance"})
_KINDS: Final = {how.value: how for how in (How.SERVICE_ACCOUNT_TOKEN, How.JOIN_TOKEN)}
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_SHOWN_CHARACTERS: Final = 60

_PEM = re.compile(
    r"\s*-----BEGIN (?:NEW )?CERTIFICATE REQUEST-----\s([A-Za-z0-9+/=\s]*)"
    r"-----END (?:NEW )?CERTIFICATE REQUEST-----\s*"
)
# Visible ASCII: a token travels in headers and lines, where a space or a line break would begin something else.
_TOKEN = re.compile(r"[!-~]+")
_INSTANCE = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
# What `cryptography` raises, beside ValueError, for a request that it cannot or will not decode.
_UNREADABLE = (ValueError, TypeError, OverflowError, x509.InvalidVersion, UnsupportedAlgorithm)
_MAKE_ANEW: Final = "make it anew with a P-256 key"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """What one request asks: a certificate for a key whose owner has proved to hold it. Says nothing of who asks.

    `key_fingerprint` is SHA-256 of the key's DER SubjectPublicKeyInfo, in hexadecimal, of the one encoding that we
    write: another spelling of the same key has the same fingerprint. `lifetime` is in seconds, positive. Members that
    were absent are None.
    """

    public_key: PublicKey = field(repr=False)
    key_fingerprint: str
    token: str | None = field(default=None, repr=False)
    kind: How | None = None
    lifetime: int | None = None
    bundle_sequence: int | None = None
    instance: str | None = None


def read_sign_request(body: bytes) -> SignRequest:
    """Reads the body of `POST /v1/sign`.

    Raises Refused: REQUEST_TOO_LARGE, REQUEST_MALFORMED, CSR_MALFORMED, KEY_TOO_WEAK, POSSESSION_NOT_PROVED,
    TOKEN_MALFORMED or LIFETIME_REFUSED. Never another error.

    >>> import json
    >>> from certs.keys import generate_key
    >>> from cryptography.hazmat.primitives.serialization import Encoding
    >>> key = generate_key()
    >>> csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    >>> request = read_sign_request(json.dumps({"csr": csr.public_bytes(Encoding.PEM).decode()}).encode())
    >>> request.key_fingerprint == key_fingerprint(key.public_key())
    True
    >>> read_sign_request(b'{"csr": 1}')
    Traceback (most recent call last):
    certs.refusals.Refused: "csr" is no text; send a PKCS#10 request as PEM, or as base64 of its DER
    """
    members = _read_members(body)
    token = _read_token(members.get("token"))
    kind = _read_kind(members.get("kind"), token)
    lifetime = _read_integer(members.get("lifetime_seconds"), "lifetime_seconds")
    if lifetime is not None and lifetime < 1:
        raise Refused(Refusal.LIFETIME_REFUSED, '"lifetime_seconds" is not positive; leave it out for the usual one')
    bundle_sequence = _read_integer(members.get("bundle_sequence"), "bundle_sequence")
    if bundle_sequence is not None and bundle_sequence < 0:
        raise _malformed('"bundle_sequence" is negative; send the spiffe_sequence of the bundle in use')
    instance = read_instance(members.get("instance"))
    if "csr" not in members:
        raise _malformed('"csr" is missing; send a PKCS#10 request as PEM, or as base64 of its DER')
    public_key = read_csr(members["csr"])
    return SignRequest(
        public_key=public_key,
        key_fingerprint=key_fingerprint(public_key),
        token=token,
        kind=kind,
        lifetime=lifetime,
        bundle_sequence=bundle_sequence,
        instance=instance,
    )


def read_instance(value: object) -> str | None:
    """Reads the name of a sidecar among those of its identity; raises Refused with REQUEST_MALFORMED.

    >>> read_instance("orders-7d9f")
    'orders-7d9f'
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _INSTANCE.fullmatch(value):
        raise _malformed('"instance" is no short word; send 1 to 128 letters, digits and . _ : / -, such as the pod')
    return value


def read_csr(csr: object) -> PublicKey:
    """Takes the public key out of a signing request (the member `csr`), once the owner has proved to hold it.

    Nothing else of the request is read. Raises Refused with CSR_MALFORMED, REQUEST_TOO_LARGE, KEY_TOO_WEAK or
    POSSESSION_NOT_PROVED.

    >>> read_csr("MAA=")
    Traceback (most recent call last):
    certs.refusals.Refused: "csr" cannot be decoded as PKCS#10; make it anew with a P-256 key
    """
    der = _csr_der(csr)
    try:
        request = x509.load_der_x509_csr(der)
    except _UNREADABLE:
        raise Refused(Refusal.CSR_MALFORMED, f'"csr" cannot be decoded as PKCS#10; {_MAKE_ANEW}') from None
    try:
        public_key: object = request.public_key()
    except UnsupportedAlgorithm:
        raise Refused(Refusal.KEY_TOO_WEAK, f'"csr" has a key of a kind that is not known here; {_MAKE_ANEW}') from None
    except _UNREADABLE:
        raise Refused(Refusal.CSR_MALFORMED, f'"csr" has a key that cannot be decoded; {_MAKE_ANEW}') from None
    checked = _check_key(public_key)
    _check_possession(request, checked)
    return checked


def key_fingerprint(public_key: PublicKey) -> str:
    """Computes SHA-256 of a key's SubjectPublicKeyInfo, in hexadecimal: what revocation and audit call a key.

    >>> from certs.keys import generate_key
    >>> len(key_fingerprint(generate_key().public_key()))
    64
    """
    return hashlib.sha256(public_key_bytes(public_key)).hexdigest()


def _read_members(body: bytes) -> dict[str, object]:
    if len(body) > MAX_BODY_BYTES:
        raise Refused(Refusal.REQUEST_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes; send the CSR alone")
    try:
        document = parse_json(body)
    except ValueError as error:
        raise _malformed(f"the body is no JSON ({error}); send one flat JSON object in UTF-8") from None
    if not isinstance(document, dict):
        raise _malformed("the body is no JSON object; send one with the member csr")
    for name in document:
        if name not in _MEMBERS:
            raise _malformed(f"the member {_shown(name)} is not known; send only {', '.join(sorted(_MEMBERS))}")
    return document


def _read_token(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused(Refusal.TOKEN_MALFORMED, '"token" is no text; send the token as it was issued')
    if len(value) > MAX_TOKEN_CHARACTERS:
        raise Refused(Refusal.TOKEN_MALFORMED, f'"token" has more than {MAX_TOKEN_CHARACTERS} characters; send a token')
    if not _TOKEN.fullmatch(value):
        raise Refused(
            Refusal.TOKEN_MALFORMED,
            '"token" is empty or holds a space, a line break or a character that no token has; send it as issued',
        )
    return value


def _read_kind(value: object, token: str | None) -> How | None:
    if value is None:
        return None
    kind = _KINDS.get(value) if isinstance(value, str) else None
    if kind is None:
        raise _malformed(f'"kind" is not known; send {" or ".join(_KINDS)}, or leave it out')
    if token is None:
        raise _malformed('"kind" stands there without "token"; send both or neither')
    return kind


def _read_integer(value: object, name: str) -> int | None:
    if value is None:
        return None
    # JSON's true is an int to Python, and 1.0 a float that equals one.
    if type(value) is not int or abs(value) > MAX_INTEGER:
        raise _malformed(f'"{name}" is no whole number of 64 bits; send digits alone')
    return value


def _csr_der(csr: object) -> bytes:
    if not isinstance(csr, str):
        raise _malformed('"csr" is no text; send a PKCS#10 request as PEM, or as base64 of its DER')
    if len(csr) > MAX_CSR_CHARACTERS:
        raise Refused(
            Refusal.REQUEST_TOO_LARGE,
            f'"csr" has more than {MAX_CSR_CHARACTERS} characters; ask for a key alone, names in it are not read',
        )
    if "PRIVATE KEY" in csr:
        raise Refused(Refusal.CSR_MALFORMED, '"csr" holds a private key, which is now spent; make a new key and CSR')
    text = csr
    if "-----" in csr:
        block = _PEM.fullmatch(csr)
        if block is None:
            raise Refused(
                Refusal.CSR_MALFORMED, f'"csr" is no single PEM block CERTIFICATE REQUEST; send one, or {_MAKE_ANEW}'
            )
        text = block[1]
    try:
        # Line breaks are part of PEM, and `base64 request.der` writes them too.
        return base64.b64decode("".join(text.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Refused(Refusal.CSR_MALFORMED, '"csr" is neither PEM nor base64; send one of the two') from None


def _check_key(public_key: object) -> PublicKey:
    fault = key_fault(public_key)
    if fault is not None or not isinstance(public_key, PublicKey):
        raise Refused(Refusal.KEY_TOO_WEAK, f'"csr": {fault}')
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size > MAX_RSA_BITS:
            raise Refused(
                Refusal.REQUEST_TOO_LARGE,
                f'"csr": an RSA key of {public_key.key_size} bits is longer than {MAX_RSA_BITS}; use P-256',
            )
        if public_key.public_numbers().e < MIN_RSA_EXPONENT:
            raise Refused(
                Refusal.KEY_TOO_WEAK, f'"csr": the RSA key has an exponent below {MIN_RSA_EXPONENT}; use P-256'
            )
    return public_key


def _check_possession(request: x509.CertificateSigningRequest, public_key: PublicKey) -> None:
    try:
        algorithm = request.signature_hash_algorithm
        is_strong = isinstance(algorithm, _HASHES) or (
            algorithm is None and isinstance(public_key, ed25519.Ed25519PublicKey)
        )
        is_proved = is_strong and request.is_signature_valid
    except _UNREADABLE:
        is_strong = is_proved = False
    if not is_strong:
        raise Refused(
            Refusal.POSSESSION_NOT_PROVED,
            '"csr" is signed by an algorithm that proves nothing today; sign it with SHA-256, SHA-384 or SHA-512',
        )
    if not is_proved:
        raise Refused(
            Refusal.POSSESSION_NOT_PROVED, f'"csr" is not signed by the key that it asks for; {_MAKE_ANEW} and sign it'
        )


def _malformed(message: str) -> Refused:
    return Refused(Refusal.REQUEST_MALFORMED, message)


def _shown(name: str) -> str:
    """Quotes a hostile name for a message: printable ASCII on one line, and not more than a line can bear."""
    return ascii(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
