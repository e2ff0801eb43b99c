"""Reads what a SPIFFE Workload API answers, and writes it as the files that a set is judged by.

A Workload API (a SPIRE agent offers one) is a gRPC service on a local socket that needs no credential: it knows its
caller by looking at the process at the other end. One call matters here, `FetchX509SVID`, a stream on which every
message is the whole state, and whatever is not in the newest one is to be dropped:

    X509SVIDResponse     1 svids: repeated X509SVID    2 crl: repeated bytes    3 federated_bundles: map of bytes
    X509SVID             1 spiffe_id                   2 x509_svid: DER, leaf first, then intermediates
                         3 x509_svid_key: PKCS#8 DER   4 bundle: DER roots     5 hint

The messages are small and do not change (fields are only ever added), so the protobuf wire format is read here, in
sixty lines, and no code generator and no library of 20 MiB stand between a sidecar and its key:

    field = tag varint (number << 3 | type), then   0 varint   1 eight bytes   2 length and bytes   5 four bytes

Unknown fields are passed over, as protobuf asks. Sources: SPIFFE Workload API section 4 and 5, SPIFFE Workload
Endpoint section 4; the wire format is that of protobuf.dev/programming-guides/encoding. Everything here is pure, and
no message quotes what was read.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from certs.bundle import BUNDLE_DIRECTORY
from certs.spiffe import SpiffeId, SpiffeIdError, TrustDomain, parse_trust_domain
from certs.store import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE

METHOD: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
"""The path of the call; the service has no package name."""

SECURITY_HEADER: Final = ("workload.spiffe.io", "true")
"""Must be in each call: a page in a browser that was led to the socket cannot send it (Workload Endpoint, 4.3)."""

REQUEST: Final = b""
"""An X509SVIDRequest has no field."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Identities of a workload and the bundles of all federated domains; four times what one bundle may have."""

MAX_SVIDS: Final = 256
MAX_BUNDLES: Final = 1024
_MAX_FIELDS: Final = 65_536
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class WorkloadApiError(ValueError):
    """An answer that cannot be taken; the message says why and what to look at, and holds nothing of a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Svid:
    """One identity: `chain` and `roots` are certificates as DER, one behind the other; `key` is PKCS#8 DER."""

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...] = field(repr=False)
    key: bytes = field(repr=False)
    roots: tuple[bytes, ...] = field(repr=False)
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509State:
    """Everything that the Workload API says at one moment; the first of `svids` is the default identity."""

    svids: tuple[X509Svid, ...]
    federated: tuple[tuple[TrustDomain, tuple[bytes, ...]], ...] = field(repr=False, default=())
    crls: tuple[bytes, ...] = field(repr=False, default=())

    def chosen(self, expected: SpiffeId | None = None) -> X509Svid:
        """Choose the identity to use: the one that is expected, else the default one, which is the first."""
        return next((svid for svid in self.svids if svid.spiffe_id == expected), self.svids[0])


def parse_state(message: bytes) -> X509State:
    """Reads an X509SVIDResponse, all of it or nothing. Raises WorkloadApiError.

    >>> parse_state(b"")
    Traceback (most recent call last):
    certs.workload_api.WorkloadApiError: the Workload API gave no identity; register this workload with its server
    """
    svids: list[X509Svid] = []
    crls: list[bytes] = []
    federated: dict[TrustDomain, tuple[bytes, ...]] = {}
    for number, value in _fields(message, "the answer"):
        if number == 1:
            svids.append(_svid(_bytes(value, "svids"), len(svids) + 1))
        elif number == 2:
            crls.append(_bytes(value, "crl"))
        elif number == 3:
            domain, roots = _federated(_bytes(value, "federated_bundles"))
            federated[domain] = roots  # of two entries with one key the last counts, as protobuf says
        if len(svids) > MAX_SVIDS or len(federated) > MAX_BUNDLES:
            raise WorkloadApiError(f"the answer has more than {MAX_SVIDS} identities or {MAX_BUNDLES} bundles")
    if not svids:
        raise WorkloadApiError("the Workload API gave no identity; register this workload with its server")
    return X509State(svids=tuple(svids), federated=tuple(sorted(federated.items())), crls=tuple(crls))


def state_files(state: X509State, expected: SpiffeId | None = None) -> dict[str, bytes]:
    """Writes one identity of a state as tls.crt, tls.key, ca.crt and bundles/, for `certs.store.judge_set`.

    `expected` chooses the identity, the first one serves where it is not among them. A federated bundle without
    roots is written as one without keys, which ends its domain.

    >>> from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    >>> from certs.testing import MemoryAuthority, set_files
    >>> memory = MemoryAuthority("cluster.local")
    >>> svid = memory.svid("demo", "orders")
    >>> told = X509Svid(
    ...     spiffe_id=svid.spiffe_id,
    ...     chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in svid.chain),
    ...     key=svid.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
    ...     roots=(memory.root.public_bytes(Encoding.DER),),
    ... )
    >>> state_files(X509State(svids=(told,))) == set_files(svid, {memory.trust_domain: memory.bundle})
    True
    """
    svid = state.chosen(expected)
    files = {
        CERTIFICATE_FILE: b"".join(_pem("CERTIFICATE", der) for der in svid.chain),
        KEY_FILE: _pem("PRIVATE KEY", svid.key),
        ROOTS_FILE: b"".join(_pem("CERTIFICATE", der) for der in svid.roots),
    }
    for domain, roots in state.federated:
        if domain == svid.spiffe_id.trust_domain:
            continue  # our own roots come with the identity
        if roots:
            files[f"{BUNDLE_DIRECTORY}/{domain}.pem"] = b"".join(_pem("CERTIFICATE", der) for der in roots)
        else:
            files[f"{BUNDLE_DIRECTORY}/{domain}.json"] = b'{"keys": []}\n'
    return files


