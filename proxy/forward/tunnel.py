"""An opaque tunnel: bytes both ways between two wires, half-close carried end to end, a reset carried on as a reset.

downstream wire --bytes--> upstream wire          congested target: the source is paused until write_ready
downstream wire <--bytes-- upstream wire          a clean end ends our side of the other wire (FIN, close_notify)
                                                  a break resets the other wire: nothing is ever made to look whole

A tunnel that is no longer allowed carries no byte more. It is reset or, where the configuration wants that, closed:

    both our sides end (FIN, close_notify) --> what still comes is dropped --both peers ended, or time is up--> closed
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from proxy.errors import Reason, reason_of
from proxy.interfaces import Clock, Wire
from proxy.types import Permit


def resets() -> float:
    """Give a tunnel that is no longer allowed no time to close: it is reset."""
    return 0.0


class Tunnel:
    """Two wires joined under a Permit. `on_end` is called once, with the Reason, after both are closed."""

    __slots__ = (
        "_clock",
        "_close_revoked",
        "_downstream",
        "_ends_for",
        "_idle",
        "_on_end",
        "_revoked_for",
        "_upstream",
        "deadline",
        "ends_at",
        "moved_at",
        "permit",
        "slot",
    )

    def __init__(
        self,
        permit: Permit,
        downstream: Wire,
        upstream: Wire,
        *,
        clock: Clock,
        idle: float,
        ends_at: float,
        ends_for: Reason = Reason.PEER_CERTIFICATE_ENDED,
        close_revoked: Callable[[], float] = resets,
        on_end: Callable[[Reason], None],
    ) -> None:
        """`idle` is in seconds; `ends_at`, in the clock's time, is when what it stands on ends, for `ends_for`.

        `close_revoked` says how many seconds a tunnel has to close that is no longer allowed; 0: it is reset.
        """
        self.permit: Final = permit
        self._clock = clock
        self._ends_for = ends_for
        self._idle = idle
        self._close_revoked = close_revoked
        self._revoked_for: Reason | None = None
        self._on_end: Callable[[Reason], None] | None = on_end
        self.deadline = self.slot = math.inf
        self.ends_at = ends_at
        self.moved_at = clock.now
        self._downstream = _Direction(self, downstream, upstream, from_downstream=True)
        self._upstream = _Direction(self, upstream, downstream, from_downstream=False)

    def start(self, *, from_downstream: bytes = b"", from_upstream: bytes = b"") -> None:
        """Join the wires; bytes that were read before the tunnel stood go first."""
        down, up = self._downstream, self._upstream
        down.source.receiver, up.source.receiver = down, up
        self.moved_at = self._clock.now
        self._wait(self._idle)
        if from_downstream:
            up.source.write(from_downstream)
        if from_upstream:
            down.source.write(from_upstream)
        for direction in (up, down):
            direction.source.start()
            if direction.source.read_ended:
                direction.end_received()
            elif direction.target.congested:
                direction.source.pause()
        for direction in (up, down):
            direction.source.read_now()

    def _wait(self, seconds: float) -> None:
        """Be called when the tunnel may have been idle too long, never past the end of what it stands on."""
        self._clock.arm(self, min(seconds, max(self.ends_at - self._clock.now, 0.0)))

    def deadline_passed(self) -> None:
        """End a tunnel that was idle too long, or whose time is over, or that had its time to close.

        Bytes that move leave their time and nothing else; whether they put the idle deadline off is seen here.
        """
        now = self._clock.now
        if self._revoked_for is not None:
            self._close_now(self._revoked_for)
        elif now >= self.ends_at:
            self.revoke(self._ends_for)
        elif (rest := self.moved_at + self._idle - now) > 0:
            self._wait(rest)
        else:
            self.break_off(Reason.IDLE_TIMEOUT)

    def drain(self) -> None:
        """Go on: opaque bytes have no point at which they could be ended whole. The drain deadline breaks it off."""

    def judge_again(self) -> None:
        """Nothing inside an opaque connection can be judged but the connection itself."""

    def break_off(self, reason: Reason) -> None:
        """Reset both sides."""
        self._downstream.source.abort()
        self._upstream.source.abort()
        self._finish(reason)

    def revoke(self, reason: Reason) -> None:
        """End what is no longer allowed: carry nothing more, and reset or close as configured."""
        seconds = self._close_revoked()
        if not seconds:
            self.break_off(reason)
        elif self._revoked_for is None and self._on_end is not None:
            self._revoked_for = reason
            self._clock.arm(self, seconds)
            for direction in (self._downstream, self._upstream):
                direction.source.receiver = _Leaving(self)
                direction.source.close_write()
                direction.source.start()  # to read on: a close with unread bytes would be a reset
            self.leave()

    def leave(self) -> None:
        """Close a revoked tunnel as soon as both peers have ended and have been sent everything."""
        wires = (self._downstream.source, self._upstream.source)
        if self._revoked_for is not None and all(wire.read_ended and wire.flushed for wire in wires):
            self._close_now(self._revoked_for)

    def _close_now(self, reason: Reason) -> None:
        for wire in (self._downstream.source, self._upstream.source):
            if wire.flushed:
                wire.close()
            else:
                wire.abort()  # it has not taken all that was meant for it, and a close would look whole
        self._finish(reason)

    def ended(self) -> None:
        """Close both wires when both directions have ended and everything has gone out."""
        down, up = self._downstream, self._upstream
        if down.ended and up.ended and down.source.flushed and up.source.flushed:
            down.source.close()
            up.source.close()
            self._finish(Reason.OK)

    def _finish(self, reason: Reason) -> None:
        self._clock.disarm(self)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(reason)


class _Direction:
    """One direction: receives from `source`, writes to `target`."""

    __slots__ = ("_from_downstream", "_tunnel", "ended", "source", "target")

    def __init__(self, tunnel: Tunnel, source: Wire, target: Wire, *, from_downstream: bool) -> None:
        self._tunnel = tunnel
        self.source = source
        self.target = target
        self._from_downstream = from_downstream
        self.ended = False

    def data_received(self, data: bytes) -> None:
        target = self.target
        target.write(data)
        if target.congested:
            self.source.pause()
        tunnel = self._tunnel
        tunnel.moved_at = tunnel._clock.now

    def end_received(self) -> None:
        self.ended = True
        self.target.close_write()
        self._tunnel.ended()

    def wire_lost(self, reason: OSError) -> None:
        self.target.abort()
        otherwise = Reason.DOWNSTREAM_RESET if self._from_downstream else Reason.UPSTREAM_RESET
        self._tunnel._finish(reason_of(reason, otherwise))

    def write_ready(self) -> None:
        """The source has room again: let the other direction, which writes to it, go on."""
        tunnel = self._tunnel
        other = tunnel._upstream if self._from_downstream else tunnel._downstream
        if other.ended:
            tunnel.ended()
        else:
            other.source.resume()


class _Leaving:
    """Receives for a wire of a revoked tunnel: what comes is dropped, what is held goes out."""

    __slots__ = ("_tunnel",)

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def data_received(self, data: bytes) -> None:
        """Drop bytes."""

    def end_received(self) -> None:
        self._tunnel.leave()

    def wire_lost(self, reason: OSError) -> None:
        """Close the other side at once: there is nobody left to be polite to."""
        self._tunnel.deadline_passed()

    def write_ready(self) -> None:
        self._tunnel.leave()
