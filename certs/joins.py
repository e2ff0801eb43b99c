"""Keeps join tokens: how a laptop or a lab, which has no Kubernetes to vouch for it, gets its first certificate.

An operator makes a token for one identity and hands it over by some private way; whoever brings it to the authority
first gets that identity, once. Three facts keep this harmless:

1. Who reads the book cannot join. It holds the SHA-256 of each token and never the token. A fast hash without salt is
   enough because a token is 256 random bits and no word that can be guessed.
2. A lookup leaks nothing by its time. What is looked up is the hash, which an attacker cannot steer byte by byte
   towards a hash that stands in the book.
3. A used token stays in the book, as used, until it would have expired. So a replay is told apart from a token that
   never was: it means that two parties held the same token, and one of them was not meant to.

A `JoinBook` is a value: redeeming returns another book, and the certificate may only be signed once that one is
stored. Two replicas that redeem at once are told apart by the store, which takes one of the two books.

Times are seconds since the epoch. Everything here is pure, but for `new_token`, which draws random bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from certs.refusals import Refusal, Refused
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.strict_json import parse_json

TOKEN_PREFIX: Final = "remora-join-"  # noqa: S105 (a mark, no secret)
"""Begins every join token, so that a person, a secret scanner and the authority recognise one."""

DEFAULT_LIFETIME: Final = 600.0
"""Ten minutes: long enough to paste a command on another machine, too short to be found in a chat log later."""

MAX_LIFETIME: Final = 24 * 3600.0
MIN_LIFETIME: Final = 1.0

MAX_TOKENS: Final = 1000
"""The book is one object in the store, and a Kubernetes Secret holds 1 MiB. A cluster joins by its ServiceAccounts;
a thousand laptops in one day would need another way."""

MAX_MAKER_CHARACTERS: Final = 128

_VERSION: Final = 1
_TOKEN = re.compile(re.escape(TOKEN_PREFIX) + r"[A-Za-z0-9_-]{43}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MEMBERS: Final = {"spiffe_id", "made_by", "made_at", "expires_at", "used_at"}
_RESTORE: Final = "restore it from a backup, or remove it and make the tokens anew"


class JoinBookError(ValueError):
    """A token that cannot be made or a book that cannot be read; the message names the cause and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinEntry:
    """What is known of one token: whom it makes, who made it and when, its end, when it was used (None: not yet)."""

    spiffe_id: SpiffeId
    made_by: str
    made_at: float
    expires_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinBook:
    """All join tokens that have not expired, by the SHA-256 of the token in hexadecimal.

    >>> laptop, token = SpiffeId.parse("spiffe://cluster.local/ns/lab/sa/laptop"), new_token()
    >>> book = JoinBook().create(token, laptop, made_by="alice", now=1000.0)
    >>> book, spiffe_id = book.redeem(token, now=1010.0)
    >>> str(spiffe_id)
    'spiffe://cluster.local/ns/lab/sa/laptop'
    >>> book.redeem(token, now=1020.0)
    Traceback (most recent call last):
    certs.refusals.Refused: the join token was used already; have a new one made, and ask who used this one
    """

    entries: Mapping[str, JoinEntry] = field(default_factory=lambda: MappingProxyType({}))

    def create(
        self, token: str, spiffe_id: SpiffeId, *, made_by: str, now: float, lifetime: float = DEFAULT_LIFETIME
    ) -> JoinBook:
        """Enters a token that `new_token` made, for one identity and `lifetime` seconds; returns the new book.

        Expired tokens are left out of it. Raises JoinBookError for a token of another form or that stands in the book
        already, an identity without a path, a lifetime outside 1 s to 24 h, a maker without a name, a full book.
        """
        if not is_join_token(token):
            raise JoinBookError(f"a join token is {TOKEN_PREFIX} and 43 characters of base64url; use `new_token`")
        if not spiffe_id.path:
            raise JoinBookError(f"{spiffe_id} names no workload; give it a path such as /ns/lab/sa/laptop")
        if not MIN_LIFETIME <= lifetime <= MAX_LIFETIME:
            raise JoinBookError(
                f"a join token lives between {MIN_LIFETIME:.0f} and {MAX_LIFETIME:.0f} seconds, not {lifetime:g}; "
                f"leave it at {DEFAULT_LIFETIME:.0f} unless it has to travel"
            )
        if not made_by or len(made_by) > MAX_MAKER_CHARACTERS:
            raise JoinBookError(f"name who makes the join token, in 1 to {MAX_MAKER_CHARACTERS} characters")
        kept = self.pruned(now)
        name = token_hash(token)
        if name in self.entries:
            raise JoinBookError("this join token stands in the book already; make another with `new_token`")
        if len(kept.entries) >= MAX_TOKENS:
            raise JoinBookError(f"there are {MAX_TOKENS} join tokens already; wait until some have expired")
        entry = JoinEntry(spiffe_id=spiffe_id, made_by=made_by, made_at=now, expires_at=now + lifetime)
        return JoinBook(entries=MappingProxyType({**kept.entries, name: entry}))

    def redeem(self, token: str, now: float) -> tuple[JoinBook, SpiffeId]:
        """Uses a token up; returns the book that says so, to be stored before anything is signed, and the identity.

        Raises Refused with JOIN_TOKEN_UNKNOWN, JOIN_TOKEN_USED or JOIN_TOKEN_EXPIRED. A token that was used and has
        expired since is called used, as long as the book remembers it: that is the graver news.
        """
        name = token_hash(token)
        entry = self.entries.get(name)
        if entry is None:
            raise Refused(
                Refusal.JOIN_TOKEN_UNKNOWN,
                "the join token is not known here; copy it whole, or have a new one made (an expired one is forgotten)",
            )
        if entry.used_at is not None:
            raise Refused(
                Refusal.JOIN_TOKEN_USED,
                "the join token was used already; have a new one made, and ask who used this one",
            )
        if now >= entry.expires_at:
            raise Refused(
                Refusal.JOIN_TOKEN_EXPIRED,
                f"the join token expired {now - entry.expires_at:.0f} seconds ago; have a new one made",
            )
        used = dataclasses.replace(entry, used_at=now)
        return JoinBook(entries=MappingProxyType({**self.entries, name: used})), entry.spiffe_id

    def pruned(self, now: float) -> JoinBook:
        """Forgets the tokens that have expired, used or not: from then on they are unknown, and refused as such."""
        kept = {name: entry for name, entry in self.entries.items() if now < entry.expires_at}
        return JoinBook(entries=MappingProxyType(kept))

    def to_json(self) -> bytes:
        """Writes the book for the store. It holds no token, but who may join: a file for the authority alone."""
        tokens = {name: _entry_members(entry) for name, entry in self.entries.items()}
        document = {"version": _VERSION, "tokens": tokens}
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode("ascii")

    @classmethod
    def from_json(cls, data: bytes, source: str) -> JoinBook:
        """Reads what `to_json` wrote; `source` names the file in messages. Raises JoinBookError for anything else.

        >>> JoinBook.from_json(JoinBook().to_json(), "joins.json") == JoinBook()
        True
        """
        try:
            document = parse_json(data)  # the later of two equal names could unmake the use of a token
        except ValueError as error:
            raise JoinBookError(f"{source}: it is no JSON ({error}); {_RESTORE}") from None
        members = _object(document, {"version", "tokens"}, source)
        if type(members["version"]) is not int or members["version"] != _VERSION:
            raise JoinBookError(
                f'{source}: "version" is not {_VERSION}; it was written by another release, run that one or {_RESTORE}'
            )
        tokens = members["tokens"]
        if not isinstance(tokens, dict):
            raise JoinBookError(f'{source}: "tokens" is no object; {_RESTORE}')
        entries: dict[str, JoinEntry] = {}
        for number, (name, entry) in enumerate(tokens.items(), start=1):
            if not _HASH.fullmatch(name):
                # Not quoted: somebody may have written the token itself there.
                raise JoinBookError(f"{source}: token {number} is not named by a SHA-256; {_RESTORE}")
            entries[name] = _read_entry(entry, f"{source}: token {name[:12]}")
        return cls(entries=MappingProxyType(entries))


