"""What a rotation of keys is made of: the values that certs.rotation turns into one another.

A signer is a root or an intermediate; events are what happened, in the past tense, and actions what to do, in the
imperative. Moments are seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

MAX_SIDECARS: Final = 100_000
"""Sidecars that are remembered: 8 MB in each write of the confirmations. More need another authority."""

MAX_INSTANCES: Final = 10_000
"""Of them, of one identity: twice the nodes of the largest cluster. A workload says itself which instance it is, and
one that named others without end would have the places of all."""

RENEWAL_PART: Final = 6
"""An intermediate is replaced when a sixth of its lifetime is left. Less, and a new one that has to be signed by an
offline root comes too late; more, and keys are made for nothing."""

MAX_RENEWAL: Final = 30 * 86_400.0
"""But never earlier than 30 days before its end: long enough for a person to be found and an offline root fetched."""


class RotationError(ValueError):
    """A step that cannot be taken now; the message says why and what to do."""


class Status(enum.Enum):
    """Where a signer stands on its way from made to removed."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVED = "removed"


class Wanted(enum.Enum):
    """What the operator asked for and is not yet in use."""

    NOTHING = "nothing"
    INTERMEDIATE = "intermediate"
    ROOT = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A root or an intermediate. `name` is the SHA-256 of its certificate in hexadecimal.

    `root` names the root above an intermediate and is empty for a root. `issued_until` is the end of the last leaf
    under it, 0 when there was none. `published` is the sequence that brought a root into the bundle, 0 before.
    `not_before` is 0 when it is unknown; `retired_at` is when the next one was used in its place, 0 before.
    """

    name: str
    status: Status
    not_after: float
    root: str = ""
    issued_until: float = 0.0
    published: int = 0
    not_before: float = 0.0
    retired_at: float = 0.0

    @property
    def renewal_at(self) -> float:
        """Says from when on an intermediate is to be replaced; infinity when its begin is unknown.

        >>> Signer(name="i", status=Status.ACTIVE, not_before=1000.0, not_after=7000.0).renewal_at
        6000.0
        """
        if not self.not_before:
            return math.inf
        return self.not_after - min((self.not_after - self.not_before) / RENEWAL_PART, MAX_RENEWAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The sequence of the bundle that a sidecar said it holds, and when."""

    sequence: int
    seen_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slowly a root rotates.

    `hints`: refresh hints from publication to use; fewer than three, and a sidecar that missed two polls is cut off.
    `window`: seconds for which a silent sidecar is waited for; a day, because its own certificate has ended by then.
    `margin`: seconds from the end of the last leaf to the removal; an hour, so that a clock that jumps by an hour
    takes nobody's root away.
    """

    hints: int = 3
    window: float = 86_400.0
    margin: float = 3_600.0

    def __post_init__(self) -> None:
        if self.hints < 1 or self.window <= 0 or self.margin < 0:
            raise RotationError("a rotation waits for one hint or more, a window above 0 and a margin of 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationState:
    """Everything that a rotation must remember over a restart."""

    roots: tuple[Signer, ...]
    intermediates: tuple[Signer, ...]
    sequence: int
    published_at: float
    refresh_hint: int = 300
    root_offline: bool = False
    wanted: Wanted = Wanted.NOTHING
    left_behind: frozenset[str] = frozenset()
    confirmations: Mapping[str, Confirmation] = field(default_factory=lambda: MappingProxyType({}))
    pace: Pace = field(default_factory=Pace)

    @property
    def bundle(self) -> tuple[str, ...]:
        """Names the roots that sidecars must hold, in the order in which they were made."""
        return tuple(root.name for root in self.roots if root.published and root.status is not Status.REMOVED)

    @property
    def active(self) -> Signer:
        """The intermediate that signs."""
        return only_signer(self.intermediates, Status.ACTIVE)

    def with_ends(self, ends: Mapping[str, float]) -> RotationState:
        """Takes in until when leaves live, by the name of their signer, where that is later than what is known.

        >>> signer = Signer(name="i", status=Status.ACTIVE, not_after=9.0, issued_until=3.0)
        >>> state = RotationState(roots=(), intermediates=(signer,), sequence=1, published_at=0.0)
        >>> [state.with_ends({"i": end}).active.issued_until for end in (2.0, 4.0)]
        [3.0, 4.0]
        """
        intermediates = tuple(
            dataclasses.replace(signer, issued_until=max(signer.issued_until, ends.get(signer.name, 0.0)))
            for signer in self.intermediates
        )
        return self if intermediates == self.intermediates else dataclasses.replace(self, intermediates=intermediates)

    @property
    def signers(self) -> frozenset[str]:
        """Names all roots and intermediates, the removed ones too."""
        return frozenset(signer.name for signer in (*self.roots, *self.intermediates))

    @property
    def removed(self) -> frozenset[str]:
        """Names the signers whose keys must not exist any more."""
        return frozenset(s.name for s in (*self.roots, *self.intermediates) if s.status is Status.REMOVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotate:
    """The operator asks for a new intermediate, or for a new root with an intermediate under it."""

    what: Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Force:
    """The operator goes on without these sidecars; one that is not named is still waited for.

    A SPIFFE ID without an instance names all of its instances.
    """

    left_behind: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RootMade:
    """A root was generated or imported, and is stored (certs.signers makes the event of its certificate)."""

    name: str
    not_after: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntermediateMade:
    """An intermediate was generated or imported, and is stored. Without its begin it is not replaced by itself."""

    name: str
    root: str
    not_after: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedMany:
    """Sidecars, by SPIFFE ID and instance, said which bundle they hold; certs.confirmations gathers it."""

    reports: Mapping[str, Confirmation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """These identities are revoked: nobody waits for what they hold."""

    identities: frozenset[str]


Event = Rotate | Force | RootMade | IntermediateMade | ConfirmedMany | Revoked


def identity_of(sidecar: str) -> str:
    """Gives the identity of a sidecar, which is written before its instance.

    >>> identity_of("spiffe://cluster.local/ns/demo/sa/orders#orders-0")
    'spiffe://cluster.local/ns/demo/sa/orders'
    """
    return sidecar.partition("#")[0]


class Do(enum.Enum):
    """What the shell does once a state is on disk."""

    NOTHING = "nothing"
    MAKE_ROOT = "make a root"
    MAKE_INTERMEDIATE = "make an intermediate"
    AWAIT_IMPORT = "wait for an import"
    PUBLISH = "publish the bundle"
    USE = "sign with the new intermediate"
    DESTROY_KEY = "destroy the key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What to do, and to which signer; for MAKE_INTERMEDIATE `signer` is the root above it."""

    do: Do
    signer: str = ""


def maybe_signer(signers: Iterable[Signer], status: Status) -> Signer | None:
    """Finds the first signer of this status."""
    return next((signer for signer in signers if signer.status is status), None)


def only_signer(signers: Iterable[Signer], status: Status) -> Signer:
    """Finds the one signer of this status; raises RotationError unless there is exactly one."""
    found = [signer for signer in signers if signer.status is status]
    if len(found) != 1:
        raise RotationError(f"{len(found)} signers are {status.value}, and one must be; restore the state from a copy")
    return found[0]


def with_signer(signers: tuple[Signer, ...], changed: Signer) -> tuple[Signer, ...]:
    """Puts a signer in the place of the one of its name."""
    return tuple(changed if signer.name == changed.name else signer for signer in signers)
