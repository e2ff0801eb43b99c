"""The gate's table, driven through the codec: whole, byte by byte, with bytes behind, on both paths."""

from __future__ import annotations

import pytest

from proxy.errors import ProtocolError
from proxy.protocol.fast import HeadReader
from proxy.protocol.headers import write_request_head
from proxy.protocol.stream import CHUNKED, Data, End, RequestHead
from tests.codec_feeding import Outcome, comparable, one_by_one, serve
from tests.gate_corpus import Forwarded, GateCase, load_gate_corpus

TABLE = load_gate_corpus()
CASES = [pytest.param(case, id=case.name) for case in TABLE]
READERS = [pytest.param(None, id="gate"), pytest.param(HeadReader(), id="fast")]


def test_the_table_is_large_enough_and_names_are_unique() -> None:
    assert len(TABLE) >= 120
    assert len({case.name for case in TABLE}) == len(TABLE)
    assert sum(case.status == 200 for case in TABLE) >= 40


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", CASES)
def test_whole(case: GateCase, reader: HeadReader | None) -> None:
    check(case, serve([case.raw], half_close=case.half_close, reader=reader))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", CASES)
def test_byte_by_byte(case: GateCase, reader: HeadReader | None) -> None:
    check(case, serve(one_by_one(case.raw), half_close=case.half_close, reader=reader))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in TABLE if not case.half_close])
def test_with_bytes_behind(case: GateCase) -> None:
    alone = serve([case.raw])
    behind = serve([case.raw + b"Z"])
    if any(isinstance(outcome, ProtocolError) for outcome in alone):
        assert comparable(behind) == comparable(alone)
    else:
        assert comparable(behind[: len(alone)]) == comparable(alone)


def check(case: GateCase, outcomes: list[Outcome]) -> None:
    faults = [outcome for outcome in outcomes if isinstance(outcome, ProtocolError)]
    reason = case.reason or case.then_reason
    assert [fault.reason.word for fault in faults] == ([reason] if reason else [])
    for fault in faults:
        assert fault.reason.consequence.status == (case.then_status or case.status)
        assert fault.side == "downstream"
    if case.forwarded is not None:
        check_forwarded(case.forwarded, outcomes)
    elif not case.head_is_accepted:
        assert not any(isinstance(outcome, RequestHead) for outcome in outcomes)
    else:
        assert not any(isinstance(outcome, End) for outcome in outcomes)


def check_forwarded(forwarded: Forwarded, outcomes: list[Outcome]) -> None:
    head = outcomes[0]
    assert isinstance(head, RequestHead)
    assert End(1) in outcomes
    body = b"".join(outcome.data for outcome in outcomes if isinstance(outcome, Data) and outcome.stream == 1)
    assert body == forwarded.body
    assert head.method == forwarded.method
    assert head.path + head.query == forwarded.target
    assert head.authority == forwarded.authority
    framing = "chunked" if head.content_length == CHUNKED else "length" if head.has_length else "none"
    assert framing == forwarded.framing
    check_written(forwarded, write_request_head(head, strip_reserved=True))


def check_written(forwarded: Forwarded, written: bytes) -> None:
    first, *lines = written[:-4].split(b"\r\n")
    assert first == forwarded.method + b" " + forwarded.target + b" HTTP/1.1"
    pairs = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    names = [name for name, _ in pairs]
    assert pairs[0] == (b"host", forwarded.authority)
    assert names.count(b"host") == 1
    assert names.count(b"content-length") == (forwarded.framing == "length")
    assert names.count(b"transfer-encoding") == (forwarded.framing == "chunked")
    for pair in forwarded.has:
        assert pair in pairs
    for name in forwarded.lacks:
        assert name not in names
