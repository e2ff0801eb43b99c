"""Writes what a SPIFFE Workload API answers, as protobuf: the other half of `certs.workload_api`, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.authority import Svid
from certs.bundle import TrustBundle
from certs.spiffe import TrustDomain


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A varint field."""
    return varint(number << 3) + varint(value)


def ders(bundle: TrustBundle) -> bytes:
    """The roots of a bundle, one behind the other."""
    return b"".join(root.public_bytes(Encoding.DER) for root in bundle.certificates)


def svid_message(svid: Svid, bundle: TrustBundle, hint: str = "") -> bytes:
    """An X509SVID."""
    key = svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(certificate.public_bytes(Encoding.DER) for certificate in svid.chain)
    parts = [(1, str(svid.spiffe_id).encode()), (2, chain), (3, key), (4, ders(bundle)), (5, hint.encode())]
    return b"".join(field(number, content) for number, content in parts if content)


def response(
    svids: Sequence[tuple[Svid, TrustBundle]], federated: Mapping[TrustDomain, TrustBundle] | None = None
) -> bytes:
    """An X509SVIDResponse."""
    written = b"".join(field(1, svid_message(svid, bundle)) for svid, bundle in svids)
    for domain, bundle in (federated or {}).items():
        written += field(3, field(1, f"spiffe://{domain}".encode()) + field(2, ders(bundle)))
    return written
