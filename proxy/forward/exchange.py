"""One request on its way up and its answer on its way down: what HTTP/2 calls a stream, whatever carries it.

    Exchange(permit) --begin--> pool.take -> request head and body out --> answer head, body, end --> downstream

Facts true between events:

1. Nothing of the request reaches the next hop before there is a Permit for it: from policy for what comes in, from the
   verified server's identity (it stands on the upstream connection) for what goes out.
2. `record` is finished exactly once, whatever ends the exchange: answer, denial, fault, deadline, break, drain.
3. `upstream` is set from the moment that a connection is ours until the answer is complete or given up. It goes back
   to the pool only when request and answer are complete and nothing is left over.
4. An answer that broke off is never made to look whole (`broken_off` resets the client's side).
5. The request is sent a second time only when the first attempt went out on a pooled connection, no byte of an answer
   came, all that was sent is still held, and either the method is idempotent or nothing was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from proxy.errors import ProtocolError, Reason, RemoraError, reason_of
from proxy.forward.upstream import NextHop, UpstreamConnection
from proxy.interfaces import RequestRecord
from proxy.protocol.remembered import Answer
from proxy.protocol.stream import Data, End, Field, RequestHead, ResponseHead, Trailers
from proxy.types import Permit

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""RFC 9110 section 9.2.2: may be sent again when the connection broke before any byte of an answer."""
BACKLOG_LIMIT: Final = 65_536
"""Bytes of a body that waits for its upstream, or of pipelined requests, at which the client is paused."""


class Downstream(Protocol):
    """The client's side, as one exchange sees it."""

    def answer_head(self, response: ResponseHead) -> None:
        """Take the head of an answer, interim or final."""

    def answer_data(self, data: bytes) -> None:
        """Take body bytes of the answer."""

    def answer_whole(self, answer: Answer, data: bytes) -> None:
        """Take a whole answer, whose body ends `data`; it goes out at once."""

    def answer_end(self, trailers: Sequence[Field]) -> None:
        """Learn that the answer is complete; everything taken so far goes out."""

    def answer_flush(self) -> bool:
        """Send what was taken; True when the client is congested and the next hop must wait."""

    def answer_instead(self, failure: RemoraError) -> None:
        """Answer in the next hop's place: no byte of an answer has gone out."""

    def broken_off(self, reason: Reason) -> None:
        """Reset the client: an answer has begun and cannot be completed."""

    def switch(self, upstream: UpstreamConnection, response: ResponseHead, permit: Permit) -> None:
        """Join both sides in a tunnel: 101 came."""

    def hold_request(self) -> None:
        """Stop reading the request: the next hop takes no more for now."""

    def resume_request(self) -> None:
        """Go on reading the request."""


