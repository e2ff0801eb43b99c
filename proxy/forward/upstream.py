"""One connection to a next hop, and who uses it for a request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from proxy.errors import Reason, RemoraError, TrustEnded, reason_of
from proxy.interfaces import Wire
from proxy.protocol.http1 import ClientCodec
from proxy.types import Generation, PeerIdentity, Permit

if TYPE_CHECKING:
    from proxy.forward.pool import Pool


class Stream(Protocol):
    """Who uses an upstream connection for one request."""

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        """Take the connection that was waited for."""

    def upstream_failed(self, failure: RemoraError) -> None:
        """Learn that none will come."""

    def upstream_data(self, data: bytes) -> None:
        """Take bytes of the answer; b"" is the clean end of the next hop's side."""

    def upstream_lost(self, reason: OSError) -> None:
        """Learn that the connection broke."""

    def upstream_writable(self) -> None:
        """Learn that a congested connection has room again."""


class NextHop(Protocol):
    """Where a stream gets its connections: one pool, or several behind a balancer."""

    def take(self, stream: Stream, *, fresh: bool = False) -> UpstreamConnection | None:
        """Give a connection now, or None: `stream` will hear of one, or of a failure, later."""

    def cancel(self, stream: Stream) -> None:
        """Forget a stream that waits."""


class UpstreamConnection:
    """One HTTP/1 connection to the next hop. `permit` is set on mesh connections: what the verified server allows.

    `expires_at`, in the clock's time, is when the server's certificate ends.
    """

    __slots__ = (
        "address",
        "codec",
        "created_at",
        "deadline",
        "expires_at",
        "generation",
        "local",
        "permit",
        "pool",
        "slot",
        "stream",
        "uses",
        "wire",
    )

    def __init__(
        self,
        wire: Wire,
        codec: ClientCodec,
        *,
        address: str,
        local: str,
        generation: Generation,
        permit: Permit | None,
        created_at: float,
        expires_at: float,
    ) -> None:
        self.wire = wire
        self.codec = codec
        self.address = address
        self.local = local
        self.generation = generation
        self.permit = permit
        self.created_at = created_at
        self.expires_at = expires_at
        self.stream: Stream | None = None
        self.pool: Pool | None = None
        self.uses = 0
        self.deadline = self.slot = math.inf

    @property
    def peer(self) -> PeerIdentity | None:
        """Who was verified at the other end, None on a plaintext connection."""
        return self.permit.peer if self.permit is not None else None

    def data_received(self, data: bytes) -> None:
        if self.stream is not None:
            self.stream.upstream_data(data)
        else:
            self.drop()

    def end_received(self) -> None:
        if self.stream is not None:
            self._gone_unanswered(refused=False)
            self.stream.upstream_data(b"")
        else:
            self.drop()

    def wire_lost(self, reason: OSError) -> None:
        if self.stream is not None:
            self._gone_unanswered(refused=reason_of(reason, Reason.OK) is Reason.PEER_REJECTED_US)
            self.stream.upstream_lost(reason)
        else:
            self.drop()

    def _gone_unanswered(self, *, refused: bool) -> None:
        """Tell of a fresh connection that carried no answer; one that was used before may just have been stale."""
        if self.uses == 1 and not self.wire.bytes_read and self.pool is not None:
            self.pool.unanswered(refused=refused)

    def write_ready(self) -> None:
        if self.stream is not None:
            self.stream.upstream_writable()

    def deadline_passed(self) -> None:
        """Close a connection that idled as long as it may; a busy one has a deadline when trust in its server ended."""
        stream = self.stream
        if stream is not None:
            self.wire.abort()
            stream.upstream_lost(TrustEnded())
        self.drop()

    def drop(self) -> None:
        """Leave the pool and close."""
        if self.pool is not None:
            self.pool.discard(self)
