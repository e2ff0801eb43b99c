"""What an authority remembers, wherever it is kept: in a directory (certs.state) or in Kubernetes (certs.state_kube).

Two kinds of writing. A *decision* (`save`) is one replica's alone: who is not the leader, or has not read the last
state, is refused with StateConflict. A *document* (join tokens, revocations) is compared and swapped: who has not read
the last one gets False, reads again and decides anew (certs.documents).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509

from certs.keys import PrivateKey
from certs.rotation import RotationState

JOINS: Final = "joins.json"
REVOCATIONS: Final = "revocations.json"


class StateError(ValueError):
    """A state that cannot be read or written; the message names the file or object and the mend."""


class StateConflict(StateError):
    """Another replica writes, or wrote meanwhile. Nothing was changed: load again, then decide."""


class StateInDoubt(StateError):
    """The write was done and could not be made certain: the old or the new may stand after a crash. Load again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedEntry:
    """A line of the index. `serial` in hexadecimal, `key` the fingerprint, `not_after` in seconds since the epoch."""

    serial: str
    identity: str
    key: str
    not_after: float
    issuer: str


class StateStore(Protocol):
    """Where an authority remembers; each call is durable when it returns, or raises StateError and changed nothing.

    StateInDoubt is the exception to the latter. Calls block: make them from a thread. Several threads may.
    """

    def has_state(self) -> bool:
        """Tells whether an authority was begun here, even if it cannot be read."""

    def load(self) -> RotationState:
        """Reads and judges the whole state, its certificates, and every key that will still be used."""

    def save(self, state: RotationState) -> None:
        """Puts a state in the place of the one that was loaded or saved last."""

    def add_signer(self, certificate: x509.Certificate, key: PrivateKey | None) -> str:
        """Stores a signer and returns its name; the state is to name it next."""

    def certificate(self, name: str) -> x509.Certificate:
        """Reads the certificate of a signer."""

    def key(self, name: str) -> PrivateKey:
        """Reads and unseals the key of a signer, and checks that it fits its certificate."""

    def destroy_key(self, name: str) -> None:
        """Removes the key of a signer that the state says is removed; one that is gone already is no fault."""

    def document(self, name: str) -> bytes | None:
        """Reads JOINS or REVOCATIONS; None when it was never written."""

    def replace_document(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Writes JOINS or REVOCATIONS unless somebody else has since `before` was read; says whether it did."""

    def record(self, entry: IssuedEntry) -> None:
        """Notes a certificate; only then may it be given out. A serial is taken once."""

    @property
    def issued(self) -> tuple[IssuedEntry, ...]:
        """The certificates that are remembered one by one, oldest first."""

    def ends(self) -> Mapping[str, float]:
        """Says for each signer when the last leaf ends that was recorded here, in seconds since the epoch."""

    def forget(self, moment: float) -> None:
        """Forgets what had ended at `moment` (seconds since the epoch) and will be asked for no more.

        Give a moment that lies `Pace.margin` in the past: until then the state may learn from it when a signer goes.
        One replica's alone, as `save` is.
        """

    def close(self) -> None:
        """Lets the store go; may be called again."""


def document_name(name: str) -> str:
    """Lets pass JOINS and REVOCATIONS; raises StateError for another name, which would become a part of a path."""
    if name not in (JOINS, REVOCATIONS):
        raise StateError(f"{name[:60]!r} is no document of an authority; use {JOINS} or {REVOCATIONS}")
    return name