def split_certificates(data: bytes, what: str) -> tuple[bytes, ...]:
    """Takes DER certificates that stand one behind the other apart; `what` names them in errors.

    Only the outermost length is looked at; what is inside is judged later. Raises WorkloadApiError.

    >>> split_certificates(bytes.fromhex("30020500 3001ff"), "bundle")
    (b'0\\x02\\x05\\x00', b'0\\x01\\xff')
    """
    certificates: list[bytes] = []
    begin = 0
    while begin < len(data):
        end = _der_end(data, begin)
        if data[begin] != 0x30 or end > len(data):
            raise WorkloadApiError(f"{what} holds no whole DER certificates; update the agent that answered")
        certificates.append(data[begin:end])
        begin = end
    return tuple(certificates)


def _der_end(data: bytes, begin: int) -> int:
    """The offset behind the element that begins at `begin`; beyond the data where it is not whole."""
    beyond = len(data) + 1
    if begin + 2 > len(data):
        return beyond
    length = data[begin + 1]
    if length < 0x80:
        return begin + 2 + length
    size = length & 0x7F
    if not 1 <= size <= 4 or begin + 2 + size > len(data):
        return beyond
    return begin + 2 + size + int.from_bytes(data[begin + 2 : begin + 2 + size], "big")


def _svid(message: bytes, number: int) -> X509Svid:
    what = f"identity {number}"
    values: dict[int, bytes] = {}
    for name, value in _fields(message, what):
        if name in (1, 2, 3, 4, 5):
            values[name] = _bytes(value, what)
    try:
        spiffe_id = SpiffeId.parse(values.get(1, b""))
    except SpiffeIdError as error:
        raise WorkloadApiError(f"{what}: {error}") from None
    what = str(spiffe_id)
    chain = split_certificates(values.get(2, b""), f"{what}: the chain")
    roots = split_certificates(values.get(4, b""), f"{what}: the bundle")
    if not chain or not values.get(3) or not roots:
        raise WorkloadApiError(f"{what}: chain, key or bundle is missing; see the log of the agent that answered")
    hint = values.get(5, b"").decode("utf-8", "replace")
    return X509Svid(spiffe_id=spiffe_id, chain=chain, key=values[3], roots=roots, hint=hint)


def _federated(message: bytes) -> tuple[TrustDomain, tuple[bytes, ...]]:
    key = value = b""
    for number, content in _fields(message, "a federated bundle"):
        if number == 1:
            key = _bytes(content, "a federated bundle")
        elif number == 2:
            value = _bytes(content, "a federated bundle")
    try:
        # The key is the domain's SPIFFE ID; agents before 2019 wrote the name alone.
        domain = SpiffeId.parse(key).trust_domain if key.startswith(b"spiffe://") else parse_trust_domain(key)
    except SpiffeIdError as error:
        raise WorkloadApiError(f"a federated bundle: {error}") from None
    return domain, split_certificates(value, f"the bundle of {domain}")


def _bytes(value: int | bytes, what: str) -> bytes:
    if isinstance(value, int):
        raise WorkloadApiError(f"{what}: a number stands where bytes belong; this is no Workload API of the standard")
    return value


def _fields(message: bytes, what: str) -> Iterator[tuple[int, int | bytes]]:
    """Gives the number and the value of every field: bytes for a length-delimited one, else a number."""
    at = 0
    for _ in range(_MAX_FIELDS):
        if at == len(message):
            return
        tag, at = _varint(message, at, what)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at, what)
            yield number, value
            continue
        if kind == _LENGTH:
            length, at = _varint(message, at, what)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise WorkloadApiError(f"{what}: a field of an unknown type; this is no protobuf message")
        if at + length > len(message):
            raise WorkloadApiError(f"{what}: a field is longer than the message that holds it")
        content = message[at : at + length]
        at += length
        yield number, content if kind == _LENGTH else int.from_bytes(content, "little")
    raise WorkloadApiError(f"{what}: it has more than {_MAX_FIELDS} fields")


def _varint(message: bytes, at: int, what: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise WorkloadApiError(f"{what}: a number in it does not end; this is no protobuf message")


def _pem(label: str, der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    name = label.encode("ascii")
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, b"\n".join(lines), name)
