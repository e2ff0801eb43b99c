"""Keeps what the authority has revoked: certificates by serial number, identities by name, keys by fingerprint.

The list is a value with a sequence number that grows by exactly one with each change, so that whoever holds two lists
knows which is newer, and whoever holds number 7 knows that nothing happened between 6 and 8 but 7.

    by serial     one certificate, a leaf or an intermediate (then everything below it); its key is not certified again
    by identity   two notions, told apart by `since`:
                    blocked (since is None)   nothing is issued to it, and every certificate of it is refused
                    lifted (since is a time)  it may have certificates again; those issued before `since` stay refused
    by key        every certificate with this key, whoever made it

Revoking an identity blocks it. Lifting the block does not forgive: what was stolen before stays stolen. When a
certificate was issued is its NotBefore plus the minute by which certs.profile back-dates it; an issuer that does not
back-date looks a minute late here, so wait a minute between its last certificate and the lifting.

An entry ends once every certificate that it refuses has ended, plus a margin for slow clocks. Blocks and keys have no
end: they are lifted by a person.

Everything here is pure: times are arguments, aware of their zone, and kept in whole seconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from certs.keys import PublicKey, public_key_bytes
from certs.profile import BACK_DATE
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.svid import SvidError, spiffe_id_of

MAX_ENTRIES: Final = 20_000
"""A CRL of a megabyte. Whoever revokes more has lost a signing key, and should rotate it instead."""

PRUNE_MARGIN: Final = datetime.timedelta(hours=1)
"""How long an entry outlives its certificates: a verifier whose clock is slow still takes them for valid."""

MAX_WHO_CHARACTERS: Final = 128
MAX_SERIAL_BITS: Final = 159
"""RFC 5280 section 4.1.2.2: twenty octets, of which the first bit is the sign."""

_SERIAL = re.compile(r"[1-9a-f][0-9a-f]{0,39}")
_HASH = re.compile(r"[0-9a-f]{64}")


class RevocationError(ValueError):
    """A revocation that cannot be entered, or a list that cannot be read; the message names cause and mend."""


class Kind(enum.Enum):
    """By what something is revoked; the value is the word in files, logs and on the command line."""

    SERIAL = "serial"
    IDENTITY = "identity"
    KEY = "key"


class Reason(enum.Enum):
    """Why: the reasons of RFC 5280 section 5.3.1 that end a certificate for good, by their names there."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry: what is revoked, when, why, by whom, and the end after which it may be dropped (None: never).

    `value` is a serial in lower hexadecimal, a SPIFFE ID with a path, or the SHA-256 of a SubjectPublicKeyInfo in
    hexadecimal. `since` is for identities alone, `key` (a fingerprint) for serials alone. Raises RevocationError.
    """

    kind: Kind
    value: str
    when: datetime.datetime
    reason: Reason
    who: str
    not_after: datetime.datetime | None = None
    since: datetime.datetime | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        _check_value(self.kind, self.value)
        if not self.who or len(self.who) > MAX_WHO_CHARACTERS or not self.who.isprintable():
            raise RevocationError(f"name who revokes, in 1 to {MAX_WHO_CHARACTERS} printable characters")
        if self.key is not None and (self.kind is not Kind.SERIAL or not _HASH.fullmatch(self.key)):
            raise RevocationError("only a serial remembers a key, as a SHA-256 in hexadecimal; leave it out")
        if self.since is not None and self.kind is not Kind.IDENTITY:
            raise RevocationError("only an identity is revoked before a time; leave `since` out")
        if self.kind is Kind.SERIAL and self.not_after is None:
            raise RevocationError("a serial is revoked until its certificate ends; give that end, or its issuer's")
        if self.kind is Kind.IDENTITY and (self.since is None) != (self.not_after is None):
            raise RevocationError("a block has no end, and a lifted one has; give `since` and `not_after`, or neither")
        for name in ("when", "not_after", "since"):
            moment: datetime.datetime | None = getattr(self, name)
            if moment is not None and (moment.tzinfo is None or moment.microsecond):
                raise RevocationError(f"`{name}` must be aware of its time zone, and in whole seconds")

    @property
    def is_block(self) -> bool:
        """Tells whether nothing at all is issued to this identity."""
        return self.kind is Kind.IDENTITY and self.since is None

    def __str__(self) -> str:
        lifted = f" for what was issued before {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since is not None else ""
        return f"{self.kind.value} {self.value} is revoked{lifted} ({self.reason.value})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedTable:
    """What a verifier looks up in each handshake: sets, and nothing that an operator wants to read.

    `identities` maps a name to the moment before which its certificates are refused; None refuses all of them.
    """

    serials: frozenset[int] = frozenset()
    identities: Mapping[SpiffeId, datetime.datetime | None] = field(default_factory=lambda: MappingProxyType({}))
    keys: frozenset[str] = frozenset()

    def find(self, chain: Sequence[x509.Certificate]) -> tuple[Kind, str] | None:
        """Finds what refuses a chain, leaf first: a serial or key of any certificate, or the leaf's identity.

        Costs a set look-up a certificate; a key is hashed only if keys are revoked, a name read only if names are.
        A certificate whose key or name cannot be read is for other rules to refuse, and is found by its serial only.
        """
        for certificate in chain:
            if certificate.serial_number in self.serials:
                return Kind.SERIAL, f"{certificate.serial_number:x}"
        if self.identities and chain:
            spiffe_id = _maybe_id(chain[0])
            if spiffe_id is not None and spiffe_id in self.identities:
                since = self.identities[spiffe_id]
                if since is None or issued_at(chain[0]) < since:
                    return Kind.IDENTITY, str(spiffe_id)
        if self.keys:
            for certificate in chain:
                fingerprint = _maybe_fingerprint(certificate)
                if fingerprint in self.keys:
                    return Kind.KEY, str(fingerprint)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The list. Every method that changes it returns another one, whose sequence is higher by one.

    >>> now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    >>> orders = "spiffe://cluster.local/ns/demo/sa/orders"
    >>> block = Revocation(kind=Kind.IDENTITY, value=orders, when=now, reason=Reason.KEY_COMPROMISE, who="alice")
    >>> revoked = Revocations().add(block)
    >>> revoked.sequence, [str(name) for name in revoked.blocked], revoked.add(block) is revoked
    (1, ['spiffe://cluster.local/ns/demo/sa/orders'], True)
    >>> lifted = revoked.lift(Kind.IDENTITY, orders, now, issuer_end=now + datetime.timedelta(days=365))
    >>> lifted.sequence, sorted(lifted.blocked)
    (2, [])
    """

    sequence: int = 0
    entries: Mapping[tuple[Kind, str], Revocation] = field(default_factory=lambda: MappingProxyType({}))
    table: RevokedTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", _table(self.entries.values()))

    @property
    def blocked(self) -> frozenset[SpiffeId]:
        """The identities to which nothing is issued."""
        return frozenset(name for name, since in self.table.identities.items() if since is None)

    @property
    def refused_keys(self) -> frozenset[str]:
        """The fingerprints of keys that are not certified again: revoked ones, and those of revoked certificates."""
        return self.table.keys | {entry.key for entry in self.entries.values() if entry.key is not None}

    def add(self, entry: Revocation) -> Revocations:
        """Enters a revocation; what is revoked as strictly already changes nothing, and returns this very list.

        Raises RevocationError when the list is full.
        """
        held = self.entries.get((entry.kind, entry.value))
        if held is not None and (entry.kind is not Kind.IDENTITY or _strictness(held) >= _strictness(entry)):
            return self
        if held is None and len(self.entries) >= MAX_ENTRIES:
            raise RevocationError(
                f"{MAX_ENTRIES} entries stand in the list already; rotate the intermediate instead, "
                "which ends all of its certificates"
            )
        return self._changed({**self.entries, (entry.kind, entry.value): entry})

    def lift(
        self, kind: Kind, value: str, now: datetime.datetime, *, issuer_end: datetime.datetime | None = None
    ) -> Revocations:
        """Takes a revocation back. An identity's block becomes a time: what was issued before now stays refused.

        `issuer_end` is needed for that: no certificate from before outlives its issuer. A serial or a key is simply
        taken out. Lifting what is lifted changes nothing. Raises RevocationError when nothing of the kind is revoked.
        """
        held = self.entries.get((kind, value))
        if held is None:
            raise RevocationError(f"{kind.value} {value[:256]!r} is not revoked; `status` lists what is")
        if held.kind is not Kind.IDENTITY:
            return self._changed({key: entry for key, entry in self.entries.items() if key != (kind, value)})
        if not held.is_block:
            return self
        if issuer_end is None:
            raise RevocationError("say when the intermediate ends: until then old certificates must stay refused")
        # Rounded up: a certificate of this very second shows its second alone, and may be from before.
        since = whole_seconds(now + datetime.timedelta(microseconds=999_999))
        end = max(whole_seconds(issuer_end), since)
        return self._changed({**self.entries, (kind, value): dataclasses.replace(held, since=since, not_after=end)})

    def pruned(self, now: datetime.datetime) -> Revocations:
        """Drops the entries whose certificates have all ended an hour ago or more; without any, returns this list."""
        kept = {
            key: entry
            for key, entry in self.entries.items()
            if entry.not_after is None or now < entry.not_after + PRUNE_MARGIN
        }
        return self if len(kept) == len(self.entries) else self._changed(kept)

    def refusal_for(self, chain: Sequence[x509.Certificate]) -> Revocation | None:
        """Finds the entry that refuses a chain, leaf first (the leaf alone, or with its intermediates).

        >>> from certs.testing import MemoryAuthority
        >>> Revocations().refusal_for(MemoryAuthority("cluster.local").svid("demo", "orders").chain) is None
        True
        """
        found = self.table.find(chain)
        return None if found is None else self.entries[found]

    def _changed(self, entries: dict[tuple[Kind, str], Revocation]) -> Revocations:
        return Revocations(sequence=self.sequence + 1, entries=MappingProxyType(entries))