class Exchange:
    """One request and its answer, from the moment that policy allowed it (or left it to the server's identity)."""

    __slots__ = (
        "_attempts",
        "_down",
        "_end_sent",
        "_flushes",
        "_forwarded",
        "_held",
        "_lines",
        "_next_hop",
        "_pending",
        "_pending_bytes",
        "_read_before",
        "_strip",
        "_trailers",
        "_waiting",
        "_written_before",
        "answered",
        "head",
        "interim_sent",
        "permit",
        "record",
        "request_ended",
        "response",
        "upstream",
    )

    def __init__(self, down: Downstream, head: RequestHead, record: RequestRecord) -> None:
        self._down = down
        self.head = head
        """As it was judged, and will be judged again."""
        self.record = record
        self.permit: Permit | None = None
        self.response: ResponseHead | None = None
        self.upstream: UpstreamConnection | None = None
        self.answered = False
        """The whole answer has been given to the client's side; what still comes of the request is dropped."""
        self.request_ended = False
        self.interim_sent = False
        self._next_hop: NextHop | None = None
        self._forwarded = head
        self._lines = b""
        self._strip = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._held: list[bytes] | None = []
        self._trailers: Sequence[Field] = ()
        self._attempts = 0
        self._flushes = 0
        self._end_sent = False
        self._waiting = False
        self._written_before = 0
        self._read_before = 0

    @property
    def held_up(self) -> bool:
        """The request waits for the next hop: there is no connection yet, or it takes no bytes."""
        return self.upstream is None or self.upstream.wire.congested

    # --- the request, on its way up ---

    def begin(
        self, permit: Permit | None, next_hop: NextHop, *, head: RequestHead, lines: bytes, strip_reserved: bool
    ) -> None:
        """Send the request to `next_hop` with this `head`. Without a `permit` the server's identity decides."""
        self.permit = permit
        self._next_hop = next_hop
        self._forwarded = head
        self._lines = lines
        self._strip = strip_reserved
        self._acquire(fresh=False)

    def data(self, data: bytes) -> None:
        """Take body bytes of the request; they go out with the next `flush`."""
        self.record.bytes_received += len(data)
        self._pending.append(data)
        self._pending_bytes += len(data)

    def trailers(self, fields: Sequence[Field]) -> None:
        """Take trailer fields; they go out with the end."""
        self._trailers = fields

    def end(self) -> None:
        """Learn that the request is complete."""
        self.request_ended = True

    def flush(self) -> None:
        """Send what is pending, head and body and end in one write; without an upstream yet, hold the client."""
        upstream = self.upstream
        if upstream is None:
            if self._pending_bytes > BACKLOG_LIMIT:
                self._down.hold_request()
            return
        codec = upstream.codec
        pending = self._pending
        first = not self._flushes
        if first and self.request_ended and self._forwarded.content_length >= 0:
            body = b"" if not pending else pending[0] if len(pending) == 1 else b"".join(pending)
            out = codec.encode_whole(self._forwarded, body, extra=self._lines, strip_reserved=self._strip)
            self._end_sent = True
        elif first:
            out = codec.encode_request(self._forwarded, extra=self._lines, strip_reserved=self._strip)
        elif pending or (self.request_ended and not self._end_sent):
            out = b""
        else:
            return
        if pending and not self._end_sent:
            out += codec.encode_data(pending[0] if len(pending) == 1 else b"".join(pending))
        if self.request_ended and not self._end_sent:
            self._end_sent = True
            out += codec.encode_end(self._trailers)
        if not out:
            return
        self._flushes += 1
        # Only a first attempt on a pooled connection can hit a stale one; only its first write is held for another.
        self._held = pending if first and upstream.uses > 1 and not self._attempts else None
        self._pending = []
        self._pending_bytes = 0
        upstream.wire.write(out)
        if upstream.wire.congested:
            self._down.hold_request()

    def _acquire(self, *, fresh: bool) -> None:
        next_hop = self._next_hop
        if next_hop is None:
            return
        try:
            connection = next_hop.take(self, fresh=fresh)
        except RemoraError as failure:
            self._fail(failure)
            return
        if connection is None:
            self._waiting = True
        else:
            self._attach(connection)

    def _attach(self, connection: UpstreamConnection) -> None:
        permit = connection.permit or self.permit
        if permit is None:
            connection.drop()
            self._fail(RemoraError("a request would have gone out without a Permit", Reason.INTERNAL_ERROR))
            return
        if permit is not self.permit:
            self.record.judged(permit)
            self.permit = permit
        self.upstream = connection
        self._written_before = connection.wire.bytes_written
        self._read_before = connection.wire.bytes_read
        self.record.reached(connection.address, connection.local)

    # --- the upstream connection's word ---

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        self._waiting = False
        self._attach(connection)
        if self.upstream is not None:
            self._down.resume_request()
            self.flush()

    def upstream_failed(self, failure: RemoraError) -> None:
        self._waiting = False
        self._fail(failure)

    def upstream_writable(self) -> None:
        self._down.resume_request()

    def upstream_lost(self, reason: OSError) -> None:
        why = reason_of(reason, Reason.UPSTREAM_RESET)
        if self.response is not None:
            self.break_off(why, reason.strerror or str(reason))
        elif why is Reason.INTERNAL_ERROR or not self._try_again():
            self._fail(RemoraError(f"the upstream connection broke: {reason.strerror or reason}", why))

    def upstream_data(self, data: bytes) -> None:
        upstream = self.upstream
        if upstream is None:
            return
        codec, down, record = upstream.codec, self._down, self.record
        answer = codec.take_whole(data)
        if answer is not None:
            record.responded(answer.head.status)
            record.bytes_sent += answer.length
            self.response = answer.head
            self._let_back(upstream)
            down.answer_whole(answer, data)
            return
        trailers: Sequence[Field] = ()
        try:
            codec.receive(data)
            while (event := codec.next_event()) is not None:
                if isinstance(event, Data):
                    record.bytes_sent += len(event.data)
                    down.answer_data(event.data)
                elif isinstance(event, ResponseHead):
                    if event.status == 101:
                        self._switch(upstream, event)
                        return
                    if event.status >= 200:
                        record.responded(event.status)
                        self.response = event
                    down.answer_head(event)
                elif isinstance(event, Trailers):
                    trailers = event.fields
                elif isinstance(event, End):
                    self._complete(upstream, trailers)
                    return
        except ProtocolError as fault:
            self._upstream_fault(fault)
            return
        if down.answer_flush():
            upstream.wire.pause()

    def _switch(self, upstream: UpstreamConnection, response: ResponseHead) -> None:
        permit, pool = self.permit, upstream.pool
        if permit is None or pool is None:
            raise ProtocolError("101 came for a request that nobody permitted", Reason.INTERNAL_ERROR, "upstream")
        self.record.responded(101)
        self.response = response
        self.upstream = None
        pool.detach(upstream)
        self._down.switch(upstream, response, permit)

    def _complete(self, upstream: UpstreamConnection, trailers: Sequence[Field]) -> None:
        self._let_back(upstream)
        # The bytes leave before the record is written: telling costs the client nothing.
        self._down.answer_end(trailers)

    def _let_back(self, upstream: UpstreamConnection) -> None:
        """Give the connection back: the answer is complete."""
        self.upstream = None
        self.answered = True
        self._held = None
        pool = upstream.pool
        if pool is not None:
            if self.request_ended and upstream.codec.reusable and not self._pending:
                pool.release(upstream)
            else:
                pool.discard(upstream)
        self._pending.clear()

    def _upstream_fault(self, fault: ProtocolError) -> None:
        if self.response is not None:
            self._down.answer_flush()
            self.break_off(fault.reason, str(fault))
        elif fault.reason is not Reason.UPSTREAM_CLOSED or not self._try_again():
            self._fail(fault)

    def _try_again(self) -> bool:
        """Send the request once more on a fresh connection, where that cannot make it happen twice."""
        upstream, held = self.upstream, self._held
        if upstream is None or held is None or self._flushes != 1 or upstream.wire.bytes_read != self._read_before:
            return False
        unsent = upstream.wire.bytes_written == self._written_before
        if not unsent and self.head.method not in IDEMPOTENT:
            return False
        self._attempts += 1
        self._flushes = 0
        self._end_sent = False
        self._pending = held + self._pending
        self._pending_bytes = sum(map(len, self._pending))
        self.record.retries += 1
        self.upstream = None
        upstream.drop()
        self._acquire(fresh=True)
        self.flush()
        return True

    # --- the end, other than by an answer ---

    def _fail(self, failure: RemoraError) -> None:
        self.let_go()
        self._down.answer_instead(failure)

    def break_off(self, reason: Reason, detail: str) -> None:
        """Give up an answer that has begun."""
        self.let_go()
        self.record.finish(reason, detail)
        self._down.broken_off(reason)

    def let_go(self, *, unanswered: bool = False) -> None:
        """Let go of whatever was to answer: the connection is closed, a wait for one is cancelled.

        `unanswered` when the next hop is to blame for it.
        """
        if self._waiting and self._next_hop is not None:
            self._waiting = False
            self._next_hop.cancel(self)
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            if unanswered and upstream.pool is not None:
                upstream.pool.unanswered()
            upstream.drop()
        self._pending.clear()
        self._pending_bytes = 0
        self._held = None
