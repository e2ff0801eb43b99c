"""Reads the extensions of a certificate as the bytes that were signed.

A certificate library decodes a subjectAltName before it shows it: it may refuse the whole certificate for one high
byte, or hide the very byte that makes two programs disagree about a name. The SPIFFE rules are rules about bytes, so
the names are taken straight from the DER, with a reader that knows just enough of X.690 to find them and takes
nothing but its canonical form: definite, minimal lengths and one-byte tags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from OpenSSL import crypto

SUBJECT_ALT_NAME = bytes.fromhex("551d11")
"""The object identifier 2.5.29.17, as it is encoded."""

TAG_URI = 0x86
"""GeneralName's uniformResourceIdentifier, [6] IA5String (RFC 5280 section 4.2.1.6)."""

_BOOLEAN, _OCTET_STRING, _OID, _SEQUENCE = 0x01, 0x04, 0x06, 0x30
_EXTENSIONS = 0xA3
_HIGH_TAG_NUMBER = 0x1F
_LONG_LENGTH = 0x80


class DerError(ValueError):
    """Bytes that are not the canonical encoding of what should stand there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawExtension:
    """One extension of a certificate: `oid` and `value` are the encoded bytes."""

    oid: bytes
    critical: bool
    value: bytes


def raw_extensions(certificate: x509.Certificate) -> list[RawExtension]:
    """Lists the extensions in the order in which they stand (RFC 5280 section 4.1.2.9); raises DerError."""
    [(_, fields)] = _elements(certificate.tbs_certificate_bytes)
    for tag, value in _elements(fields):
        if tag == _EXTENSIONS:
            return [_extension(entry) for entry in _sequence(value)]
    return []


def is_whole(certificate: x509.Certificate) -> bool:
    """Tells whether OpenSSL can decode a certificate too, all of it at once.

    `cryptography` decodes a certificate's names and extensions only when they are asked for; handshakes are made by
    OpenSSL, and a file of which it cannot take one certificate must be refused while somebody is there to read why.

    >>> from certs.testing import MemoryAuthority
    >>> is_whole(MemoryAuthority("cluster.local").bundle.certificates[0])
    True
    """
    try:
        crypto.X509.from_cryptography(certificate)
    except crypto.Error:
        return False
    return True


def general_names(extension_value: bytes) -> list[tuple[int, bytes]]:
    """Splits the value of a subjectAltName into (tag, content) pairs; raises DerError.

    >>> general_names(bytes.fromhex("3003860161"))
    [(134, b'a')]
    """
    return _sequence(extension_value)


def _sequence(data: bytes) -> list[tuple[int, bytes]]:
    elements = list(_elements(data))
    if len(elements) != 1 or elements[0][0] != _SEQUENCE:
        raise DerError("expected one SEQUENCE")
    return list(_elements(elements[0][1]))


def _extension(entry: tuple[int, bytes]) -> RawExtension:
    match list(_elements(entry[1])):
        case [(tag, oid), (value_tag, value)] if (tag, value_tag) == (_OID, _OCTET_STRING):
            return RawExtension(oid=oid, critical=False, value=value)
        case [(tag, oid), (flag_tag, flag), (value_tag, value)] if (tag, flag_tag, value_tag) == (
            _OID,
            _BOOLEAN,
            _OCTET_STRING,
        ) and flag in (b"\x00", b"\xff"):
            return RawExtension(oid=oid, critical=flag == b"\xff", value=value)
        case _:
            raise DerError("an extension is not an identifier, a flag and a value")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if len(data) - position < 2:
            raise DerError("an element ends inside its header")
        tag, length = data[position], data[position + 1]
        position += 2
        if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
            raise DerError("an element has a tag of several bytes")
        if length >= _LONG_LENGTH:
            count = length - _LONG_LENGTH
            encoded = data[position : position + count]
            length = int.from_bytes(encoded, "big")
            if not 1 <= count <= 4 or len(encoded) != count or encoded[0] == 0 or length < _LONG_LENGTH:
                raise DerError("a length is not in its shortest form")
            position += count
        if position + length > len(data):
            raise DerError("an element is longer than what holds it")
        yield tag, data[position : position + length]
        position += length