def issued_at(certificate: x509.Certificate) -> datetime.datetime:
    """Computes when a certificate of this authority was issued: NotBefore, without the back-dating.

    >>> from certs.testing import MemoryAuthority
    >>> memory = MemoryAuthority("cluster.local")
    >>> issued_at(memory.svid("demo", "orders").leaf) == memory.now
    True
    """
    return certificate.not_valid_before_utc + BACK_DATE


def whole_seconds(moment: datetime.datetime) -> datetime.datetime:
    """Cuts a moment down to its second, in UTC: more is not kept in an entry or a CRL."""
    return moment.astimezone(datetime.UTC).replace(microsecond=0)


def sorted_entries(
    entries: Mapping[tuple[Kind, str], Revocation],
) -> list[tuple[tuple[Kind, str], Revocation]]:
    """Sorts entries by kind and value, so that the same list is always written as the same bytes."""
    return sorted(entries.items(), key=lambda item: (item[0][0].value, item[0][1]))


def _table(entries: Iterable[Revocation]) -> RevokedTable:
    serials, keys, identities = set[int](), set[str](), dict[SpiffeId, datetime.datetime | None]()
    for entry in entries:
        if entry.kind is Kind.SERIAL:
            serials.add(int(entry.value, 16))
        elif entry.kind is Kind.KEY:
            keys.add(entry.value)
        else:
            identities[SpiffeId.parse(entry.value)] = entry.since
    return RevokedTable(serials=frozenset(serials), identities=MappingProxyType(identities), keys=frozenset(keys))