def new_token() -> str:
    """Draws a new join token: 256 bits from the operating system. The one place where a token comes into being.

    >>> is_join_token(new_token())
    True
    """
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def is_join_token(text: str) -> bool:
    """Tells whether a text has the form of a join token; a ServiceAccount's token never has.

    >>> is_join_token("eyJhbGciOiJSUzI1NiJ9.e30.c2ln")
    False
    """
    return _TOKEN.fullmatch(text) is not None


def token_hash(token: str) -> str:
    """Computes the name of a token in the book: SHA-256 of its text, in hexadecimal. Takes any text."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _entry_members(entry: JoinEntry) -> dict[str, object]:
    return {
        "spiffe_id": str(entry.spiffe_id),
        "made_by": entry.made_by,
        "made_at": entry.made_at,
        "expires_at": entry.expires_at,
        "used_at": entry.used_at,
    }


def _read_entry(value: object, source: str) -> JoinEntry:
    members = _object(value, _MEMBERS, source)
    made_by = members["made_by"]
    if not isinstance(made_by, str) or not 0 < len(made_by) <= MAX_MAKER_CHARACTERS:
        raise JoinBookError(f'{source}: "made_by" is no name of a person; {_RESTORE}')
    try:
        spiffe_id = SpiffeId.parse(members["spiffe_id"] if isinstance(members["spiffe_id"], str) else "")
    except SpiffeIdError as error:
        raise JoinBookError(f'{source}: "spiffe_id": {error}; {_RESTORE}') from None
    if not spiffe_id.path:
        raise JoinBookError(f'{source}: "spiffe_id": {spiffe_id} names no workload; {_RESTORE}')
    used_at = members["used_at"]
    made_at, expires_at = (_seconds(members[name], name, source) for name in ("made_at", "expires_at"))
    if not made_at < expires_at <= made_at + MAX_LIFETIME:
        raise JoinBookError(
            f'{source}: "expires_at" does not lie within {MAX_LIFETIME:.0f} s after "made_at"; {_RESTORE}'
        )
    return JoinEntry(
        spiffe_id=spiffe_id,
        made_by=made_by,
        made_at=made_at,
        expires_at=expires_at,
        used_at=None if used_at is None else _seconds(used_at, "used_at", source),
    )


def _object(value: object, wanted: set[str], source: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise JoinBookError(f"{source}: it is no object; {_RESTORE}")
    for name in sorted(wanted - value.keys()):
        raise JoinBookError(f'{source}: "{name}" is missing; {_RESTORE}')
    for name in sorted(value.keys() - wanted):
        raise JoinBookError(f"{source}: the member {name[:60]!r} is not known; {_RESTORE}")
    return value


def _seconds(value: object, name: str, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JoinBookError(f'{source}: "{name}" is no number of seconds; {_RESTORE}')
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0:
        raise JoinBookError(f'{source}: "{name}" is no number of seconds since the epoch; {_RESTORE}')
    return seconds
