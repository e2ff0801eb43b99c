"""The HTTP pump: one downstream HTTP/1 connection and its requests, one after the other.

It is driven by events of two wires and has no task, future or timer per request.

    bytes -> codec -> head -> route.judge -+- Denial -> an answer of our own
                                           +- Permit -> Exchange -> answer -> next request
    idle --deadline, drain, certificate's end--> linger --peer's end or a second--> closed

Facts true between events:

1. `_exchange` is set from the head of a request until the request was read to its end *and* its answer is out. An
   answer that came early leaves the rest of the request to be read and dropped; a client that might never send it
   (Expect: 100-continue without a 100) is told to close.
2. `_closing` means: no request after this one. While no answer's head is out, it becomes `Connection: close`.
3. Of the two sides, whichever is congested pauses the other; nothing is collected beyond the wires' water marks, and
   no request is begun while the client does not take the answers to the last ones.
4. How it lingers and ends is told in `proxy.forward.served`.
5. A request that runs when the peer's certificate ends has `times.finish`; then it is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.errors import ProtocolError, Reason, RemoraError, reason_of
from proxy.forward.answer import own_answer
from proxy.forward.exchange import BACKLOG_LIMIT, Exchange
from proxy.forward.pool import UpstreamConnection
from proxy.forward.served import ServedConnection
from proxy.forward.tunnel import Tunnel
from proxy.protocol.remembered import Answer
from proxy.protocol.stream import Data, End, Field, RequestHead, ResponseHead, Trailers
from proxy.types import Denial, Permit

DISCARD_LIMIT: Final = 1_048_576
"""Bytes of an already answered request that are read and dropped to keep its connection, and again while it lingers."""


class HttpForward(ServedConnection):
    """One downstream HTTP/1 connection. `on_end` is called once, when the connection is closed, with why."""

    __slots__ = ()

    def start(self, first: bytes = b"") -> None:
        """Begin to serve; `first` was read before the protocol was known."""
        self._wire.receiver = self
        if not self._lingering:  # a drain may have come first
            self._arm(self._times.idle)
        if first:
            self.data_received(first)
        if self._wire.read_ended:
            self.end_received()
        if not self._wire.closed:
            self._wire.start()
            self._wire.read_now()

    def judge_again(self) -> None:
        """Judge the request at hand by the newest policy.

        A tunnel that is no longer allowed ends now. An answer in flight was allowed when it was asked for: it is
        finished, and the connection ends after it if the client can still be told; else its next request is judged.
        """
        exchange = self._exchange
        if exchange is None or exchange.answered:
            return
        verdict = self._route.judge(exchange.head)
        if not isinstance(verdict, Denial):
            return
        if self._tunnel is not None:
            exchange.record.judged(verdict)
            self._tunnel.revoke(verdict.reason)
        elif exchange.response is None:
            self._closing = True

    # --- what the client sends ---

    def data_received(self, data: bytes) -> None:
        if not self._lingering:
            if self._exchange is None and not self._pumping and not self._wire.congested:
                head = self._codec.take_whole(data)
                if head is not None:
                    self._whole_request(head, data)
                    return
            self._codec.receive(data)
            self._pump()
            return
        self._discarded += len(data)
        if self._discarded > DISCARD_LIMIT and self._wire.flushed:
            self._close(self._end_reason)  # it does not listen, and dropping bytes costs what reading them does

    def end_received(self) -> None:
        self._peer_ended = True
        if self._lingering:
            self._close_flushed()
        else:
            self._codec.receive(b"")
            self._pump()

    def wire_lost(self, reason: OSError) -> None:
        self._abort(self._end_reason if self._lingering else reason_of(reason, Reason.DOWNSTREAM_RESET))

    def write_ready(self) -> None:
        """The client takes bytes again: let the answer go on."""
        if self._lingering:
            if self._wire.flushed:
                self._clock.arm(self, self._times.linger)
            self._close_flushed()
        elif self._exchange is not None and self._exchange.upstream is not None:
            self._exchange.upstream.wire.resume()
        else:
            self._wire.resume()
            self._pump()

    def _pump(self) -> None:
        """Take events off the codec as far as they go."""
        if self._pumping:
            return
        codec, wire = self._codec, self._wire
        self._pumping = True
        try:
            while True:
                if wire.congested and self._exchange is None:
                    wire.pause()  # who pipelines and does not read gets no further answers
                    return
                event = codec.next_event()
                if event is None:
                    break
                if isinstance(event, RequestHead):
                    self._request_head(event)
                elif isinstance(event, Data):
                    self._request_data(event.data)
                elif isinstance(event, End):
                    self._request_end()
                    if self._exchange is not None and not self._lingering and not wire.closed:
                        break  # until its answer is out the codec gives nothing more
                elif isinstance(event, Trailers) and self._exchange is not None:
                    self._exchange.trailers(self._route.trailers(event.fields))
                if self._lingering or wire.closed:
                    return
        except ProtocolError as fault:
            self._refuse(fault)
            return
        finally:
            self._pumping = False
        exchange = self._exchange
        if exchange is None:
            if codec.at_end:
                self._linger(Reason.OK)
            elif not self._head_begun and codec.buffered:
                self._head_begun = True
                self._arm(self._times.head)
            return
        if not exchange.answered:
            exchange.flush()
        if codec.buffered and exchange.request_ended:
            if exchange.head.upgrade and exchange.response is None:
                # Bytes before the 101 would be read as the new protocol by one and as a request by another.
                self._refuse(
                    ProtocolError("bytes were sent after an Upgrade request before its answer", Reason.UPGRADE_INVALID)
                )
            elif codec.buffered > BACKLOG_LIMIT:
                wire.pause()

    def _whole_request(self, head: RequestHead, data: bytes) -> None:
        """Take a request that came in one read, its body at the end of `data`; what `_pump` does with three events."""
        self._pumping = True
        try:
            self._request_head(head)
            if head.content_length and not self._lingering:
                self._request_data(data[-head.content_length :])
            if not self._lingering and not self._wire.closed:
                self._request_end()
        except ProtocolError as fault:
            self._refuse(fault)
            return
        finally:
            self._pumping = False
        exchange = self._exchange
        if exchange is None:
            if self._wire.congested and not self._lingering:
                self._wire.pause()
        elif not exchange.answered:
            exchange.flush()

    def _request_head(self, head: RequestHead) -> None:
        route = self._route
        record = route.begin(head)
        self._exchange = exchange = Exchange(self, head, record)
        self._head_begun = False
        self._discarded = 0
        self.requests += 1
        if not head.keep_alive:
            self._closing = True
        if self._clock.now >= self.ends_at:
            self._linger(Reason.PEER_CERTIFICATE_ENDED)
            return
        verdict = route.judge(head)
        if verdict is not None:
            record.judged(verdict)
        if isinstance(verdict, Denial):
            self.answer_instead(RemoraError(verdict.explanation, verdict.reason))
            return
        self._arm(self._times.stream_idle if head.content_length else route.answer_timeout)
        exchange.begin(
            verdict,
            route.pool,
            head=route.forwarded(head),
            lines=route.lines(record),
            strip_reserved=route.strip_reserved,
        )

    def _request_data(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.answered:
            self._discarded += len(data)
            if self._discarded > DISCARD_LIMIT:
                self._linger(Reason.OK)
        else:
            exchange.data(data)
            self._arm(self._times.stream_idle)

    def _request_end(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.end()
        if exchange.answered:
            self._next()
        elif exchange.head.content_length and exchange.response is None:
            self._arm(self._route.answer_timeout)

    # --- the answer: `Downstream` of an exchange ---

    def answer_head(self, response: ResponseHead) -> None:
        exchange, codec = self._exchange, self._codec
        if exchange is None:
            return
        if response.status < 200:
            exchange.interim_sent = True
        elif exchange.head.upgrade or self._client_may_wait(exchange):
            self._closing = True
        self._out.append(codec.encode_response(response, close=self._closing))
        if codec.must_close and response.status >= 200:
            self._closing = True

    def answer_data(self, data: bytes) -> None:
        self._out.append(self._codec.encode_data(data))

    def answer_end(self, trailers: Sequence[Field]) -> None:
        exchange = self._exchange
        out = self._out
        out.append(self._codec.encode_end(trailers))
        # No `answer_flush`: whoever comes next sets the deadline.
        self._wire.write(b"".join(out))
        out.clear()
        if exchange is not None:
            exchange.record.finish(Reason.OK)
        self._answer_out()

    def answer_whole(self, answer: Answer, data: bytes) -> None:
        exchange, codec = self._exchange, self._codec
        size = answer.length
        if (
            exchange is None
            or self._closing
            or self._out
            or exchange.head.upgrade
            or exchange.head.expects_continue
            or not codec.may_be_prepared
        ):
            self.answer_head(answer.head)
            if size:
                self.answer_data(data[-size:])
            self.answer_end(())
            return
        self._wire.write(answer.written + data[-size:] if size else answer.written)
        exchange.record.finish(Reason.OK)
        self._next()

    def answer_flush(self) -> bool:
        out, exchange = self._out, self._exchange
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            if data:
                self._wire.write(data)
            # An interim answer does not put off the deadline of the final one.
            if exchange is None or exchange.response is not None or not exchange.request_ended:
                self._arm(self._times.stream_idle)
        return self._wire.congested

    def answer_instead(self, failure: RemoraError) -> None:
        exchange = self._exchange
        if exchange is None:
            self._abort(failure.reason)
            return
        self.answer_flush()  # an interim answer may have come just before the fault
        reason, record = failure.reason, exchange.record
        if self._client_may_wait(exchange):
            self._closing = True
        exchange.answered = True
        self._wire.write(own_answer(failure, record, exchange.head, otherwise=503, close=self._closing))
        record.finish(reason, "" if reason.consequence.body else str(failure))
        self._answer_out()

    def broken_off(self, reason: Reason) -> None:
        self._abort(reason)

    def hold_request(self) -> None:
        self._wire.pause()

    def resume_request(self) -> None:
        self._wire.resume()

    def _client_may_wait(self, exchange: Exchange) -> bool:
        """A client that asked for 100-continue and got none may send the body or not: no next request is certain."""
        return exchange.head.expects_continue and not exchange.interim_sent and not exchange.request_ended

    def _answer_out(self) -> None:
        """The answer is written; go on when the request has been read too."""
        exchange = self._exchange
        if self._closing:
            self._linger(Reason.OK)
        elif exchange is not None and exchange.request_ended:
            self._next()
        else:
            self._arm(self._times.stream_idle)
            self._wire.resume()

    def _next(self) -> None:
        if self._closing:
            self._linger(Reason.OK)
            return
        self._exchange = None
        more = self._codec.start_next_stream()
        self._arm(self._times.idle)
        if not self._pumping:
            self._wire.resume()
            if more or self._peer_ended:
                self._pump()

    # --- faults, deadlines, the end ---

    def _refuse(self, fault: ProtocolError) -> None:
        """The client broke HTTP: answer if that still can be, and close."""
        self._closing = True
        exchange = self._exchange
        if exchange is None:
            record = self._route.begin_unread()
            self._wire.write(own_answer(fault, record, None, otherwise=400, close=True))
            record.finish(fault.reason, str(fault))
            self._linger(fault.reason)
        elif exchange.answered:
            self._linger(fault.reason)
        elif exchange.response is None:
            exchange.let_go()
            self.answer_instead(fault)
        else:
            exchange.break_off(fault.reason, str(fault))

    def deadline_passed(self) -> None:
        """Something took too long; which deadline it was follows from where the request stands."""
        exchange = self._exchange
        if self._lingering:
            if self._wire.flushed:
                self._close(self._end_reason)
            else:
                self._abort(Reason.IDLE_TIMEOUT if self._end_reason is Reason.OK else self._end_reason)
        elif self._clock.now >= self.ends_at:
            if exchange is None or exchange.answered:
                self._linger(Reason.PEER_CERTIFICATE_ENDED)
            elif self._expired:
                self._abort(Reason.PEER_CERTIFICATE_ENDED)
            else:
                self._expired = self._closing = True
                self.ends_at = self._clock.now + self._times.finish
                self._arm(self._times.finish)
        elif exchange is None:
            if self._head_begun:
                self._refuse(ProtocolError("the head did not arrive in time", Reason.HEAD_TIMEOUT))
            else:
                self._linger(Reason.IDLE_TIMEOUT)
        elif exchange.answered:
            self._linger(Reason.IDLE_TIMEOUT)
        elif exchange.response is not None:
            exchange.break_off(Reason.IDLE_TIMEOUT, "the answer stopped arriving in time")
        else:
            failure = RemoraError("the next hop did not answer in time", Reason.UPSTREAM_TIMEOUT)
            if not exchange.request_ended:
                self._closing = True
                if not exchange.held_up:
                    failure = RemoraError("the request stopped arriving in time", Reason.IDLE_TIMEOUT)
            exchange.let_go(unanswered=failure.reason is Reason.UPSTREAM_TIMEOUT)
            self.answer_instead(failure)

    # --- Upgrade: a tunnel after 101, and only then (RFC 9110 section 7.8) ---

    def switch(self, upstream: UpstreamConnection, response: ResponseHead, permit: Permit) -> None:
        wire, exchange = self._wire, self._exchange
        # What permitted the request may have ended since, and a tunnel stands for hours: judge it as it begins.
        verdict = self._route.judge(exchange.head) if exchange is not None else None
        if exchange is not None and isinstance(verdict, Denial):
            upstream.wire.abort()
            exchange.record.judged(verdict)
            self._closing = True
            self.answer_instead(RemoraError(verdict.explanation, verdict.reason))
            return
        if isinstance(verdict, Permit):
            permit = verdict
        self._out.append(self._codec.encode_response(response))
        self.answer_flush()
        self._clock.disarm(self)
        read, written = wire.bytes_read, wire.bytes_written

        def ended(reason: Reason) -> None:
            exchange, self._exchange = self._exchange, None
            if exchange is not None:
                exchange.record.bytes_received += wire.bytes_read - read
                exchange.record.bytes_sent += wire.bytes_written - written
                exchange.record.finish(reason)
            self._ended(reason)

        certificate_ends_at, token_ends_at = min(self.ends_at, upstream.expires_at), self._route.ends_at(permit)
        self._tunnel = Tunnel(
            permit,
            wire,
            upstream.wire,
            clock=self._clock,
            idle=self._times.tunnel_idle,
            ends_at=min(certificate_ends_at, token_ends_at),
            ends_for=Reason.TOKEN_EXPIRED if token_ends_at < certificate_ends_at else Reason.PEER_CERTIFICATE_ENDED,
            close_revoked=self._close_revoked,
            on_end=ended,
        )
        self._tunnel.start(from_upstream=upstream.codec.take_rest())