def _check_value(kind: Kind, value: str) -> None:
    if kind is Kind.SERIAL and not (_SERIAL.fullmatch(value) and int(value, 16).bit_length() <= MAX_SERIAL_BITS):
        raise RevocationError(f"{value[:64]!r} is no serial number; write it in hexadecimal, lower case, as logs do")
    if kind is Kind.KEY and not _HASH.fullmatch(value):
        raise RevocationError("a key is named by the SHA-256 of its SubjectPublicKeyInfo: 64 hexadecimal digits")
    if kind is Kind.IDENTITY:
        try:
            spiffe_id = SpiffeId.parse(value)
        except SpiffeIdError as error:
            raise RevocationError(f"an identity is revoked by its SPIFFE ID: {error}") from None
        if not spiffe_id.path:
            raise RevocationError(f"{spiffe_id} names no workload; empty the bundle to cut off a whole trust domain")


def _maybe_id(certificate: x509.Certificate) -> SpiffeId | None:
    try:
        return spiffe_id_of(certificate)
    except SvidError:
        return None


def _maybe_fingerprint(certificate: x509.Certificate) -> str | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return hashlib.sha256(public_key_bytes(key)).hexdigest() if isinstance(key, PublicKey) else None


def _strictness(entry: Revocation) -> tuple[bool, float]:
    return entry.since is None, 0.0 if entry.since is None else entry.since.timestamp()
