"""One downstream HTTP connection and how it ends: it is drained, revoked, broken off, or it lingers and is closed.

Lingering: our side ends once all is written, what still comes is dropped, and `closed` follows within `times.linger` of
that end. A client that does not take the last answer is reset: a close would make it look whole.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

from proxy.errors import Reason
from proxy.forward.exchange import Exchange
from proxy.forward.route import HttpTimes, Route
from proxy.forward.tunnel import Tunnel, resets
from proxy.interfaces import Clock, Wire
from proxy.protocol.http1 import ServerCodec


class ServedConnection(abc.ABC):
    """What a downstream HTTP/1 connection holds, and its end."""

    __slots__ = (
        "_clock",
        "_close_revoked",
        "_closing",
        "_codec",
        "_discarded",
        "_end_reason",
        "_exchange",
        "_expired",
        "_head_begun",
        "_lingering",
        "_on_end",
        "_out",
        "_peer_ended",
        "_pumping",
        "_route",
        "_times",
        "_tunnel",
        "_wire",
        "deadline",
        "ends_at",
        "requests",
        "slot",
    )

    def __init__(
        self,
        wire: Wire,
        codec: ServerCodec,
        route: Route,
        *,
        clock: Clock,
        times: HttpTimes,
        ends_at: float,
        close_revoked: Callable[[], float] = resets,
        on_end: Callable[[Reason], None],
    ) -> None:
        """`ends_at`, in the clock's time, is when the downstream peer's certificate ends.

        `close_revoked` says how many seconds a tunnel has to close that is no longer allowed; 0: what is not is reset.
        """
        self._wire = wire
        self._codec = codec
        self._route = route
        self._clock = clock
        self._times = times
        self._close_revoked = close_revoked
        self._on_end: Callable[[Reason], None] | None = on_end
        self.deadline = self.slot = math.inf
        self.ends_at = ends_at
        self.requests = 0
        self._exchange: Exchange | None = None
        self._tunnel: Tunnel | None = None
        self._out: list[bytes] = []
        self._discarded = 0
        self._head_begun = False
        self._closing = False
        self._expired = False
        self._lingering = False
        self._peer_ended = False
        self._pumping = False
        self._end_reason = Reason.OK

    @abc.abstractmethod
    def deadline_passed(self) -> None:
        """Something took too long."""

    def drain(self) -> None:
        """Finish what runs, then close; a connection that owes no answer closes now."""
        self._closing = True
        if self._lingering or self._wire.closed:
            return
        if self._exchange is None or self._exchange.answered:
            self._linger(Reason.DRAINED)

    def break_off(self, reason: Reason) -> None:
        """Reset everything, now."""
        if self._tunnel is not None:
            self._tunnel.break_off(reason)
        else:
            self._abort(reason)

    def revoke(self, reason: Reason) -> None:
        """End a connection that is itself not allowed any more; half an answer is reset: it must not look whole."""
        exchange = self._exchange
        if self._tunnel is not None:
            self._tunnel.revoke(reason)
        elif not self._close_revoked() or (
            exchange is not None and exchange.response is not None and not exchange.answered
        ):
            self._abort(reason)
        elif not self._lingering:
            self._linger(reason)

    # --- the end ---

    def _arm(self, seconds: float) -> None:
        left = self.ends_at - self._clock.now
        if left < seconds:
            seconds = max(left, 0.0)
        self._clock.arm(self, seconds)

    def _linger(self, reason: Reason) -> None:
        """End our side and read on for a moment: a close with unread bytes would reset, and eat, the last answer."""
        self._drop_exchange(reason)
        self._lingering = True
        self._discarded = 0
        self._end_reason = reason
        self._wire.close_write()
        self._wire.resume()
        self._clock.arm(self, self._times.linger if self._wire.flushed else self._times.stream_idle)
        self._close_flushed()

    def _close_flushed(self) -> None:
        """Close a lingering connection whose peer has ended and has been sent everything."""
        if self._peer_ended and self._wire.flushed:
            self._close(self._end_reason)

    def _drop_exchange(self, reason: Reason) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.let_go()
            exchange.record.finish(reason)

    def _abort(self, reason: Reason) -> None:
        self._drop_exchange(reason)
        self._wire.abort()
        self._ended(reason)

    def _close(self, reason: Reason) -> None:
        self._wire.close()
        self._ended(reason)

    def _ended(self, reason: Reason) -> None:
        self._clock.disarm(self)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(reason)
