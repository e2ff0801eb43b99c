"""Feeds a codec the same bytes in every way that a network may bring them, and compares what comes out.

A parser case that holds for one read must hold byte by byte, cut at any place, and with more bytes behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.errors import ProtocolError
from proxy.protocol.fast import HeadReader
from proxy.protocol.http1 import ClientCodec, ServerCodec
from proxy.protocol.path import PathNormalization
from proxy.protocol.stream import Data, End, Event, HeadLimits

LIMITS = HeadLimits()
Outcome = Event | ProtocolError


def drain(codec: ServerCodec | ClientCodec) -> Iterator[Event]:
    """Take all events that the codec has now."""
    while (event := codec.next_event()) is not None:
        yield event


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Join neighbouring Data, so that outcomes compare equal however the bytes were cut."""
    result: list[Outcome] = []
    for outcome in outcomes:
        last = result[-1] if result else None
        if isinstance(outcome, Data) and isinstance(last, Data):
            result[-1] = Data(last.stream, last.data + outcome.data)
        else:
            result.append(outcome)
    return result


def serve(
    pieces: Iterable[bytes],
    *,
    half_close: bool = False,
    reader: HeadReader | None = None,
    normalization: PathNormalization = PathNormalization.BASE,
) -> list[Outcome]:
    """Let a server codec read `pieces`, starting the next stream after each End; a fault is the last outcome."""
    codec = ServerCodec(LIMITS, normalization, reader)
    outcomes: list[Outcome] = []
    try:
        for piece in [*pieces, *([b""] if half_close else [])]:
            codec.receive(piece)
            for event in drain(codec):
                outcomes.append(event)
                if isinstance(event, End):
                    codec.start_next_stream()
    except ProtocolError as fault:
        outcomes.append(fault)
    return merged(outcomes)


def answer(
    pieces: Iterable[bytes],
    *,
    method: bytes = b"GET",
    upgrade: bytes = b"",
    half_close: bool = False,
    reader: HeadReader | None = None,
) -> list[Outcome]:
    """Let a client codec read `pieces` as the answer to one request; a fault is the last outcome."""
    codec = ClientCodec(LIMITS, reader)
    codec.start_request(method, upgrade)
    outcomes: list[Outcome] = []
    try:
        for piece in [*pieces, *([b""] if half_close else [])]:
            codec.receive(piece)
            outcomes.extend(drain(codec))
    except ProtocolError as fault:
        outcomes.append(fault)
    return merged(outcomes)


def one_by_one(raw: bytes) -> list[bytes]:
    """Cut into single bytes; a long input first into what a read brings, the rest byte by byte."""
    at = max(0, len(raw) - 4_096)
    return [*([raw[:at]] if at else []), *(raw[i : i + 1] for i in range(at, len(raw)))]


def comparable(outcomes: Iterable[Outcome]) -> list[object]:
    """Turn faults into their reason and side, which compare."""
    return [(outcome.reason, outcome.side) if isinstance(outcome, ProtocolError) else outcome for outcome in outcomes]
