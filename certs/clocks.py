"""Notices that the calendar was set: it went on, or back, by other than what a clock that never jumps says.

An authority writes moments of the calendar into certificates, and waits by them for what lasts longer than a process.
A clock that is set by an hour must not make such a wait an hour shorter, nor longer. So whoever waits looks at both
clocks each second or so, and moves what it waits for along with the calendar (`shifted`).

What is not moved are the ends of certificates: they stand written in them. For these `Pace.margin` is there. And what
was set while no process looked cannot be told from time that went by.

A machine that sleeps looks the same as a clock that is set ahead, and is treated so: nobody could ask it meanwhile.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Final

from certs.rotation_values import Confirmation, RotationState, Signer, Status

JUMP: Final = 60.0
"""Seconds between two looks beyond which the calendar was set. Below lies what a clock that is being adjusted may do,
and what certificates are back-dated by."""


class ClockWatch:
    """Looks at both clocks: `now` in seconds since the epoch, `ticks` in seconds of a clock that never jumps.

    >>> watch = ClockWatch(1_000.0, 5.0)
    >>> watch.look(1_001.0, 6.0), watch.look(4_602.0, 7.0), watch.look(4_603.0, 8.0)
    (0.0, 3600.0, 0.0)
    >>> watch.news()
    "this machine's clock went 3600 s ahead at once: it was set, or the machine slept; see that it is right now"
    >>> watch.news()
    ''
    """

    __slots__ = ("_ahead", "_told")

    def __init__(self, now: float, ticks: float) -> None:
        self._ahead = now - ticks
        self._told = 0.0

    def look(self, now: float, ticks: float) -> float:
        """Tells by how many seconds the calendar was set since the last look; 0.0 when it was not, or by little."""
        jump, self._ahead = now - ticks - self._ahead, now - ticks
        if abs(jump) < JUMP:
            return 0.0
        self._told += jump
        return jump

    def news(self) -> str:
        """Says what was noticed since this was last asked; "" when that is nothing."""
        jump, self._told = self._told, 0.0
        return jump_words(jump)


def jump_words(jump: float) -> str:
    """Names a jump of the calendar, in seconds; "" for one that is none.

    >>> jump_words(-3600.0)
    "this machine's clock went 3600 s back at once: it was set; see that it is right now"
    """
    if abs(jump) < JUMP:
        return ""
    how = "ahead at once: it was set, or the machine slept" if jump > 0 else "back at once: it was set"
    return f"this machine's clock went {abs(jump):.0f} s {how}; see that it is right now"


def shifted(state: RotationState, jump: float) -> RotationState:
    """Moves what a rotation waits for along with a calendar that was set by `jump` seconds.

    That is when the bundle was published, when a signer ceased to sign, and when sidecars were seen; the ends of
    certificates stay.

    >>> from certs.rotation import IntermediateMade, RootMade, begin
    >>> state = begin(RootMade(name="r", not_after=9e9), IntermediateMade(name="i", root="r", not_after=8e9), 1_000.0)
    >>> shifted(state, 3_600.0).published_at
    4600.0
    """
    return dataclasses.replace(
        state,
        published_at=state.published_at + jump,
        roots=tuple(_moved(signer, jump) for signer in state.roots),
        intermediates=tuple(_moved(signer, jump) for signer in state.intermediates),
        confirmations=MappingProxyType(
            {
                sidecar: Confirmation(sequence=report.sequence, seen_at=report.seen_at + jump)
                for sidecar, report in state.confirmations.items()
            }
        ),
    )


def _moved(signer: Signer, jump: float) -> Signer:
    if signer.status is not Status.RETIRING:
        return signer
    return dataclasses.replace(signer, retired_at=signer.retired_at + jump)
