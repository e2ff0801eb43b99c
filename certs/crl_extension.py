"""Writes and reads the CRL extension of ours: the revoked identities and keys, which X.509 has no place for.

    {"version": 1, "identities": {"spiffe://...": null or seconds since the epoch}, "keys": ["<SHA-256>", ...]}

as JSON in a UTF8String. Seconds are the moment before which certificates of the identity are refused; null refuses all.
It is not critical, so other software passes over it and sees the serials alone.
"""

from __future__ import annotations

import datetime
import json
from types import MappingProxyType
from typing import Final

from cryptography import x509

from certs.revocations import RevokedTable
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain

NAMES_AND_KEYS: Final = x509.ObjectIdentifier("2.25.286237810795611158882913378528755287024")
"""The extension that carries revoked identities and keys: an identifier out of a UUID (ITU-T X.667), so nobody's."""

MAX_EXTENSION_BYTES: Final = 2 * 1024 * 1024
"""Some ten thousand names and keys together; the whole list may have twice that."""

_UTF8_STRING: Final = 0x0C
_VERSION: Final = 1
_MAX_SECONDS: Final = 253_402_300_799  # the last second of the year 9999, where X.509 ends
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class CrlError(ValueError):
    """A revocation list that cannot be made or believed; the message names the cause and the mend."""


def write_names_and_keys(table: RevokedTable) -> bytes | None:
    """Writes the extension's value, None when neither identities nor keys are revoked. Raises CrlError if too large.

    >>> write_names_and_keys(RevokedTable(keys=frozenset({"ab"})))
    b'\\x0c+{"identities":{},"keys":["ab"],"version":1}'
    """
    if not table.identities and not table.keys:
        return None
    names = {str(name): None if since is None else int(since.timestamp()) for name, since in table.identities.items()}
    document = {"version": _VERSION, "identities": names, "keys": sorted(table.keys)}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(text) > MAX_EXTENSION_BYTES:
        raise CrlError(
            f"the revoked identities and keys need {len(text)} bytes, and {MAX_EXTENSION_BYTES} fit; "
            "lift what is no longer needed, or rotate the intermediate"
        )
    size = (len(text).bit_length() + 7) // 8
    length = bytes((len(text),)) if len(text) < 0x80 else bytes((0x80 | size,)) + len(text).to_bytes(size, "big")
    return bytes((_UTF8_STRING,)) + length + text


def read_table(serials: frozenset[int], names_and_keys: bytes | None, trust_domain: TrustDomain) -> RevokedTable:
    """Reads the extension's value beside the serials of the entries; raises CrlError, also for foreign identities.

    >>> from certs.spiffe import parse_trust_domain
    >>> sorted(read_table(frozenset({7}), None, parse_trust_domain("cluster.local")).serials)
    [7]
    """
    if names_and_keys is None:
        return RevokedTable(serials=serials)
    try:
        document = json.loads(_utf8_string(names_and_keys).decode("utf-8"))
        names, keys = document["identities"], document["keys"]
        if document["version"] != _VERSION:
            raise ValueError("another version")
        identities = {SpiffeId.parse(name): _since(moment) for name, moment in names.items()}
        if not all(isinstance(key, str) and len(key) == 64 and _HEX_DIGITS.issuperset(key) for key in keys):
            raise ValueError("a key that is no SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SpiffeIdError) as error:
        # Half of a list is no list: what cannot be read might be what was revoked.
        raise CrlError(
            f"the revoked identities and keys cannot be read ({error}); run the authority's release here as well"
        ) from None
    for name in identities:
        if name.trust_domain != trust_domain:
            raise CrlError(f"the list of {trust_domain} revokes {name}, which is not its own; take it out of the list")
    return RevokedTable(serials=serials, identities=MappingProxyType(identities), keys=frozenset(keys))


def _since(value: object) -> datetime.datetime | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_SECONDS:
        raise ValueError("a time that is no whole number of seconds")
    return datetime.datetime.fromtimestamp(value, datetime.UTC)


def _utf8_string(der: bytes) -> bytes:
    if len(der) > MAX_EXTENSION_BYTES + 8 or der[:1] != bytes((_UTF8_STRING,)):
        raise ValueError("no UTF8String of that size")
    count = der[1] - 0x80 if len(der) > 1 and der[1] >= 0x80 else 0
    length = int.from_bytes(der[2 : 2 + count], "big") if count else der[1] if len(der) > 1 else -1
    text = der[2 + count :]
    if len(text) != length:
        raise ValueError("a length that does not fit")
    return text
