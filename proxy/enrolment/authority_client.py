"""Talks to the authority: one TLS connection, a few questions one after the other, within one deadline.

    dial -> TLS 1.3, the authority's identity -> ( question -> answer )* -> close_notify

What holds:

1. Not a byte of a question goes to a server that has not shown the authority's identity, by a chain that leads to a
   root of the bundle given.
2. Everything is bounded: the whole conversation by its deadline, heads by the codec, bodies by `limit` of the question.
3. Whatever fails is one EnrolmentError that says what to mend; cancelled, it closes what it opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from certs.spiffe import SpiffeId
from proxy.config_values import Address
from proxy.enrolment.authority_messages import EnrolmentError
from proxy.errors import HandshakeError, ProtocolError, Reason, UpstreamError
from proxy.forward.dial import dial
from proxy.handshake.contexts import Material
from proxy.handshake.drive import perform
from proxy.handshake.engine import Session
from proxy.interfaces import Want
from proxy.protocol.http1 import ClientCodec
from proxy.protocol.stream import Data, End, HeadLimits, ResponseHead
from proxy.types import PeerIdentity, Protocol

DEADLINE: Final = 10.0
"""Seconds of a conversation. A signature takes a millisecond and a token review a second; longer, and an authority that
hangs keeps a poll from being made; shorter, and a busy one is given up while it works for us."""

_HEAD: Final = HeadLimits(head_bytes=16_384, fields=64)

_MENDS: Final[Mapping[Reason, str]] = {
    Reason.ISSUER_UNKNOWN: "if its root was replaced while we were away, bring the new bundle to bundle_file",
    Reason.SERVER_IDENTITY_UNEXPECTED: "mend `identity.authority.identity`, or see who answers at this url",
    Reason.NOT_TLS: "see whether the url is that of an authority",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request; `limit` is how many bytes its answer may have."""

    method: str
    path: str
    limit: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer: header names in lower case, and the times, in seconds since the epoch, between which it was made."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    sent: float
    received: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The answers in the order of the questions, and who gave them."""

    answers: tuple[Answered, ...]
    authority: PeerIdentity


async def converse(
    address: Address,
    material: Material,
    expected: SpiffeId,
    questions: Sequence[Question],
    *,
    seconds: float = DEADLINE,
    now: Callable[[], float] = time.time,
) -> Conversation:
    """Ask, and give every answer. Raises EnrolmentError.

    The answer to the last question is waited for; an authority that closes after one of them is a failure.
    """
    try:
        async with asyncio.timeout(seconds):
            sock = await dial(address.host, address.port, seconds=seconds)
            try:
                return await _ask(sock, address, material, expected, questions, seconds, now)
            finally:
                sock.close()
    except TimeoutError:
        raise EnrolmentError(
            f"{address}: there was no whole answer within {seconds:g} s; see whether the authority is overloaded"
        ) from None
    except HandshakeError as failure:
        raise _unproved(address, failure) from failure
    except UpstreamError as failure:
        raise EnrolmentError(f"the authority cannot be reached: {failure}") from failure
    except ProtocolError as failure:
        raise EnrolmentError(f"{address}: the answer cannot be read: {failure}") from failure
    except OSError as failure:
        # A server that closes behind its alert resets the connection, and the alert may be lost: any break may be one.
        why = failure.strerror or str(failure)
        raise EnrolmentError(f"{address}: {why}", was_refused=isinstance(failure, ConnectionError)) from failure


async def _ask(
    sock: socket.socket,
    address: Address,
    material: Material,
    expected: SpiffeId,
    questions: Sequence[Question],
    seconds: float,
    now: Callable[[], float],
) -> Conversation:
    session = Session(
        material,
        sock,
        server_side=False,
        protocol=Protocol.HTTP,
        expected=frozenset((expected,)),
        server_name=address.host,
    )
    try:
        await perform(session, sock, timeout=seconds)
        codec = ClientCodec(_HEAD)
        answers = []
        for question in questions:
            sent = now()
            codec.start_request(question.method.encode("ascii"))
            await _write(session, sock, _written(question, address))
            status, headers, body = await _read(session, sock, codec, question)
            answers.append(Answered(status=status, headers=headers, body=body, sent=sent, received=now()))
        with contextlib.suppress(OSError):
            session.close_write()
        return Conversation(answers=tuple(answers), authority=session.peer)
    finally:
        session.release()


def _unproved(address: Address, failure: HandshakeError) -> EnrolmentError:
    reason = failure.reason
    mend = _MENDS.get(reason, "")
    words = f"{address}: {reason.word}: {failure}" + (f"; {mend}" if mend else "")
    return EnrolmentError(words, was_refused=reason is Reason.PEER_REJECTED_US)


def _written(question: Question, address: Address) -> bytes:
    fields = {
        "host": str(address),
        "user-agent": "remora",
        "accept-encoding": "identity",
        **question.headers,
    }
    if question.body or question.method == "POST":
        fields |= {"content-type": "application/json", "content-length": str(len(question.body))}
    lines = [f"{question.method} {question.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii") + question.body


async def _write(session: Session, sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        taken = session.write(rest)
        rest = rest[taken:]
        if rest:
            await _wait(sock, session.wants)


async def _read(
    session: Session, sock: socket.socket, codec: ClientCodec, question: Question
) -> tuple[int, dict[str, str], bytes]:
    head: ResponseHead | None = None
    body = bytearray()
    while True:
        event = codec.next_event()
        if event is None:
            data = session.read()
            if data is None:
                await _wait(sock, session.wants)
            else:
                codec.receive(data)
        elif isinstance(event, ResponseHead):
            head = event
        elif isinstance(event, Data):
            body += event.data
            if len(body) > question.limit:
                raise EnrolmentError(
                    f"the answer to {question.method} {question.path.partition('?')[0]} is larger than "
                    f"{question.limit} bytes; see whether the url is that of an authority"
                )
        elif isinstance(event, End) and head is not None:
            fields = {one.name.decode("latin-1"): one.value.decode("latin-1") for one in head.fields}
            return head.status, fields, bytes(body)


async def _wait(sock: socket.socket, want: Want) -> None:
    """Wait until the socket can be read or written; the caller keeps the deadline."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not ready.done():
            ready.set_result(None)

    descriptor = sock.fileno()
    (loop.add_reader if want is Want.READ else loop.add_writer)(descriptor, settle)
    try:
        await ready
    finally:
        (loop.remove_reader if want is Want.READ else loop.remove_writer)(descriptor)
